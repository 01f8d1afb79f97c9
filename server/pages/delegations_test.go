package pages

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/evidence"
	"sallyport/approvals/identity"
	"sallyport/internal/ids"
)

// What the house does about delegations: just enough to walk through the pages.

// find is somebody by id or address.
func (h *house) who(idOrEmail string) (identity.Caller, bool) {
	for _, p := range h.people {
		if p.ID == idOrEmail || p.Email == idOrEmail {
			return p, true
		}
	}
	return identity.Caller{}, false
}

func (h *house) Lendable(_ context.Context, c identity.Caller, delegator string) (api.Person, []string, error) {
	if delegator != "" {
		p, ok := h.who(delegator)
		if !ok {
			return api.Person{}, nil, identity.ErrUnknownPerson.On("delegator")
		}
		c = p
	}
	if !slices.Contains([]string{"approvers", "security"}, c.Groups[0]) {
		return c.API(), nil, nil
	}
	return c.API(), slices.Clone(c.Groups), nil
}

func (h *house) Delegate(ctx context.Context, c identity.Caller, in api.DelegationInput) (api.Delegation, error) {
	if err := h.saw(in); err != nil {
		return api.Delegation{}, err
	}
	if in.Delegator != "" && !c.Has(api.Operator) {
		return api.Delegation{}, approvals.ErrNotOperator
	}
	of, groups, err := h.Lendable(ctx, c, in.Delegator)
	if err != nil {
		return api.Delegation{}, err
	}
	to, ok := h.who(in.Delegate)
	if !ok {
		return api.Delegation{}, identity.ErrUnknownPerson.On("delegate")
	}
	if in.Groups != nil {
		groups = in.Groups
	}
	d := api.Delegation{ID: ids.New(ids.Delegation), State: "running", Delegator: of, Delegate: to.API(), MadeBy: c.API(),
		Groups: groups, From: h.clock.Now(), Until: in.Until, Reason: in.Reason, MadeAt: h.clock.Now()}
	if in.From != nil && in.From.After(d.From) {
		d.From, d.State = *in.From, "planned"
	}
	h.lent = append([]api.Delegation{d}, h.lent...)
	return d, nil
}

func (h *house) Delegations(_ context.Context, c identity.Caller, f approvals.DelegationFilter) (api.Page[api.Delegation], error) {
	var page api.Page[api.Delegation]
	if !slices.Contains([]approvals.DelegationScope{"", "mine", "to-me"}, f.Scope) {
		return page, approvals.ErrBadFilter
	}
	start, _ := strconv.Atoi(f.Cursor)
	for i, d := range h.lent {
		mine, toMe := d.Delegator.ID == c.ID, d.Delegate.ID == c.ID
		switch {
		case i < start, f.Scope == approvals.MyDelegations && !mine, f.Scope == approvals.DelegatedToMe && !toMe,
			!mine && !toMe && len(c.Roles) == 0, !f.Past && (d.State == "over" || d.State == "ended"):
			continue
		}
		if len(page.Items) == 50 {
			page.Next = strconv.Itoa(i)
			break
		}
		d.CanEnd = (mine || toMe || c.Has(api.Operator)) && (d.State == "planned" || d.State == "running")
		page.Items = append(page.Items, d)
	}
	return page, nil
}

func (h *house) Delegation(ctx context.Context, c identity.Caller, id string) (api.Delegation, error) {
	all, err := h.Delegations(ctx, c, approvals.DelegationFilter{Past: true})
	for _, d := range all.Items {
		if d.ID == id {
			return d, err
		}
	}
	return api.Delegation{}, approvals.ErrUnknownDelegation
}

func (h *house) EndDelegation(_ context.Context, c identity.Caller, id string) (api.Delegation, error) {
	if err := h.saw("end " + id); err != nil {
		return api.Delegation{}, err
	}
	for i := range h.lent {
		if h.lent[i].ID == id {
			now, by := h.clock.Now(), c.API()
			h.lent[i].State, h.lent[i].EndedAt, h.lent[i].EndedBy = "ended", &now, &by
			return h.lent[i], nil
		}
	}
	return api.Delegation{}, approvals.ErrUnknownDelegation
}

