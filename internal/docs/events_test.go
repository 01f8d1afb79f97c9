package docs

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sallyport/audit/stream"
	"sallyport/evidence/controls"
	"sallyport/evidence/populations"
)

var update = flag.Bool("update", false, "write docs/events.md")

// eventType is one type of event, as the source has it.
type eventType struct {
	name, version, goName, doc string
	fields                     []eventField
}

type eventField struct{ name, kind, meaning string }

// eventTypes reads the catalogue's source: what a type means is written there, and
// nowhere else.
func eventTypes(t *testing.T) []eventType {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "audit/event/*.go"))
	if err != nil {
		t.Fatal(err)
	}
	docs, structs, names := map[string]string{}, map[string]*ast.StructType{}, map[string][2]string{}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.GenDecl:
				for _, s := range d.Specs {
					if spec, ok := s.(*ast.TypeSpec); ok {
						if st, ok := spec.Type.(*ast.StructType); ok {
							structs[spec.Name.Name], docs[spec.Name.Name] = st, d.Doc.Text()+spec.Doc.Text()
						}
					}
				}
			case *ast.FuncDecl:
				if d.Name.Name == "EventType" && d.Recv != nil && len(d.Body.List) == 1 {
					if ret, ok := d.Body.List[0].(*ast.ReturnStmt); ok && len(ret.Results) == 2 {
						name, _ := strconv.Unquote(ret.Results[0].(*ast.BasicLit).Value)
						names[d.Recv.List[0].Type.(*ast.Ident).Name] = [2]string{name, ret.Results[1].(*ast.BasicLit).Value}
					}
				}
			}
		}
	}
	var list []eventType
	for goName, name := range names {
		e := eventType{name: name[0], version: name[1], goName: goName, doc: strings.Join(strings.Fields(docs[goName]), " ")}
		for _, f := range structs[goName].Fields.List {
			tag, _ := strconv.Unquote(f.Tag.Value)
			json := strings.Split(reflect.StructTag(tag).Get("json"), ",")
			e.fields = append(e.fields, eventField{json[0], kindOf(f.Type, slices.Contains(json, "string")),
				strings.Join(strings.Fields(f.Doc.Text()+" "+f.Comment.Text()), " ")})
		}
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b eventType) int { return strings.Compare(a.name, b.name) })
	return list
}

// kindOf is a Go type in JSON's words.
func kindOf(t ast.Expr, quoted bool) string {
	switch t := t.(type) {
	case *ast.StarExpr:
		return kindOf(t.X, quoted)
	case *ast.ArrayType:
		if of, ok := t.Elt.(*ast.Ident); ok && of.Name == "byte" {
			return "base64"
		}
		return "list of " + kindOf(t.Elt, quoted)
	case *ast.MapType:
		return "object"
	case *ast.SelectorExpr:
		if t.Sel.Name == "Time" {
			return "time"
		}
		return "text"
	case *ast.Ident:
		switch t.Name {
		case "bool":
			return "boolean"
		case "string":
			return "text"
		}
		if quoted {
			return "number, as text"
		}
		if strings.Contains(t.Name, "int") {
			return "number"
		}
	}
	return "object"
}

const eventsHead = `# Events

Everything that happens is an event, a leaf of the log: one JSON object, encoded once and never changed. This page is made
from the source, ` + "`go test ./internal/docs -update`" + `, and a test keeps it true. The forms are a published contract: a type's
fields change only with its version, and old versions stay readable.

What every event has:

| field | type | meaning |
|---|---|---|
| ` + "`id`" + ` | UUID | of the event; a retry has the same |
| ` + "`type`, `version`" + ` | text, number | which of the types below |
| ` + "`time`" + ` | time | when it happened, by the broker's clock |
| ` + "`actor`" + ` | object | who did it: ` + "`kind`" + ` (person, agent, host or broker), ` + "`id`, `name`" + ` |
| ` + "`on_behalf_of`" + ` | object | for whom, if for somebody else: the delegator, or whom the broker did it for |
| ` + "`source`" + ` | text | address that the call came from; none if the broker did it by itself |
| ` + "`subject`" + ` | object | what it is about: ` + "`request_id`, `person_id`, `host_id`, `host_ids`" + ` |
| ` + "`policy`" + ` | object | ` + "`version` and `hash`" + ` of the policy that decided, where one did |
| ` + "`data`" + ` | object | the type's own fields |

Times are RFC 3339 in UTC; numbers of 64 bits are texts; fields that are empty may be left out. A *list* is the evidence pack's
file that an event is a row of; *criteria* are those of SOC 2 that the list serves (version %d of the mapping); *OCSF* is
the class and activity in [streams](streaming.md).

Not there, since the thing itself is not: sessions on hosts and their posture, deployments and agents, passkeys (the
provider has them), retention.

`

func TestEventsAreDocumented(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	fmt.Fprintf(&b, eventsHead, controls.Version)
	list := eventTypes(t)
	b.WriteString("| type | what | list | criteria | OCSF |\n|---|---|---|---|---|\n")
	for _, e := range list {
		criteria := strings.Join(controls.Criteria(e.name), ", ")
		if criteria == "" {
			criteria = "—"
		}
		fmt.Fprintf(&b, "| [`%s`](#%s) | %s | %s | %s | %s |\n", e.name, anchor(e), first(e), populations.All[populations.Of(e.name)].Name, criteria, stream.Meaning(e.name))
	}
	for _, e := range list {
		if !strings.HasPrefix(e.doc, e.goName+" ") {
			t.Errorf("%s has no docstring", e.goName)
		}
		fmt.Fprintf(&b, "\n## %s, version %s\n\n%s\n\n", e.name, e.version, sentence(strings.TrimPrefix(e.doc, e.goName+" ")))
		if len(e.fields) == 0 {
			continue
		}
		b.WriteString("| field | type | meaning |\n|---|---|---|\n")
		for _, f := range e.fields {
			meaning := f.meaning
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", f.name, f.kind, strings.ReplaceAll(meaning, "|", `\|`))
		}
	}
	path := filepath.Join(root, "docs/events.md")
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if read(t, "docs/events.md") != b.String() {
		t.Error("docs/events.md is not what the source says: go test ./internal/docs -update")
	}
	// The source and the program know the same types.
	for _, e := range list {
		if _, err := os.Stat(filepath.Join(root, "audit/event/testdata/golden", e.name+".full.json")); err != nil {
			t.Errorf("%s: %v", e.name, err)
		}
	}
}

func anchor(e eventType) string {
	return strings.NewReplacer(".", "", ",", "", " ", "-").Replace(e.name + ", version " + e.version)
}

// first is the first sentence of a docstring, without the type's name.
func first(e eventType) string {
	text := strings.TrimPrefix(e.doc, e.goName+" ")
	text = strings.TrimPrefix(text, "records ")
	if at := strings.IndexAny(text, ".:;"); at > 0 {
		text = text[:at]
	}
	return strings.ReplaceAll(text, "|", `\|`)
}

func sentence(text string) string { return strings.ToUpper(text[:1]) + text[1:] }
