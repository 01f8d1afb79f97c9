package approvals_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/policy"
	"sallyport/internal/ids"
	"sallyport/internal/refusal"
)

// What goes on is what is still there: a host that is gone or that another rule
// decides on now does not hold up the others, nor come along.
func TestSeveralHostsAreExtended(t *testing.T) {
	t.Parallel()
	h := newHouseUnder(t, twoRules)
	erin := h.person("erin", "engineers")
	for _, name := range []string{"a", "b", "c"} {
		h.host(name, map[string]string{"class": "database", "env": "test", "fleet": "x"}, "dba")
	}
	r, err := h.Request(t.Context(), erin, several("dba", map[string]string{"fleet": "x"}))
	must(t, err)
	must(t, h.use(erin, r.ID, "SHA256:k"))
	h.host("d", map[string]string{"class": "database", "fleet": "x"}, "dba") // came later

	more, err := h.Extend(t.Context(), erin, r.ID, api.ExtendInput{})
	must(t, err)
	if names(more.Hosts) != "a b c" || more.Extends != r.ID || more.Selector["fleet"] != "x" || more.State != api.Approved {
		t.Fatalf("extended to %+v", more)
	}
	h.clock.Advance(30 * time.Minute)
	g, err := h.grant(erin, more.ID)
	must(t, err)
	must(t, g.Check(h.clock.Now()))

	must(t, h.use(erin, more.ID, "SHA256:k"))
	delete(h.hosts, "a")
	lost := h.hosts["b"]
	lost.Labels = map[string]string{"class": "secret"}
	h.hosts["b"] = lost
	last, err := h.Extend(t.Context(), erin, more.ID, api.ExtendInput{})
	must(t, err)
	if names(last.Hosts) != "c" || last.Host != "c" {
		t.Errorf("extended to %s", names(last.Hosts))
	}
	h.clock.Advance(30 * time.Minute)
	g, err = h.grant(erin, last.ID)
	must(t, err)
	must(t, g.Check(h.clock.Now()))

	// No extension is for a host more than what it extends.
	g.Terms.MoreHosts = []approvals.TermsHost{{ID: h.hosts["d"].ID, Name: "d"}}
	g.TermsText, err = g.Terms.Encode()
	must(t, err)
	g.TermsHash = sum(g.TermsText)
	refused(t, g.Check(h.clock.Now()), approvals.ErrEvidence)
}

// Where rules differ since, what goes on is asked for anew.
func TestSeveralRulesEndAnExtension(t *testing.T) {
	t.Parallel()
	h := newHouseUnder(t, twoRules)
	erin := h.person("erin", "engineers")
	r, err := h.Request(t.Context(), erin, several("dba", databases))
	must(t, err)
	must(t, h.use(erin, r.ID, "SHA256:k"))
	changed := h.hosts["db-2"]
	changed.Labels = map[string]string{"class": "database", "env": "prod"}
	h.hosts["db-2"] = changed
	_, err = h.Extend(t.Context(), erin, r.ID, api.ExtendInput{})
	refused(t, err, approvals.ErrSeveralRules)

	// What runs goes on, on both: its terms are frozen.
	g, err := h.grant(erin, r.ID)
	must(t, err)
	must(t, g.Check(h.clock.Now()))
	p, err := policy.Parse([]byte(strings.ReplaceAll(twoRules, "where: class=database,", "where: class=web,")))
	must(t, err)
	h.force(p)
	g, err = h.grant(erin, r.ID)
	must(t, err)
	must(t, g.Check(h.clock.Now()))
}

const breakGlass = `
sallyport: 1
assurance: session
rules:
  - {name: glass, who: [engineers], where: class=database, logins: [root], duration: {max: 1h}, approvals: [{slots: [{groups: [approvers]}]}],
     emergency: {who: [engineers], duration: {default: 15m, max: 30m}, review: {by: [security], within: 4h}}}
`

func TestEmergencyOnSeveralHosts(t *testing.T) {
	t.Parallel()
	h := newHouseUnder(t, breakGlass)
	erin := h.person("erin", "engineers")
	in := several("root", databases)
	in.Emergency = true
	r, err := h.Request(t.Context(), erin, in)
	must(t, err)
	g, err := h.grant(erin, r.ID)
	must(t, err)
	must(t, g.Check(h.clock.Now()))
	if len(g.Terms.Hosts()) != 2 || r.Emergency == nil {
		t.Errorf("%+v", r)
	}
	e := h.all("emergency.started")[0]
	if !strings.HasPrefix(e.Summary, "opened root@db-1 and 1 more before approval") || len(e.Hosts) != 2 {
		t.Errorf("the log says %q of %v", e.Summary, e.Hosts)
	}
}