// lend adds a delegation from an approver to somebody, for another day.
func (h *house) lend(to string, change func(*api.Delegation)) api.Delegation {
	now := h.clock.Now()
	d := api.Delegation{ID: ids.New(ids.Delegation), State: "running", Delegator: h.person("approver"), Delegate: h.person(to), MadeBy: h.person("approver"),
		Groups: []string{"approvers"}, From: now.Add(-time.Hour), Until: now.Add(24 * time.Hour), Reason: "away <b>today</b>", MadeAt: now.Add(-time.Hour)}
	if change != nil {
		change(&d)
	}
	h.lent = append(h.lent, d)
	return d
}

// delegate lets somebody decide on the request for the house's approver, as the
// room below says it.
func (h *house) delegate(r *api.Request, to string) *api.Delegate {
	d := &api.Delegate{Person: h.person(to), For: h.person("approver"), Until: h.clock.Now().Add(24 * time.Hour), Delegation: "del-000000000001"}
	h.behalf = map[string]*api.Delegate{r.ID + to + "approve": d, r.ID + to + "deny": d}
	r.Approvers[0].Delegates = []api.Delegate{*d}
	return d
}

func TestDelegatingWithoutScript(t *testing.T) {
	t.Parallel()
	h, _ := open(t)
	server := httptest.NewServer(doors(h))
	t.Cleanup(server.Close)
	ada, sam, erin := browse(t, server.URL, "approver"), browse(t, server.URL, "security"), browse(t, server.URL, "engineer")
	contains(t, ada.page, `href="/delegations"`)
	ada.open("/delegations")
	contains(t, ada.page, "Nobody decides for anybody here", "Let somebody decide for you", `name="groups" value="approvers" checked`, `name="zone" value="UTC"`)
	if strings.Contains(ada.page, `name="delegator"`) {
		t.Error("who is no operator is asked whose decisions it is about")
	}
	ada.press("Let them decide</span>", url.Values{"delegate": {"security@example.com"}, "groups": {"approvers"}, "start_date": {"2026-12-01"}, "start_time": {"09:00"},
		"until_date": {"2026-12-05"}, "until_time": {"18:30"}, "zone": {"Europe/Berlin"}, "reason": {"on leave"}})
	in := h.inputs[len(h.inputs)-1].(api.DelegationInput)
	from := time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC)
	if in.Delegate != "security@example.com" || in.Delegator != "" || !slices.Equal(in.Groups, []string{"approvers"}) || in.From == nil ||
		!in.From.Equal(from) || !in.Until.Equal(time.Date(2026, 12, 5, 17, 30, 0, 0, time.UTC)) || in.Reason != "on leave" {
		t.Errorf("asked for %+v", in)
	}
	contains(t, ada.page, "Sam Security</strong> will decide for <strong>you", "on leave", "Planned", "1 Dec 2026, 08:00 UTC")
	sam.open("/delegations?scope=to-me")
	contains(t, sam.page, "You</strong> will decide for <strong>Ada Approver", `/end"`)
	erin.open("/delegations")
	contains(t, erin.page, "Nobody decides for anybody here", "there is nothing for you to delegate")
	if strings.Contains(erin.page, "<form class") {
		t.Error("who has nothing to delegate gets a form")
	}

	// Ending takes a second page, which says what ends.
	sam.open("/delegations/" + h.lent[0].ID + "/end")
	contains(t, sam.page, "End this delegation?", "Ada Approver", "approvers", "on leave", "What was decided under it stands")
	if h.lent[0].State != "planned" {
		t.Fatal("looking ended it")
	}
	sam.press("End it now</span>", nil)
	contains(t, sam.page, "Nobody decides for anybody here")
	sam.open("/delegations?past=yes")
	contains(t, sam.page, "ended by Sam Security", "Ended", "Without those that are over")
	sam.open("/delegations/" + h.lent[0].ID + "/end")
	contains(t, sam.page, "It was ended already, by Sam Security")
	if strings.Contains(sam.page, "End it now") {
		t.Error("what is over can be ended")
	}
}

