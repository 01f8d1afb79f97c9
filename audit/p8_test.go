package audit_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"sallyport/audit"
	"sallyport/audit/event"
	"sallyport/internal/pgtest"
)

// places collects what Record promised, and compares it with the log.
type places struct {
	mu     sync.Mutex
	byID   map[uuid.UUID]int64
	byLeaf map[int64]string
}

func (p *places) add(t testing.TB, entries []audit.Entry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.byID == nil {
		p.byID, p.byLeaf = make(map[uuid.UUID]int64), make(map[int64]string)
	}
	for _, e := range entries {
		if old, ok := p.byLeaf[e.Index]; ok && old != string(e.Leaf) {
			t.Errorf("two events were given index %d", e.Index)
		}
		p.byID[e.ID], p.byLeaf[e.Index] = e.Index, string(e.Leaf)
	}
}

// check verifies the whole log: it has exactly the events, each at the index
// that was promised.
func (p *places) check(t testing.TB, pool *pgxpool.Pool, k keys) {
	t.Helper()
	tree := checkAll(t, pool, k)
	if int64(len(p.byID)) != tree.N || int64(len(p.byLeaf)) != tree.N {
		t.Errorf("the log has %d entries, but %d events at %d indexes were promised", tree.N, len(p.byID), len(p.byLeaf))
	}
	rows, err := pool.Query(context.Background(), "SELECT index, leaf FROM audit.entries")
	if err != nil {
		t.Fatal(err)
	}
	var (
		index int64
		leaf  []byte
	)
	_, err = pgx.ForEachRow(rows, []any{&index, &leaf}, func() error {
		if p.byLeaf[index] != string(leaf) {
			t.Errorf("entry %d is not what was promised", index)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var waiting int
	if err := pool.QueryRow(context.Background(), "SELECT count(*) FROM audit.pending").Scan(&waiting); err != nil || waiting != 0 {
		t.Errorf("%d events still wait (%v)", waiting, err)
	}
}

// recordUntilDone records events as a caller does who retries.
func recordUntilDone(t testing.TB, l *audit.Log, promised *places, events ...event.Event) {
	for deadline := time.Now().Add(60 * time.Second); ; {
		entries, err := l.Record(context.Background(), events...)
		if err == nil {
			promised.add(t, entries)
			return
		}
		if !errors.Is(err, audit.ErrUnavailable) {
			t.Errorf("Record: %v", err)
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("Record never succeeded: %v", err)
			return
		}
	}
}

func TestP8_GapFreeUnderReplicasAndFaults(t *testing.T) {
	t.Parallel()
	const replicas, writers, rounds = 4, 64, 6
	db, k := pgtest.New(t), newKeys(t, "log.example.com")
	admin := connect(t, db.AdminURL)
	var adminMu sync.Mutex
	var faults atomic.Int64
	var logs []*audit.Log
	for range replicas {
		pool, err := pgxpool.New(t.Context(), db.URL)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(pool.Close)
		cfg := config(pool, k)
		cfg.StateFile = stateFile(t)
		cfg.Fault = func(step string) error {
			switch rand.IntN(12) {
			case 0: // failed and not persisted; at "committed", failed but persisted
				faults.Add(1)
				return errors.New("fault before " + step)
			case 1: // the server drops every sequencer that is between two statements
				adminMu.Lock()
				defer adminMu.Unlock()
				faults.Add(1)
				_, err := admin.Exec(context.Background(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
					WHERE datname = current_database() AND pid <> pg_backend_pid()
						AND state = 'idle in transaction' AND query LIKE '%audit.%'`)
				return err
			}
			return nil
		}
		logs = append(logs, open(t, cfg))
	}
	var stops []func()
	for _, l := range logs {
		stops = append(stops, run(t, l))
	}

	var promised places
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for r := range rounds {
				events := []event.Event{closed(fmt.Sprintf("req-%d-%d", w, r))}
				for range rand.IntN(3) {
					events = append(events, closed(fmt.Sprintf("req-%d-%d", w, r)))
				}
				recordUntilDone(t, logs[(w+r)%replicas], &promised, events...)
			}
		})
	}
	wg.Wait()
	for _, stop := range stops {
		stop()
	}
	if faults.Load() == 0 {
		t.Error("no fault was injected")
	}
	promised.check(t, db.Pool, k)
}

// "Failed but persisted" and "failed and not persisted", one at a time.
func TestP8_ACommitOfUnknownOutcome(t *testing.T) {
	t.Parallel()
	for _, step := range steps {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			db, k := pgtest.New(t), newKeys(t, "log.example.com")
			cfg := config(db.Pool, k)
			var failed atomic.Bool
			cfg.Fault = func(at string) error {
				if at == step && !failed.Swap(true) {
					return errors.New("the connection broke")
				}
				return nil
			}
			l := open(t, cfg)
			run(t, l)
			for i, e := range append(record(t, l, 3), record(t, l, 2)...) {
				if e.Index != int64(i) {
					t.Errorf("event %d has index %d", i, e.Index)
				}
			}
			if !failed.Load() {
				t.Error("the step was never reached")
			}
			if tree := checkAll(t, db.Pool, k); tree.N != 5 {
				t.Errorf("the log has %d entries, want 5", tree.N)
			}
		})
	}
}

func TestP8_GapFreeWhenPostgresIsKilled(t *testing.T) {
	t.Parallel()
	const writers = 16
	cluster, db := pgtest.NewCluster(t, true)
	k := newKeys(t, "log.example.com")
	var pools []*pgxpool.Pool
	var logs []*audit.Log
	for range 2 {
		pool, err := pgxpool.New(t.Context(), db.URL)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(pool.Close)
		l := open(t, config(pool, k))
		run(t, l)
		pools, logs = append(pools, pool), append(logs, l)
	}

	var promised places
	var count atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					recordUntilDone(t, logs[w%2], &promised, closed("req-1"), closed("req-2"))
					count.Add(2)
				}
			}
		})
	}
	for range 3 {
		seen := count.Load()
		eventually(t, "events are recorded", func() bool { return count.Load() > seen+100 })
		cluster.Kill()
		if err := logs[0].Healthy(t.Context()); !errors.Is(err, audit.ErrUnavailable) {
			t.Errorf("Healthy without a database: %v", err)
		}
		if err := cluster.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	seen := count.Load()
	eventually(t, "events are recorded again", func() bool { return count.Load() > seen+100 })
	close(stop)
	wg.Wait()
	eventually(t, "the log is healthy", func() bool { return logs[0].Healthy(t.Context()) == nil })
	promised.check(t, pools[0], k)
}

// A replica's event may be sequenced by another one before its caller waits, or
// while its own sequencer fails.
func TestP8_WaitForWhatAnotherReplicaSequenced(t *testing.T) {
	t.Parallel()
	db, k := pgtest.New(t), newKeys(t, "log.example.com")
	here, there := open(t, config(db.Pool, k)), open(t, config(db.Pool, k))
	run(t, there)
	e := closed("req-1")
	if err := stage(t.Context(), db.Pool, here, e); err != nil {
		t.Fatal(err)
	}
	// Nobody kicks the other replica: it looks for orphans by itself.
	eventually(t, "the other replica sequences the orphan", func() bool {
		_, err := there.Entry(t.Context(), 0)
		return err == nil
	})
	run(t, here)
	entries, err := here.Wait(t.Context(), e.ID)
	if err != nil || entries[0].Index != 0 {
		t.Errorf("Wait: %v, %v", entries, err)
	}
	if entries = record(t, here, 1); entries[0].Index != 1 {
		t.Errorf("next index %d", entries[0].Index)
	}
	if entries = record(t, there, 1); entries[0].Index != 2 {
		t.Errorf("next index %d", entries[0].Index)
	}
	checkAll(t, db.Pool, k)
}

func TestP8_MoreThanOneBatch(t *testing.T) {
	t.Parallel()
	l, db, k := start(t)
	events := make([]event.Event, 4096+7)
	ids := make([]uuid.UUID, len(events))
	for i := range events {
		events[i] = closed("req-1")
		ids[i] = events[i].ID
	}
	if err := stage(t.Context(), db.Pool, l, events...); err != nil {
		t.Fatal(err)
	}
	entries, err := l.Wait(t.Context(), ids...)
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range entries {
		if e.Index != int64(i) || e.ID != ids[i] {
			t.Fatalf("event %d is entry %d", i, e.Index)
		}
	}
	if tree := checkAll(t, db.Pool, k); tree.N != int64(len(events)) {
		t.Errorf("the log has %d entries", tree.N)
	}
}

// A caller who gives up does not take the event back, nor disturb others.
func TestWaitEndsWithItsContext(t *testing.T) {
	t.Parallel()
	db, k := pgtest.New(t), newKeys(t, "log.example.com")
	l := open(t, config(db.Pool, k))
	e := closed("req-1")
	if err := stage(t.Context(), db.Pool, l, e); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Wait(ctx, e.ID); !errors.Is(err, audit.ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("Wait: %v", err)
	}
	run(t, l)
	if _, err := l.Wait(t.Context(), e.ID); err != nil {
		t.Error(err)
	}
}
