package cli_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"sallyport/api"
	"sallyport/audit/event"
	"sallyport/audit/recording"
	"sallyport/broker/certs"
	"sallyport/cmd/sally/internal/cli"
	"sallyport/internal/certtest"
	"sallyport/internal/clock"
	"sallyport/internal/ids"
)

// archive is a broker with one recording, and an auditor's computer.
type archive struct {
	t       *testing.T
	dir     string
	url     string
	session string
	text    []byte        // the recording
	in      certs.Receipt // of the event of its end
	listed  api.Recording // what the broker says
	serves  func() []byte // what it gives as the recording
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newArchive(t *testing.T) *archive {
	t.Helper()
	a := &archive{t: t, dir: t.TempDir(), session: ids.New(ids.Session)}
	auditor, err := age.GenerateX25519Identity()
	must(t, err)
	keys, lines, err := recording.ParseRecipients(auditor.Recipient().String())
	must(t, err)
	a.text = []byte(recording.Magic)
	for _, part := range []string{
		`{"version":2,"width":80,"height":24,"timestamp":1767258000,"title":"dba@db-1","sallyport":{"login":"dba","serial":"42","terminal":true}}` + "\n",
		`[0.1,"o","$ psql\r\n"]` + "\n" + `[0.2,"o","\u001b]52;c;cm0=\u0007\u001b[6nselect 1;\r\n"]` + "\n",
	} {
		p, err := recording.Part(keys, []byte(part))
		must(t, err)
		a.text = append(a.text, p...)
	}
	a.serves = func() []byte { return a.text }
	sum := sha256.Sum256(a.text)
	log := certtest.NewLog(t, "sallyport.example.com/log")
	log.Grow(20)
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	a.in = log.Log(event.New(now, event.Actor{Kind: event.Host, ID: ids.New(ids.Host), Name: "db-1"}, "", event.Subject{}, event.SessionRecorded{
		SessionID: a.session, Recording: 1, Number: 7, BootID: "boot", Serial: 42, Login: "dba", Host: "db-1", Bytes: uint64(len(a.text)),
		Digest: hex.EncodeToString(sum[:]), Recipients: lines, StartedAt: now, EndedAt: now, Terminal: true}))
	index := int64(20)
	a.listed = api.Recording{Session: a.session, Number: 1, State: api.RecordingWhole, Host: "db-1", Login: "dba", Person: api.Person{Name: "Erin\x1b[2J"}, StartedAt: &now,
		Terminal: true, Bytes: int64(len(a.text)), Event: &index}
	a.put("vkey", log.Key)
	a.put("key.txt", "# created: today\n"+auditor.String()+"\n")
	a.put("other.txt", generated(t))
	a.put("event.json", string(a.in.Leaf))
	a.put("event.tlog-proof", string(a.in.Text))
	a.put("session.rec", string(a.text))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/audit/recordings/{session}", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(api.Page[api.Recording]{Items: []api.Recording{a.listed}})
	})
	mux.HandleFunc("GET /api/v1/audit/recordings/{session}/1", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		_, _ = w.Write(a.serves())
	})
	mux.HandleFunc("GET /api/v1/audit/events/20", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(api.Event{Index: 20, Leaf: a.in.Leaf})
	})
	mux.HandleFunc("GET /api/v1/audit/events/20/receipt", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte(a.in.Text))
	})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	a.url = server.URL
	return a
}

func generated(t *testing.T) string {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	must(t, err)
	return id.String() + "\n"
}

func (a *archive) path(name string) string { return filepath.Join(a.dir, name) }

func (a *archive) put(name, text string) {
	a.t.Helper()
	must(a.t, os.WriteFile(a.path(name), []byte(text), 0o600))
}

// replay runs sally audit replay; @ stands for the auditor's folder.
func (a *archive) replay(args ...string) (code int, out, said string) {
	a.t.Helper()
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "@", a.dir+"/")
	}
	var files [3]*os.File
	for i := range files {
		f, err := os.CreateTemp(a.t.TempDir(), "io")
		must(a.t, err)
		defer f.Close()
		files[i] = f
	}
	env := map[string]string{"SALLYPORT_URL": a.url, "SALLYPORT_TOKEN": "token", "HOME": a.dir}
	code = cli.Run(cli.System{In: files[0], Out: files[1], Err: files[2], Getenv: func(name string) string { return env[name] }, Clock: clock.System, Zone: time.UTC},
		append([]string{"audit", "replay"}, args...))
	shown, err := os.ReadFile(files[1].Name())
	must(a.t, err)
	told, err := os.ReadFile(files[2].Name())
	must(a.t, err)
	return code, string(shown), string(told)
}

