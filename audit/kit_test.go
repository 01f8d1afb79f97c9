package audit_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"sallyport/audit"
	"sallyport/audit/event"
	"sallyport/internal/clock"
	"sallyport/internal/pgtest"
)

func TestMain(m *testing.M) {
	if url := os.Getenv(childURL); url != "" {
		child(url)
		return
	}
	os.Exit(pgtest.Main(m))
}

// keys are one log's key.
type keys struct {
	signer   note.Signer
	skey     string
	vkey     string
	verifier note.Verifier
}

func newKeys(t testing.TB, origin string) keys {
	t.Helper()
	skey, vkey, err := note.GenerateKey(rand.Reader, origin)
	if err != nil {
		t.Fatal(err)
	}
	k, err := keysOf(skey, vkey)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func keysOf(skey, vkey string) (keys, error) {
	signer, err := note.NewSigner(skey)
	if err != nil {
		return keys{}, err
	}
	verifier, err := note.NewVerifier(vkey)
	return keys{signer, skey, vkey, verifier}, err
}

func config(pool *pgxpool.Pool, k keys) audit.Config {
	return audit.Config{Pool: pool, Signer: k.signer, VerifierKey: k.vkey, Clock: clock.System}
}

func open(t testing.TB, cfg audit.Config) *audit.Log {
	t.Helper()
	l, err := audit.Open(t.Context(), cfg)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return l
}

// run runs the log's sequencer until the test ends or stop is called.
func run(t testing.TB, l *audit.Log) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := l.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return stop
}

// start gives a database with an open, running log, which is checked entirely
// when the test ends.
func start(t testing.TB) (*audit.Log, *pgtest.DB, keys) {
	t.Helper()
	db, k := pgtest.New(t), newKeys(t, "log.example.com")
	l := open(t, config(db.Pool, k))
	t.Cleanup(func() { checkAll(t, db.Pool, k) })
	run(t, l)
	return l, db, k
}

// checkAll verifies the whole log and returns its tree.
func checkAll(t testing.TB, pool *pgxpool.Pool, k keys) tlog.Tree {
	t.Helper()
	tree, err := audit.CheckAll(context.Background(), pool, k.verifier)
	if err != nil {
		t.Errorf("CheckAll: %v", err)
	}
	return tree
}

var at = time.Date(2026, 3, 4, 5, 6, 7, 890_000_000, time.UTC)

// closed is some event, about the request.
func closed(request string) event.Event {
	return event.New(at, event.Actor{Kind: event.Broker}, "", event.Subject{RequestID: request},
		event.RequestClosed{State: "expired"})
}

func record(t testing.TB, l *audit.Log, n int) []audit.Entry {
	t.Helper()
	events := make([]event.Event, n)
	for i := range events {
		events[i] = closed(fmt.Sprintf("req-%d", i))
	}
	entries, err := l.Record(t.Context(), events...)
	if err != nil {
		t.Fatalf("Record: %v", err)
	}
	return entries
}

// stage stages events in a transaction of their own.
func stage(ctx context.Context, pool *pgxpool.Pool, l *audit.Log, events ...event.Event) error {
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error { return l.Stage(ctx, tx, events...) })
}

// connect connects as somebody else than the broker.
func connect(t testing.TB, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func execute(t testing.TB, conn *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// eventually polls until ok, or fails the test.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func stateFile(t testing.TB) string { return filepath.Join(t.TempDir(), "checkpoint") }
