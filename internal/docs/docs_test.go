// Package docs holds no code: its tests keep what the documentation says true, as
// far as a machine can tell: names of tests, links, policies, and the program by
// which an auditor checks the log.
package docs

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"sallyport/approvals/policy"
	"sallyport/evidence/reconcile"
	"sallyport/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

const root = "../.."

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// pages are the README and its like, and everything in docs/.
func pages(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil || len(found) == 0 {
		t.Fatalf("no pages in docs: %v", err)
	}
	list := []string{"README.md", "CONTRIBUTING.md"}
	for _, path := range found {
		list = append(list, "docs/"+filepath.Base(path))
	}
	return list
}

// blocks are the contents of a page's code blocks of one language.
func blocks(page, language string) []string {
	var found []string
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllStringSubmatch(page, -1) {
		found = append(found, m[1])
	}
	return found
}

var (
	testFunction = regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	testName     = regexp.MustCompile(`\bTest[A-Z]\w+`)
	promiseTest  = regexp.MustCompile(`^TestP\d+_`)
)

// tests are the names of all tests in the repository.
func tests(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && path != root:
			return filepath.SkipDir
		case !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(path)
		for _, m := range testFunction.FindAllSubmatch(text, -1) {
			names[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// Whoever reads of a test can find it, and whoever reads of a promise learns of
// every test that holds it.
func TestPromisesNameTheirTests(t *testing.T) {
	t.Parallel()
	known := tests(t)
	for _, page := range pages(t) {
		for _, name := range testName.FindAllString(read(t, page), -1) {
			if strings.HasSuffix(name, "_") {
				continue // the beginning of names, for -run
			}
			if !known[name] {
				t.Errorf("%s names %s, which does not exist", page, name)
			}
		}
	}
	named := testName.FindAllString(read(t, "docs/promises.md"), -1)
	for name := range known {
		if promiseTest.MatchString(name) && !slices.Contains(named, name) {
			t.Errorf("docs/promises.md does not name %s", name)
		}
	}
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)|(?m)^\[[^\]]+\]: (\S+)$`)
	heading = regexp.MustCompile(`(?m)^#+ (.+)$`)
)

func TestLinksLeadSomewhere(t *testing.T) {
	t.Parallel()
	for _, page := range pages(t) {
		for _, m := range link.FindAllStringSubmatch(read(t, page), -1) {
			target := m[1] + m[2]
			if strings.Contains(target, "://") {
				continue // elsewhere: not for a test that needs no network
			}
			file, fragment, _ := strings.Cut(target, "#")
			path := page
			if file != "" {
				path = filepath.Join(filepath.Dir(page), file)
			}
			if _, err := os.Stat(filepath.Join(root, path)); err != nil {
				t.Errorf("%s links to %s: %v", page, target, err)
				continue
			}
			if fragment != "" && !slices.Contains(anchors(read(t, path)), fragment) {
				t.Errorf("%s links to %s, and there is no such heading", page, target)
			}
		}
	}
}

// anchors are the names by which forges link to a page's headings.
func anchors(page string) []string {
	var names []string
	for _, m := range heading.FindAllStringSubmatch(page, -1) {
		kept := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r > 127:
				return r
			}
			return -1
		}, strings.ToLower(m[1]))
		names = append(names, kept)
	}
	return names
}

// A policy in the documentation is one that serve would accept: a whole document,
// or some keys of a rule.
func TestPoliciesParse(t *testing.T) {
	t.Parallel()
	const rule = "sallyport: 1\nrules:\n- name: example\n  who: [engineers]\n  where: '*'\n  logins: [root]\n  duration: {max: 1h}\n"
	var found []string
	for _, page := range []string{"docs/policy.md", "docs/agents.md"} {
		on := blocks(read(t, page), "yaml")
		if len(on) == 0 {
			t.Fatalf("%s has no policy", page)
		}
		found = append(found, on...)
	}
	for _, text := range found {
		if !strings.HasPrefix(text, "sallyport:") {
			text = rule + regexp.MustCompile(`(?m)^`).ReplaceAllString(strings.TrimSpace(text), "  ")
		}
		if _, err := policy.Parse([]byte(text)); err != nil {
			t.Errorf("%v in\n%s", err, text)
		}
	}
}

// The auditor's program, as it stands on the page, accepts what is in a log and
// refuses what is not.
func TestAuditorsProgram(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	source, program := filepath.Join(dir, "main.go"), filepath.Join(dir, "auditcheck")
	text := strings.Join(blocks(read(t, "docs/verifying.md"), "go"), "\n")
	if err := os.WriteFile(source, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-o", program, source)
	build.Dir = root // golang.org/x/mod at this repository's version
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	vector := filepath.Join(root, "audit/receipt/testdata/vector")
	vkey, leaf, receipt := filepath.Join(vector, "log.vkey"), filepath.Join(vector, "leaf"), filepath.Join(vector, "receipt.tlog-proof")
	if out, err := exec.Command(program, vkey, leaf, receipt).CombinedOutput(); err != nil || string(out) != "entry 5 of 11\n" {
		t.Errorf("of a good receipt it says %q, %v", out, err)
	}
	forged := filepath.Join(dir, "leaf")
	if err := os.WriteFile(forged, []byte("leaf 6"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(program, vkey, forged, receipt).CombinedOutput(); err == nil || !bytes.HasPrefix(out, []byte("NOT PROVED")) {
		t.Errorf("of another leaf it says %q, %v", out, err)
	}
}

// docs/privacy.md names every table and column that there is, in one line of its table.
func TestPrivacyNamesEveryColumn(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/privacy.md")
	if err != nil {
		t.Fatal(err)
	}
	lines := map[string]string{}
	for _, line := range strings.Split(string(text), "\n") {
		if cells := strings.Split(line, "|"); len(cells) > 5 {
			lines[strings.Trim(cells[1], " `")] = cells[3] + cells[4]
		}
	}
	rows, err := pgtest.New(t).Pool.Query(t.Context(), `
		SELECT CASE table_schema WHEN 'public' THEN '' ELSE table_schema || '.' END || table_name, column_name
		FROM information_schema.columns WHERE table_schema IN ('public', 'audit')`)
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	var table, column string
	_, err = pgx.ForEachRow(rows, []any{&table, &column}, func() error {
		known[table] = true
		if !strings.Contains(lines[table], "`"+column+"`") {
			t.Errorf("docs/privacy.md does not say whether %s.%s is personal", table, column)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for table := range lines {
		if !known[table] && table != "table" && !strings.HasPrefix(table, "-") {
			t.Errorf("docs/privacy.md has a table %s, the database has not", table)
		}
	}
}

func TestExceptionsAreDocumented(t *testing.T) {
	t.Parallel()
	page := read(t, "docs/evidence.md")
	for _, c := range reconcile.Codes {
		if row := "| `" + c.Code + "` | " + c.Means + " |"; !strings.Contains(page, row) {
			t.Errorf("docs/evidence.md lacks the line\n%s", row)
		}
	}
}
