package witness_test

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"sallyport/audit/checkpoint"
	"sallyport/audit/cosignature"
	"sallyport/audit/witness"
	"sallyport/internal/audittest"
	"sallyport/internal/clock"
)

// tree is a log in memory, which can be rewritten at will.
type tree struct {
	key    audittest.Key
	hashes []tlog.Hash
}

func (l *tree) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, at := range indexes {
		out[i] = l.hashes[at]
	}
	return out, nil
}

func newTree(t *testing.T, key audittest.Key, leaves ...string) *tree {
	t.Helper()
	l := &tree{key: key}
	for i, leaf := range leaves {
		added, err := tlog.StoredHashes(int64(i), []byte(leaf), l)
		must(t, err)
		l.hashes = append(l.hashes, added...)
	}
	return l
}

func leaves(n int, flavour string) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("%s %d", flavour, i)
	}
	return list
}

// body is a call with the head of size to, and the proof from from.
func (l *tree) body(t *testing.T, from, to int64) []byte {
	t.Helper()
	root, err := tlog.TreeHash(to, l)
	must(t, err)
	msg, err := checkpoint.Sign(tlog.Tree{N: to, Hash: root}, l.key.Signer)
	must(t, err)
	var lines strings.Builder
	fmt.Fprintf(&lines, "old %d\n", from)
	if from > 0 && from < to {
		proof, err := tlog.ProveTree(to, from, l)
		must(t, err)
		for _, h := range proof {
			lines.WriteString(base64.StdEncoding.EncodeToString(h[:]) + "\n")
		}
	}
	return []byte(lines.String() + "\n" + string(msg))
}

func TestWitnessAnswersAsSpecified(t *testing.T) {
	t.Parallel()
	key, unknown := audittest.NewKey(t), audittest.NewKey(t)
	w := newPost(t, "one.example", "", key.Verifier)
	honest, fork := newTree(t, key, leaves(30, "honest")...), newTree(t, key, leaves(30, "forked")...)
	verifier, err := cosignature.NewVerifier(w.key)
	must(t, err)
	good := func(body []byte) {
		t.Helper()
		status, _, answer := call(t, w.server.URL, body)
		if status != http.StatusOK {
			t.Fatalf("%d %s", status, answer)
		}
		_, msg, _ := strings.Cut(string(body), "\n\n")
		text, _, _ := strings.Cut(msg, "\n\n")
		n, err := note.Open([]byte(text+"\n\n"+answer), note.VerifierList(verifier))
		must(t, err)
		if at, err := cosignature.At(n.Sigs[0]); err != nil || time.Since(at) > time.Minute || len(n.Sigs) != 1 || len(n.UnverifiedSigs) != 0 {
			t.Fatalf("the cosignature: %v %v %+v", at, err, n)
		}
	}
	refused := func(name string, body []byte, want int, size string) {
		t.Helper()
		status, kind, answer := call(t, w.server.URL, body)
		if status != want || strings.Contains(answer, "— one.example") {
			t.Errorf("%s: %d %s, want %d", name, status, answer, want)
		}
		if want == http.StatusConflict && (kind != "text/x.tlog.size" || answer != size+"\n") {
			t.Errorf("%s: %s %q, want the size %s", name, kind, answer, size)
		}
	}
	refused("a size out of nothing", honest.body(t, 3, 10), 409, "0")
	good(honest.body(t, 0, 10))
	good(honest.body(t, 10, 10)) // again: another time
	refused("a replay", honest.body(t, 0, 10), 409, "10")
	good(honest.body(t, 10, 25))
	refused("going back", honest.body(t, 25, 10), 400, "")
	refused("going back, politely", honest.body(t, 10, 10), 409, "25")
	refused("a fork of the same size", fork.body(t, 25, 25), 409, "25")
	refused("a longer fork", fork.body(t, 25, 30), 422, "")
	cut := strings.SplitN(string(honest.body(t, 25, 30)), "\n", 3)
	refused("a proof cut short", []byte(cut[0]+"\n"+cut[2]), 422, "")
	refused("no proof", []byte("old 25\n\n"+strings.SplitN(string(honest.body(t, 25, 30)), "\n\n", 2)[1]), 422, "")
	refused("another log's", newTree(t, unknown, leaves(30, "honest")...).body(t, 25, 30), 403, "") // of the same name
	refused("an unknown log's", []byte(strings.ReplaceAll(string(honest.body(t, 25, 30)), "sallyport.example.com/log", "other.example.com")), 404, "")
	for name, body := range map[string]string{
		"nothing": "", "no old": "\n\nx", "negative": "old -1\n\nx", "leading zero": "old 01\n\nx", "plus": "old +1\n\nx",
		"no checkpoint": "old 1\n\n", "no line": "old 1", "bad hash": "old 1\nAAAA\n\nx",
		"too many":  "old 1\n" + strings.Repeat(base64.StdEncoding.EncodeToString(make([]byte, 32))+"\n", 64) + "\nx",
		"too large": "old 1\n\n" + strings.Repeat("x", 1<<17),
	} {
		if status, _, _ := call(t, w.server.URL, []byte(body)); status != 400 {
			t.Errorf("%s: %d", name, status)
		}
	}
	good(honest.body(t, 25, 30)) // after all that, as before
	for path, want := range map[string]int{"/": 404, "/add-checkpoint": 405} {
		answer, err := http.Get(w.server.URL + path)
		must(t, err)
		answer.Body.Close()
		if answer.StatusCode != want {
			t.Errorf("GET %s: %d", path, answer.StatusCode)
		}
	}
}