// Terms have one form: what an ask never makes cannot be read.
func TestP4_TermsOfSeveralHosts(t *testing.T) {
	t.Parallel()
	of := func(name string) approvals.TermsHost { return approvals.TermsHost{ID: ids.New(ids.Host), Name: name} }
	for name, change := range map[string]func(*approvals.Terms){
		"":                   func(*approvals.Terms) {},
		"without a selector": func(t *approvals.Terms) { t.Selector = nil },
		"a selector of nothing": func(t *approvals.Terms) {
			t.Selector = map[string]string{"class": "data base"}
		},
		"the first again":   func(t *approvals.Terms) { t.MoreHosts[1].ID = t.Host.ID },
		"one host twice":    func(t *approvals.Terms) { t.MoreHosts[1] = t.MoreHosts[0] },
		"one id twice":      func(t *approvals.Terms) { t.MoreHosts[1].ID = t.MoreHosts[0].ID },
		"one name twice":    func(t *approvals.Terms) { t.MoreHosts[1].Name = t.MoreHosts[0].Name },
		"not by name":       func(t *approvals.Terms) { slices.Reverse(t.MoreHosts) },
		"not the first":     func(t *approvals.Terms) { t.Host.Name = "zz" },
		"a host without id": func(t *approvals.Terms) { t.MoreHosts[0].ID = "*" },
		"too many": func(t *approvals.Terms) {
			for i := range 48 {
				t.MoreHosts = append(t.MoreHosts, of(fmt.Sprintf("e-%02d", i)))
			}
		},
	} {
		f := goodForge()
		f.terms.Selector = databases
		f.terms.MoreHosts = []approvals.TermsHost{of("db-2"), of("db-3")}
		change(&f.terms)
		text, err := f.terms.Encode()
		must(t, err)
		parsed, err := approvals.ParseTerms(text)
		if (err == nil) != (name == "") {
			t.Errorf("%q: %v", name, err)
		}
		if name == "" && (len(parsed.Hosts()) != 3 || parsed.Hosts()[2] != f.terms.MoreHosts[1]) {
			t.Errorf("read as %+v", parsed.Hosts())
		}
	}
}

// A row that somebody wrote by hand shows under no host that its terms do not name.
func TestForgedHostsOfARow(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin, ann := h.person("erin", "engineers"), h.person("ann", "approvers")
	honest, err := h.Request(t.Context(), erin, several("dba", databases))
	must(t, err)
	h.approve(ann, honest.ID)
	g, err := h.grant(erin, honest.ID)
	must(t, err)
	for name, columns := range map[string]string{
		"one more":   `host_id, array_append(more_host_ids, 'host-000000000000')`,
		"one less":   `host_id, '{}'`,
		"turned":     `more_host_ids[1], ARRAY[host_id]`,
		"other host": `'host-000000000000', more_host_ids`,
	} {
		terms := g.Terms
		terms.RequestID = ids.New(ids.Request)
		text, err := terms.Encode()
		must(t, err)
		must(t, h.exec(`INSERT INTO requests (id, person_id, policy_version, terms, terms_hash, approver_groups, created_at, approve_by,
				state, waiting_groups, starts_at, ends_at, key, host_id, more_host_ids)
			SELECT $2, person_id, policy_version, $3, $4, approver_groups, created_at, approve_by,
				state, waiting_groups, starts_at, ends_at, key, `+columns+` FROM requests WHERE id = $1`, honest.ID, terms.RequestID, text, sum(text)))
		if _, err := h.grant(erin, terms.RequestID); refusal.As(err) == nil || refusal.As(err).Code != approvals.ErrEvidence.Code {
			t.Errorf("%s: %v", name, err)
		}
	}
	page, err := h.List(t.Context(), erin, approvals.ListFilter{})
	must(t, err)
	if len(page.Items) != 1 {
		t.Errorf("%d requests are listed", len(page.Items))
	}
}
