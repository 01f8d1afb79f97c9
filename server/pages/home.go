package pages

import (
	"net/http"
	"slices"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/server/signin"
	"sallyport/web"
)

// closed are the states in which nothing can happen to a request any more.
var closed = []api.State{api.Ended, api.Denied, api.Cancelled, api.Expired}

// homePage is "My access": what is open, what is asked for, what waits for me.
type homePage struct {
	Grants, Pending, Waiting, Reviews, Recent []requestView
	MoreWaiting                               bool

	Deployments []deploymentView // that wait for the person's decision
}

// Version changes whenever anything on the page does.
func (h homePage) Version() string { return version(h.versions()) }

func (h homePage) versions() (all []string) {
	for _, v := range slices.Concat(h.Grants, h.Pending, h.Waiting, h.Reviews, h.Recent) {
		all = append(all, v.Version())
	}
	for _, d := range h.Deployments {
		all = append(all, d.Version())
	}
	return all
}

// start is the sign-in page for strangers and "My access" for everybody else.
func (p *Pages) start(w http.ResponseWriter, r *http.Request) {
	if _, ok := signin.Caller(r.Context()); !ok {
		web.Render(w, r, http.StatusOK, "landing", "/")
		return
	}
	p.signedIn(p.home)(w, r)
}

func (p *Pages) home(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	var page homePage
	var more string
	for _, part := range []struct {
		into *[]requestView
		f    approvals.ListFilter
	}{
		{&page.Grants, approvals.ListFilter{Scope: approvals.Mine, States: []api.State{api.Approved, api.Active}}},
		{&page.Pending, approvals.ListFilter{Scope: approvals.Mine, States: []api.State{api.Requested}}},
		{&page.Recent, approvals.ListFilter{Scope: approvals.Mine, States: closed, Limit: 5}},
		{&page.Reviews, approvals.ListFilter{Scope: approvals.Reviews, Limit: 5}},
		{&page.Waiting, approvals.ListFilter{Scope: approvals.Waiting, Limit: 5}},
	} {
		list, err := p.cfg.Approvals.List(r.Context(), c, part.f)
		if err != nil {
			return err
		}
		*part.into, more = p.views(c, list.Items), list.Next
	}
	deployments, err := p.cfg.Deployments.Waiting(r.Context(), c)
	if err != nil {
		return err
	}
	page.Deployments = p.deploymentViews(deployments)
	page.Grants = oneAccess(page.Grants)
	page.MoreWaiting = more != "" // of the last part
	// What ends first is what the person must know first.
	slices.SortStableFunc(page.Grants, func(a, b requestView) int {
		if a.EndsAt == nil || b.EndsAt == nil {
			return 0
		}
		return a.EndsAt.Compare(*b.EndsAt)
	})
	web.Render(w, r, http.StatusOK, "home", page)
	return nil
}
