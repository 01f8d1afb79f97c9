package policy

import (
	"errors"
	"os"
	"testing"
	"time"

	"sallyport/internal/refusal"
)

func complete(t testing.TB) *Policy {
	t.Helper()
	text, err := os.ReadFile("testdata/complete.yaml")
	if err != nil {
		t.Fatal(err)
	}
	p, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestParseLimits(t *testing.T) {
	t.Parallel()
	if _, err := Parse(make([]byte, MaxBytes+1)); err == nil {
		t.Error("a document over the limit was accepted")
	}
	if _, err := Parse([]byte{0xff}); err == nil {
		t.Error("bytes that are not UTF-8 were accepted")
	}
	for _, empty := range []string{"", "---", "# nothing", "[]", "rules: []", "null"} {
		if _, err := Parse([]byte(empty)); err == nil {
			t.Errorf("%q was accepted", empty)
		}
	}
}

func TestMatchTakesTheFirstRuleThatFits(t *testing.T) {
	t.Parallel()
	p := complete(t)
	db := map[string]string{"class": "database", "env": "prod"}
	for _, c := range []struct {
		name   string
		groups []string
		labels map[string]string
		login  string
		want   string
	}{
		{"fits", []string{"engineers"}, db, "root", "database-root"},
		{"group among others", []string{"a", "engineers"}, db, "root", "database-root"},
		{"every host", []string{"engineers"}, nil, "web", "web"},
		{"no group", nil, db, "root", ""},
		{"group in another case", []string{"Engineers"}, db, "root", ""},
		{"empty group name", []string{""}, db, "root", ""},
		{"wrong label", []string{"engineers"}, map[string]string{"class": "database", "env": "dev"}, "root", ""},
		{"missing label", []string{"engineers"}, map[string]string{"class": "database"}, "root", ""},
		{"other login", []string{"engineers"}, db, "dba", ""},
		{"wildcard login", []string{"engineers"}, db, "*", ""},
	} {
		r, err := p.Match(c.groups, c.labels, c.login)
		switch {
		case c.want == "" && !errors.Is(err, ErrNoRule):
			t.Errorf("%s: got %v, want ErrNoRule", c.name, err)
		case c.want != "" && (err != nil || r.Name != c.want):
			t.Errorf("%s: got %v, %v, want %s", c.name, r, err, c.want)
		}
	}
	logins := p.Logins([]string{"engineers"}, db, []string{"web", "nobody", "root"})
	if len(logins) != 2 || logins[0].Login != "web" || logins[1].Rule.Name != "database-root" {
		t.Errorf("logins: %+v", logins)
	}
}

func TestDurationAndTexts(t *testing.T) {
	t.Parallel()
	r := complete(t).Rules[0]
	for d, want := range map[time.Duration]time.Duration{
		0: 15 * time.Minute, time.Second: time.Second, time.Hour: time.Hour,
		time.Hour + time.Second: 0, -time.Second: 0, time.Millisecond: 0,
	} {
		got, err := r.CheckDuration(d)
		if got != want || (err == nil) != (want != 0) {
			t.Errorf("duration %s: %s, %v", d, got, err)
		}
	}
	for _, c := range []struct {
		reason, ticket string
		want           *refusal.Error
	}{
		{"rotate the certificates", "INC-12", nil},
		{"", "INC-12", ErrReason},
		{"         ", "INC-12", ErrReason},
		{"fix", "INC-12", ErrReason},
		{"rotate the certificates", "", ErrTicket},
		{"rotate the certificates", "see INC-12", ErrTicket},
		{"rotate the certificates", "INC-12\nx", ErrTicket},
	} {
		err := r.CheckText(c.reason, c.ticket)
		if c.want == nil && err != nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%q, %q: got %v, want %v", c.reason, c.ticket, err, c.want)
		}
	}
	if got := refusal.As(r.CheckText("", "x")).Hint; got != "Say what you will do and why." {
		t.Errorf("the rule's message is not the hint: %q", got)
	}
}
