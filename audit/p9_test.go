package audit_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/audit"
	"sallyport/audit/event"
	"sallyport/internal/clock"
	"sallyport/internal/pgtest"
)

// backup remembers the log's state now and returns how to bring it back, as a
// restore of the whole database does.
func backup(t *testing.T, db *pgtest.DB) (restore func()) {
	t.Helper()
	conn := connect(t, db.AdminURL)
	tables := []string{"entries", "event_ids", "hashes", "head"}
	for _, table := range tables {
		execute(t, conn, "CREATE TEMP TABLE old_"+table+" AS SELECT * FROM audit."+table)
	}
	return func() {
		t.Helper()
		err := pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
			for _, table := range append(tables, "pending") {
				if _, err := tx.Exec(t.Context(), "ALTER TABLE audit."+table+" DISABLE TRIGGER USER; DELETE FROM audit."+table); err != nil {
					return err
				}
			}
			for _, table := range tables {
				if _, err := tx.Exec(t.Context(), "INSERT INTO audit."+table+" SELECT * FROM old_"+table); err != nil {
					return err
				}
			}
			for _, table := range append(tables, "pending") {
				if _, err := tx.Exec(t.Context(), "ALTER TABLE audit."+table+" ENABLE TRIGGER USER"); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// closedLog checks that the log takes nothing and says nothing.
func closedLog(t *testing.T, l *audit.Log, db *pgtest.DB, want error) {
	t.Helper()
	e := closed("req-too-late")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := l.Healthy(ctx); !errors.Is(err, want) {
		t.Errorf("Healthy: %v", err)
	}
	if err := stage(ctx, db.Pool, l, e); !errors.Is(err, want) {
		t.Errorf("Stage: %v", err)
	}
	if _, err := l.Wait(ctx, e.ID); !errors.Is(err, want) {
		t.Errorf("Wait: %v", err)
	}
	if _, err := l.Record(ctx, e); !errors.Is(err, want) {
		t.Errorf("Record: %v", err)
	}
	if _, err := l.Checkpoint(ctx); !errors.Is(err, want) {
		t.Errorf("Checkpoint: %v", err)
	}
	if _, err := l.Receipt(ctx, 0); !errors.Is(err, want) {
		t.Errorf("Receipt: %v", err)
	}
	if _, err := l.Tile(ctx, "0/000.p/1"); !errors.Is(err, want) {
		t.Errorf("Tile: %v", err)
	}
}

func TestP9_ARestoredOlderStateIsNoticed(t *testing.T) {
	t.Parallel()
	db, k := pgtest.New(t), newKeys(t, "log.example.com")
	cfg := config(db.Pool, k)
	cfg.StateFile = stateFile(t)
	l := open(t, cfg)
	stop := run(t, l)
	record(t, l, 3)
	older := backup(t, db)
	record(t, l, 2)
	newer := backup(t, db)

	older()
	eventually(t, "the log is refused", func() bool { return l.Healthy(t.Context()) != nil })
	closedLog(t, l, db, audit.ErrBehind)
	stop()
	if kept, err := os.ReadFile(cfg.StateFile); err != nil || !strings.HasPrefix(string(kept), "log.example.com\n5\n") {
		t.Errorf("the last known checkpoint is %q, %v", kept, err)
	}
	if _, err := audit.Open(t.Context(), cfg); !errors.Is(err, audit.ErrBehind) {
		t.Errorf("Open after a restart: %v", err)
	}

	// Another replica that knows nothing goes on with the older state: now the
	// log is as long as it was, and longer, but another one.
	ignorant := open(t, config(db.Pool, k))
	stopIgnorant := run(t, ignorant)
	for _, n := range []int{2, 4} {
		record(t, ignorant, n)
		closedLog(t, l, db, audit.ErrBehind)
		if _, err := audit.Open(t.Context(), cfg); !errors.Is(err, audit.ErrBehind) {
			t.Errorf("Open on a fork: %v", err)
		}
	}
	stopIgnorant()

	newer()
	run(t, l)
	eventually(t, "the log to be well with its newest state", func() bool { return l.Healthy(t.Context()) == nil })
	if entries := record(t, l, 1); entries[0].Index != 5 {
		t.Errorf("the next index is %d, want 5", entries[0].Index)
	}
	checkAll(t, db.Pool, k)
}

// Wait fails at once when the log turns out to be behind while it waits.
func TestP9_WaitersAreToldWhenTheLogFallsBehind(t *testing.T) {
	t.Parallel()
	db, k := pgtest.New(t), newKeys(t, "log.example.com")
	l := open(t, config(db.Pool, k))
	stop := run(t, l)
	empty := backup(t, db)
	record(t, l, 2)
	stop()
	e := closed("req-1")
	if err := stage(t.Context(), db.Pool, l, e); err != nil {
		t.Fatal(err)
	}
	empty()
	run(t, l)
	if _, err := l.Wait(t.Context(), e.ID); !errors.Is(err, audit.ErrBehind) {
		t.Errorf("Wait: %v", err)
	}
}

func TestP9_AHeadThatIsGoneOrForgedIsRefused(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		sql  string
		want error
	}{
		"gone":            {"DELETE FROM audit.head", audit.ErrBehind},
		"another root":    {"UPDATE audit.head SET root = sha256('x')", audit.ErrBehind},
		"hashes changed":  {"UPDATE audit.hashes SET hash = sha256('x'); UPDATE audit.head SET size = 3, root = sha256('x')", audit.ErrBehind},
		"not signed":      {"UPDATE audit.head SET size = 4, checkpoint = E'log.example.com\\n4\\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\\n'", audit.ErrKey},
		"hashes are gone": {"DELETE FROM audit.hashes", nil}, // they are read only when the head moved elsewhere
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, k := pgtest.New(t), newKeys(t, "log.example.com")
			l := open(t, config(db.Pool, k))
			stop := run(t, l)
			record(t, l, 3)
			stop()
			conn := connect(t, db.AdminURL)
			execute(t, conn, "ALTER TABLE audit.head DISABLE TRIGGER USER; ALTER TABLE audit.hashes DISABLE TRIGGER USER")
			execute(t, conn, test.sql)
			if err := l.Healthy(t.Context()); !errors.Is(err, test.want) {
				t.Errorf("Healthy: %v, want %v", err, test.want)
			}
			if _, err := audit.Open(t.Context(), config(db.Pool, k)); err == nil {
				t.Error("Open takes it")
			}
		})
	}
}

