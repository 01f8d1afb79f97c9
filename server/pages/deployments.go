package pages

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/broker/rollout"
	"sallyport/server/problem"
	"sallyport/web"
)

// Deployments are the rollouts of agents.
type Deployments interface {
	List(ctx context.Context, c identity.Caller, f rollout.Filter) (api.Page[api.Deployment], error)
	Services(ctx context.Context, c identity.Caller) ([]string, error)
	Sees(ctx context.Context, c identity.Caller) (bool, error)
	Account(ctx context.Context, c identity.Caller, id string) (api.DeploymentAccount, error)
	Told(ctx context.Context, c identity.Caller, id string) (events []api.Event, all bool, err error)
	Waiting(ctx context.Context, c identity.Caller) ([]api.Deployment, error)
	CountWaiting(ctx context.Context, c identity.Caller) (int, error)
	OfHost(ctx context.Context, c identity.Caller, hostID string) (*api.Deployment, error)
	Control(ctx context.Context, c identity.Caller, id string, in api.ControlInput) (api.Deployment, error)
	Decide(ctx context.Context, c identity.Caller, id string, in api.DeploymentDecisionInput) (api.Deployment, error)
	DraftDecision(ctx context.Context, c identity.Caller, b approvals.Browser, id string, in api.DeploymentDecisionInput) (approvals.Draft, error)
}

const deploymentsPath = "/deployments"

func (p *Pages) deploymentRoutes(r chi.Router) {
	r.Get(deploymentsPath, p.signedIn(p.deployments))
	r.Get(deploymentsPath+"/{id}", p.signedIn(p.deployment))
	r.Get(deploymentsPath+"/{id}/changes", p.signedIn(p.deploymentChanges))
	r.Post(deploymentsPath+"/{id}/decide", p.signedIn(p.decideDeployment))
	r.Post(deploymentsPath+"/{id}/control", p.signedIn(p.controlDeployment))
}

// seesDeployments reports whether the navigation leads to them.
func (p *Pages) seesDeployments(r *http.Request, c identity.Caller) bool {
	sees, err := p.cfg.Deployments.Sees(r.Context(), c)
	if err != nil {
		problem.CallOf(r.Context()).Logger.WarnContext(r.Context(), "looking for deployments failed", "error", err)
	}
	return sees
}

// deploymentStates are the choices of the filter.
var deploymentStates = []string{"planned", "awaiting_approval", "active", "held", "verifying", "rolling_back", "complete", "rolled_back", "aborted", "rollback_failed"}

// overAtOnce is how many deployments that are over a page lists, and runningAtOnce how
// many that are under way: of each service there is one in an environment.
const (
	overAtOnce    = 20
	runningAtOnce = 200
)

// deploymentsPage is the list: those under way, and below them those that are over.
type deploymentsPage struct {
	Service, State string
	Services       []string
	Running, Over  []deploymentView
	First, Next    string
	Later          bool // a page after the first, which has only what is over
}

// States are the choices of the filter.
func (deploymentsPage) States() []string { return deploymentStates }

// Version changes whenever anything on the page does.
func (d deploymentsPage) Version() string {
	var all []string
	for _, v := range slices.Concat(d.Running, d.Over) {
		all = append(all, v.Version())
	}
	return version(all)
}

func (p *Pages) deployments(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	q := r.URL.Query()
	page := deploymentsPage{Service: q.Get("service"), State: q.Get("state"), Later: q.Has("cursor")}
	if page.State != "" && !slices.Contains(deploymentStates, page.State) {
		return approvals.ErrBadFilter
	}
	var err error
	if page.Services, err = p.cfg.Deployments.Services(r.Context(), c); err != nil {
		return err
	}
	if !page.Later {
		list, err := p.cfg.Deployments.List(r.Context(), c, rollout.Filter{Service: page.Service, State: page.State, Running: true, Limit: runningAtOnce})
		if err != nil {
			return err
		}
		page.Running = p.deploymentViews(list.Items)
		slices.SortStableFunc(page.Running, func(a, b deploymentView) int { return rank(b) - rank(a) })
	}
	list, err := p.cfg.Deployments.List(r.Context(), c, rollout.Filter{Service: page.Service, State: page.State, Over: true, Cursor: q.Get("cursor"), Limit: overAtOnce})
	if err != nil {
		return err
	}
	page.Over = p.deploymentViews(list.Items)
	page.First, page.Next = paging(r.URL, "cursor", list.Next)
	web.Render(w, r, http.StatusOK, "deployments", page)
	return nil
}

// deploymentPage is one deployment, as one person sees it at one time.
type deploymentPage struct {
	deploymentView
	Account api.DeploymentAccount
	Auditor bool
	Events  []api.Event // newest first
	All     bool        // there are no older ones
	// Problem is what was refused just now, and Reason what the person had written.
	Problem *api.Problem
	Reason  string
}

func (p *Pages) account(r *http.Request, c identity.Caller) (deploymentPage, error) {
	account, err := p.cfg.Deployments.Account(r.Context(), c, chi.URLParam(r, "id"))
	return deploymentPage{deploymentView: p.deploymentView(account.Deployment), Account: account, Auditor: c.Has(api.Auditor)}, err
}

