package identity_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"sallyport/approvals/identity"
)

func TestNewRefusesMissingParts(t *testing.T) {
	t.Parallel()
	if _, err := identity.New(identity.Config{}); err == nil {
		t.Error("a store without pool, log and clock")
	}
}

func TestPersonIsIssuerAndSubject(t *testing.T) {
	k := newKit(t)
	ctx := t.Context()
	sign := func(c identity.Claims) identity.Person {
		t.Helper()
		p, err := k.SignIn(ctx, c, identity.ViaWeb, here)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	first := sign(identity.Claims{Issuer: "https://a", Subject: "1", Email: "erin@example.com", Name: "Erin", Groups: []string{"b", "a", "b"}})
	if got := strings.Join(first.Groups, ","); got != "a,b" {
		t.Errorf("groups = %s, want them sorted and once each", got)
	}
	k.clock.Advance(time.Hour)
	again := sign(identity.Claims{Issuer: "https://a", Subject: "1", Email: "new@example.com", Name: "Erin E."})
	if again.ID != first.ID || again.Email != "new@example.com" || len(again.Groups) != 0 || !again.SignedInAt.Equal(k.clock.Now()) {
		t.Errorf("second sign-in gave %+v after %+v", again, first)
	}
	// The same address proves nothing.
	for _, c := range []identity.Claims{
		{Issuer: "https://b", Subject: "1", Email: "new@example.com"},
		{Issuer: "https://a", Subject: "2", Email: "new@example.com"},
	} {
		if p := sign(c); p.ID == first.ID {
			t.Errorf("%+v became the same person", c)
		}
	}
	for _, c := range []identity.Claims{{Subject: "1"}, {Issuer: "https://a"}} {
		if _, err := k.SignIn(ctx, c, identity.ViaWeb, here); err == nil {
			t.Errorf("%+v signed in", c)
		}
	}
	events := k.events("person.signed_in")
	if len(events) != 4 || !strings.Contains(events[3], `"source":"192.0.2.7"`) || !strings.Contains(events[3], `"groups":["a","b"]`) {
		t.Errorf("events: %s", events)
	}
}

func TestPeopleAndMembers(t *testing.T) {
	k := newKit(t)
	ctx := t.Context()
	ids := map[string]string{}
	for name, groups := range map[string][]string{"Zoe": {"approvers"}, "Ann": {"approvers", "security"}, "Bob": {"engineers"}} {
		p, err := k.SignIn(ctx, identity.Claims{Issuer: "https://a", Subject: name, Name: name, Groups: groups}, identity.ViaWeb, here)
		if err != nil {
			t.Fatal(err)
		}
		ids[name] = p.ID
	}
	names := func(people []identity.Person, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, p := range people {
			all = append(all, p.Name)
		}
		return strings.Join(all, " ")
	}
	for _, c := range []struct {
		groups []string
		limit  int
		want   string
	}{
		{[]string{"approvers"}, 50, "Ann Zoe"},
		{[]string{"security", "engineers"}, 50, "Ann Bob"},
		{[]string{"approvers", "security"}, 1, "Ann"},
		{[]string{"nobody"}, 50, ""},
		{nil, 50, ""},
	} {
		if got := names(k.Members(ctx, c.groups, c.limit)); got != c.want {
			t.Errorf("Members(%v, %d) = %q, want %q", c.groups, c.limit, got, c.want)
		}
	}
	if got, err := k.People(ctx, []string{ids["Bob"], "per-000000000000"}); err != nil || len(got) != 1 || got[0].Name != "Bob" {
		t.Errorf("People = %v, %v", got, err)
	}
	if _, err := k.Person(ctx, "per-000000000000"); !errors.Is(err, identity.ErrUnknownPerson) {
		t.Errorf("Person: %v", err)
	}
	if p, err := k.Person(ctx, ids["Ann"]); err != nil || p.Name != "Ann" {
		t.Errorf("Person = %v, %v", p, err)
	}
}

func TestResumeEndsWithTime(t *testing.T) {
	k := newKit(t)
	ctx := t.Context()
	in := k.erin()
	const idle = time.Hour

	// Used now and then, it stays, up to the absolute limit and not a moment longer.
	for k.clock.Now().Before(in.Expires.Add(-idle / 2)) {
		if _, err := k.Resume(ctx, in.ID, idle); err != nil {
			t.Fatalf("in use at %s: %v", k.clock.Now(), err)
		}
		k.clock.Advance(idle / 2)
	}
	k.clock.Advance(in.Expires.Sub(k.clock.Now()) - time.Microsecond)
	if _, err := k.Resume(ctx, in.ID, idle); err != nil {
		t.Errorf("a microsecond before its end: %v", err)
	}
	k.clock.Advance(time.Microsecond)
	if _, err := k.Resume(ctx, in.ID, idle); !errors.Is(err, identity.ErrSignedOut) {
		t.Errorf("at its end: %v", err)
	}

	// Not used, it ends after the idle time.
	in = k.erin()
	k.clock.Advance(idle)
	if _, err := k.Resume(ctx, in.ID, idle); !errors.Is(err, identity.ErrSignedOut) {
		t.Errorf("idle: %v", err)
	}
	if _, err := k.Resume(ctx, "fam-000000000000", idle); !errors.Is(err, identity.ErrSignedOut) {
		t.Errorf("unknown: %v", err)
	}
}

func TestSignOutIsForGood(t *testing.T) {
	k := newKit(t)
	ctx := t.Context()
	in := k.erin()
	for range 2 {
		if err := k.SignOut(ctx, in, here); err != nil {
			t.Fatal(err)
		}
		k.clock.Advance(time.Second)
	}
	if _, err := k.Resume(ctx, in.ID, 0); !errors.Is(err, identity.ErrSignedOut) {
		t.Errorf("after sign-out: %v", err)
	}
	if n := len(k.events("person.signed_out")); n != 1 {
		t.Errorf("%d events, want 1", n)
	}
	// Not even the broker's role can take it back, or make a sign-in longer.
	for _, sql := range []string{
		`UPDATE sign_ins SET ended_at = NULL`,
		`UPDATE sign_ins SET expires_at = expires_at + interval '1 day'`,
		`UPDATE sign_ins SET person_id = person_id`,
		`UPDATE people SET subject = 'mallory'`,
		`DELETE FROM people`,
		`UPDATE refresh_tokens SET family = family`,
		`DELETE FROM refresh_tokens`,
		`UPDATE authorization_codes SET challenge = ''`,
	} {
		var pg *pgconn.PgError
		if _, err := k.db.Pool.Exec(ctx, sql); !errors.As(err, &pg) {
			t.Errorf("%s: %v", sql, err)
		}
	}
}

func TestAuditRoleSeesNoHashes(t *testing.T) {
	k := newKit(t)
	ctx := t.Context()
	conn, err := pgx.Connect(ctx, k.db.AdminURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	for table, want := range map[string]bool{"people": true, "sign_ins": true, "sessions": false,
		"authorization_codes": false, "device_authorizations": false, "refresh_tokens": false} {
		var can bool
		if err := conn.QueryRow(ctx, `SELECT has_any_column_privilege('sallyport_audit', $1, 'SELECT')`, table).Scan(&can); err != nil || can != want {
			t.Errorf("the auditors' role may read %s: %v (%v), want %v", table, can, err, want)
		}
	}
}

func TestDeletedPersonIsSignedOutEverywhere(t *testing.T) {
	k := newKit(t)
	ctx := t.Context()
	tokens := k.family(k.erin())
	conn, err := pgx.Connect(ctx, k.db.AdminURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, `DELETE FROM people`); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Resume(ctx, tokens.SignedIn.ID, 0); !errors.Is(err, identity.ErrSignedOut) {
		t.Errorf("Resume: %v", err)
	}
	if _, err := k.Refresh(ctx, tokens.Refresh, here); !errors.Is(err, identity.ErrInvalidGrant) {
		t.Errorf("Refresh: %v", err)
	}
}

func TestSweepDeletesWhatIsOverOnly(t *testing.T) {
	k := newKit(t)
	ctx := t.Context()
	old := k.family(k.erin())
	if _, err := k.BeginDevice(ctx, here); err != nil {
		t.Fatal(err)
	}
	if _, err := k.db.Pool.Exec(ctx, `INSERT INTO sessions (token, data, expiry)
		SELECT 'old' || i, '', $1::timestamptz + i * interval '1 ms' FROM generate_series(1, 150) i`, k.clock.Now()); err != nil {
		t.Fatal(err)
	}
	k.clock.Advance(9 * time.Hour)
	fresh := k.family(k.erin())
	if _, err := k.db.Pool.Exec(ctx, `INSERT INTO sessions (token, data, expiry) VALUES ('new', '', $1)`, k.clock.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	count := func(table string) (n int) {
		t.Helper()
		if err := k.db.Pool.QueryRow(ctx, `SELECT count(*) FROM `+table).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if err := k.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	if n := count("sessions"); n != 51 {
		t.Errorf("%d of 151 rows are left after one sweep, want 51: it must be bounded", n)
	}
	if err := k.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	for table, want := range map[string]int{"sessions": 1, "sign_ins": 2, "refresh_tokens": 1, "authorization_codes": 1, "device_authorizations": 0} {
		if n := count(table); n != want {
			t.Errorf("%d rows in %s, want %d", n, table, want)
		}
	}
	if _, err := k.Refresh(ctx, fresh.Refresh, here); err != nil {
		t.Errorf("a fresh token after the sweep: %v", err)
	}
	if _, err := k.Refresh(ctx, old.Refresh, here); !errors.Is(err, identity.ErrInvalidGrant) {
		t.Errorf("an old token after the sweep: %v", err)
	}
}
