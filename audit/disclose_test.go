package audit_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"sallyport/audit"
	"sallyport/audit/event"
	"sallyport/internal/clock"
	"sallyport/internal/pgtest"
)

// reading is that somebody opens an event, now.
func reading(c clock.Clock, who string, index uint64) event.Event {
	return event.New(c.Now(), event.Actor{Kind: event.Person, ID: who}, "192.0.2.7", event.Subject{},
		event.EventDisclosed{Index: index, Type: "grant.ended"})
}

// disclosures is how many events of reading are committed.
func disclosures(t *testing.T, db *pgtest.DB) (n int) {
	t.Helper()
	err := db.Pool.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM audit.entries WHERE type = 'disclosed.event')
		+ (SELECT count(*) FROM audit.pending WHERE type = 'disclosed.event')`).Scan(&n)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestDiscloseIsOneEventForTenMinutes(t *testing.T) {
	t.Parallel()
	db, k, c := pgtest.New(t), newKeys(t, "log.example.com"), clock.NewManual(at)
	cfg := config(db.Pool, k)
	cfg.Clock = c
	l := open(t, cfg)
	shown := func(e event.Event, want int) {
		t.Helper()
		if err := l.Disclose(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		if n := disclosures(t, db); n != want {
			t.Fatalf("%d events, want %d", n, want)
		}
	}
	shown(reading(c, "per-1", 7), 1)
	c.Advance(10*time.Minute - 1)
	shown(reading(c, "per-1", 7), 1) // the same
	shown(reading(c, "per-1", 8), 2) // another event
	shown(reading(c, "per-2", 7), 3) // another person
	elsewhere := reading(c, "per-1", 7)
	elsewhere.Source = "198.51.100.1"
	shown(elsewhere, 4)
	shown(reading(c, "per-1", 7).Under(event.PolicyRef{Version: 2, Hash: "ab"}), 5) // by another policy's role
	c.Advance(1)
	shown(reading(c, "per-1", 7), 6) // ten minutes later, although it was read meanwhile
}

// What is forgotten is written again; nothing that was not written is remembered.
func TestDiscloseForgetsInBounds(t *testing.T) {
	t.Parallel()
	var d audit.Disclosures
	for i := range audit.MaxDisclosed + 1 {
		d.Add([32]byte{byte(i), byte(i >> 8), byte(i >> 16)}, at)
	}
	if d.Len() > audit.MaxDisclosed || d.Has([32]byte{}, at) || !d.Has([32]byte{byte(audit.MaxDisclosed & 255), byte(audit.MaxDisclosed >> 8)}, at) {
		t.Errorf("it remembers %d", d.Len())
	}
	d = audit.Disclosures{}
	d.Add([32]byte{1}, at)
	for i := range audit.MaxDisclosed {
		d.Add([32]byte{2, byte(i), byte(i >> 8)}, at.Add(5*time.Minute))
	}
	if d.Has([32]byte{1}, at.Add(10*time.Minute)) {
		t.Error("it stands for longer than it may")
	}
}

// Nobody reads while the log cannot have it, whatever they have read before.
func TestP9_NothingIsDisclosedThatCannotBeRecorded(t *testing.T) {
	t.Parallel()
	l, db, _ := start(t)
	seen := reading(clock.System, "per-1", 7)
	if err := l.Disclose(t.Context(), seen); err != nil {
		t.Fatal(err)
	}
	admin := connect(t, db.AdminURL)
	exec := func(sql string) {
		t.Helper()
		if _, err := admin.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	exec(`REVOKE EXECUTE ON FUNCTION audit.enqueue(bytea[]) FROM sallyport_app`)
	for i := range 3 { // that it failed is not taken for an event
		if err := l.Disclose(t.Context(), reading(clock.System, "per-1", 8)); err == nil {
			t.Fatalf("attempt %d: shown", i)
		}
	}
	exec(`GRANT EXECUTE ON FUNCTION audit.enqueue(bytea[]) TO sallyport_app`)
	if err := l.Disclose(t.Context(), reading(clock.System, "per-1", 8)); err != nil || disclosures(t, db) != 2 {
		t.Fatalf("%v, %d events", err, disclosures(t, db))
	}
}

// A superuser cuts off the log's tail: what was recorded before may be gone with it.
func TestP9_NothingIsDisclosedBehindTheCheckpoint(t *testing.T) {
	t.Parallel()
	db, k := pgtest.New(t), newKeys(t, "log.example.com")
	l := open(t, config(db.Pool, k))
	run(t, l)
	record(t, l, 3)
	seen := reading(clock.System, "per-1", 7)
	if err := l.Disclose(t.Context(), seen); err != nil {
		t.Fatal(err)
	}
	admin := connect(t, db.AdminURL)
	for _, sql := range []string{`ALTER TABLE audit.head DISABLE TRIGGER ALL`, `UPDATE audit.head SET size = 0`} {
		if _, err := admin.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.Record(t.Context(), closed("req-x")); !errors.Is(err, audit.ErrBehind) {
		t.Fatalf("recording: %v", err)
	}
	if err := l.Disclose(t.Context(), seen); !errors.Is(err, audit.ErrBehind) {
		t.Errorf("shown again: %v", err)
	}
}

func BenchmarkDiscloseAgain(b *testing.B) {
	l, _, _ := start(b)
	e := reading(clock.System, "per-1", 7)
	if err := l.Disclose(b.Context(), e); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := l.Disclose(b.Context(), e); err != nil {
			b.Fatal(fmt.Errorf("again: %w", err))
		}
	}
}
