package pages

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/go-chi/chi/v5"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/internal/refusal"
	"sallyport/server/problem"
	"sallyport/web"
)

// Delegations is what pages need of it that somebody decides for another.
type Delegations interface {
	Delegations(ctx context.Context, c identity.Caller, f approvals.DelegationFilter) (api.Page[api.Delegation], error)
	Delegation(ctx context.Context, c identity.Caller, id string) (api.Delegation, error)
	Delegate(ctx context.Context, c identity.Caller, in api.DelegationInput) (api.Delegation, error)
	EndDelegation(ctx context.Context, c identity.Caller, id string) (api.Delegation, error)
	Lendable(ctx context.Context, c identity.Caller, delegator string) (api.Person, []string, error)
}

// delegationsPath is where delegations are listed and made.
const delegationsPath = "/delegations"

// What the form refuses.
var (
	errNoGroup = refusal.New(refusal.Invalid, "no-group-chosen",
		"no group was chosen", "choose one at least").On("groups")
	errGroupsOfAnother = refusal.New(refusal.Invalid, "groups-of-another",
		"the groups to choose from were those of somebody else", "look at these, and send it again").On("groups")
)

// delegationView is a delegation as one person sees it.
type delegationView struct {
	api.Delegation
	Mine, ToMe bool // the viewer is decided for; decides
}

// ByOther reports whether somebody else made it than the one who is decided for.
func (d delegationView) ByOther() bool { return d.MadeBy.ID != d.Delegator.ID }

// Verb is "decides", as it was, is or will be.
func (d delegationView) Verb() string {
	switch {
	case d.State == "planned":
		return "will decide"
	case d.State != "running":
		return "decided"
	case d.ToMe:
		return "decide"
	}
	return "decides"
}

func viewOf(c identity.Caller, d api.Delegation) delegationView {
	return delegationView{d, d.Delegator.ID == c.ID, d.Delegate.ID == c.ID}
}

// delegationsPage is who decides for whom, and the form to let somebody.
type delegationsPage struct {
	Tabs  []tab
	Past  bool
	Other string // address of the same list with, or without, those that are over
	Items []delegationView
	First string // address of the first page, if this is another
	Next  string // address of the next page, if there is one
	Form  *lendForm
}

// tab is one of the lists that a page can show.
type tab struct {
	Name, Address string
	Here          bool
}

// lendForm is a delegation as somebody fills it in.
type lendForm struct {
	Delegator string // id or address; empty: the viewer
	Delegate  string
	From      startForm
	Until     startForm
	Reason    string

	Of      api.Person // the delegator, if it is known who that is
	Choices []groupChoice
	Problem *api.Problem
}

// groupChoice is a group that could be lent.
type groupChoice struct {
	Name   string
	Chosen bool
}

// Fault is the refusal of one field of the form, or nil.
func (f lendForm) Fault(field string) *api.Problem {
	if f.Problem == nil || len(f.Problem.Errors) == 0 || f.Problem.Errors[0].Location != field {
		return nil
	}
	return f.Problem
}

// Faulty reports whether the refusal is of a field that the form shows.
func (f lendForm) Faulty() bool {
	return slices.ContainsFunc([]string{"delegator", "delegate", "groups", "from", "until", "reason"}, func(name string) bool { return f.Fault(name) != nil })
}

func lendFrom(form url.Values) lendForm {
	field := func(name string) string { return strings.TrimSpace(form.Get(name)) }
	f := lendForm{Delegator: field("delegator"), Delegate: field("delegate"), Reason: field("reason"), From: startFrom(form)}
	f.Until = startForm{Date: field("until_date"), Time: field("until_time"), Zone: f.From.Zone}
	return f
}

// input is the form as the approvals room wants it.
func (f lendForm) input(form url.Values) (in api.DelegationInput, err error) {
	in = api.DelegationInput{Delegate: f.Delegate, Delegator: f.Delegator, Groups: form["groups"], Reason: f.Reason}
	if form.Has("groups_of") {
		switch {
		case strings.TrimSpace(form.Get("groups_of")) != f.Delegator:
			return in, errGroupsOfAnother
		case len(in.Groups) == 0:
			return in, errNoGroup
		}
	}
	if in.From, err = f.From.at(); err != nil {
		return in, delegationTime(err, "from")
	}
	until, err := f.Until.at()
	switch {
	case err != nil:
		return in, delegationTime(err, "until")
	case until == nil:
		return in, approvals.ErrDelegationTime.With("it does not say until when").Hinting("choose a day and a time")
	}
	in.Until = *until
	return in, nil
}

// delegationTime is the refusal of a time, for this form.
func delegationTime(err error, field string) error {
	refused := refusal.As(err)
	return approvals.ErrDelegationTime.With("%s", refused.Detail).Hinting("%s", refused.Hint).On(field)
}

