package policy

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // as in sallyportd

	"sallyport/api"
)

func TestParseReadsEveryKey(t *testing.T) {
	t.Parallel()
	p := complete(t)
	r, deploys, web := p.Rules[0], p.Rules[1], p.Rules[2]
	if len(p.Hash) != 64 || len(p.Rules) != 3 {
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
		{"pty", r.NoPTY, true},
		{"forwarding, in one order", slices.Equal(r.Forwarding, []Forwarding{AgentForwarding, PortForwarding}), true},
		{"key types", len(r.KeyTypes), 2},
		{"verify required", r.VerifyRequired, true},
		{"single use", r.SingleUse, true},
		{"at end", r.KeepSessions, true},
		{"at end when silent", web.KeepSessions, false},
		{"record", r.Record, true},
		{"sign-in age", r.MaxSignInAge, 8 * time.Hour},
		{"assurance", r.Assurance, Provider},
		{"max age", r.MaxAge, 15 * time.Minute},
		{"acr", strings.Join(r.ACRValues, " "), "phr phrh"},
		{"extend", r.Extend, Extend{Times: 2, By: 30 * time.Minute, Automatic: true}},
		{"remind", r.Remind, 15 * time.Minute},
		{"escalate", len(r.Escalate), 2},
		{"escalate after", r.Escalate[1].After, 20 * time.Minute},
		{"emergency max", r.Emergency.MaxDuration, 20 * time.Minute},
		{"emergency default", r.Emergency.DefaultDuration, 10 * time.Minute},
		{"emergency review", r.Emergency.ReviewWithin, 12 * time.Hour},
		{"emergency reviewers", strings.Join(r.Emergency.ReviewBy, " "), "security"},
		{"emergency tells", strings.Join(r.Emergency.Tell, " "), "security"},
		{"zone", deploys.During.Zone.String(), "Europe/Berlin"},
		{"friday", deploys.During.Times[1].Days[0], time.Friday},
		{"to", deploys.During.Times[1].To, 12*time.Hour + 30*time.Minute},
		{"automatic", web.Automatic, true},
		{"always", web.During == nil, true},
		{"default capped by max", web.DefaultDuration, 20 * time.Minute},
		{"lifetime when silent", web.CertificateLifetime, DefaultCertificateLifetime},
		{"pty when silent", web.NoPTY, false},
		{"assurance of the document", web.Assurance, Session},
		{"extend when silent", web.Extend, Extend{}},
		{"emergency when silent", web.Emergency == nil, true},
	} {
		if c.got != c.want {
			t.Errorf("%s is %v, want %v", c.what, c.got, c.want)
		}
	}
	if got := p.RolesOf([]string{"auditors", "x"}); !slices.Equal(got, []api.Role{api.Auditor}) {
		t.Errorf("roles of auditors: %v", got)
	}
}

func TestProviderAssuranceIsTheDefault(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/complete.yaml")
	if err != nil {
		t.Fatal(err)
	}
	p, err := Parse([]byte(strings.Replace(string(text), "assurance: session\n", "", 1)))
	if err != nil {
		t.Fatal(err)
	}
	if got := p.Rules[2].Assurance; got != Provider {
		t.Errorf("assurance is %q", got)
	}
}

