// Package audittest has a running log for the tests of the rooms above it.
package audittest

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/mod/sumdb/note"

	"sallyport/audit"
	"sallyport/audit/event"
	"sallyport/internal/clock"
)

// Key is a log's key.
type Key struct {
	Signer   note.Signer
	Verifier string // in note format
}

// NewKey makes the key of a new log.
func NewKey(t testing.TB) Key {
	t.Helper()
	signing, verifying, err := note.GenerateKey(rand.Reader, "sallyport.example.com/log")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(signing)
	if err != nil {
		t.Fatal(err)
	}
	return Key{signer, verifying}
}

// Open begins a log with a key of its own, which is sequenced until the test ends.
func Open(t testing.TB, pool *pgxpool.Pool, c clock.Clock) *audit.Log {
	t.Helper()
	key := NewKey(t)
	Complete(t, pool)
	log, err := audit.Open(t.Context(), audit.Config{Pool: pool, Signer: key.Signer, VerifierKey: key.Verifier, Clock: c})
	if err != nil {
		t.Fatalf("opening the log: %v", err)
	}
	Run(t, log.Run)
	return log
}

// Complete makes the test fail in the end if an event lacks what its type must have:
// see event.Circumstances. It belongs after the database is made, and before what
// writes to the log is started. A database that is gone by then has nothing to check.
func Complete(t testing.TB, pool *pgxpool.Pool) {
	t.Cleanup(func() {
		rows, err := pool.Query(context.Background(), "SELECT leaf FROM audit.entries UNION ALL SELECT leaf FROM audit.pending")
		if err != nil {
			t.Logf("reading the log in the end: %v", err)
			return
		}
		leaves, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
		if err != nil {
			t.Errorf("reading the log in the end: %v", err)
		}
		for _, leaf := range leaves {
			e, err := event.Decode(leaf)
			if err == nil {
				err = e.Complete()
			}
			if err != nil {
				t.Errorf("%v", err)
			}
		}
	})
}

// Run keeps something running until the test ends, which fails if it gives up.
func Run(t testing.TB, run func(context.Context) error) {
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := run(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("running: %v", err)
		}
	}()
	t.Cleanup(func() { stop(); <-done })
}

// Leaves are the events of a type that were committed until now, newest first,
// as they stand in the log. An event more, at the time now, marks the end.
func Leaves(t testing.TB, log *audit.Log, now time.Time, eventType string) []string {
	t.Helper()
	marker := event.New(now, event.Actor{Kind: event.Broker}, "", event.Subject{}, event.KeysLoaded{})
	if _, err := log.Record(t.Context(), marker); err != nil {
		t.Fatal(err)
	}
	entries, err := log.Entries(t.Context(), audit.Filter{Type: eventType, Limit: 200})
	if err != nil {
		t.Fatal(err)
	}
	leaves := make([]string, len(entries))
	for i, e := range entries {
		leaves[i] = string(e.Leaf)
	}
	return leaves
}

// Events are all of a type, oldest first, when nothing waits for its place any more.
func Events(t testing.TB, pool *pgxpool.Pool, log *audit.Log, eventType string) (list []event.Event) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(2 * time.Millisecond) {
		var waits int
		if err := pool.QueryRow(t.Context(), `SELECT count(*) FROM audit.pending`).Scan(&waits); err != nil {
			t.Fatal(err)
		}
		if waits == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d events wait for their place in vain", waits)
		}
	}
	for filter := (audit.Filter{Type: eventType, Limit: 200}); ; {
		entries, err := log.Entries(t.Context(), filter)
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range entries {
			e, err := entry.Event()
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, e)
			filter.Before = entry.Index
		}
		if len(entries) < filter.Limit || filter.Before == 0 {
			slices.Reverse(list)
			return list
		}
	}
}