func TestReplay(t *testing.T) {
	t.Parallel()
	a := newArchive(t)
	if code, out, said := a.replay(a.session); code != 0 || !strings.Contains(out, "whole") || !strings.Contains(out, "entry 20") || strings.Contains(out, "\x1b") {
		t.Errorf("the list: %d, %q, %q", code, out, said)
	}
	const plays = "$ psql\r\nselect 1;\r\n" // without what the terminal must not be told
	if code, out, said := a.replay(a.session, "--identity", "@key.txt", "--vkey", "@vkey", "--speed", "100"); code != 0 || out != plays ||
		!strings.Contains(said, "PROVED: this is what db-1 recorded, by entry 20 of the log sallyport.example.com/log") {
		t.Errorf("with the log: %d, %q, %q", code, out, said)
	}
	if code, out, said := a.replay(a.session, "--identity", "@key.txt"); code != 0 || out != plays || !strings.Contains(said, "MATCHES") || strings.Contains(said, "PROVED") {
		t.Errorf("by the broker's word: %d, %q, %q", code, out, said)
	}
	if code, out, said := a.replay("@session.rec", "--identity", "@key.txt", "--vkey", "@vkey", "--event", "@event.json", "--proof", "@event.tlog-proof"); code != 0 || out != plays || !strings.Contains(said, "PROVED") {
		t.Errorf("offline: %d, %q, %q", code, out, said)
	}
	if code, _, said := a.replay(a.session, "--identity", "@key.txt", "--to", "@session.cast"); code != 0 {
		t.Errorf("to a file: %d, %q", code, said)
	}
	if text, err := os.ReadFile(a.path("session.cast")); err != nil || !bytes.Contains(text, []byte(`\u001b]52`)) {
		t.Errorf("the file is not what was recorded: %q, %v", text, err)
	}
	if code, out, said := a.replay("@session.cast"); code != 0 || out != plays {
		t.Errorf("an asciicast: %d, %q, %q", code, out, said)
	}
}

func TestReplayRefusesWhatIsNotProved(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		change func(a *archive)
		args   []string
		code   int
		says   string
	}{
		"other bytes":            {func(a *archive) { a.serves = func() []byte { return append(bytes.Clone(a.text), 0) } }, nil, 1, "NOT PROVED"},
		"less":                   {func(a *archive) { a.serves = func() []byte { return a.text[:len(a.text)-1] } }, nil, 1, "NOT PROVED"},
		"no end":                 {func(a *archive) { a.listed.Event = nil }, nil, 1, "not in the log yet"},
		"another event":          {func(a *archive) { a.in.Leaf = []byte(`{}`) }, nil, 1, "NOT PROVED"},
		"another log":            {func(a *archive) { a.put("vkey", certtest.NewLog(a.t, "sallyport.example.com/log").Key) }, nil, 1, "NOT PROVED"},
		"another proof":          {func(a *archive) { a.in.Text = []byte("c2sp.org/tlog-proof@v1\n") }, nil, 1, "NOT PROVED"},
		"more than there can be": {func(a *archive) { a.serves = func() []byte { return make([]byte, recording.MaxSize+1) } }, nil, 1, "more than"},
		"another key":            {func(a *archive) { a.put("key.txt", generated(a.t)) }, nil, 2, "other keys"},
		"no key":                 {func(a *archive) { a.put("key.txt", "age1xyz") }, nil, 2, "no private key"},
		"another number":         {func(*archive) {}, []string{"--number", "2"}, 2, "no recording 2"},
		"no speed":               {func(*archive) {}, []string{"--speed", "0"}, 2, "more than 0"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			a := newArchive(t)
			c.change(a)
			code, out, said := a.replay(append([]string{a.session, "--identity", "@key.txt", "--vkey", "@vkey"}, c.args...)...)
			if code != c.code || out != "" || !strings.Contains(said, c.says) {
				t.Errorf("%d, %q, %q", code, out, said)
			}
		})
	}
	a := newArchive(t)
	a.listed.Event = nil
	if code, out, said := a.replay(a.session, "--identity", "@key.txt", "--unproved"); code != 0 || out == "" || !strings.Contains(said, "NOT PROVED") {
		t.Errorf("unproved: %d, %q, %q", code, out, said)
	}
	a = newArchive(t) // the broker has one recording, and gives it for every session
	if code, out, said := a.replay(ids.New(ids.Session), "--identity", "@key.txt", "--vkey", "@vkey"); code != 1 || out != "" || !strings.Contains(said, "another recording") {
		t.Errorf("another session's, with its event: %d, %q, %q", code, out, said)
	}
	if code, out, _ := a.replay("@session.rec", "--identity", "@key.txt"); code != 1 || out != "" {
		t.Errorf("a file without its event: %d, %q", code, out)
	}
}
