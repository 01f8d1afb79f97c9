package evidence_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/mod/sumdb/note"

	"sallyport/approvals"
	"sallyport/audit"
	"sallyport/audit/event"
	"sallyport/audit/stream"
	"sallyport/evidence"
	"sallyport/internal/audittest"
	"sallyport/internal/clock"
	"sallyport/internal/pgtest"
)

func TestMain(m *testing.M) {
	if os.Getenv(childURL) != "" {
		child()
		return
	}
	os.Exit(pgtest.Main(m))
}

// width of the partitions of these tests' logs.
const width = 256

// began is when the oldest entries happened, and now is long after that.
var (
	began = time.Date(2026, 1, 5, 9, 0, 0, 0, time.UTC)
	now   = began.AddDate(1, 0, 0)
)

// store is a log with old entries.
type store struct {
	t     testing.TB
	db    *pgtest.DB
	key   audittest.Key
	skey  string // for another process
	log   *audit.Log
	clock *clock.Manual
	dir   string // of archives
	old   []audit.Entry
}

// newStore is a log of n entries from the beginning on, a second apart, with planted ones
// in the middle, and one of now.
func newStore(t testing.TB, n int, planted ...event.Event) *store {
	t.Helper()
	db := pgtest.New(t)
	audittest.Partitions(t, db.AdminURL, width)
	skey, vkey, err := note.GenerateKey(nil, "sallyport.example.com/log")
	must(t, err)
	signer, err := note.NewSigner(skey)
	must(t, err)
	s := &store{t: t, db: db, key: audittest.Key{Signer: signer, Verifier: vkey}, skey: skey, clock: clock.NewManual(now), dir: t.TempDir()}
	s.log, err = audit.Open(t.Context(), audit.Config{Pool: db.Pool, Signer: signer, VerifierKey: vkey, Clock: clock.System})
	must(t, err)
	audittest.Run(t, s.log.Run)
	s.old = s.record(slices.Insert(s.older(n), n/2, planted...)...)
	s.record(closed("req-now", now))
	return s
}

// older are n events from the beginning on, a second apart.
func (s *store) older(n int) (events []event.Event) {
	for i := range n {
		events = append(events, closed(fmt.Sprintf("req-%d", i), began.Add(time.Duration(i)*time.Second)))
	}
	return events
}

func closed(request string, at time.Time) event.Event {
	return event.New(at, event.Actor{Kind: event.Broker}, "", event.Subject{RequestID: request}, event.RequestClosed{State: "expired"})
}

// record records events, a few at a time, so that there are partitions for them.
func (s *store) record(events ...event.Event) (out []audit.Entry) {
	s.t.Helper()
	for chunk := range slices.Chunk(events, 2*width) {
		_, err := s.db.Pool.Exec(s.t.Context(), `SELECT audit.extend()`)
		must(s.t, err)
		entries, err := s.log.Record(s.t.Context(), chunk...)
		must(s.t, err)
		out = append(out, entries...)
	}
	return out
}

// admin is a connection as the database's administrator.
func (s *store) admin() *pgx.Conn {
	s.t.Helper()
	conn, err := pgx.Connect(s.t.Context(), s.db.AdminURL)
	must(s.t, err)
	s.t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func (s *store) exec(sql string, args ...any) {
	s.t.Helper()
	_, err := s.admin().Exec(s.t.Context(), sql, args...)
	must(s.t, err)
}

func (s *store) cursors(ctx context.Context) ([]stream.Cursor, error) {
	return stream.Cursors(ctx, s.db.Pool)
}

// config is for a pruner with the newest checkpoint.
func (s *store) config() evidence.PrunerConfig {
	s.t.Helper()
	head, err := s.log.Checkpoint(s.t.Context())
	must(s.t, err)
	return evidence.PrunerConfig{Log: s.log, Needs: approvals.Kept{Pool: s.db.Pool, Log: s.log},
		Streams: s.cursors, Admin: s.admin(), Clock: s.clock,
		Dir: s.dir, Version: "test", By: "root as postgres", MinAge: evidence.StandardMinAge, Checkpoint: head}
}

func (s *store) pruner(change func(*evidence.PrunerConfig)) *evidence.Pruner {
	s.t.Helper()
	cfg := s.config()
	if change != nil {
		change(&cfg)
	}
	p, err := evidence.NewPruner(s.t.Context(), cfg)
	must(s.t, err)
	return p
}

// prune prunes what is before the index, which must succeed.
func (s *store) prune(before int64) evidence.Plan {
	s.t.Helper()
	plan, err := s.pruner(nil).Prune(s.t.Context(), evidence.Until{Index: before})
	must(s.t, err)
	return plan
}

// check verifies the whole log in the database.
func (s *store) check() error {
	s.t.Helper()
	return checkAll(s.t, s.db.Pool, s.key)
}

func checkAll(t testing.TB, pool *pgxpool.Pool, key audittest.Key) error {
	t.Helper()
	verifier, err := note.NewVerifier(key.Verifier)
	must(t, err)
	_, err = audit.CheckAll(context.Background(), pool, verifier)
	return err
}

func (s *store) oldest() int64 {
	s.t.Helper()
	n, err := s.log.Oldest(s.t.Context())
	must(s.t, err)
	return n
}

func (s *store) count(sql string) (n int) {
	s.t.Helper()
	must(s.t, s.db.Pool.QueryRow(s.t.Context(), sql).Scan(&n))
	return n
}

// archives are the files in the folder of archives.
func (s *store) archives() []string {
	s.t.Helper()
	list, err := filepath.Glob(filepath.Join(s.dir, "*"))
	must(s.t, err)
	return list
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
