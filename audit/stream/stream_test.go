package stream_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/mod/sumdb/note"

	"sallyport/audit"
	"sallyport/audit/event"
	"sallyport/audit/stream"
	"sallyport/internal/audittest"
	"sallyport/internal/clock"
	"sallyport/internal/pgtest"
	"sallyport/internal/standardwebhooks"
)

func TestMain(m *testing.M) {
	if out := os.Getenv("SALLYPORT_TEST_STREAM"); out != "" {
		child(out)
		return
	}
	os.Exit(pgtest.Main(m))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

var quiet = slog.New(slog.DiscardHandler)

// grow adds events.
func grow(t testing.TB, log *audit.Log, n int) {
	t.Helper()
	for range n {
		_, err := log.Record(t.Context(), event.New(time.Now(), event.Actor{Kind: event.Broker}, "", event.Subject{}, event.KeysLoaded{}))
		must(t, err)
	}
}

// outlets parses a configuration, in which %DIR% is a folder with the secrets.
func outlets(t testing.TB, text string) []stream.Outlet {
	t.Helper()
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "secret"), []byte(secret+"\n"), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "token"), []byte("11111111-2222-3333-4444-555555555555"), 0o600))
	out, err := stream.Parse([]byte(strings.ReplaceAll(text, "%DIR%", dir)), clock.System)
	must(t, err)
	return out
}

// begin runs streams until the returned function is called.
func begin(t testing.TB, pool *pgxpool.Pool, log *audit.Log, c clock.Clock, to []stream.Outlet) (*stream.Streams, func()) {
	t.Helper()
	s, err := stream.New(stream.Config{Pool: pool, Log: log, Clock: c, Logger: quiet, Outlets: to, Version: "test"})
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	stop := sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return s, stop
}

// sequences are the log's indexes in lines of documents, in their order.
func sequences(t testing.TB, text []byte) []int64 {
	t.Helper()
	var out []int64
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var doc struct {
			Metadata struct {
				Sequence int64 `json:"sequence"`
			} `json:"metadata"`
		}
		if err := json.Unmarshal(lines.Bytes(), &doc); err != nil {
			t.Fatalf("%v: %.200s", err, lines.Bytes())
		}
		out = append(out, doc.Metadata.Sequence)
	}
	return out
}

// whole checks that every index below n is there, in order but for what came again.
func whole(t testing.TB, got []int64, n int64) {
	t.Helper()
	next := int64(0)
	for _, at := range got {
		if at > next {
			t.Fatalf("%d comes instead of %d", at, next)
		}
		next = max(next, at+1)
	}
	if next < n {
		t.Fatalf("%d of %d entries came", next, n)
	}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func size(t testing.TB, pool *pgxpool.Pool) (n int64) {
	t.Helper()
	must(t, pool.QueryRow(t.Context(), `SELECT size FROM audit.head`).Scan(&n))
	return n
}

// reached waits until a stream has sent all that is in the log.
func reached(t testing.TB, pool *pgxpool.Pool, name string) int64 {
	t.Helper()
	var n int64
	eventually(t, name+" is at the end", func() bool {
		var next int64
		err := pool.QueryRow(t.Context(), `SELECT next FROM log_streams WHERE name = $1`, name).Scan(&next)
		n = size(t, pool)
		return err == nil && next == n
	})
	return n
}

// receiver is an HTTP receiver that keeps what it accepts.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	bodies [][]byte
	heads  []http.Header
	fault  atomic.Pointer[http.HandlerFunc]
	answer string
}

func newReceiver(t testing.TB, answer string) *receiver {
	r := &receiver{answer: answer}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, in *http.Request) {
		if f := r.fault.Load(); f != nil {
			(*f)(w, in)
			return
		}
		body, err := io.ReadAll(in.Body)
		if err != nil {
			return
		}
		r.mu.Lock()
		r.bodies, r.heads = append(r.bodies, body), append(r.heads, in.Header)
		r.mu.Unlock()
		io.WriteString(w, r.answer)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) all() []byte {
	bodies, _ := r.calls()
	return bytes.Join(bodies, nil)
}

// calls are the bodies and headers that were accepted.
func (r *receiver) calls() ([][]byte, []http.Header) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.bodies), slices.Clone(r.heads)
}

