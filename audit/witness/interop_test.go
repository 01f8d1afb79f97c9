package witness_test

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"sallyport/audit/checkpoint"
	"sallyport/audit/cosignature"
	"sallyport/internal/audittest"
)

// interop builds the program in tools/interop, which has the client and the server of
// github.com/transparency-dev/witness.
func interop(t *testing.T) string {
	t.Helper()
	here, err := filepath.Abs("../../tools/interop")
	must(t, err)
	run := func(args ...string) string {
		cmd := exec.Command("go", args...)
		cmd.Dir, cmd.Env = here, append(os.Environ(), "GOFLAGS=", "GOWORK=off")
		var failed bytes.Buffer
		cmd.Stderr = &failed
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go %v: %v\n%s", args, err, failed.String())
		}
		return strings.TrimSpace(string(out))
	}
	// The version of merkle that is to be had lacks one function that its witness names
	// and does not call here; it gets one in a copy.
	const module = "github.com/transparency-dev/merkle"
	run("mod", "download", module)
	built, library := t.TempDir(), run("list", "-m", "-f", "{{.Dir}}", module)
	must(t, os.CopyFS(filepath.Join(built, "merkle"), os.DirFS(library)))
	must(t, filepath.WalkDir(filepath.Join(built, "merkle"), func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = os.Chmod(path, 0o755)
		}
		return err
	}))
	stub, err := os.ReadFile(filepath.Join(here, "subtree.go.txt"))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(built, "merkle", "proof", "subtree.go"), stub, 0o600))
	text, err := os.ReadFile(filepath.Join(here, "go.mod"))
	must(t, err)
	version := run("list", "-m", "-f", "{{.Replace.Version}}", module)
	replaced := strings.Replace(string(text), "=> "+module+" "+version, "=> "+filepath.Join(built, "merkle"), 1)
	must(t, os.WriteFile(filepath.Join(built, "go.mod"), []byte(replaced), 0o600))
	sums, err := os.ReadFile(filepath.Join(here, "go.sum"))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(built, "go.sum"), sums, 0o600))
	program := filepath.Join(built, "interop")
	run("build", "-modfile", filepath.Join(built, "go.mod"), "-o", program, ".")
	return program
}

// Another implementation of the same specifications takes our log, and is served by our
// witness.
func TestInteropWithTransparencyDev(t *testing.T) {
	t.Parallel()
	program := interop(t)
	key := audittest.NewKey(t)

	t.Run("its witness takes our log", func(t *testing.T) {
		cmd := exec.Command(program, "serve", key.Verifier, "their.example")
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		lines := bufio.NewScanner(out)
		var said []string
		for len(said) < 2 && lines.Scan() {
			said = append(said, lines.Text())
		}
		if len(said) < 2 {
			t.Fatal("it did not start")
		}
		l := newLedger(t, key)
		l.grow(t, 3)
		p := policy(t, key, "witness theirs "+said[0]+" "+said[1]+"\nquorum theirs\n")
		a := newAsker(t, l.Log, p)
		must(t, a.Check(t.Context()))
		audittest.Run(t, a.Run)
		for range 3 {
			l.grow(t, 7)
			msg, err := a.Cosigned(t.Context(), l.size(t))
			must(t, err)
			if _, enough := p.Witnesses(msg); !enough {
				t.Fatalf("it has not cosigned:\n%s", msg)
			}
		}
		// And it finds out what ours would.
		fork := newLedger(t, key)
		fork.grow(t, 50)
		if err := newAsker(t, fork.Log, p).Check(t.Context()); err == nil {
			t.Error("it takes a fork")
		}
	})

	t.Run("its client is served by our witness", func(t *testing.T) {
		w := newPost(t, "ours.example", "", key.Verifier)
		honest, fork := newTree(t, key, leaves(30, "honest")...), newTree(t, key, leaves(30, "forked")...)
		ask := func(l *tree, from, to int64) string {
			t.Helper()
			body := l.body(t, from, to)
			_, msg, _ := bytes.Cut(body, []byte("\n\n"))
			args := []string{"ask", w.server.URL, strings.TrimPrefix(strings.SplitN(string(body), "\n", 2)[0], "old ")}
			if from > 0 && from < to {
				proof, err := tlog.ProveTree(to, from, l)
				must(t, err)
				for _, h := range proof {
					args = append(args, h.String())
				}
			}
			cmd := exec.Command(program, args...)
			cmd.Stdin = bytes.NewReader(msg)
			out, err := cmd.Output()
			must(t, err)
			return string(out)
		}
		verifier, err := cosignature.NewVerifier(w.key)
		must(t, err)
		for _, step := range [][2]int64{{0, 5}, {5, 5}, {5, 30}} {
			lines := ask(honest, step[0], step[1])
			root, err := tlog.TreeHash(step[1], honest)
			must(t, err)
			msg, err := checkpoint.Sign(tlog.Tree{N: step[1], Hash: root}, key.Signer)
			must(t, err)
			text, _, _ := bytes.Cut(msg, []byte("\n\n"))
			if n, err := note.Open([]byte(string(text)+"\n\n"+lines), note.VerifierList(verifier)); err != nil || len(n.Sigs) != 1 {
				t.Errorf("from %d to %d: %q, %v", step[0], step[1], lines, err)
			}
		}
		if got := ask(honest, 5, 30); !strings.HasPrefix(got, "refused 30: ") {
			t.Errorf("a replay: %q", got)
		}
		if got := ask(fork, 30, 30); !strings.HasPrefix(got, "refused ") {
			t.Errorf("a fork: %q", got)
		}
	})
}
