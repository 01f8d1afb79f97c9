package policy

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/api"
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

func TestParseReadsEveryKey(t *testing.T) {
	t.Parallel()
	p := complete(t)
	r := p.Rules[0]
	if len(p.Hash) != 64 || len(p.Rules) != 2 {
		t.Fatalf("hash %q, %d rules", p.Hash, len(p.Rules))
	}
	for _, c := range []struct {
		what      string
		got, want any
	}{
		{"name", r.Name, "database-root"},
		{"selector", r.Where.String(), "class=database,env in (prod,staging)"},
		{"default", r.DefaultDuration, 15 * time.Minute},
		{"max", r.MaxDuration, time.Hour},
		{"lifetime", r.CertificateLifetime, 2 * time.Minute},
		{"approve within", r.ApproveWithin, 45 * time.Minute},
		{"start within", r.StartWithin, 10 * time.Minute},
		{"stages", len(r.Stages), 2},
		{"count when silent", r.Stages[0].Slots[1].Count, 1},
		{"count", r.Stages[1].Slots[0].Count, 2},
		{"addresses", len(r.SourceAddress), 2},
		{"automatic", p.Rules[1].Automatic, true},
		{"default capped by max", p.Rules[1].DefaultDuration, 20 * time.Minute},
		{"lifetime when silent", p.Rules[1].CertificateLifetime, DefaultCertificateLifetime},
	} {
		if c.got != c.want {
			t.Errorf("%s is %v, want %v", c.what, c.got, c.want)
		}
	}
	if got := p.RolesOf([]string{"auditors", "x"}); !slices.Equal(got, []api.Role{api.Auditor}) {
		t.Errorf("roles of auditors: %v", got)
	}
}

// Each case changes one line of the complete document; the error must say where
// the fault is and what it is.
func TestParseRefusesWithPlace(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("testdata/complete.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, old, new string
		line           int
		message        string
	}{
		{"unknown key", "approve_within: 45m", "aprove_within: 45m", 22, "aprove_within"},
		{"unknown top key", "sallyport: 1", "sallyport: 1\nextra: 1", 3, "extra"},
		{"unknown role", "auditor: [auditors]", "admin: [auditors]", 5, "unknown role"},
		{"duplicate key", "start_within: 10m", "logins: [root]", 23, "logins"},
		{"wrong version", "sallyport: 1", "sallyport: 2", 2, "must be 1"},
		{"bad login", "logins: [root]", `logins: ["ro*ot"]`, 11, "not a login"},
		{"no logins", "logins: [root]", "logins: []", 11, "needs 1 to"},
		{"bad selector", "class=database, env in", "class==, env inn", 10, "not a label selector"},
		{"no selector", "where: class=database, env in (prod, staging)", `where: ""`, 10, "which hosts"},
		{"nobody asks", "who: [engineers]\n    where: class", "who: []\n    where: class", 9, "means nobody"},
		{"default over max", "default: 15m", "default: 2h", 12, "longer than max"},
		{"max over limit", "max: 1h", "max: 200h", 12, "between"},
		{"negative", "max: 1h", "max: -1h", 12, "between"},
		{"no duration", "max: 1h", "max: soon", 12, "not a duration"},
		{"fraction", "max: 1h", "max: 1500ms", 12, "whole number of seconds"},
		{"long certificate", "lifetime: 2m", "lifetime: 2h", 14, "between"},
		{"bad address", "10.0.0.0/8", "10.0.0.1", 15, "not a CIDR"},
		{"address with host bits", "10.0.0.0/8", "10.0.0.1/8", 15, "bits set"},
		{"approvers are nobody", "groups: [security]", "groups: []", 19, "means nobody"},
		{"count zero", "count: 2", "count: 0", 21, "needs 1 to"},
		{"group twice", "[approvers, leads]", "[leads, leads]", 18, "twice"},
		{"automatic and approvals", "approve_within: 45m", "automatic: true", 22, "either automatic or"},
		{"neither", "automatic: true", "description: x", 26, "nobody could approve"},
		{"bad pattern", "'INC-[0-9]+'", "'INC-['", 25, "not a regular expression"},
		{"same name", "name: web", "name: database-root", 26, "another rule"},
		{"bad name", "name: web", "name: Web Rule", 26, "needs a name"},
		{"wrong type", "logins: [root]", "logins: root", 11, "string"},
		{"not yaml", "rules:", "rules: [", 0, ""},
		{"alias", "approve_within: 45m\n    start_within: 10m", "approve_within: &t 45m\n    start_within: *t", 23, "aliases"},
		{"tag", "start_within: 10m", "start_within: !!str 10m", 23, "tags"},
		{"second document", "rules:", "---\nrules:", 0, "exactly one"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if !strings.Contains(string(source), c.old) {
				t.Fatalf("the document has no %q", c.old)
			}
			_, err := Parse([]byte(strings.Replace(string(source), c.old, c.new, 1)))
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("got %v, want an *Error", err)
			}
			if c.line != 0 && e.Line != c.line {
				t.Errorf("at line %d, want %d: %v", e.Line, c.line, e)
			}
			if c.line != 0 && e.Column == 0 {
				t.Errorf("no column: %v", e)
			}
			if !strings.Contains(e.Error(), c.message) {
				t.Errorf("%q does not say %q", e, c.message)
			}
		})
	}
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

func FuzzParse(f *testing.F) {
	text, err := os.ReadFile("testdata/complete.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte("sallyport: 1\nrules:\n- {}\n"))
	f.Fuzz(func(t *testing.T, source []byte) {
		p, err := Parse(source)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Message == "" {
				t.Fatalf("not an explained *Error: %v", err)
			}
			return
		}
		for _, r := range p.Rules {
			if len(r.Groups) == 0 || len(r.Logins) == 0 || r.Where == nil || r.MaxDuration <= 0 ||
				r.Automatic == (len(r.Stages) > 0) {
				t.Fatalf("an accepted rule is open or empty: %+v", r)
			}
		}
	})
}
