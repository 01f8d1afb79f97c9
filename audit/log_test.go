package audit_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"sallyport/audit"
	"sallyport/audit/event"
	"sallyport/internal/pgtest"
)

func TestRecordedEventsHaveTheirPlacesInOrder(t *testing.T) {
	t.Parallel()
	l, _, _ := start(t)
	for round := range 3 {
		for i, e := range record(t, l, 5) {
			if want := int64(5*round + i); e.Index != want {
				t.Errorf("round %d: event %d has index %d, want %d", round, i, e.Index, want)
			}
			if ev, err := e.Event(); err != nil || ev.Subject.RequestID != fmt.Sprintf("req-%d", i) {
				t.Errorf("round %d: entry %d is %v, %v", round, i, ev, err)
			}
		}
	}
}

// Hanging up does not keep an attempt out of the log.
func TestRefusalsOutliveTheirCaller(t *testing.T) {
	t.Parallel()
	l, _, _ := start(t)
	gone, hangUp := context.WithCancel(t.Context())
	hangUp()
	l.Refused(gone, closed("req-refused"))
	eventually(t, "the refusal has its place", func() bool {
		found, err := l.Entries(t.Context(), audit.Filter{RequestID: "req-refused"})
		return err == nil && len(found) == 1
	})
}

func TestStagedEventsNeverWereAfterARollback(t *testing.T) {
	t.Parallel()
	l, db, _ := start(t)
	e := closed("req-rolled-back")
	errNo := errors.New("no")
	err := pgx.BeginFunc(t.Context(), db.Pool, func(tx pgx.Tx) error {
		if err := l.Stage(t.Context(), tx, e); err != nil {
			t.Error(err)
		}
		return errNo
	})
	if err != errNo {
		t.Fatal(err)
	}
	record(t, l, 1)
	found, err := l.Entries(t.Context(), audit.Filter{RequestID: "req-rolled-back"})
	if err != nil || len(found) != 0 {
		t.Errorf("found %v, %v", found, err)
	}
}

func TestRetriedEventsAreThereOnce(t *testing.T) {
	t.Parallel()
	l, db, _ := start(t)
	e := closed("req-again")
	if err := stage(t.Context(), db.Pool, l, e, e); err != nil {
		t.Fatalf("twice in one transaction: %v", err)
	}
	first, err := l.Wait(t.Context(), e.ID, e.ID)
	if err != nil {
		t.Fatal(err)
	}
	again, err := l.Record(t.Context(), e)
	if err != nil {
		t.Fatalf("after it was sequenced: %v", err)
	}
	if again[0].Index != first[0].Index || first[1].Index != first[0].Index {
		t.Errorf("one event has several indexes: %v, then %v", first, again)
	}

	other := e
	other.Data = event.RequestClosed{State: "denied"}
	if _, err := l.Record(t.Context(), other); err == nil {
		t.Error("another event with the same id was taken after the first")
	}
	same := closed("req-same-id")
	other.ID = same.ID
	if err := stage(t.Context(), db.Pool, l, same, other); err == nil {
		t.Error("two events with the same id were taken in one transaction")
	}
}

// A retry may come while the sequencer moves the first attempt's event.
func TestRetryDuringSequencingIsHarmless(t *testing.T) {
	t.Parallel()
	db, k := pgtest.New(t), newKeys(t, "log.example.com")
	cfg := config(db.Pool, k)
	var l *audit.Log
	e := closed("req-race")
	retried := make(chan error, 1)
	appended := false
	cfg.Fault = func(step string) error {
		if step != "commit" || appended {
			return nil
		}
		appended = true
		go func() { retried <- stage(context.Background(), db.Pool, l, e) }()
		eventually(t, "the retry waits for the sequencer", func() bool {
			var blocked bool
			err := db.Pool.QueryRow(context.Background(), `SELECT EXISTS (SELECT FROM pg_stat_activity
				WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%enqueue%')`).Scan(&blocked)
			return err == nil && blocked
		})
		return nil
	}
	l = open(t, cfg)
	run(t, l)
	if _, err := l.Record(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	if err := <-retried; err != nil {
		t.Errorf("the retry: %v", err)
	}
	record(t, l, 1)
	if tree := checkAll(t, db.Pool, k); tree.N != 2 {
		t.Errorf("the log has %d entries, want 2", tree.N)
	}
}

func TestStageWantsReadCommitted(t *testing.T) {
	t.Parallel()
	l, db, _ := start(t)
	err := pgx.BeginTxFunc(t.Context(), db.Pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead}, func(tx pgx.Tx) error {
		return l.Stage(t.Context(), tx, closed("req-1"))
	})
	if err == nil || !strings.Contains(err.Error(), "staging") {
		t.Errorf("Stage in REPEATABLE READ: %v", err)
	}
}

