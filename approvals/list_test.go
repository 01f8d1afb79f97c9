package approvals_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
)

// Who sees which requests, alone and in lists.
func TestP10_RequestsAreForThoseConcerned(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin, finn := h.person("erin", "engineers"), h.person("finn", "engineers")
	erins, finns, auto := h.ask(erin, "dba", "db-1"), h.ask(finn, "root", "db-1"), h.ask(finn, "web", "web-1")
	for name, tt := range map[string]struct {
		who  identity.Caller
		sees []api.Request
	}{
		"requester":              {erin, []api.Request{erins}},
		"another requester":      {finn, []api.Request{finns, auto}},
		"approver":               {h.person("ann", "approvers"), []api.Request{erins, finns}},
		"approver of one":        {h.person("lee", "leads"), []api.Request{erins}},
		"approver of the other":  {h.person("sam", "security"), []api.Request{finns}},
		"approver elsewhere":     {h.person("dora", "directors"), nil},
		"auditor":                {h.person("aud", "auditors"), []api.Request{erins, finns, auto}},
		"operator":               {h.person("olga", "operators"), []api.Request{erins, finns, auto}},
		"colleague":              {h.person("eve", "engineers"), nil},
		"somebody of no group":   {h.person("nick"), nil},
		"group by another case":  {h.person("ivan", "Approvers", "approver", "approvers "), nil},
		"who calls self erin":    {identity.Caller{Person: identity.Person{Name: "erin", Email: "erin@example.com"}}, nil},
		"somebody without an id": {identity.Caller{}, nil},
	} {
		page, err := h.List(t.Context(), tt.who, approvals.ListFilter{})
		must(t, err)
		for _, r := range []api.Request{erins, finns, auto} {
			want := slices.ContainsFunc(tt.sees, func(s api.Request) bool { return s.ID == r.ID })
			_, err := h.Get(t.Context(), tt.who, r.ID)
			if (err == nil) != want || err != nil && !errors.Is(err, approvals.ErrUnknownRequest) {
				t.Errorf("%s reads %s: %v", name, r.Rule, err)
			}
			if state, _, err := h.State(t.Context(), tt.who, r.ID); (err == nil) != want || want && state != r.State {
				t.Errorf("%s learns that %s is %q: %v", name, r.Rule, state, err)
			}
			if listed := slices.ContainsFunc(page.Items, func(s api.Request) bool { return s.ID == r.ID }); listed != want {
				t.Errorf("%s has %s in the list: %v", name, r.Rule, listed)
			}
			if _, err := h.grant(tt.who, r.ID); (err == nil) != (tt.who.ID != "" && tt.who.ID == r.Requester.ID) {
				t.Errorf("%s locks the grant of %s: %v", name, r.Rule, err)
			}
		}
	}
}

func TestP10_ReadersDecideNothing(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin, aud := h.person("erin", "engineers"), h.person("aud", "auditors", "operators")
	r := h.ask(erin, "dba", "db-1")
	for _, v := range []api.Verdict{api.Approve, api.Deny} {
		_, err := h.Decide(t.Context(), aud, r.ID, api.DecisionInput{Verdict: v})
		refused(t, err, approvals.ErrNotApprover)
	}
	for _, a := range h.see(aud, r.ID).Actions {
		if a.Allowed || a.Why == "" {
			t.Errorf("an auditor's action: %+v", a)
		}
	}
}

