package approvals_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // as in sallyportd

	"pgregory.net/rapid"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/internal/refusal"
)

// explain is an explanation that must be given.
func (h *house) explain(c identity.Caller, in api.ExplainInput) api.Explanation {
	h.t.Helper()
	e, err := h.Explain(h.t.Context(), c, in)
	must(h.t, err)
	return e
}

func TestExplainSaysWhy(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin, otto, audrey := h.person("erin", "engineers"), h.person("otto", "operators"), h.person("audrey", "auditors")
	h.person("ann", "approvers")

	can := h.explain(erin, api.ExplainInput{Host: "db-1", Login: "dba"})
	if !can.Allowed || can.Rule == nil || can.Rule.Rule != "databases" || len(can.Approvers) != 1 || len(can.Approvers[0].People) != 1 ||
		can.Automatic || len(can.Rules) == 0 || !can.Rules[0].Decides {
		t.Errorf("dba: %+v", can)
	}
	if e := h.explain(erin, api.ExplainInput{Host: "web-1", Login: "web"}); !e.Allowed || !e.Automatic || len(e.Approvers) != 0 {
		t.Errorf("web: %+v", e)
	}

	long := h.explain(erin, api.ExplainInput{Host: "db-1", Login: "dba", Duration: "3h"})
	if long.Allowed || long.Code != "duration-over-limit" || long.Hint == "" || long.Rule == nil {
		t.Errorf("for too long: %+v", long)
	}
	if e := h.explain(erin, api.ExplainInput{Host: "db-1", Login: "dba", Emergency: true}); e.Allowed || e.Code != "no-emergency" {
		t.Errorf("an emergency: %+v", e)
	}

	// web@db-1: the rule for web servers is the nearest miss, by its labels alone.
	other := h.explain(erin, api.ExplainInput{Host: "db-1", Login: "web"})
	if other.Allowed || other.Code != "no-rule" || other.Rule != nil {
		t.Errorf("web on a database: %+v", other)
	}
	if v := other.Rules[0]; v.Fits || len(v.Unmet) != 1 {
		t.Errorf("nearest is %+v", v)
	}
	miss := slices.IndexFunc(other.Rules, func(v api.RuleVerdict) bool { return v.Rule == "web" })
	if miss < 0 || other.Rules[miss].Unmet[0].Condition != "where" || other.Rules[miss].Unmet[0].Detail != "it is for hosts with class=web" {
		t.Errorf("rule web: %+v", other.Rules)
	}

	// What one has done before counts, too.
	busy := h.person("busy", "engineers")
	for range approvals.MaxOpen {
		h.ask(busy, "dba", "db-1")
	}
	if e := h.explain(busy, api.ExplainInput{Host: "db-1", Login: "dba"}); e.Allowed || e.Code != "too-many-open" || e.Rule == nil {
		t.Errorf("with all open that may be: %+v", e)
	}

	// Operators and auditors hear of anybody, by id or address, and of all rules.
	for _, c := range []identity.Caller{otto, audrey} {
		for _, who := range []string{erin.ID, "erin@example.com", "ERIN@example.com"} {
			e := h.explain(c, api.ExplainInput{Host: "db-1", Login: "web", Person: who})
			if e.Person.ID != erin.ID || e.Code != "no-rule" || len(e.Rules) != 4 || e.Detail != "no rule of the policy lets erin ask for web on db-1" ||
				e.Hint != "on this host the rules let them ask for: dba, root, staged" {
				t.Errorf("%s about %s: %+v", c.Name, who, e)
			}
		}
		if e := h.explain(c, api.ExplainInput{Host: "absent", Login: "web", Person: erin.ID}); e.Allowed || e.Detail != "there is no such host" {
			t.Errorf("%s about a host that is not there: %+v", c.Name, e)
		}
		own := h.explain(c, api.ExplainInput{Host: "lonely", Login: "root"})
		if own.Allowed || len(own.Rules) != 4 || !strings.Contains(fmt.Sprint(own.Rules), "members of engineers") {
			t.Errorf("%s about lonely: %+v", c.Name, own)
		}
	}
}