func TestEntriesFilters(t *testing.T) {
	t.Parallel()
	db, k := pgtest.New(t), newKeys(t, "log.example.com")
	l := open(t, config(db.Pool, k))
	stop := run(t, l)
	person := event.Actor{Kind: event.Person, ID: "per-a", Name: "Ann"}
	log := []event.Event{
		event.New(at, person, "192.0.2.1", event.Subject{RequestID: "req-1", HostID: "host-1"}, event.RequestCreated{Host: "db-1"}),
		event.New(at.Add(1e9), event.Actor{Kind: event.Broker}, "", event.Subject{RequestID: "req-1", PersonID: "per-a"}, event.GrantEnded{Reason: "time"}),
		event.New(at.Add(2e9), event.Actor{Kind: event.Person, ID: "per-b"}, "", event.Subject{RequestID: "req-2", HostID: "host-1"}, event.RequestDecided{Verdict: "deny"}),
		event.New(at.Add(3e9), event.Actor{Kind: event.Broker}, "", event.Subject{}, event.PolicyActivated{Rules: 3}),
	}
	if _, err := l.Record(t.Context(), log...); err != nil {
		t.Fatal(err)
	}
	stop()
	waiting := []event.Event{closed("req-1"), closed("req-1"), closed("req-3")}
	if err := stage(t.Context(), db.Pool, l, waiting...); err != nil {
		t.Fatal(err)
	}

	for _, test := range []struct {
		name   string
		filter audit.Filter
		want   []uuid.UUID
	}{
		{"all, without what waits", audit.Filter{}, []uuid.UUID{log[3].ID, log[2].ID, log[1].ID, log[0].ID}},
		{"limit", audit.Filter{Limit: 2}, []uuid.UUID{log[3].ID, log[2].ID}},
		{"next page", audit.Filter{Limit: 2, Before: 2}, []uuid.UUID{log[1].ID, log[0].ID}},
		{"type", audit.Filter{Type: "request.decided"}, []uuid.UUID{log[2].ID}},
		{"types", audit.Filter{Type: "request."}, []uuid.UUID{log[2].ID, log[0].ID}},
		{"a type is no pattern", audit.Filter{Type: "request%."}, nil},
		{"person, acting or concerned", audit.Filter{PersonID: "per-a"}, []uuid.UUID{log[1].ID, log[0].ID}},
		{"host", audit.Filter{HostID: "host-1"}, []uuid.UUID{log[2].ID, log[0].ID}},
		{"time", audit.Filter{From: at.Add(1e9), To: at.Add(3e9)}, []uuid.UUID{log[2].ID, log[1].ID}},
		{"request, with what waits", audit.Filter{RequestID: "req-1"}, []uuid.UUID{waiting[1].ID, waiting[0].ID, log[1].ID, log[0].ID}},
		{"request, only what waits", audit.Filter{RequestID: "req-3"}, []uuid.UUID{waiting[2].ID}},
		{"request, second page", audit.Filter{RequestID: "req-1", Before: 1}, []uuid.UUID{log[0].ID}},
		{"request and type", audit.Filter{RequestID: "req-1", Type: "request.closed"}, []uuid.UUID{waiting[1].ID, waiting[0].ID}},
		{"none", audit.Filter{RequestID: "' OR true --"}, nil},
	} {
		entries, err := l.Entries(t.Context(), test.filter)
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		var got []uuid.UUID
		for _, e := range entries {
			got = append(got, e.ID)
			if (e.Index == -1) != (e.ID == waiting[0].ID || e.ID == waiting[1].ID || e.ID == waiting[2].ID) {
				t.Errorf("%s: %s has index %d", test.name, e.Type, e.Index)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(test.want) {
			t.Errorf("%s: got %v, want %v", test.name, got, test.want)
		}
	}
	if _, err := l.Entries(t.Context(), audit.Filter{Limit: 201}); !errors.Is(err, audit.ErrFilter) {
		t.Errorf("limit 201: %v", err)
	}
	if _, err := l.Entry(t.Context(), 4); !errors.Is(err, audit.ErrNoEntry) {
		t.Errorf("entry 4 of 4: %v", err)
	}
}

func TestEntryAsTheAPIShowsIt(t *testing.T) {
	t.Parallel()
	l, _, _ := start(t)
	e := event.New(at, event.Actor{Kind: event.Person, ID: "per-a", Name: "Ann <b>"}, "192.0.2.1",
		event.Subject{RequestID: "req-1", HostID: "host-1", PersonID: "per-b"},
		event.CertificateIssued{Serial: 1<<63 + 1, Login: "dba", Host: "db-1", ValidBefore: at})
	entries, err := l.Record(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	got := entries[0].API(false)
	if got.ID != e.ID.String() || got.Index != 0 || got.Type != "certificate.issued" || !got.Time.Equal(at) ||
		got.Actor.Name != "Ann <b>" || got.Source != "192.0.2.1" || got.Request != "req-1" ||
		got.Host != "host-1" || got.Person != "per-b" || got.Data["serial"] != "9223372036854775809" ||
		got.Summary != e.Data.Summary() || got.Leaf != nil || len(got.LeafHash) != 64 {
		t.Errorf("API: %+v", got)
	}
	if leaf := entries[0].API(true).Leaf; string(leaf) != string(entries[0].Leaf) {
		t.Errorf("leaf: %s", leaf)
	}

	newer := entries[0]
	newer.Leaf = []byte(strings.Replace(string(newer.Leaf), `"version":1`, `"version":2`, 1))
	if got := newer.API(false); got.Summary != "certificate.issued" || got.Data["login"] != "dba" {
		t.Errorf("an event of a newer version: %+v", got)
	}
}

// What an attacker sends must not keep the refusal of it out of the log.
func TestTextThatDatabasesCannotHoldIsRecorded(t *testing.T) {
	t.Parallel()
	l, _, _ := start(t)
	entries, err := l.Record(t.Context(), event.New(at, event.Actor{Kind: event.Broker}, "", event.Subject{},
		event.SignInFailed{Via: "web", Reason: "a\x00b\\\x00c\\u0000 \xff <&> \u2028"}))
	if err != nil {
		t.Fatal(err)
	}
	e, err := entries[0].Event()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := e.Data.(event.SignInFailed).Reason, "a\uFFFDb\\\uFFFDc\\u0000 \uFFFD <&> \u2028"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