// tell adds the events.
func (p *Pages) tell(r *http.Request, c identity.Caller, page *deploymentPage) (err error) {
	page.Events, page.All, err = p.cfg.Deployments.Told(r.Context(), c, page.ID)
	return err
}

// Version changes whenever anything on the page does: how it stands, and then the newest
// event.
func (d deploymentPage) Version() string { return d.stand() + "-" + d.newest() }

func (d deploymentPage) stand() string {
	a := d.Account
	a.LeaseUntil = nil // with every call of the agent
	return version(a)
}

func (d deploymentPage) newest() string {
	if len(d.Events) == 0 {
		return ""
	}
	return d.Events[0].ID
}

func (p *Pages) deployment(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	return p.showDeployment(w, r, c, nil)
}

// showDeployment shows the deployment, with what was refused, if something was. If it
// cannot be shown either, the refusal stands alone.
func (p *Pages) showDeployment(w http.ResponseWriter, r *http.Request, c identity.Caller, refused error) error {
	page, err := p.account(r, c)
	if err == nil {
		err = p.tell(r, c, &page)
	}
	switch {
	case err != nil && refused != nil:
		return refused
	case err != nil:
		return err
	}
	status := http.StatusOK
	if refused != nil {
		page.Problem, page.Reason = problem.Note(r.Context(), refused), r.PostFormValue("reason")
		status = page.Problem.Status
	}
	web.Render(w, r, status, "deployment", page)
	return nil
}

// eventsLook is at which look at how it stands the log is looked at, too, besides the
// first: an event comes into the log a moment after what it tells of, and a search costs
// more than the rest.
const eventsLook = 3

// deploymentChanges answers as changes does.
func (p *Pages) deploymentChanges(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	ctx, cancel := context.WithTimeout(r.Context(), changesWait)
	defer cancel()
	r = r.WithContext(ctx)
	look := time.NewTicker(changesLook)
	defer look.Stop()
	since := r.URL.Query().Get("since")
	stood, _, _ := strings.Cut(since, "-")
	for n := 0; ; n++ {
		page, err := p.account(r, c)
		if err == nil && (n == 0 || n == eventsLook || page.stand() != stood) {
			err = p.tell(r, c, &page)
			if err == nil && page.Version() != since {
				web.RenderPart(w, r, http.StatusOK, "deployment", "live", page)
				return nil
			}
		}
		if ctx.Err() == nil && err != nil {
			return err
		}
		select {
		case <-look.C:
			continue
		case <-ctx.Done():
		case <-p.cfg.Closing:
		}
		web.Secure(w.Header())
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
}

func (p *Pages) decideDeployment(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	if err := parseForm(r); err != nil {
		return err
	}
	id := chi.URLParam(r, "id")
	in, err := decisionFrom(r.PostForm, p.cfg.Clock.Now())
	if err == nil {
		_, err = p.cfg.Deployments.Decide(r.Context(), c, id, in)
	}
	sent, err := p.sign(w, r, err, deploymentsPath+"/"+url.PathEscape(id), func(c identity.Caller, b approvals.Browser) (approvals.Draft, error) {
		return p.cfg.Deployments.DraftDecision(r.Context(), c, b, id, in)
	})
	if sent {
		return nil
	}
	return p.acted(w, r, c, err)
}

func (p *Pages) controlDeployment(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	if err := parseForm(r); err != nil {
		return err
	}
	_, err := p.cfg.Deployments.Control(r.Context(), c, chi.URLParam(r, "id"),
		api.ControlInput{Action: r.PostForm.Get("action"), Reason: r.PostForm.Get("reason")})
	return p.acted(w, r, c, err)
}

// acted answers a post: with the deployment, or with what was refused on top of it.
func (p *Pages) acted(w http.ResponseWriter, r *http.Request, c identity.Caller, err error) error {
	if err != nil {
		return p.showDeployment(w, r, c, err)
	}
	http.Redirect(w, r, deploymentsPath+"/"+url.PathEscape(chi.URLParam(r, "id")), http.StatusSeeOther)
	return nil
}

// decisionFrom reads the form of a decision.
func decisionFrom(form url.Values, now time.Time) (api.DeploymentDecisionInput, error) {
	in := api.DeploymentDecisionInput{About: form.Get("about"), Gate: form.Get("gate"), Batch: number(form.Get("batch")),
		Verdict: api.Verdict(form.Get("verdict")), Comment: strings.TrimSpace(form.Get("reason")), TermsHash: form.Get("terms_hash")}
	if in.Verdict == api.Deny && in.Comment == "" {
		return in, errDenyWithoutReason
	}
	if in.About == "override" && in.Verdict == api.Approve {
		until := now.Add(time.Duration(number(form.Get("hours"))) * time.Hour)
		in.Until = &until
	}
	return in, nil
}

// rank is higher for what somebody should look at.
func rank(v deploymentView) int {
	if v.Urgent() {
		return 1
	}
	return 0
}