// Many brokers at once: whatever order they come in, the witness says yes to one history.
func TestWitnessInARace(t *testing.T) {
	t.Parallel()
	key := audittest.NewKey(t)
	w := newPost(t, "one.example", "", key.Verifier)
	honest, fork := newTree(t, key, leaves(40, "honest")...), newTree(t, key, leaves(40, "forked")...)
	var all sync.WaitGroup
	var mu sync.Mutex
	yes := map[*tree]int{}
	for i := range 40 {
		of := []*tree{honest, fork}[i%2]
		body := of.body(t, 0, int64(1+i))
		all.Go(func() {
			if status, _, _ := call(t, w.server.URL, body); status == 200 {
				mu.Lock()
				yes[of]++
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if len(yes) != 1 || yes[honest]+yes[fork] != 1 {
		t.Errorf("it said yes to %d and %d", yes[honest], yes[fork])
	}
}

func TestWitnessRemembers(t *testing.T) {
	t.Parallel()
	key := audittest.NewKey(t)
	state := filepath.Join(t.TempDir(), "witness.json")
	first := newPost(t, "one.example", state, key.Verifier)
	honest := newTree(t, key, leaves(30, "honest")...)
	if status, _, _ := call(t, first.server.URL, honest.body(t, 0, 20)); status != 200 {
		t.Fatal(status)
	}
	private, _, err := cosignature.NewKey("two.example")
	must(t, err)
	cfg := witness.Config{Key: private, Logs: []string{key.Verifier}, State: state, Clock: clock.System, Logger: quiet}
	if _, err := witness.New(cfg); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("two on one state: %v", err)
	}
	must(t, first.Close())
	again := newPost(t, "one.example", state, key.Verifier)
	if status, _, size := call(t, again.server.URL, honest.body(t, 0, 5)); status != 409 || size != "20\n" {
		t.Errorf("after a restart: %d %s", status, size)
	}
	must(t, again.Close())
	for name, text := range map[string]string{
		"cut off":         `{"format":"sallyport.witness/1","lo`,
		"another format":  `{"format":"sallyport.witness/9","logs":{}}`,
		"not that log's":  `{"format":"sallyport.witness/1","logs":{"sallyport.example.com/log":"x"}}`,
		"an empty file":   ``,
		"another's bytes": "\x00\x01",
	} {
		must(t, os.WriteFile(state, []byte(text), 0o600))
		if w, err := witness.New(cfg); err == nil {
			w.Close()
			t.Errorf("%s: it forgets, and begins anew", name)
		}
	}
	// A state that cannot be kept is no cosignature.
	dir := t.TempDir()
	locked := newPost(t, "one.example", filepath.Join(dir, "in", "..", "witness.json"), key.Verifier)
	must(t, os.RemoveAll(dir))
	if status, _, answer := call(t, locked.server.URL, honest.body(t, 0, 20)); status != 500 || strings.Contains(answer, "—") {
		t.Errorf("without a disk: %d %s", status, answer)
	}
}

func TestNewWitnessRefuses(t *testing.T) {
	t.Parallel()
	key := audittest.NewKey(t)
	private, public, err := cosignature.NewKey("one.example")
	must(t, err)
	plain, _, err := note.GenerateKey(rand.Reader, "plain.example")
	must(t, err)
	base := witness.Config{Key: private, Logs: []string{key.Verifier}, Clock: clock.System, Logger: quiet}
	for name, change := range map[string]func(*witness.Config){
		"no key":     func(c *witness.Config) { c.Key = "" },
		"public key": func(c *witness.Config) { c.Key = public },
		"no logs":    func(c *witness.Config) { c.Logs = nil },
		"bad log":    func(c *witness.Config) { c.Logs = []string{"x"} },
		"twice":      func(c *witness.Config) { c.Logs = []string{key.Verifier, key.Verifier} },
		"no state":   func(c *witness.Config) { c.State = "" },
		"no clock":   func(c *witness.Config) { c.Clock = nil },
		"nowhere":    func(c *witness.Config) { c.State = "/nonexistent/witness.json" },
	} {
		cfg := base
		cfg.State = filepath.Join(t.TempDir(), "witness.json")
		change(&cfg)
		if w, err := witness.New(cfg); err == nil {
			w.Close()
			t.Error(name)
		}
	}
	base.Key, base.State = plain, filepath.Join(t.TempDir(), "witness.json") // of other tools
	w, err := witness.New(base)
	must(t, err)
	must(t, w.Close())
}