// Whatever one asks about a host that one can ask nothing for, the answer is that
// of a host that does not exist; and other people do not exist.
func TestP10_ExplainIsBlind(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin, sven := h.person("erin", "engineers"), h.person("sven", "security")
	answer := func(c identity.Caller, host, login string) string {
		text, err := json.Marshal(h.explain(c, api.ExplainInput{Host: host, Login: login}))
		must(t, err)
		return strings.ReplaceAll(string(text), host, "HOST")
	}
	for _, login := range []string{"root", "dba", "nobody"} {
		if got, want := answer(erin, "lonely", login), answer(erin, "absent", login); got != want {
			t.Errorf("%s: a host that is there shows: %s, not %s", login, got, want)
		}
		if got, want := answer(sven, "db-1", login), answer(sven, "absent", login); got != want {
			t.Errorf("%s: to who can ask for nothing, db-1 shows: %s, not %s", login, got, want)
		}
		if got, want := answer(sven, h.hosts["db-1"].ID, login), answer(sven, "absent", login); got != want {
			t.Errorf("%s: by its id, db-1 shows: %s, not %s", login, got, want)
		}
	}
	// Rules for others are not told of, and logins of a host neither.
	h.hosts["db-2"] = approvals.Target{ID: h.hosts["db-2"].ID, Name: "db-2", Labels: h.hosts["db-2"].Labels, Logins: []string{"dba", "secret"}}
	hidden, absent := h.explain(erin, api.ExplainInput{Host: "db-2", Login: "secret"}), h.explain(erin, api.ExplainInput{Host: "db-2", Login: "absent"})
	hidden.Login, hidden.Detail, absent.Login, absent.Detail = "", "", "", ""
	if a, b := fmt.Sprintf("%+v", hidden), fmt.Sprintf("%+v", absent); a != b {
		t.Errorf("a login that is there shows: %s, not %s", a, b)
	}
	ann := h.person("ann", "approvers") // rule databases is for her, the others are not
	if e := h.explain(ann, api.ExplainInput{Host: "db-1", Login: "root"}); len(e.Rules) != 1 || e.Rules[0].Rule != "databases" {
		t.Errorf("rules for others: %+v", e.Rules)
	}

	for _, who := range []string{sven.ID, "sven@example.com", "per-000000000000", "nobody@example.com"} {
		_, err := h.Explain(t.Context(), erin, api.ExplainInput{Host: "db-1", Login: "dba", Person: who})
		refused(t, err, identity.ErrUnknownPerson)
		_, err = h.PersonReach(t.Context(), erin, who)
		refused(t, err, identity.ErrUnknownPerson)
	}
	for _, host := range []string{"db-1", "absent"} {
		_, err := h.HostReach(t.Context(), erin, host, "dba", "", 0)
		refused(t, err, approvals.ErrNotReader)
	}
	if n := len(h.all("access.refused")); n != 10 {
		t.Errorf("%d tries are in the log, not 10", n)
	}
}

func TestSeveralPeopleOfOneAddress(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	otto := h.person("otto", "operators")
	for _, subject := range []string{"1", "2"} {
		_, err := h.people.SignIn(t.Context(), identity.Claims{Issuer: "https://id.test", Subject: subject, Name: "Twin",
			Email: "twin@example.com", AuthTime: h.clock.Now()}, "web", "192.0.2.7")
		must(t, err)
	}
	_, err := h.Explain(t.Context(), otto, api.ExplainInput{Host: "db-1", Login: "dba", Person: "twin@example.com"})
	refused(t, err, identity.ErrSeveralPeople)
}

