package pages

import (
	"net/http"

	"github.com/go-chi/chi/v5"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/broker/hosts"
	"sallyport/broker/sessions"
	"sallyport/internal/refusal"
	"sallyport/server/problem"
	"sallyport/web"
)

// hostsPage is the list of hosts.
type hostsPage struct {
	Search, Selector string
	Items            []api.Host
	First, Next      string
	Problem          *api.Problem
}

func (p *Pages) hosts(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	q := r.URL.Query()
	page := hostsPage{Search: q.Get("q"), Selector: q.Get("labels")}
	status := http.StatusOK
	list, err := p.cfg.Broker.ListHosts(r.Context(), c, hosts.Filter{
		Search: page.Search, Selector: page.Selector, Cursor: q.Get("cursor"),
	})
	switch bad := refusal.As(err); {
	case bad != nil && bad.Kind == refusal.Invalid:
		// A selector with a slip in it: the person corrects it where it stands.
		page.Problem = problem.Note(r.Context(), err)
		status = page.Problem.Status
	case err != nil:
		return err
	}
	page.Items = list.Items
	page.First, page.Next = paging(r.URL, "cursor", list.Next)
	web.Render(w, r, status, "hosts", page)
	return nil
}

// hostPage is one host, with what the person may ask for and who was there.
type hostPage struct {
	api.Host
	Logins []loginView
	Recent []requestView

	Sessions []api.Session    // the last ones: all of them for operators and auditors, for others their own
	Posture  *api.HostPosture // nil: the host does not speak for itself, or not to this person
}

// loginView is one login of a host, with the rule for it if the person may ask.
type loginView struct {
	Login string
	Rule  *api.HostRule
	Slots []slotView
}

func (p *Pages) host(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	host, err := p.cfg.Broker.Host(r.Context(), c, chi.URLParam(r, "host"))
	if err != nil {
		return err
	}
	page := hostPage{Host: host}
	for _, login := range host.Logins {
		v := loginView{Login: login}
		for i, rule := range host.Rules {
			if rule.Login == login {
				v.Rule, v.Slots = &host.Rules[i], slotViews(rule.Approvers)
			}
		}
		page.Logins = append(page.Logins, v)
	}
	recent, err := p.cfg.Approvals.List(r.Context(), c, approvals.ListFilter{HostID: host.ID, Limit: 10})
	if err != nil {
		return err
	}
	page.Recent = p.views(c, recent.Items)
	past, err := p.cfg.Broker.HostSessions(r.Context(), c, host.ID, sessions.Filter{Limit: 10})
	if err != nil {
		return err
	}
	page.Sessions = past.Items
	if host.Helper && (c.Has(api.Operator) || c.Has(api.Auditor)) {
		posture, err := p.cfg.Fleet.Posture(r.Context(), c, host.ID)
		if err != nil {
			return err
		}
		page.Posture = &posture
	}
	web.Render(w, r, http.StatusOK, "host", page)
	return nil
}