func TestStreamToAFile(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	log := audittest.Open(t, db.Pool, clock.System)
	grow(t, log, 40)
	path := filepath.Join(t.TempDir(), "ocsf.ndjson")
	text := "streams:\n  - {name: archive, file: {path: " + path + "}}\n"
	_, stop := begin(t, db.Pool, log, clock.System, outlets(t, text))
	reached(t, db.Pool, "archive")
	grow(t, log, 5)
	reached(t, db.Pool, "archive")
	// Somebody rotates it; somebody else dies in the middle of a line.
	must(t, os.Rename(path, path+".1"))
	grow(t, log, 3)
	reached(t, db.Pool, "archive")
	stop()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteString(`{"metadata":{"seq`)
	must(t, err)
	must(t, f.Close())
	grow(t, log, 3)
	begin(t, db.Pool, log, clock.System, outlets(t, text))
	n := reached(t, db.Pool, "archive")
	first, err := os.ReadFile(path + ".1")
	must(t, err)
	second, err := os.ReadFile(path)
	must(t, err)
	whole(t, sequences(t, append(first, second...)), n)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o007 != 0 {
		t.Errorf("everybody can read it: %v, %v", info.Mode(), err)
	}
	if got := audittest.Leaves(t, log, time.Now(), "stream.started"); len(got) != 1 || !strings.Contains(got[0], "file "+path) {
		t.Errorf("events that the log goes somewhere: %v", got)
	}
}

// A disk that is full takes no half lines, and the log goes on.
func TestStreamToAFullDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	must(t, syscall.Mount("none", dir, "tmpfs", 0, "size=16k"))
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	db := pgtest.New(t)
	log := audittest.Open(t, db.Pool, clock.System)
	grow(t, log, 60)
	path := filepath.Join(dir, "ocsf.ndjson")
	s, _ := begin(t, db.Pool, log, clock.System, outlets(t, "streams: [{name: small, file: {path: "+path+"}}]"))
	eventually(t, "it does not fit", func() bool { return s.Status()[0].Error != "" })
	text, err := os.ReadFile(path)
	must(t, err)
	if len(text) > 0 && text[len(text)-1] != '\n' {
		t.Error("half a line is left")
	}
	grow(t, log, 1)
	must(t, syscall.Mount("none", dir, "tmpfs", syscall.MS_REMOUNT, "size=4m"))
	n := reached(t, db.Pool, "small")
	text, err = os.ReadFile(path)
	must(t, err)
	whole(t, sequences(t, text), n)
}

func TestStreamToAWebhook(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	log := audittest.Open(t, db.Pool, clock.System)
	grow(t, log, 300)
	r := newReceiver(t, "")
	begin(t, db.Pool, log, clock.System, outlets(t, "streams: [{name: siem, webhook: {url: '"+r.URL+"/in', secret_file: %DIR%/secret}}]"))
	n := reached(t, db.Pool, "siem")
	whole(t, sequences(t, r.all()), n)
	key, err := standardwebhooks.Key(secret)
	must(t, err)
	bodies, heads := r.calls()
	for i, h := range heads {
		if want := standardwebhooks.Sign(key, h.Get("Webhook-Id"), h.Get("Webhook-Timestamp"), bodies[i]); h.Get("Webhook-Signature") != want {
			t.Errorf("call %d is not signed", i)
		}
		if at, err := strconv.ParseInt(h.Get("Webhook-Timestamp"), 10, 64); err != nil || time.Since(time.Unix(at, 0)) > time.Minute || h.Get("Content-Type") != "application/x-ndjson" {
			t.Errorf("call %d: %v", i, h)
		}
	}
	if len(bodies) < 2 {
		t.Error("everything came at once")
	}
}

func TestStreamToSplunk(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	log := audittest.Open(t, db.Pool, clock.System)
	grow(t, log, 20)
	r := newReceiver(t, `{"text":"Success","code":0}`)
	begin(t, db.Pool, log, clock.System, outlets(t, "streams: [{name: splunk, splunk: {url: '"+r.URL+"', token_file: %DIR%/token, index: access}}]"))
	n := reached(t, db.Pool, "splunk")
	var documents []byte
	dec := json.NewDecoder(bytes.NewReader(r.all()))
	for dec.More() {
		var e struct {
			Time       float64         `json:"time"`
			SourceType string          `json:"sourcetype"`
			Index      string          `json:"index"`
			Event      json.RawMessage `json:"event"`
		}
		must(t, dec.Decode(&e))
		if e.SourceType != "sallyport:ocsf" || e.Index != "access" || time.Since(time.UnixMilli(int64(e.Time*1000))) > time.Hour {
			t.Fatalf("%+v", e)
		}
		documents = append(append(documents, e.Event...), '\n')
	}
	whole(t, sequences(t, documents), n)
	if _, heads := r.calls(); heads[0].Get("Authorization") != "Splunk 11111111-2222-3333-4444-555555555555" {
		t.Errorf("%v", heads[0])
	}
}