func (p *Pages) delegations(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	return p.showDelegations(w, r, c, lendFrom(r.URL.Query()), nil, nil)
}

// delegate takes the form. "groups" shows the groups of whom it is about.
func (p *Pages) delegate(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	if err := parseForm(r); err != nil {
		return err
	}
	f := lendFrom(r.PostForm)
	if r.PostForm.Get("step") == "groups" {
		return p.showDelegations(w, r, c, f, nil, nil)
	}
	in, err := f.input(r.PostForm)
	if err == nil {
		_, err = p.cfg.Approvals.Delegate(r.Context(), c, in)
	}
	if err != nil {
		return p.showDelegations(w, r, c, f, in.Groups, err)
	}
	http.Redirect(w, r, delegationsPath, http.StatusSeeOther)
	return nil
}

// showDelegations shows the list and the form, with what was refused, if anything
// was. Unless some groups are chosen, all are.
func (p *Pages) showDelegations(w http.ResponseWriter, r *http.Request, c identity.Caller, f lendForm, chosen []string, refused error) error {
	q := r.URL.Query()
	filter := approvals.DelegationFilter{Scope: approvals.DelegationScope(q.Get("scope")), Past: q.Get("past") != "", Cursor: q.Get("cursor")}
	list, err := p.cfg.Approvals.Delegations(r.Context(), c, filter)
	if err != nil {
		return err
	}
	page := delegationsPage{Past: filter.Past}
	for _, d := range list.Items {
		page.Items = append(page.Items, viewOf(c, d))
	}
	page.First, page.Next = paging(r.URL, "cursor", list.Next)
	address := func(scope approvals.DelegationScope, past bool) string {
		to := url.Values{}
		if scope != "" {
			to.Set("scope", string(scope))
		}
		if past {
			to.Set("past", "yes")
		}
		if len(to) == 0 {
			return delegationsPath
		}
		return delegationsPath + "?" + to.Encode()
	}
	page.Other = address(filter.Scope, !filter.Past)
	for _, t := range []struct {
		scope approvals.DelegationScope
		name  string
	}{{approvals.AllDelegations, "All"}, {approvals.MyDelegations, "Deciding for me"}, {approvals.DelegatedToMe, "Given to me"}} {
		page.Tabs = append(page.Tabs, tab{t.name, address(t.scope, filter.Past), t.scope == filter.Scope})
	}
	if !c.Has(api.Operator) {
		f.Delegator = ""
	}
	status := http.StatusOK
	of, groups, err := p.cfg.Approvals.Lendable(r.Context(), c, f.Delegator)
	switch {
	case refusal.As(err) != nil && refused == nil:
		refused = err
	case err != nil && refusal.As(err) == nil:
		return err
	case err == nil:
		f.Of = of
	}
	for _, g := range groups {
		f.Choices = append(f.Choices, groupChoice{g, chosen == nil || slices.Contains(chosen, g)})
	}
	if refused != nil {
		f.Problem = problem.Note(r.Context(), refused)
		status = f.Problem.Status
	}
	if len(groups) > 0 || c.Has(api.Operator) || refused != nil {
		page.Form = &f
	}
	web.Render(w, r, status, "delegations", page)
	return nil
}

// ending asks whether a delegation shall end, and says which.
func (p *Pages) ending(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	d, err := p.cfg.Approvals.Delegation(r.Context(), c, chi.URLParam(r, "id"))
	if err != nil {
		return err
	}
	web.Render(w, r, http.StatusOK, "delegation_end", viewOf(c, d))
	return nil
}

func (p *Pages) endDelegation(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	if _, err := p.cfg.Approvals.EndDelegation(r.Context(), c, chi.URLParam(r, "id")); err != nil {
		return err
	}
	http.Redirect(w, r, delegationsPath, http.StatusSeeOther)
	return nil
}

// For is by which delegation the viewer would take the action on the request; nil
// if they cannot, or would for themselves.
func (v requestView) For(action string) *api.Delegate {
	if a := v.Action(action); a != nil && a.Allowed {
		return a.Delegate
	}
	return nil
}

// Behalf is by which delegation the viewer would decide on the request.
func (v requestView) Behalf() *api.Delegate {
	if d := v.For("approve"); d != nil {
		return d
	}
	return v.For("deny")
}

// OneSay reports whether the viewer would approve and deny for the same person.
func (v requestView) OneSay() bool {
	return v.Can("approve") == v.Can("deny") && v.ShownFor("approve") == v.ShownFor("deny") ||
		v.Behalf() == nil
}

// ShownFor is for whom the page says that the action would be, in the words of
// the API.
func (v requestView) ShownFor(action string) string {
	switch d := v.For(action); {
	case !v.Can(action):
		return ""
	case d != nil:
		return d.For.ID
	}
	return "me"
}