// Each case changes one place of the complete document; the error must say where
// the fault is and what it is.
func TestParseRefusesWithPlace(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("testdata/complete.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, old, new string
		at             string // what stands in the line of the fault; where the change begins if empty, no line if "-"
		message        string
	}{
		{"unknown key", "approve_within: 45m", "aprove_within: 45m", "", "aprove_within"},
		{"unknown top key", "sallyport: 1", "sallyport: 1\nextra: 1", "extra", "extra"},
		{"unknown role", "auditor: [auditors]", "admin: [auditors]", "", "unknown role"},
		{"duplicate key", "start_within: 10m", "logins: [x]", "", "logins"},
		{"wrong version", "sallyport: 1", "sallyport: 2", "", "must be 1"},
		{"bad login", "logins: [root]", `logins: ["ro*ot"]`, "", "not a login"},
		{"no logins", "logins: [root]", "logins: []", "", "needs 1 to"},
		{"bad selector", "class=database, env in", "class==, env inn", "", "not a label selector"},
		{"no selector", "where: class=database, env in (prod, staging)", `where: ""`, "", "which hosts"},
		{"nobody asks", "who: [engineers]\n    where: class=database", "who: []\n    where: class=database", "", "means nobody"},
		{"default over max", "default: 15m", "default: 2h", "", "longer than max"},
		{"max over limit", "max: 1h", "max: 200h", "", "between"},
		{"negative", "max: 1h", "max: -1h", "", "between"},
		{"no duration", "max: 1h", "max: soon", "", "not a duration"},
		{"fraction", "max: 1h", "max: 1500ms", "", "whole number of seconds"},
		{"no max", "duration: {default: 15m, max: 1h}", "duration: {default: 15m}", "", "how long"},
		{"approvers are nobody", "groups: [security]}\n      - slots", "groups: []}\n      - slots", "", "means nobody"},
		{"another end", "at_end: keep", "at_end: kill", "", "end or keep"},
		{"count zero", "count: 2", "count: 0", "", "needs 1 to"},
		{"group twice", "[approvers, leads]", "[leads, leads]", "", "twice"},
		{"automatic and approvals", "approve_within: 45m", "automatic: true", "", "either automatic or"},
		{"neither", "automatic: true\ntests", "description: x\ntests", "name: web", "nobody could approve"},
		{"not automatic, no approvals", "automatic: true\ntests", "automatic: false\ntests", "name: web", "nobody could approve"},
		{"bad pattern", "'INC-[0-9]+'", "'INC-['", "", "not a regular expression"},
		{"same name", "name: web", "name: database-root", "name: database-root\n    who: [engineers]\n    where: \"*\"", "another rule"},
		{"bad name", "name: web", "name: Web Rule", "", "needs a name"},
		{"wrong type", "logins: [root]", "logins: root", "", "string"},
		{"not yaml", "rules:", "rules: [", "-", ""},
		{"alias", "approve_within: 45m\n    start_within: 10m", "approve_within: &t 45m\n    start_within: *t", "*t", "aliases"},
		{"tag", "start_within: 10m", "start_within: !!str 10m", "", "tags"},
		{"second document", "rules:", "---\nrules:", "-", "exactly one"},

		{"long certificate", "lifetime: 2m", "lifetime: 2h", "", "between"},
		{"bad address", "10.0.0.0/8", "10.0.0.1", "", "not a CIDR"},
		{"address with host bits", "10.0.0.0/8", "10.0.0.1/8", "", "bits set"},
		{"forwarding of sockets", "forwarding: [port, agent]", "forwarding: [sockets]", "", "kind of forwarding"},
		{"forwarding twice", "forwarding: [port, agent]", "forwarding: [port, port]", "", "twice"},
		{"weak key type", "sk-ssh-ed25519@openssh.com, ", "ssh-dss, ", "", "key type"},
		{"no key type", "key_types: [sk-ssh-ed25519@openssh.com, sk-ecdsa-sha2-nistp256@openssh.com]", "key_types: []", "", "no key at all"},
		{"verify with a key on disk", "[sk-ssh-ed25519@openssh.com, ", "[ssh-ed25519, ", "verify_required", "security keys"},
		{"verify with any key", "      key_types: [sk-ssh-ed25519@openssh.com, sk-ecdsa-sha2-nistp256@openssh.com]\n", "", "verify_required", "security keys"},
		{"sign-in age of seconds", "max_sign_in_age: 8h", "max_sign_in_age: 5s", "", "between"},

		{"bad assurance", "assurance: provider", "assurance: trust", "", "not an assurance"},
		{"bad default assurance", "assurance: session", "assurance: none", "", "not an assurance"},
		{"age without provider", "assurance: provider\n    max_age: 15m\n    acr_values: [phr, phrh]", "assurance: session\n    max_age: 15m", "max_age: 15m", "only the identity provider"},
		{"acr without provider", "assurance: provider\n    max_age: 15m\n    acr", "assurance: session\n    acr", "acr_values: [phr, phrh]", "only the identity provider"},
		{"acr with a space", "[phr, phrh]", `["phr phrh"]`, "", "not an authentication context"},
		{"acr twice", "[phr, phrh]", `[phr, phr]`, "", "twice"},

		{"no extension", "times: 2", "times: 0", "", "between 1 and"},
		{"too many extensions", "times: 2", "times: 21", "", "between 1 and"},
		{"extension longer than the rule", "by: 30m", "by: 61m", "", "between"},
		{"extension of no length", "times: 2, by: 30m", "times: 2", "", "how long each"},
		{"reminder after the end", "remind: 15m", "remind: 45m", "", "between"},
		{"escalation after the end", "after: 20m", "after: 46m", "", "between"},
		{"escalation out of order", "after: 20m", "after: 10m", "", "not later"},
		{"escalation at no time", "{after: 10m, groups: [managers]}", "{groups: [managers]}", "", "how long after"},
		{"escalation to nobody", "groups: [managers]", "groups: []", "", "means nobody"},
		{"reminder of nobody", "automatic: true\ntests", "automatic: true\n    remind: 5m\ntests", "remind: 5m", "nobody is asked"},
		{"escalation of nobody", "automatic: true\ntests", "automatic: true\n    escalate: [{after: 5m, groups: [x]}]\ntests", "escalate: [", "nobody is asked"},
		{"emergency of nobody", "who: [oncall]", "who: []", "", "means nobody"},
		{"emergency longer than the rule", "duration: {default: 10m, max: 20m}", "duration: {max: 61m}", "", "between"},
		{"emergency without end", "duration: {default: 10m, max: 20m}", "duration: {}", "", "how long"},
		{"emergency that nobody reviews", "by: [security]", "by: []", "", "means nobody"},
		{"emergency that tells nobody", "tell: [security]", "tell: []", "", "means nobody"},
		{"emergency of an automatic rule", "automatic: true\ntests", "automatic: true\n    emergency: {who: [x], duration: {max: 5m}, review: {by: [y]}}\ntests", "emergency: {who", "needs no emergency"},

		{"no zone", "zone: Europe/Berlin", `zone: ""`, "", "name of a time zone"},
		{"the machine's zone", "zone: Europe/Berlin", "zone: Local", "", "name of a time zone"},
		{"unknown zone", "zone: Europe/Berlin", "zone: Europe/Atlantis", "", "not a time zone"},
		{"zone outside", "zone: Europe/Berlin", "zone: ../../etc/passwd", "", "not a time zone"},
		{"day", "days: [fri]", "days: [friday]", "", "not a day"},
		{"no day", "days: [fri]", "days: []", "", "at least one day"},
		{"time", `to: "12:30"`, `to: "12:60"`, "", "not a time of day"},
		{"time without minutes", `to: "12:30"`, `to: "12"`, "", "not a time of day"},
		{"over midnight", `from: "09:00", to: "12:30"`, `from: "22:00", to: "06:00"`, "", "as two"},
		{"schedule without approvals", "approvals:\n      - slots:\n          - {groups: [approvers]}\n  - name: web", "description: x\n  - name: web", "zone: Europe/Berlin", "at other times"},
		{"schedule with another key", "zone: Europe/Berlin", "zone: Europe/Berlin\n      days: [mon]", "days: [mon]\n", "days"},
		{"automatic as a word", "automatic: true\ntests", "automatic: sometimes\ntests", "", ""},

		{"case without a name", "name: after office hours it does", `name: ""`, "", "needs a name"},
		{"case that fails", "expect: {refused: true}", "expect: {rule: database-root}", "", "no rule fits"},
		{"case that fails: refused", "expect: {rule: database-root}", "expect: {refused: true}", "", `rule "database-root" allows it`},
		{"case that fails: rule", "expect: {rule: deploys, automatic: true, needs: []}", "expect: {rule: web}", "", `rule "deploys" decides`},
		{"case that fails: automatic", "rule: deploys, automatic: true", "rule: deploys, automatic: false", "", "automatic is true"},
		{"case that fails: needs", "needs: [1 from approvers]", "needs: [2 from approvers]", "", `needs "1 from approvers"`},
		{"case that fails: needs nobody", "rule: deploys, automatic: true, needs: []", "rule: deploys, needs: [1 from approvers]", "", "needs nobody"},
		{"case that fails: emergency", "groups: [engineers, oncall]", "groups: [engineers]", "expect: {rule: database-root}", "no emergency"},
		{"case without a time", "    at: 2026-03-02T17:00:00+01:00\n", "", "after office hours", "at which time"},
		{"case with a bad time", "at: 2026-03-02T17:00:00+01:00", "at: yesterday", "", "not a time"},
		{"case that expects nothing", "expect: {refused: true}", "expect: {}", "", "either refused"},
		{"case that expects both", "expect: {refused: true}", "expect: {refused: true, rule: web}", "", "either refused"},
		{"case that expects too much", "expect: {refused: true}", "expect: {refused: true, needs: []}", "", "needs nobody"},
		{"case of an emergency that expects too much", "expect: {rule: database-root}", "expect: {rule: database-root, needs: []}", "", "asks nobody first"},
		{"case with a bad login", "login: deploy\n    at", "login: Deploy\n    at", "", "not a login"},
		{"case with another key", "login: deploy\n    at", "login: deploy\n    att", "att:", "att"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if !strings.Contains(string(source), c.old) {
				t.Fatalf("the document has no %q", c.old)
			}
			changed := strings.Replace(string(source), c.old, c.new, 1)
			_, err := Parse([]byte(changed))
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("got %v, want an *Error", err)
			}
			place := strings.Index(string(source), c.old)
			if c.at != "" {
				place = strings.Index(changed, c.at)
			}
			if c.at != "-" {
				if want := 1 + strings.Count(changed[:place], "\n"); e.Line != want {
					t.Errorf("at line %d, want %d: %v", e.Line, want, e)
				}
				if e.Column == 0 {
					t.Errorf("no column: %v", e)
				}
			}
			if !strings.Contains(e.Error(), c.message) {
				t.Errorf("%q does not say %q", e, c.message)
			}
		})
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
			always := r.Automatic && r.During == nil
			if len(r.Groups) == 0 || len(r.Logins) == 0 || r.Where == nil || r.MaxDuration <= 0 || r.Assurance == "" ||
				always == (len(r.Stages) > 0) || r.Emergency != nil && len(r.Emergency.ReviewBy) == 0 {
				t.Fatalf("an accepted rule is open or empty: %+v", r)
			}
		}
	})
}