// Whatever a receiver does, it gets everything in the end, and the log does not wait.
func TestReceiversThatFail(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]http.HandlerFunc{
		"503": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) },
		"403": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) },
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusTemporaryRedirect)
		},
		"hangs up":   func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) },
		"not code 0": func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"text":"busy","code":9}`) },
		"a web page": func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>sign in</html>") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			log := audittest.Open(t, db.Pool, clock.System)
			r := newReceiver(t, `{"code":0}`)
			r.fault.Store(&fault)
			s, _ := begin(t, db.Pool, log, clock.System, outlets(t, "streams: [{name: x, splunk: {url: '"+r.URL+"', token_file: %DIR%/token}}]"))
			eventually(t, "it fails", func() bool { return s.Status()[0].Error != "" })
			if said := s.Status()[0].Error; strings.Contains(said, "11111111") {
				t.Errorf("the token is told: %s", said)
			}
			grow(t, log, 10)
			r.fault.Store(nil)
			reached(t, db.Pool, "x")
		})
	}
}

// A receiver that wants less at once gets less.
func TestReceiverThatWantsSmallBatches(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	log := audittest.Open(t, db.Pool, clock.System)
	grow(t, log, 120)
	r := newReceiver(t, "")
	small := http.HandlerFunc(func(w http.ResponseWriter, in *http.Request) {
		body, _ := io.ReadAll(in.Body)
		if bytes.Count(body, []byte("\n")) > 10 {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.bodies = append(r.bodies, body)
	})
	r.fault.Store(&small)
	begin(t, db.Pool, log, clock.System, outlets(t, "streams: [{name: x, webhook: {url: '"+r.URL+"', secret_file: %DIR%/secret}}]"))
	n := reached(t, db.Pool, "x")
	whole(t, sequences(t, r.all()), n)
}

func TestAStreamThatLagsIsAnEvent(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	now := clock.NewManual(time.Now())
	log := audittest.Open(t, db.Pool, now)
	r := newReceiver(t, "")
	down := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	r.fault.Store(&down)
	s, _ := begin(t, db.Pool, log, now, outlets(t, "streams: [{name: x, webhook: {url: '"+r.URL+"', secret_file: %DIR%/secret}}]"))
	eventually(t, "it fails", func() bool { return s.Status()[0].Error != "" })
	now.Advance(stream.LagAlarm)
	eventually(t, "the alarm", func() bool { return len(audittest.Leaves(t, log, now.Now(), "stream.lagging")) == 1 })
	r.fault.Store(nil)
	eventually(t, "it is back", func() bool { return len(audittest.Leaves(t, log, now.Now(), "stream.caught_up")) == 1 })
}

// Two brokers, one stream: one of them sends, and the other takes over.
func TestOneBrokerSendsAStream(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	log := audittest.Open(t, db.Pool, clock.System)
	r := newReceiver(t, "")
	to := "streams: [{name: x, webhook: {url: '" + r.URL + "', secret_file: %DIR%/secret}}]"
	one, stopOne := begin(t, db.Pool, log, clock.System, outlets(t, to))
	eventually(t, "the first one has it", func() bool { return one.Status()[0].Held })
	two, _ := begin(t, db.Pool, log, clock.System, outlets(t, to))
	grow(t, log, 100)
	n := reached(t, db.Pool, "x")
	if got := sequences(t, r.all()); int64(len(got)) != n || two.Status()[0].Held {
		t.Errorf("%d documents for %d entries", len(got), n)
	}
	stopOne()
	grow(t, log, 10)
	n = reached(t, db.Pool, "x")
	if !two.Status()[0].Held {
		t.Error("nobody took over")
	}
	whole(t, sequences(t, r.all()), n)
}

// Killed again and again while it sends: nothing is missing.
func TestStreamKilledAgainAndAgain(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	skey, vkey, err := note.GenerateKey(rand.Reader, "sallyport.example.com/log")
	must(t, err)
	log, err := openLog(db.Pool, skey, vkey)
	must(t, err)
	audittest.Run(t, log.Run)
	path := filepath.Join(t.TempDir(), "ocsf.ndjson")
	must(t, os.WriteFile(path, nil, 0o600))
	admin, err := pgx.Connect(t.Context(), db.AdminURL)
	must(t, err)
	defer admin.Close(context.Background())
	var grown sync.WaitGroup
	grown.Go(func() { grow(t, log, 400) })
	for round := range 8 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "SALLYPORT_TEST_STREAM="+path, "SALLYPORT_TEST_DB="+db.URL+"&application_name=killed", "SALLYPORT_TEST_KEY="+skey, "SALLYPORT_TEST_VKEY="+vkey)
		cmd.Stderr = os.Stderr
		must(t, cmd.Start())
		before, err := os.Stat(path)
		must(t, err)
		eventually(t, fmt.Sprintf("round %d sends", round), func() bool {
			now, err := os.Stat(path)
			return err == nil && (now.Size() > before.Size() || round > 5)
		})
		must(t, cmd.Process.Kill())
		cmd.Wait()
		// A minute later, and whatever it had sent to the database has been done or not.
		_, err = admin.Exec(t.Context(), `SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = 'killed'`)
		must(t, err)
		_, err = admin.Exec(t.Context(), `UPDATE log_streams SET held_until = '-infinity'`)
		must(t, err)
	}
	grown.Wait()
	begin(t, db.Pool, log, clock.System, outlets(t, "streams: [{name: x, file: {path: "+path+"}}]"))
	n := reached(t, db.Pool, "x")
	text, err := os.ReadFile(path)
	must(t, err)
	whole(t, sequences(t, text), n)
}

// child sends the log to a file until it is killed.
func child(path string) {
	pool, err := pgxpool.New(context.Background(), os.Getenv("SALLYPORT_TEST_DB"))
	if err == nil {
		err = send(pool, path)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func openLog(pool *pgxpool.Pool, skey, vkey string) (*audit.Log, error) {
	signer, err := note.NewSigner(skey)
	if err != nil {
		return nil, err
	}
	return audit.Open(context.Background(), audit.Config{Pool: pool, Signer: signer, VerifierKey: vkey, Clock: clock.System})
}

func send(pool *pgxpool.Pool, path string) error {
	log, err := openLog(pool, os.Getenv("SALLYPORT_TEST_KEY"), os.Getenv("SALLYPORT_TEST_VKEY"))
	if err != nil {
		return err
	}
	to, err := stream.Parse([]byte("streams: [{name: x, file: {path: "+path+"}}]"), clock.System)
	if err != nil {
		return err
	}
	s, err := stream.New(stream.Config{Pool: pool, Log: log, Clock: clock.System, Logger: quiet, Outlets: to})
	if err != nil {
		return err
	}
	return errors.Join(s.Run(context.Background()), errors.New("it ended"))
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open := filepath.Join(dir, "open")
	must(t, os.WriteFile(open, []byte(secret), 0o644))
	good := filepath.Join(dir, "good")
	must(t, os.WriteFile(good, []byte(secret), 0o600))
	weak := filepath.Join(dir, "weak")
	must(t, os.WriteFile(weak, []byte("whsec_c2hvcnQ="), 0o600))
	for name, text := range map[string]string{
		"nothing":          "",
		"no streams":       "streams: []",
		"unknown key":      "streams: [{name: x, file: {path: /tmp/x}, colour: red}]",
		"no kind":          "streams: [{name: x}]",
		"two kinds":        "streams: [{name: x, file: {path: /tmp/x}, webhook: {url: 'https://x.example', secret_file: " + good + "}}]",
		"twice":            "streams: [{name: x, file: {path: /tmp/x}}, {name: x, file: {path: /tmp/y}}]",
		"bad name":         "streams: [{name: 'X y', file: {path: /tmp/x}}]",
		"relative path":    "streams: [{name: x, file: {path: x}}]",
		"no folder":        "streams: [{name: x, file: {path: /nonexistent/x}}]",
		"http":             "streams: [{name: x, webhook: {url: 'http://siem.example', secret_file: " + good + "}}]",
		"password in url":  "streams: [{name: x, webhook: {url: 'https://a:b@siem.example', secret_file: " + good + "}}]",
		"secret in query":  "streams: [{name: x, webhook: {url: 'https://siem.example?key=x', secret_file: " + good + "}}]",
		"no secret":        "streams: [{name: x, webhook: {url: 'https://siem.example'}}]",
		"secret not there": "streams: [{name: x, webhook: {url: 'https://siem.example', secret_file: /nonexistent}}]",
		"readable by all":  "streams: [{name: x, webhook: {url: 'https://siem.example', secret_file: " + open + "}}]",
		"weak secret":      "streams: [{name: x, webhook: {url: 'https://siem.example', secret_file: " + weak + "}}]",
		"no token":         "streams: [{name: x, splunk: {url: 'https://splunk.example'}}]",
		"CA that is none":  "streams: [{name: x, splunk: {url: 'https://splunk.example', token_file: " + good + ", ca_file: " + good + "}}]",
		"too many":         "streams:\n" + strings.Repeat("  - {name: x, file: {path: /tmp/x}}\n", 17),
		"too large":        "# " + strings.Repeat("x", 1<<17),
		"not YAML":         "streams: [",
	} {
		if out, err := stream.Parse([]byte(text), clock.System); err == nil {
			t.Errorf("%s: %+v", name, out)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("%s: the secret is in the error: %v", name, err)
		}
	}
}
