package e2e

import (
	"archive/zip"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// The main job by sally alone, in a terminal: see testdata/terminal.
func TestTerminal(t *testing.T) {
	t.Parallel()
	h := newHouse(t, policy)
	h.addHost("web-1", map[string]string{"class": "web", "env": "test"}, "web", "dba", "root")
	h.addHost("db-1", map[string]string{"class": "database", "env": "test"}, "dba", "web", "root")
	runTerminal(t, h, "testdata/terminal")
}

// An auditor takes evidence away and verifies it elsewhere: see testdata/evidence.
func TestEvidenceInATerminal(t *testing.T) {
	t.Parallel()
	h := newHouse(t, policy)
	h.register("web-1", map[string]string{"class": "web"}, "web")
	runTerminal(t, h, "testdata/evidence")
}

// runTerminal runs the scripts in the folder, in which people use sally.
func runTerminal(t *testing.T, h *house, dir string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("SALLYPORT_URL", h.URL)
			e.Setenv("GORACE", "atexit_sleep_ms=0") // or every sally that ends well takes a second more
			e.Setenv("PATH", programs.dir+string(filepath.ListSeparator)+os.Getenv("PATH"))
			// $BROWSER is this binary, which signs the person of the moment in.
			e.Setenv("BROWSER", self)
			for name, host := range h.hosts { // DB_1 and so on
				e.Setenv(strings.ToUpper(strings.ReplaceAll(name, "-", "_")), host.Addr())
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			// as PERSON: what follows is done by another person, on their own computer.
			"as": func(ts *testscript.TestScript, _ bool, args []string) {
				home := ts.MkAbs(filepath.Join("home", args[0]))
				ts.Check(os.MkdirAll(home, 0o700))
				ts.Setenv("HOME", home)
				for _, dir := range []string{"CONFIG", "STATE", "RUNTIME"} {
					ts.Setenv("XDG_"+dir+"_DIR", "")
				}
				ts.Setenv("XDG_CONFIG_HOME", filepath.Join(home, ".config"))
				ts.Setenv("XDG_STATE_HOME", filepath.Join(home, ".local", "state"))
				ts.Setenv("XDG_RUNTIME_DIR", filepath.Join(home, "run"))
				ts.Check(os.MkdirAll(filepath.Join(home, "run"), 0o700))
				ts.Setenv("SALLYPORT_E2E_BROWSER", args[0]+"@example.com")
			},
			// exits CODE PROGRAM ARG...: like exec, for one exit code.
			"exits": func(ts *testscript.TestScript, _ bool, args []string) {
				err := ts.Exec(args[1], args[2:]...)
				code := "0"
				if exit, ok := err.(*exec.ExitError); ok {
					code = strings.TrimPrefix(exit.ProcessState.String(), "exit status ")
				} else {
					ts.Check(err)
				}
				if code != args[0] {
					ts.Fatalf("%s ended with %s, want %s", args[1], code, args[0])
				}
			},
			// fetch PATH FILE: what the broker answers there to anybody.
			"fetch": func(ts *testscript.TestScript, _ bool, args []string) {
				resp, err := plain.Get(h.URL + args[0])
				ts.Check(err)
				defer resp.Body.Close()
				body, err := io.ReadAll(resp.Body)
				ts.Check(err)
				ts.Check(os.WriteFile(ts.MkAbs(args[1]), body, 0o600))
			},
			// unpack ZIP DIR
			"unpack": func(ts *testscript.TestScript, _ bool, args []string) {
				archive, err := zip.OpenReader(ts.MkAbs(args[0]))
				ts.Check(err)
				defer archive.Close()
				ts.Check(os.CopyFS(ts.MkAbs(args[1]), archive))
			},
			// request NAME: keeps the request id that the last command printed in $NAME,
			// and delegation NAME that of a delegation.
			"request":    keepID(requestID),
			"delegation": keepID(delegationID),
		},
	})
}

func keepID(id *regexp.Regexp) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, _ bool, args []string) {
		found := id.FindString(ts.ReadFile("stdout") + ts.ReadFile("stderr"))
		if found == "" {
			ts.Fatalf("the last command named none")
		}
		ts.Setenv(args[0], found)
	}
}

var (
	requestID    = regexp.MustCompile(`req-[0-9a-hjkmnp-tv-z]{12}`)
	delegationID = regexp.MustCompile(`del-[0-9a-hjkmnp-tv-z]{12}`)
)
