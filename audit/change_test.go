package audit_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"sallyport/audit"
	"sallyport/audit/event"
	"sallyport/internal/pgtest"
)

// configured records settings as a broker does that starts.
func configured(t *testing.T, l *audit.Log, hash string) {
	err := l.RecordChange(t.Context(), "broker.configured", func(before event.Data) (event.Event, bool) {
		last, _ := before.(event.BrokerConfigured)
		return event.New(at, event.Actor{Kind: event.Broker}, "", event.Subject{},
			event.BrokerConfigured{Configuration: hash, Before: last.Configuration}), last.Configuration != hash
	})
	if err != nil {
		t.Error(err)
	}
}

// configurations are the settings that the log has, one after the other, with those
// that still wait.
func configurations(t *testing.T, db *pgtest.DB) string {
	t.Helper()
	var all []string
	err := db.Pool.QueryRow(t.Context(), `
		SELECT coalesce(array_agg(now ORDER BY waits, place), '{}') FROM (
			SELECT data->'data'->>'configuration' AS now, 0 AS waits, index AS place FROM audit.entries WHERE type = 'broker.configured'
			UNION ALL SELECT data->'data'->>'configuration', 1, arrival FROM audit.pending WHERE type = 'broker.configured') AS found`).Scan(&all)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, " ")
}

// A change is recorded once, by however many brokers that start at once, and so is the
// way back.
func TestAChangeIsRecordedOnce(t *testing.T) {
	t.Parallel()
	for _, sequenced := range []bool{false, true} {
		t.Run(fmt.Sprint("sequenced ", sequenced), func(t *testing.T) {
			t.Parallel()
			db, k := pgtest.New(t), newKeys(t, "log.example.com")
			l := open(t, config(db.Pool, k))
			another := open(t, config(db.Pool, k))
			if sequenced {
				run(t, l)
			}
			for _, hash := range []string{"a", "b", "b", "a"} {
				var all sync.WaitGroup
				for i := range 8 {
					all.Go(func() { configured(t, []*audit.Log{l, another}[i%2], hash) })
				}
				all.Wait()
				if sequenced {
					record(t, l, 1) // what waited before it has its place now
				}
			}
			if have := configurations(t, db); have != "a b a" {
				t.Errorf("the log has %s, want a b a", have)
			}
		})
	}
}

// What a newer program wrote says nothing to this one, which then says how it is itself.
func TestAnUnknownEventIsNoReasonNotToRecord(t *testing.T) {
	t.Parallel()
	db, k := pgtest.New(t), newKeys(t, "log.example.com")
	l := open(t, config(db.Pool, k))
	leaf := `{"id":"0195f000-0000-7000-8000-000000000001","type":"broker.configured","version":9,"time":"2026-03-04T05:06:07Z",` +
		`"actor":{"kind":"broker"},"subject":{},"data":{"configuration":"newer"}}`
	if _, err := db.Pool.Exec(t.Context(), "SELECT audit.enqueue($1)", [][]byte{[]byte(leaf)}); err != nil {
		t.Fatal(err)
	}
	configured(t, l, "a")
	if have := configurations(t, db); have != "newer a" {
		t.Errorf("the log has %s", have)
	}
}

// The administrator's word comes before there is a log, and once, whoever else finds out.
func TestMigrationsAreRecordedOnce(t *testing.T) {
	t.Parallel()
	db, k := pgtest.New(t), newKeys(t, "log.example.com")
	admin := connect(t, db.AdminURL)
	for range 2 {
		if err := audit.Migrated(t.Context(), admin, at); err != nil {
			t.Fatal(err)
		}
	}
	l := open(t, config(db.Pool, k))
	run(t, l)
	record(t, l, 1)
	schema, err := l.RecordSchema(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	migrated := func() (list []event.DatabaseMigrated) {
		t.Helper()
		record(t, l, 1)
		entries, err := l.Entries(t.Context(), audit.Filter{Type: "database.migrated"})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			ev, err := e.Event()
			if err != nil {
				t.Fatal(err)
			}
			if err := ev.Complete(); err != nil {
				t.Error(err)
			}
			list = append(list, ev.Data.(event.DatabaseMigrated))
		}
		return list
	}
	if list := migrated(); len(list) != 1 || list[0] != (event.DatabaseMigrated{Schema: schema}) {
		t.Errorf("the log has %+v, want the one to %d", list, schema)
	}
	// A migration that was stopped before it could say so.
	if _, err := admin.Exec(t.Context(), `UPDATE schema_version SET version = version + 1`); err != nil {
		t.Fatal(err)
	}
	if _, err := l.RecordSchema(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := audit.Migrated(t.Context(), admin, at); err != nil {
		t.Fatal(err)
	}
	if list := migrated(); len(list) != 2 || list[0] != (event.DatabaseMigrated{Before: schema, Schema: schema + 1}) {
		t.Errorf("the log has %+v", list)
	}
}