func TestTwoKeysOrOriginsAreRefused(t *testing.T) {
	t.Parallel()
	_, db, k := start(t)
	otherKey := newKeys(t, "log.example.com")
	otherOrigin := newKeys(t, "log.example.org")
	mixed := config(db.Pool, k)
	mixed.VerifierKey = otherKey.vkey
	garbage := config(db.Pool, k)
	garbage.VerifierKey = "log.example.com+1+AA=="
	for name, cfg := range map[string]audit.Config{
		"key":              config(db.Pool, otherKey),
		"origin":           config(db.Pool, otherOrigin),
		"halves of two":    mixed,
		"no verifier key":  garbage,
		"state of another": {Pool: db.Pool, Signer: otherKey.signer, VerifierKey: otherKey.vkey, Clock: clock.System, StateFile: keptCheckpoint(t, k)},
	} {
		if _, err := audit.Open(t.Context(), cfg); !errors.Is(err, audit.ErrKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// keptCheckpoint is a state file of another log with the keys.
func keptCheckpoint(t *testing.T, k keys) string {
	t.Helper()
	cfg := config(pgtest.New(t).Pool, k)
	cfg.StateFile = stateFile(t)
	open(t, cfg)
	return cfg.StateFile
}

func TestOpenNeedsItsConfiguration(t *testing.T) {
	t.Parallel()
	db, k := pgtest.New(t), newKeys(t, "log.example.com")
	for name, change := range map[string]func(*audit.Config){
		"pool":         func(c *audit.Config) { c.Pool = nil },
		"signer":       func(c *audit.Config) { c.Signer = nil },
		"verifier key": func(c *audit.Config) { c.VerifierKey = "" },
		"clock":        func(c *audit.Config) { c.Clock = nil },
		"state folder": func(c *audit.Config) { c.StateFile = filepath.Join(t.TempDir(), "missing", "file") },
		"state file": func(c *audit.Config) {
			c.StateFile = stateFile(t)
			if err := os.WriteFile(c.StateFile, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		cfg := config(db.Pool, k)
		change(&cfg)
		if _, err := audit.Open(t.Context(), cfg); err == nil {
			t.Errorf("Open takes a config with a bad %s", name)
		}
	}
}

// A log that is started by several replicas at once has one head.
func TestReplicasMayStartTheLogTogether(t *testing.T) {
	t.Parallel()
	db, k := pgtest.New(t), newKeys(t, "log.example.com")
	errs := make(chan error)
	for range 8 {
		go func() {
			_, err := audit.Open(context.Background(), config(db.Pool, k))
			errs <- err
		}()
	}
	for range 8 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if tree := checkAll(t, db.Pool, k); tree.N != 0 {
		t.Errorf("size %d", tree.N)
	}
}

func TestHealthySaysWhenNobodySequences(t *testing.T) {
	t.Parallel()
	db, k := pgtest.New(t), newKeys(t, "log.example.com")
	now := clock.NewManual(at)
	cfg := config(db.Pool, k)
	cfg.Clock = now
	l := open(t, cfg)
	if err := stage(t.Context(), db.Pool, l, closed("req-1")); err != nil {
		t.Fatal(err)
	}
	if err := l.Healthy(t.Context()); err != nil {
		t.Errorf("at once: %v", err)
	}
	now.Advance(2 * time.Minute)
	if err := l.Healthy(t.Context()); !errors.Is(err, audit.ErrUnavailable) {
		t.Errorf("after two minutes: %v", err)
	}
	run(t, l)
	eventually(t, "the log is healthy", func() bool { return l.Healthy(t.Context()) == nil })
}

// The checkpoint outside the database follows the log.
func TestStateFileFollows(t *testing.T) {
	t.Parallel()
	db, k := pgtest.New(t), newKeys(t, "log.example.com")
	cfg := config(db.Pool, k)
	cfg.StateFile = stateFile(t)
	l := open(t, cfg)
	run(t, l)
	record(t, l, 3)
	eventually(t, "the file has the newest checkpoint", func() bool {
		want, err := l.Checkpoint(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		kept, err := os.ReadFile(cfg.StateFile)
		return err == nil && string(kept) == string(want)
	})
	left, err := filepath.Glob(filepath.Join(filepath.Dir(cfg.StateFile), "*"))
	if err != nil || len(left) != 1 {
		t.Errorf("files: %v, %v", left, err)
	}

	if err := os.RemoveAll(filepath.Dir(cfg.StateFile)); err != nil {
		t.Fatal(err)
	}
	record(t, l, 1)
	eventually(t, "Healthy says that the file cannot be written", func() bool {
		return errors.Is(l.Healthy(t.Context()), audit.ErrUnavailable)
	})
}

func TestStageRefusesWhatCannotBeEncoded(t *testing.T) {
	t.Parallel()
	l, db, _ := start(t)
	for name, e := range map[string]event.Event{
		"empty":    {},
		"too long": event.New(at, event.Actor{Kind: event.Broker}, "", event.Subject{}, event.RequestCreated{Reason: strings.Repeat("x", event.MaxSize)}),
	} {
		if err := stage(t.Context(), db.Pool, l, e); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
