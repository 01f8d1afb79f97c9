package problem

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sallyport/api"
	"sallyport/internal/refusal"
)

var update = flag.Bool("update", false, "write docs/problems.md anew")

const catalogue = "../../docs/problems.md"

// rooms are where a call of the API or a page can be refused. What the programs
// refuse at their start, or on a person's own computer, is no problem's type.
var rooms = []string{"approvals", "audit", "broker", "evidence", "server"}

// TestEveryProblemIsDocumented reads all declarations of refusals and problems in
// the source: each code means one thing, says it in one way, and stands in
// docs/problems.md.
func TestEveryProblemIsDocumented(t *testing.T) {
	t.Parallel()
	found := map[string]*api.Problem{}
	for _, room := range rooms {
		err := filepath.WalkDir("../../"+room, func(path string, _ fs.DirEntry, err error) error {
			if err == nil && strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") && !strings.Contains(path, "broker/keys/") {
				declared(t, path, found)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	text := document(found)
	if *update {
		if err := os.WriteFile(catalogue, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	old, err := os.ReadFile(catalogue)
	if err != nil {
		t.Fatal(err)
	}
	if string(old) != text {
		t.Error("docs/problems.md is not what the source says; write it anew: go test ./server/problem -update")
	}
}

func document(found map[string]*api.Problem) string {
	var b strings.Builder
	b.WriteString(`<!-- Written by: go test ./server/problem -update -->

# Problems

Every error of the API is an RFC 9457 problem, and every page that says no shows the same one. Its type is
` + "`" + TypePrefix + "<code>`" + `. Codes are stable; the detail of an answer may be more exact than here.
The OAuth endpoints give the same refusals the form of RFC 6749, with its codes.

| code | status | what it says | what to do |
|---|---|---|---|
`)
	for _, code := range slices.Sorted(maps.Keys(found)) {
		p := found[code]
		fmt.Fprintf(&b, "| `%s` | %d | %s | %s |\n", p.Code, p.Status, cell(p.Detail), cell(p.Hint))
	}
	return b.String()
}

// cell keeps a text from being read as Markdown.
func cell(s string) string {
	return strings.NewReplacer("|", `\|`, "*", `\*`, "_", `\_`, "<", "&lt;", "[", `\[`).Replace(s)
}

// declared adds what a file declares with refusal.New or New of this package.
func declared(t *testing.T, path string, found map[string]*api.Problem) {
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	own := file.Name.Name == "problem"
	for _, d := range file.Decls {
		if d, ok := d.(*ast.GenDecl); !ok || d.Tok != token.VAR {
			continue
		}
		ast.Inspect(d, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) != 4 {
				return true
			}
			where := files.Position(call.Pos())
			var status int
			switch name(call.Fun) {
			case "refusal.New":
				status = statuses[kinds[name(call.Args[0])]]
			case "problem.New":
				status = httpStatuses[name(call.Args[0])]
			case "New":
				if !own {
					return true
				}
				status = httpStatuses[name(call.Args[0])]
			default:
				return true
			}
			p := New(status, literal(t, call.Args[1]), literal(t, call.Args[2]), literal(t, call.Args[3]))
			switch {
			case status == 0:
				t.Errorf("%s: %s has no status", where, p.Code)
			case p.Hint == "":
				t.Errorf("%s: %s has no hint", where, p.Code)
			case found[p.Code] != nil:
				t.Errorf("%s: %s is declared elsewhere, too", where, p.Code)
			}
			found[p.Code] = p
			return true
		})
	}
}

var kinds = map[string]refusal.Kind{
	"refusal.Invalid": refusal.Invalid, "refusal.Unauthenticated": refusal.Unauthenticated, "refusal.Denied": refusal.Denied,
	"refusal.NotFound": refusal.NotFound, "refusal.Conflict": refusal.Conflict, "refusal.Gone": refusal.Gone, "refusal.TooLarge": refusal.TooLarge,
	"refusal.TooMany": refusal.TooMany, "refusal.Unavailable": refusal.Unavailable,
}

var httpStatuses = map[string]int{
	"http.StatusBadRequest": 400, "http.StatusMethodNotAllowed": 405, "http.StatusRequestTimeout": 408,
	"http.StatusUnsupportedMediaType": 415, "http.StatusUnprocessableEntity": 422, "http.StatusInternalServerError": 500,
}

// name is an identifier, or a selector of one.
func name(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return name(e.X) + "." + e.Sel.Name
	}
	return ""
}

// literal is the value of string literals, joined.
func literal(t *testing.T, e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		s, err := strconv.Unquote(e.Value)
		if err != nil {
			t.Fatal(err)
		}
		return s
	case *ast.BinaryExpr:
		return literal(t, e.X) + literal(t, e.Y)
	}
	t.Fatalf("a refusal's text is %T, not a literal", e)
	return ""
}
