package witness_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/audit"
	"sallyport/audit/cosignature"
	"sallyport/audit/event"
	"sallyport/audit/witness"
	"sallyport/internal/audittest"
	"sallyport/internal/clock"
	"sallyport/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var quiet = slog.New(slog.DiscardHandler)

// ledger is a log of its own database, with a key that others may have too.
type ledger struct {
	*audit.Log
	db  *pgtest.DB
	key audittest.Key
}

func newLedger(t *testing.T, key audittest.Key) *ledger {
	t.Helper()
	l := &ledger{db: pgtest.New(t), key: key}
	l.Log = l.open(t)
	return l
}

// open is another process on the same database, that remembers nothing.
func (l *ledger) open(t *testing.T) *audit.Log {
	t.Helper()
	log, err := audit.Open(t.Context(), audit.Config{Pool: l.db.Pool, Signer: l.key.Signer, VerifierKey: l.key.Verifier, Clock: clock.System})
	must(t, err)
	audittest.Run(t, log.Run)
	return log
}

// grow adds events.
func (l *ledger) grow(t *testing.T, n int) {
	t.Helper()
	for range n {
		e := event.New(time.Now(), event.Actor{Kind: event.Broker}, "", event.Subject{}, event.KeysLoaded{})
		_, err := l.Record(t.Context(), e)
		must(t, err)
	}
}

// size of the log.
func (l *ledger) size(t *testing.T) int64 {
	t.Helper()
	var n int64
	must(t, l.db.Pool.QueryRow(t.Context(), `SELECT size FROM audit.head`).Scan(&n))
	return n
}

// superuser is a connection that no trigger refuses.
func (l *ledger) superuser(t *testing.T) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), l.db.AdminURL)
	must(t, err)
	t.Cleanup(func() { conn.Close(context.Background()) })
	for _, table := range []string{"entries", "hashes", "head", "pending"} {
		_, err := conn.Exec(t.Context(), `ALTER TABLE audit.`+table+` DISABLE TRIGGER ALL`)
		must(t, err)
	}
	return conn
}

// post is a witness that listens.
type post struct {
	*witness.Witness
	key, line, state string
	server           *httptest.Server
}

// newPost starts a witness of the logs; state is its file, or empty for a new one.
func newPost(t *testing.T, name, state string, logs ...string) *post {
	t.Helper()
	if state == "" {
		state = filepath.Join(t.TempDir(), "witness.json")
	}
	private, public, err := cosignature.NewKey(name)
	must(t, err)
	w, err := witness.New(witness.Config{Key: private, Logs: logs, State: state, Clock: clock.System, Logger: quiet})
	must(t, err)
	t.Cleanup(func() { w.Close() })
	p := &post{Witness: w, key: public, state: state, server: httptest.NewServer(w)}
	t.Cleanup(p.server.Close)
	p.line = fmt.Sprintf("witness %s %s %s\n", name, public, p.server.URL)
	return p
}

// policy is one of the lines, with the quorum.
func policy(t *testing.T, key audittest.Key, lines string) *cosignature.Policy {
	t.Helper()
	p, err := cosignature.ParsePolicy([]byte("log " + key.Verifier + "\n" + lines))
	must(t, err)
	return p
}

func newAsker(t *testing.T, log *audit.Log, p *cosignature.Policy, change ...func(*witness.AskerConfig)) *witness.Asker {
	t.Helper()
	cfg := witness.AskerConfig{Log: log, Policy: p, Clock: clock.System, Logger: quiet}
	for _, f := range change {
		f(&cfg)
	}
	a, err := witness.NewAsker(cfg)
	must(t, err)
	return a
}

// call posts a body and returns status, content type and answer.
func call(t *testing.T, url string, body []byte) (int, string, string) {
	t.Helper()
	answer, err := http.Post(url+"/add-checkpoint", "text/plain", bytes.NewReader(body))
	must(t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	must(t, err)
	return answer.StatusCode, answer.Header.Get("Content-Type"), string(text)
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func quorumOf(p *post) string { return p.line + "quorum " + strings.Fields(p.line)[1] + "\n" }
