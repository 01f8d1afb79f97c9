package pages

import (
	"net/http"
	"net/url"

	"github.com/go-chi/chi/v5"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/broker"
	"sallyport/broker/hosts"
	"sallyport/broker/sessions"
	"sallyport/internal/refusal"
	"sallyport/server/problem"
	"sallyport/web"
)

// hostsPage is the list of hosts.
type hostsPage struct {
	Search, Selector string
	State            api.HostState // only hosts in it; empty: in any
	States           []stateView   // for operators and auditors
	Waiting          int           // hosts that wait to be let in
	Items            []api.Host
	First, Next      string
	Problem          *api.Problem
}

// stateView is a state in which there are hosts, or that was chosen.
type stateView struct {
	State   api.HostState
	Count   int
	Address string
	Here    bool
}

func (p hostsPage) states() []api.HostState {
	if p.State == "" {
		return nil
	}
	return []api.HostState{p.State}
}

// address is that of the same list, but of hosts in another state.
func (p hostsPage) address(state api.HostState) string {
	to := url.Values{}
	for name, value := range map[string]string{"q": p.Search, "labels": p.Selector, "state": string(state)} {
		if value != "" {
			to.Set(name, value)
		}
	}
	if len(to) == 0 {
		return "/hosts"
	}
	return "/hosts?" + to.Encode()
}

// views says how many hosts there are in each state. Those that wait to be let in are
// a list of their own.
func (p hostsPage) views(count map[api.HostState]int) (views []stateView) {
	all := stateView{Address: p.address(""), Here: p.State == ""}
	for _, state := range api.HostStates {
		n := count[state]
		if state == api.HostPending || n == 0 && state != p.State {
			continue
		}
		all.Count += n
		views = append(views, stateView{state, n, p.address(state), state == p.State})
	}
	return append([]stateView{all}, views...)
}

func (p *Pages) hosts(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	q := r.URL.Query()
	page := hostsPage{Search: q.Get("q"), Selector: q.Get("labels"), State: api.HostState(q.Get("state"))}
	status := http.StatusOK
	list, err := p.cfg.Broker.ListHosts(r.Context(), c, broker.HostFilter{States: page.states(),
		Filter: hosts.Filter{Search: page.Search, Selector: page.Selector, Cursor: q.Get("cursor")}})
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
	if c.Has(api.Operator) || c.Has(api.Auditor) {
		count, err := p.cfg.Fleet.Count(r.Context())
		if err != nil {
			return err
		}
		page.States, page.Waiting = page.views(count), count[api.HostPending]
	}
	web.Render(w, r, status, "hosts", page)
	return nil
}

// hostPage is one host, with what the person may ask for and who was there.
type hostPage struct {
	api.Host
	Logins []loginView
	Recent []requestView

	Sessions []api.Session    // the last ones: all of them for operators and auditors, for others their own
	Recorded map[string]int   // how many recordings there are of each; for auditors
	Posture  *api.HostPosture // nil: the host does not speak for itself, or not to this person

	Deployed *deployedView // its last deployment; nil: none that this person may see
}

// deployedView is a deployment as one of its hosts has it.
type deployedView struct {
	deploymentView
	Batch string
	Cell  cell
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
	if page.Recorded, err = p.marks(r.Context(), c, past.Items); err != nil {
		return err
	}
	if page.Deployed, err = p.deployed(r, c, host.ID); err != nil {
		return err
	}
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

// deployed is the last deployment of the host, with how the host stands in it.
func (p *Pages) deployed(r *http.Request, c identity.Caller, hostID string) (*deployedView, error) {
	d, err := p.cfg.Deployments.OfHost(r.Context(), c, hostID)
	if err != nil || d == nil {
		return nil, err
	}
	v := deployedView{deploymentView: p.deploymentView(*d)}
	for _, b := range v.Line() {
		for _, x := range b.Cells() {
			if x.ID == hostID {
				v.Batch, v.Cell = b.Name(), x // a rollback's comes last
			}
		}
	}
	return &v, nil
}