// Explain says yes exactly if the request is then taken, and no in its words;
// and both reaches name exactly those of whom it says yes. For random policies,
// people, hosts, times and asks.
func TestExplainAgreesWithRequests(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	groups := []string{"engineers", "approvers", "oncall"}
	people := []identity.Caller{h.person("p0"), h.person("p1", "engineers"), h.person("p2", "approvers", "oncall"), h.person("p3", "engineers", "oncall")}
	auditor := h.person("audrey", "auditors")
	logins := []string{"dba", "root", "web", "nobody"}
	s, games := h.Service, 0
	rapid.Check(t, func(t *rapid.T) {
		var doc strings.Builder
		games++
		fmt.Fprintf(&doc, "# %d\nsallyport: 1\nassurance: session\nroles: {operator: [operators], auditor: [auditors]}\nrules:\n", games)
		for i := range rapid.IntRange(1, 6).Draw(t, "rules") {
			fmt.Fprintf(&doc, "  - name: r%d\n    who: [%s]\n    where: %q\n    logins: [%s]\n    duration: {default: 10m, max: %dm}\n", i,
				strings.Join(rapid.SliceOfNDistinct(rapid.SampledFrom(groups), 1, 2, rapid.ID[string]).Draw(t, "who"), ", "),
				rapid.SampledFrom([]string{"*", "class=database", "class!=web", "class in (web, other)"}).Draw(t, "where"),
				strings.Join(rapid.SliceOfNDistinct(rapid.SampledFrom(logins[:3]), 1, 2, rapid.ID[string]).Draw(t, "logins"), ", "),
				rapid.IntRange(10, 60).Draw(t, "max"))
			how := rapid.IntRange(0, 2).Draw(t, "how")
			if how == 0 {
				doc.WriteString("    automatic: true\n")
				continue
			}
			if how == 1 {
				doc.WriteString("    automatic: {zone: Europe/Berlin, times: [{days: [mon, tue, wed], from: \"09:00\", to: \"17:00\"}]}\n")
			}
			doc.WriteString("    approvals: [{slots: [{groups: [approvers]}]}]\n")
			if rapid.Bool().Draw(t, "emergency") {
				doc.WriteString("    emergency: {who: [oncall], duration: {max: 10m}, review: {by: [approvers]}}\n")
			}
			if rapid.Bool().Draw(t, "ticket") {
				doc.WriteString("    ticket: {required: true, pattern: 'INC-[0-9]+'}\n")
			}
		}
		h.activate(doc.String())
		if string(h.Policy().Text) != doc.String() {
			t.Fatal("the policy is not in force")
		}
		h.clock.Advance(time.Duration(rapid.IntRange(1, 20).Draw(t, "hours")) * time.Hour)
		for range 6 {
			c := rapid.SampledFrom(people).Draw(t, "person")
			in := api.RequestInput{
				Host: rapid.SampledFrom([]string{"db-1", "web-1", "lonely", "absent"}).Draw(t, "host"), Login: rapid.SampledFrom(logins).Draw(t, "login"),
				Duration: rapid.SampledFrom([]string{"", "20m", "2h"}).Draw(t, "duration"), Emergency: rapid.Bool().Draw(t, "as emergency"),
				Reason: "a reason", Ticket: "INC-1",
			}
			e, err := s.Explain(h.t.Context(), c, api.ExplainInput{Host: in.Host, Login: in.Login, Duration: in.Duration, Emergency: in.Emergency})
			must(t, err)
			r, err := s.Request(h.t.Context(), c, in)
			if e.Allowed != (err == nil) {
				t.Fatalf("%s for %+v under\n%s: explained %+v, and then: %v", c.Name, in, doc.String(), e, err)
			}
			if no := refusal.As(err); no != nil && (no.Code != e.Code || no.Detail != e.Detail) {
				t.Fatalf("refused with %s (%s), explained with %s (%s)", no.Code, no.Detail, e.Code, e.Detail)
			}
			if err == nil && (e.Rule == nil || r.Rule != e.Rule.Rule || len(e.Rules) == 0 || !e.Rules[0].Decides || e.Rules[0].Rule != r.Rule ||
				e.Automatic != (r.State == api.Approved && r.Emergency == nil) || len(e.Approvers) != len(r.Approvers)) {
				t.Fatalf("explained %+v, and it became %+v", e, r)
			}
			if err == nil && r.State == api.Approved && r.Emergency == nil {
				_, err = s.Finish(h.t.Context(), c, r.ID)
				must(t, err)
			}
			// An auditor hears the same about that person.
			about, err := s.Explain(h.t.Context(), auditor, api.ExplainInput{Host: "db-1", Login: in.Login, Person: c.ID})
			must(t, err)
			own, err := s.Explain(h.t.Context(), c, api.ExplainInput{Host: "db-1", Login: in.Login})
			must(t, err)
			if about.Allowed != own.Allowed || about.Code != own.Code || (about.Rule == nil) != (own.Rule == nil) {
				t.Fatalf("about %s the auditor hears %+v, and they %+v", c.Name, about, own)
			}
		}
		for _, target := range h.hosts {
			for _, login := range target.Logins {
				reach, err := s.HostReach(h.t.Context(), auditor, target.Name, login, "", 0)
				must(t, err)
				if reach.Count != len(reach.People.Items) {
					t.Fatalf("%d people are said to be %d", len(reach.People.Items), reach.Count)
				}
				for _, c := range people {
					e, err := s.Explain(h.t.Context(), c, api.ExplainInput{Host: target.Name, Login: login})
					must(t, err)
					rule := ""
					if e.Rule != nil {
						rule = e.Rule.Rule
					}
					i := slices.IndexFunc(reach.People.Items, func(p api.ReachPerson) bool { return p.Person.ID == c.ID })
					if (i >= 0) != (rule != "") || i >= 0 && reach.People.Items[i].Rule != rule {
						t.Fatalf("%s for %s@%s: by %q, and the reach says %+v", c.Name, login, target.Name, rule, reach)
					}
					mine, err := s.PersonReach(h.t.Context(), c, "me")
					must(t, err)
					found := mine.Host(target).Logins
					i = slices.IndexFunc(found, func(l api.ReachLogin) bool { return l.Login == login })
					if (i >= 0) != (rule != "") || i >= 0 && found[i].Rule != rule {
						t.Fatalf("%s for %s@%s: by %q, and their reach says %+v", c.Name, login, target.Name, rule, found)
					}
				}
			}
		}
	})
}