func TestOperatorsDelegateForOthers(t *testing.T) {
	t.Parallel()
	h, v := open(t)
	server := httptest.NewServer(doors(h))
	t.Cleanup(server.Close)
	oscar := browse(t, server.URL, "operator")
	oscar.open("/people/" + h.people["approver"].ID)
	contains(t, oscar.page, `href="/delegations?delegator=`+h.people["approver"].ID)
	oscar.open("/delegations")
	contains(t, oscar.page, `name="delegator"`, "You are in no group that decides on requests")
	oscar.press("Show their groups", url.Values{"delegator": {"approver@example.com"}, "delegate": {"security@example.com"}, "reason": {"ill"}})
	contains(t, oscar.page, "Let somebody decide for Ada Approver", `name="groups" value="approvers" checked`, `value="security@example.com"`, ">ill</textarea>")
	fill := url.Values{"groups": {"approvers"}, "until_date": {"2026-12-05"}, "until_time": {"18:30"}, "reason": {"ill"}}
	oscar.press("Let them decide</span>", fill)
	in := h.inputs[len(h.inputs)-1].(api.DelegationInput)
	if in.Delegator != "approver@example.com" || in.From != nil {
		t.Errorf("asked for %+v", in)
	}
	contains(t, oscar.page, "Sam Security</strong> decides for <strong>Ada Approver", "made by Oscar Operator")
	for _, path := range []string{"/delegations", "/delegations?scope=mine"} {
		contains(t, v.page("auditor", "/delegations"), "made by Oscar Operator")
		if strings.Contains(v.page("auditor", path), `/end"`) {
			t.Error("an auditor is offered to end a delegation")
		}
	}
	// The groups shown are not those of whom it says by now.
	form := url.Values{"groups_of": {"approver@example.com"}, "groups": {"approvers"}, "delegator": {"security@example.com"}, "delegate": {"engineer@example.com"},
		"until_date": {"2026-12-05"}, "until_time": {"18:30"}, "reason": {"ill"}}
	n := len(h.inputs)
	w := v.do("operator", "POST", "/delegations", form)
	if w.Code != http.StatusUnprocessableEntity || len(h.inputs) != n || !strings.Contains(w.Body.String(), `name="groups" value="security"`) {
		t.Errorf("groups of another: status %d", w.Code)
	}
	// Who is no operator names nobody else, whatever they post.
	w = v.do("engineer", "POST", "/delegations", url.Values{"delegator": {"approver@example.com"}, "delegate": {"security@example.com"},
		"until_date": {"2026-12-05"}, "until_time": {"18:30"}, "reason": {"mine now"}})
	if w.Code != http.StatusForbidden || len(h.lent) != 1 {
		t.Errorf("an engineer for an approver: status %d", w.Code)
	}
}

func TestRefusedDelegationsKeepTheForm(t *testing.T) {
	t.Parallel()
	h, v := open(t)
	whole := func() url.Values {
		return url.Values{"delegate": {"security@example.com"}, "groups_of": {""}, "groups": {"approvers"}, "until_date": {"2026-12-05"}, "until_time": {"18:30"}, "reason": {"kept <text>"}}
	}
	for name, c := range map[string]struct {
		change url.Values
		status int
		fault  string
	}{
		"no end":     {url.Values{"until_date": {""}, "until_time": {""}}, 422, "until-fault"},
		"half a day": {url.Values{"until_time": {""}}, 422, "until-fault"},
		"no day":     {url.Values{"until_date": {"2026-02-31"}}, 422, "until-fault"},
		"no zone":    {url.Values{"start_date": {"2026-12-01"}, "start_time": {"09:00"}, "zone": {"Mars/Base"}}, 422, "from-fault"},
		"no group":   {url.Values{"groups": nil}, 422, "groups-fault"},
		"nobody":     {url.Values{"delegate": {"nobody@example.com"}}, 404, "delegate-fault"},
	} {
		form := whole()
		for k, val := range c.change {
			form[k] = val
		}
		w := v.do("approver", "POST", "/delegations", form)
		if page := w.Body.String(); w.Code != c.status || !strings.Contains(page, `id="`+c.fault+`"`) || !strings.Contains(page, "kept &lt;text&gt;") || !strings.Contains(page, `aria-describedby="`+c.fault+`"`) {
			t.Errorf("%s: status %d\n%s", name, w.Code, page)
		}
	}
	if len(h.lent) != 0 {
		t.Errorf("made %+v", h.lent)
	}
	for path, want := range map[string]int{"/delegations?scope=everything": 422, "/delegations/del-000000000000/end": 404} {
		if w := v.get("approver", path); w.Code != want {
			t.Errorf("GET %s: status %d, want %d", path, w.Code, want)
		}
	}
	if w := v.do("approver", "POST", "/delegations", whole(), "Sec-Fetch-Site", "cross-site"); w.Code != http.StatusForbidden || len(h.lent) != 0 {
		t.Errorf("from another site: status %d", w.Code)
	}
}

