package event_test

import (
	"cmp"
	"flag"
	"fmt"
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"sallyport/audit/event"
	"sallyport/audit/stream"
	"sallyport/evidence/controls"
	"sallyport/evidence/populations"
)

const page = "../../docs/events.md"

// docs/events.md says what the code does: the types and their fields are this
// package's own, in the words of its comments; who causes them is in circumstances;
// populations and criteria are those that evidence packs go by; classes and activities
// those of streams.
func TestTheCatalogueIsDocumented(t *testing.T) {
	t.Parallel()
	text := catalogue(t)
	if f := flag.Lookup("update"); f.Value.String() == "true" {
		if err := os.WriteFile(page, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(page)
	if err != nil || string(have) != text {
		t.Errorf("docs/events.md is not what the code says (%v): run go test ./audit/event -update", err)
	}
}

func catalogue(t *testing.T) string {
	t.Helper()
	pkg := source(t, ".")
	var b strings.Builder
	b.WriteString(introduction)
	b.WriteString("## Every event has\n\n")
	for _, name := range []string{"Event", "Actor", "Subject", "PolicyRef"} {
		s := pkg[name]
		if name != "Event" {
			fmt.Fprintf(&b, "`%s`: %s\n\n", envelope[name], lower(strings.TrimSuffix(sentence(s.doc, name), ".")))
		}
		s.table(&b)
	}
	b.WriteString(absent)
	b.WriteString("## All types\n\n| type | what | by | population | criteria | OCSF |\n|---|---|---|---|---|---|\n")
	for _, d := range event.Catalogue() {
		name, _ := d.EventType()
		c, _ := event.CircumstancesOf(name)
		criteria := cmp.Or(strings.Join(controls.Criteria(name), ", "), "—")
		fmt.Fprintf(&b, "| [%s](#%s) | %s | %s | %s | %s | %s |\n", name, anchor(name), what(pkg[reflect.TypeOf(d).Name()]), kinds(c.By),
			population(name), criteria, stream.Meaning(name))
	}
	known := map[string]bool{}
	for _, d := range event.Catalogue() {
		name, version := d.EventType()
		s := pkg[reflect.TypeOf(d).Name()]
		known[s.name] = true
		if !strings.HasPrefix(s.doc, s.name+" ") {
			t.Errorf("%s has no comment that begins with its name", s.name)
		}
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n", name, sentence(s.doc, s.name))
		c, ok := event.CircumstancesOf(name)
		if !ok {
			t.Errorf("%s has no circumstances", name)
		}
		fmt.Fprintf(&b, "%s\n", strings.TrimSpace(fmt.Sprintf("Version %d. Caused by %s. %s", version, kinds(c.By), names(c))))
		if len(s.fields) > 0 {
			b.WriteString("\n")
			s.table(&b)
		}
		for _, f := range s.fields {
			if f.meaning == "" {
				t.Errorf("%s.%s has no comment", s.name, f.name)
			}
		}
	}
	for name, s := range pkg {
		if s.event && !known[name] {
			t.Errorf("%s is an event, and the catalogue does not have it", name)
		}
	}
	return strings.TrimRight(strings.ReplaceAll(b.String(), "\n\n\n", "\n\n"), "\n") + "\n"
}

func population(eventType string) string { return populations.All[populations.Of(eventType)].Name }

func anchor(name string) string { return strings.ReplaceAll(name, ".", "") }

func kinds(by []event.Kind) string {
	words := make([]string, len(by))
	for i, k := range by {
		words[i] = map[event.Kind]string{event.Person: "people", event.Agent: "agents", event.Host: "hosts", event.Broker: "the broker"}[k]
	}
	return strings.Join(words, " or ")
}

// names says what the type always names beside its data.
func names(c event.Circumstances) string {
	var always []string
	for _, n := range []struct {
		is   bool
		what string
	}{{c.Request, "the request"}, {c.Person, "the person"}, {c.Host, "the host"}, {c.Policy, "the version of the policy"},
		{c.Behalf, "for whom it was done"}} {
		if n.is {
			always = append(always, n.what)
		}
	}
	said := ""
	if len(always) > 0 { // beside what every event names
		said = "Always names " + strings.Join(always, ", ") + "."
	}
	if c.Stranger {
		said += " The actor may be unknown."
	}
	return strings.TrimSpace(said)
}

// what is the comment's first sentence, without the type's name.
func what(s documented) string {
	said := strings.TrimPrefix(strings.TrimPrefix(strings.Join(strings.Fields(s.doc), " "), s.name+" "), "records ")
	said, _, _ = strings.Cut(said, ": ")
	said, _, _ = strings.Cut(said, "; ")
	said, _, _ = strings.Cut(said, ". ")
	return strings.ReplaceAll(strings.TrimSuffix(said, "."), "|", `\|`)
}

// documented is a struct as its source has it.
type documented struct {
	name, doc string
	event     bool // it is some type's data
	fields    []field
}

type field struct{ name, json, kind, meaning string }

func (d documented) table(b *strings.Builder) {
	b.WriteString("| field | JSON | meaning |\n|---|---|---|\n")
	for _, f := range d.fields {
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", f.json, f.kind, strings.ReplaceAll(f.meaning, "|", `\|`))
	}
	b.WriteString("\n")
}

// source are the package's structs with their comments.
func source(t *testing.T, dir string) map[string]documented {
	t.Helper()
	set := token.NewFileSet()
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var files []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(set, name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	pkg, err := doc.NewFromFiles(set, files, "sallyport/audit/event")
	if err != nil {
		t.Fatal(err)
	}
	structs := map[string]documented{}
	for _, typ := range pkg.Types {
		s, ok := typ.Decl.Specs[0].(*ast.TypeSpec).Type.(*ast.StructType)
		if !ok {
			continue
		}
		d := documented{name: typ.Name, doc: strings.TrimSpace(typ.Doc),
			event: slices.ContainsFunc(typ.Methods, func(f *doc.Func) bool { return f.Name == "EventType" })}
		for _, f := range s.Fields.List {
			if f.Tag == nil {
				continue
			}
			name, options, _ := strings.Cut(reflect.StructTag(strings.Trim(f.Tag.Value, "`")).Get("json"), ",")
			meaning := strings.Join(strings.Fields(f.Comment.Text()), " ")
			if meaning == "" && f.Doc != nil {
				meaning = strings.TrimSuffix(lower(sentence(f.Doc.Text(), f.Names[0].Name)), ".")
			}
			d.fields = append(d.fields, field{f.Names[0].Name, name, jsonType(t, f.Type, options), meaning})
		}
		structs[typ.Name] = d
	}
	return structs
}

// jsonType is how a field's Go type is encoded; see the package's comment.
func jsonType(t *testing.T, expr ast.Expr, options string) string {
	t.Helper()
	names := map[string]string{"string": "string", "bool": "true or false", "int": "number", "int64": "integer as string",
		"uint64": "integer as string", "Time": "time", "UUID": "UUID", "Kind": "string", "Actor": "object", "Subject": "object",
		"PolicyRef": "object", "Data": "object", "byte": "bytes"}
	said := ""
	switch e := expr.(type) {
	case *ast.Ident:
		said = names[e.Name]
	case *ast.SelectorExpr:
		said = names[e.Sel.Name]
	case *ast.StarExpr:
		return jsonType(t, e.X, options)
	case *ast.ArrayType:
		if said = jsonType(t, e.Elt, "") + "s"; said == "bytess" {
			said = "base64"
		}
	case *ast.MapType:
		said = "object of strings"
	}
	if said == "" {
		t.Errorf("no words for the type of %v", expr)
	}
	if strings.Contains(options, "omit") {
		said += ", if any"
	}
	return said
}

// sentence is a comment without the Go name that it begins with.
func sentence(doc, name string) string {
	doc = strings.Join(strings.Fields(doc), " ")
	doc = strings.TrimPrefix(strings.TrimPrefix(strings.TrimPrefix(doc, name+" "), "is "), "are ")
	return strings.ToUpper(doc[:1]) + doc[1:]
}

func lower(s string) string { return strings.ToLower(s[:1]) + s[1:] }

// envelope are the fields of an event that are objects.
var envelope = map[string]string{"Actor": "actor` and `on_behalf_of", "Subject": "subject", "PolicyRef": "policy"}

const introduction = `# Events

<!-- Made from the code by: go test ./audit/event -update -->

Everything that happens is an event in the log: one JSON object, whose exact bytes are hashed. Types and fields are a published
contract. A field may be added, which is absent where it is not known; anything else makes a new version of the type, and old
versions stay readable. Times are UTC, RFC 3339; 64-bit integers are strings; there are no floats. An event has at most 65,535
bytes. How to check that one is in the log: [verifying.md](verifying.md); whom they tell of: [privacy.md](privacy.md).

Criteria are those of SOC 2 (CC…) and of ISO/IEC 27001:2022, Annex A (A.…), by the same mapping that evidence packs have;
a population is the list in a pack that has the event. OCSF is the class and the activity that it has in [streams](streaming.md).

`

const absent = `What a person causes has a source address. Caused by the broker is what happens because time passes, at a start, or in the
background; that has none, unless it is done for somebody, whose address it then has.

Reads by role are recorded before anything is shown, and if they cannot be, nothing is shown. The same read by the same person
from the same address within ten minutes is one event (in each replica). What one may see without a role (one's own requests, those that
one decides on) is no event; nor is reading hosts, delegations, the policy and figures by week.

What a host causes is that host's word, signed with its key. Only a session's person and request, and what an alarm says of a
certificate, are what the broker itself knows. Hosts that run no sally-host report nothing: of their sessions and postures there are no events.

There are no events for what Sallyport does not do: passkeys are the identity provider's, whose means (` + "`amr`, `acr`" + `) are in
person.signed_in.

`