func TestHostReachPages(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	otto := h.person("otto", "operators")
	for i := range 7 {
		h.person(fmt.Sprint("eng-", i), "engineers")
	}
	h.person("bystander", "security")
	seen, cursor := []string{}, ""
	for range 5 {
		page, err := h.HostReach(t.Context(), otto, "db-1", "dba", cursor, 3)
		must(t, err)
		if page.Count != 7 || len(page.Rules) != 1 || !slices.Equal(page.Rules[0].Groups, []string{"approvers", "engineers"}) {
			t.Fatalf("page: %+v", page)
		}
		for _, p := range page.People.Items {
			seen = append(seen, p.Person.Name)
		}
		if cursor = page.People.Next; cursor == "" {
			break
		}
	}
	if !slices.Equal(seen, []string{"eng-0", "eng-1", "eng-2", "eng-3", "eng-4", "eng-5", "eng-6"}) {
		t.Errorf("people: %q", seen)
	}
	for _, bad := range []struct {
		login, cursor string
		limit         int
		want          *refusal.Error
	}{{"nobody", "", 0, approvals.ErrBadLogin}, {"dba", "x", 0, approvals.ErrBadFilter}, {"dba", "", 201, approvals.ErrBadFilter}} {
		_, err := h.HostReach(t.Context(), otto, "db-1", bad.login, bad.cursor, bad.limit)
		refused(t, err, bad.want)
	}
	_, err := h.HostReach(t.Context(), otto, "absent", "dba", "", 0)
	if r := refusal.As(err); r == nil || r.Kind != refusal.NotFound {
		t.Errorf("an absent host: %v", err)
	}
}