func TestLongListsOfDelegationsPage(t *testing.T) {
	t.Parallel()
	h, v := open(t)
	for range 51 {
		h.lend("security", nil)
	}
	h.lend("engineer", func(d *api.Delegation) { d.State = "over" })
	page := v.page("approver", "/delegations?scope=mine")
	if n := strings.Count(page, `<li class="row"`); n != 50 {
		t.Errorf("%d rows", n)
	}
	contains(t, page, `href="/delegations?cursor=50&amp;scope=mine"`, "away &lt;b&gt;today", `href="/delegations?past=yes&amp;scope=mine"`)
	contains(t, v.page("approver", "/delegations?scope=mine&cursor=50"), `href="/delegations?scope=mine"`)
}

// Wherever a decision is shown or given, it says for whom.
func TestForWhomIsShownEverywhere(t *testing.T) {
	t.Parallel()
	h, v := open(t)
	r := &h.asked[1]
	h.delegate(r, "engineer")
	r.Assurance = evidence.Provider
	contains(t, v.page("natarajan", "/requests/"+r.ID), "Erin Engineer</span> <span class=\"muted\">for Ada Approver")
	for _, path := range []string{"/approvals", "/requests/" + r.ID, "/requests/" + r.ID + "/decide?verdict=approve", "/requests/" + r.ID + "/decide?verdict=deny"} {
		contains(t, v.page("engineer", path), "You decide for <strong>Ada Approver</strong>", "until <time")
	}
	contains(t, v.page("engineer", "/"), "you decide for Ada Approver")
	page := v.page("approver", "/requests/"+r.ID)
	contains(t, page, `name="for_approve" value="me"`, `name="for_deny" value="me"`)
	if strings.Contains(page, "You decide for") {
		t.Error("the delegator is told that they decide for somebody")
	}
	// What is sent is what was shown.
	server := httptest.NewServer(doors(h))
	t.Cleanup(server.Close)
	r.Assurance = evidence.Session
	erin := browse(t, server.URL, "engineer")
	h.refuse = approvals.ErrForAnother
	for button, verdict := range map[string]api.Verdict{"<span>Approve</span>": api.Approve, "<span>Deny</span>": api.Deny} {
		erin.open("/requests/" + r.ID)
		form := formTag.FindString(erin.page[strings.Index(erin.page, `class="decide"`)-6:])
		if !strings.Contains(form, `name="for_`+string(verdict)+`" value="`+h.person("approver").ID+`"`) {
			t.Errorf("%s: the form is %s", button, form)
		}
		w := v.do("engineer", "POST", "/requests/"+r.ID+"/"+string(verdict), url.Values{"comment": {"kept"}, "terms_hash": {r.TermsHash},
			"for_approve": {h.person("approver").ID}, "for_deny": {"me"}})
		if w.Code != http.StatusConflict || !strings.Contains(w.Body.String(), "it says for whom") || !strings.Contains(w.Body.String(), "kept") {
			t.Errorf("%s: status %d", button, w.Code)
		}
		want := map[api.Verdict]string{api.Approve: h.person("approver").ID, api.Deny: "me"}[verdict]
		if in := h.inputs[len(h.inputs)-1].(api.DecisionInput); in.For != want {
			t.Errorf("%s: decided for %q, want %q", button, in.For, want)
		}
	}
	h.refuse = nil
	// Where the two verdicts would be for different people, it says so.
	d := h.behalf[r.ID+"engineerapprove"]
	h.behalf[r.ID+"engineerdeny"] = nil
	contains(t, v.page("engineer", "/requests/"+r.ID), "An approval would be for <strong>Ada Approver", "; a denial would be your own.", `name="for_deny" value="me"`)
	h.behalf[r.ID+"engineerdeny"], h.behalf[r.ID+"engineerapprove"] = d, nil
	h.people["engineer"].Groups[0] = "approvers"
	contains(t, v.page("engineer", "/requests/"+r.ID), "An approval would be your own; a denial would be for <strong>Ada Approver")

	ada := h.person("approver")
	r.State = api.Denied
	r.Decisions = []api.Decision{{ID: ids.New(ids.Decision), Approver: h.person("engineer"), OnBehalfOf: &ada, Verdict: api.Deny, Comment: "no", At: h.clock.Now()}}
	contains(t, v.page("natarajan", "/requests/"+r.ID), "Denied by Erin Engineer for Ada Approver", "denied for <strong>Ada Approver", "Decision of Erin Engineer for Ada Approver")
}