func TestListNarrowsAndPages(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin, ann := h.person("erin", "engineers", "approvers"), h.person("ann", "approvers")
	finn, aud := h.person("finn", "engineers"), h.person("aud", "auditors")
	var newest []string // ids, newest first; several at one instant
	for i := range 13 {
		host := []string{"db-1", "db-2"}[i%2]
		by := []identity.Caller{erin, finn}[i%2]
		newest = append([]string{h.ask(by, "dba", host).ID}, newest...)
		if i%3 == 2 {
			h.clock.Advance(time.Minute)
		}
	}
	idsOf := func(c identity.Caller, f approvals.ListFilter) (ids []string) {
		t.Helper()
		for {
			page, err := h.List(t.Context(), c, f)
			must(t, err)
			for _, r := range page.Items {
				ids = append(ids, r.ID)
			}
			if f.Cursor = page.Next; f.Cursor == "" {
				return ids
			}
			if len(page.Items) != f.Limit {
				t.Fatalf("a page in the middle has %d items", len(page.Items))
			}
		}
	}
	all := idsOf(aud, approvals.ListFilter{})
	if len(all) != len(newest) || all[0] != newest[0] {
		t.Fatalf("the list is %v", all)
	}
	for _, limit := range []int{1, 4, 13, 200} {
		if got := idsOf(aud, approvals.ListFilter{Limit: limit}); !slices.Equal(got, all) {
			t.Errorf("by pages of %d the list is %v", limit, got)
		}
	}
	if got := idsOf(erin, approvals.ListFilter{Scope: approvals.Mine}); len(got) != 7 {
		t.Errorf("erin has %d requests", len(got))
	}
	if got := idsOf(aud, approvals.ListFilter{HostID: h.hosts["db-2"].ID}); len(got) != 6 {
		t.Errorf("db-2 has %d requests", len(got))
	}
	waiting := func(c identity.Caller, want int) {
		t.Helper()
		n, err := h.CountWaiting(t.Context(), c)
		must(t, err)
		if got := idsOf(c, approvals.ListFilter{Scope: approvals.Waiting}); len(got) != want || n != want {
			t.Errorf("%d requests wait for %s, counted %d, want %d", len(got), c.Name, n, want)
		}
	}
	waiting(ann, 13)
	waiting(erin, 6) // not her own
	waiting(finn, 0)
	waiting(aud, 0)
	h.approve(ann, newest[0])
	waiting(ann, 12)
	if got := idsOf(ann, approvals.ListFilter{States: []api.State{api.Approved, api.Active}}); !slices.Equal(got, newest[:1]) {
		t.Errorf("approved are %v", got)
	}

	for _, f := range []approvals.ListFilter{{Scope: "others"}, {Limit: 201}, {Limit: -1}, {Cursor: "x"}, {Cursor: "MTIz"}, {Cursor: "MTIzLjEw"}} {
		_, err := h.List(t.Context(), aud, f)
		refused(t, err, approvals.ErrBadFilter)
	}
	if page, err := h.List(t.Context(), finn, approvals.ListFilter{States: []api.State{"gone"}}); err != nil || page.Items == nil || len(page.Items) != 0 {
		t.Errorf("a list of nothing is %+v, %v", page, err)
	}
}

func TestRulesAndOpenHosts(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin, ann := h.person("erin", "engineers"), h.person("ann", "approvers")
	db, web := h.hosts["db-1"], h.hosts["web-1"]
	rules := h.Rules(erin, db)
	if len(rules) != 3 || rules[0].Login != "dba" || rules[0].MaxDuration != "2h" || rules[0].DefaultDuration != "30m" ||
		rules[0].Automatic || len(rules[0].Approvers) != 1 || !rules[0].Reason.Required || rules[0].Reason.Message != "Say why." {
		t.Errorf("rules of a database are %+v", rules)
	}
	if rules = h.Rules(h.person("eve"), db); rules == nil || len(rules) != 0 {
		t.Errorf("rules for nobody: %+v", rules)
	}

	open := func(want ...string) {
		t.Helper()
		got, err := h.OpenHosts(t.Context(), []string{db.ID, web.ID, "host-unknown"})
		must(t, err)
		if len(got) != len(want) || slices.ContainsFunc(want, func(id string) bool { return !got[id] }) {
			t.Errorf("open are %v, want %v", got, want)
		}
	}
	r := h.ask(erin, "dba", "db-1")
	open()
	h.approve(ann, r.ID)
	open(db.ID)
	at := h.clock.Now().Add(time.Minute)
	in := input("web", "web-1")
	in.NotBefore = &at
	_, err := h.Request(t.Context(), erin, in)
	must(t, err)
	open(db.ID) // the other's grant has not started
	h.clock.Advance(time.Minute)
	open(db.ID, web.ID)
	_, err = h.Finish(t.Context(), erin, r.ID)
	must(t, err)
	open(web.ID)
}
