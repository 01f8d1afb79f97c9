package floors

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// Every refusal of the broker says what to do next, and has a code that programs can rely on:
// where two have one code they mean the same, for errors.Is takes them for one.
func TestEveryRefusalHasACodeAndAHint(t *testing.T) {
	t.Parallel()
	code, kinds, found := regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`), map[string]string{}, 0
	files := token.NewFileSet()
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err == nil && path == "../../cmd/sally" {
			return filepath.SkipDir // what sally says to its own person stands beside what they just did
		}
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(files, path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) != 4 {
				return true
			}
			f, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || f.Sel.Name != "New" || text(f.X) != "refusal" {
				return true
			}
			found++
			kind, name, detail, hint := text(call.Args[0]), text(call.Args[1]), text(call.Args[2]), text(call.Args[3])
			at := files.Position(call.Pos())
			if !code.MatchString(name) {
				t.Errorf("%s: the code %q is not kebab-case", at, name)
			}
			if hint == "" {
				t.Errorf("%s: %s has no hint", at, name)
			}
			if detail == "" || strings.HasSuffix(detail, ".") {
				t.Errorf("%s: %s: the detail %q is no sentence without a full stop", at, name, detail)
			}
			if other, ok := kinds[name]; ok && other != kind {
				t.Errorf("%s: %s is %s here and %s elsewhere", at, name, kind, other)
			}
			kinds[name] = kind
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if found < 50 {
		t.Errorf("only %d refusals were found", found)
	}
}

// text is an expression's value if it is a literal or a sum of them, else its names.
func text(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		s, err := strconv.Unquote(e.Value)
		if err != nil {
			return e.Value
		}
		return s
	case *ast.BinaryExpr:
		return text(e.X) + text(e.Y)
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	}
	return ""
}
