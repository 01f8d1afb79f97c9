// Package pages is what people see in a browser: it asks the rooms below for
// what a person may see or do, and has package web render the answer. It has no
// rules and no SQL: whatever a page offers is checked again, and only, by the
// room that does it.
//
// Every page works without its script. A form posts, and is answered with a
// redirect, or with itself, the person's input kept and the refusal at the field
// that caused it. Requests that come from another site are stopped before they
// reach this package, by the server's cross-origin protection.
package pages

import (
	"context"
	"errors"
	"net/http"
	"net/url"

	"github.com/go-chi/chi/v5"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/approvals/notify"
	"sallyport/audit"
	"sallyport/broker"
	"sallyport/broker/hosts"
	"sallyport/broker/sessions"
	"sallyport/internal/clock"
	"sallyport/server/problem"
	"sallyport/server/signin"
	"sallyport/web"
)

// Approvals is what pages need of the approvals room.
type Approvals interface {
	Preview(ctx context.Context, c identity.Caller, in api.RequestInput) (api.Preview, error)
	Request(ctx context.Context, c identity.Caller, in api.RequestInput) (api.Request, error)
	List(ctx context.Context, c identity.Caller, f approvals.ListFilter) (api.Page[api.Request], error)
	CountWaiting(ctx context.Context, c identity.Caller) (int, error)
	CountReviews(ctx context.Context, c identity.Caller) (int, error)
	Decide(ctx context.Context, c identity.Caller, id string, in api.DecisionInput) (api.Request, error)
	Review(ctx context.Context, c identity.Caller, id string, in api.ReviewInput) (api.Request, error)
	Cancel(ctx context.Context, c identity.Caller, id string) (api.Request, error)
	Finish(ctx context.Context, c identity.Caller, id string) (api.Request, error)
	Extend(ctx context.Context, c identity.Caller, id string, in api.ExtendInput) (api.Request, error)
	Revoke(ctx context.Context, c identity.Caller, in api.RevocationInput) (api.Revocation, error)
	People(ctx context.Context, c identity.Caller, f identity.PeopleFilter) (api.Page[api.KnownPerson], error)
	KnownPerson(ctx context.Context, c identity.Caller, id string) (api.KnownPerson, error)
	RemovePerson(ctx context.Context, c identity.Caller, id, reason string) (api.RemovedPerson, error)
	RestorePerson(ctx context.Context, c identity.Caller, id, reason string) (api.KnownPerson, error)
	Notifications(ctx context.Context, c identity.Caller, action string, f notify.Filter) (api.Page[api.Notification], error)
	OnlyAuditors(ctx context.Context, c identity.Caller, action string) error
	DiscloseSearch(ctx context.Context, c identity.Caller, f audit.Filter) error
	DiscloseEntry(ctx context.Context, c identity.Caller, e audit.Entry) error
	Explain(ctx context.Context, c identity.Caller, in api.ExplainInput) (api.Explanation, error)
	HostReach(ctx context.Context, c identity.Caller, nameOrID, login, cursor string, limit int) (api.HostReach, error)
	CountProposals(ctx context.Context, c identity.Caller) (int, error)
	Policies
	Drafts
	Delegations
	Trends
}

// Broker is what pages need of the broker.
type Broker interface {
	Request(ctx context.Context, c identity.Caller, id string) (api.Request, error)
	ListHosts(ctx context.Context, c identity.Caller, f broker.HostFilter) (api.Page[api.Host], error)
	Host(ctx context.Context, c identity.Caller, nameOrID string) (api.Host, error)
	HostSessions(ctx context.Context, c identity.Caller, nameOrID string, f sessions.Filter) (api.Page[api.Session], error)
	PersonReach(ctx context.Context, c identity.Caller, idOrEmail string, f hosts.Filter) (api.PersonReach, error)
	Outcome(ctx context.Context, intent audit.Entry) (*api.Outcome, error)
}

// Log is what pages need of the log.
type Log interface {
	Entry(ctx context.Context, index int64) (audit.Entry, error)
	Search(ctx context.Context, f audit.Filter) (audit.Found, error)
	Receipt(ctx context.Context, index int64) ([]byte, error)
	VerifierKey() string
}

// Decisions sends the browser of somebody who decides to the identity provider,
// which signs what is drafted; package signin does it.
type Decisions interface {
	Sign(w http.ResponseWriter, r *http.Request, next string, draft func(identity.Caller, approvals.Browser) (approvals.Draft, error)) error
}

// Config is what pages need. Every field without "optional" must be set.
type Config struct {
	Approvals Approvals
	Decisions Decisions
	Broker    Broker
	Fleet     Fleet
	Registry  Registry
	Log       Log

	Deployments Deployments
	Evidence    Evidence
	Recordings  Recordings
	Clock       clock.Clock
	URL         string // where hosts reach the broker
	// Closing, once closed, ends the waiting of open pages for changes, so that
	// the process can stop. Optional.
	Closing <-chan struct{}
}

// Pages are Sallyport's pages.
type Pages struct{ cfg Config }

// New returns the pages.
func New(cfg Config) (*Pages, error) {
	if cfg.Approvals == nil || cfg.Decisions == nil || cfg.Broker == nil || cfg.Fleet == nil || cfg.Registry == nil || cfg.Deployments == nil || cfg.Log == nil || cfg.Evidence == nil || cfg.Recordings == nil || cfg.Clock == nil || cfg.URL == "" {
		return nil, errors.New("pages need approvals, decisions, a broker, a fleet, a registry, deployments, a log, evidence, recordings, a clock and a URL")
	}
	return &Pages{cfg}, nil
}

// Routes adds the pages to r. What they refer to, web.Static, is mounted beside
// them, where it needs no sign-in.
func (p *Pages) Routes(r chi.Router) {
	r.Get("/", p.start)
	r.Get("/approvals", p.signedIn(p.approvals))
	r.Get("/requests", p.signedIn(p.requests))
	r.Post("/requests", p.signedIn(p.ask))
	r.Get("/requests/new", p.signedIn(p.newRequest))
	r.Post("/requests/preview", p.signedIn(p.preview))
	r.Get("/requests/{id}", p.signedIn(p.request))
	r.Get("/requests/{id}/changes", p.signedIn(p.changes))
	r.Get("/requests/{id}/decide", p.signedIn(p.deciding))
	r.Post("/requests/{id}/approve", p.signedIn(p.decide(api.Approve)))
	r.Post("/requests/{id}/deny", p.signedIn(p.decide(api.Deny)))
	r.Get("/requests/{id}/review", p.signedIn(p.reviewing))
	r.Post("/requests/{id}/review", p.signedIn(p.review))
	r.Post("/requests/{id}/cancel", p.signedIn(p.act(p.cfg.Approvals.Cancel)))
	r.Post("/requests/{id}/finish", p.signedIn(p.act(p.cfg.Approvals.Finish)))
	r.Post("/requests/{id}/extend", p.signedIn(p.extend))
	r.Post("/requests/{id}/revoke", p.signedIn(p.revoke))
	r.Get(delegationsPath, p.signedIn(p.delegations))
	r.Post(delegationsPath, p.signedIn(p.delegate))
	r.Get("/delegations/{id}/end", p.signedIn(p.ending))
	r.Post("/delegations/{id}/end", p.signedIn(p.endDelegation))
	r.Get("/people", p.signedIn(p.people))
	r.Get("/people/{person}", p.signedIn(p.person))
	r.Post("/people/{person}/remove", p.signedIn(p.removePerson))
	r.Post("/people/{person}/restore", p.signedIn(p.restorePerson))
	r.Get("/hosts", p.signedIn(p.hosts))
	p.fleetRoutes(r)
	p.deploymentRoutes(r)
	r.Get("/hosts/{host}", p.signedIn(p.host))
	r.Get("/hosts/{host}/reach", p.signedIn(p.door))
	r.Get("/why", p.signedIn(p.why))
	r.Get("/reach", p.signedIn(p.reach))
	r.Get("/notifications", p.signedIn(p.notifications))
	r.Get("/policy", p.signedIn(p.policy))
	r.Post(ProposalsPath, p.signedIn(p.propose))
	r.Get("/policy/proposals/new", p.signedIn(p.newProposal))
	r.Get("/policy/proposals/{id}", p.signedIn(p.proposal))
	r.Get("/policy/proposals/{id}/decide", p.signedIn(p.decidingProposal))
	r.Post("/policy/proposals/{id}/approve", p.signedIn(p.decideProposal(api.Approve)))
	r.Post("/policy/proposals/{id}/deny", p.signedIn(p.decideProposal(api.Deny)))
	r.Post("/policy/proposals/{id}/withdraw", p.signedIn(p.withdrawProposal))
	r.Get(TrendsPath, p.signedIn(p.trends))
	r.Get("/recordings/{session}", p.auditors(p.recordings))
	r.Get("/recordings/{session}/{number}", p.auditors(p.recording))
	r.Get("/log", p.auditors(p.log))
	r.Get("/log/events/{index}", p.auditors(p.event))
	r.Get("/log/events/{index}/leaf", p.auditors(p.leaf))
	r.Get("/log/events/{index}/receipt", p.auditors(p.receipt))
	r.Get(EvidencePath, p.signedIn(p.evidence))
	r.Post(EvidencePath, p.signedIn(p.makePack))
	r.Get(EvidencePath+"/{id}", p.signedIn(p.pack))
}

// Chrome gives what is rendered under next the name, roles and waiting requests
// of whoever is signed in. It belongs behind the middleware of package signin.
func (p *Pages) Chrome(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		chrome := web.Chrome{Now: p.cfg.Clock.Now()}
		if c, ok := signin.Caller(r.Context()); ok {
			chrome.Name, chrome.Email = c.DisplayName(), c.Email
			chrome.Operator, chrome.Auditor = c.Has(api.Operator), c.Has(api.Auditor)
			chrome.Waiting = func() int {
				return p.count(r, c, p.cfg.Approvals.CountWaiting) + p.count(r, c, p.cfg.Approvals.CountReviews) + p.count(r, c, p.cfg.Deployments.CountWaiting)
			}
			chrome.Deployments = func() bool { return p.seesDeployments(r, c) }
			chrome.Proposals = func() int { return p.count(r, c, p.cfg.Approvals.CountProposals) }
		}
		next.ServeHTTP(w, r.WithContext(web.WithChrome(r.Context(), chrome)))
	})
}

// count is how much of a kind waits for the caller. The page is about something
// else: without a count it is still right.
func (p *Pages) count(r *http.Request, c identity.Caller, of func(context.Context, identity.Caller) (int, error)) int {
	n, err := of(r.Context(), c)
	if err != nil {
		problem.CallOf(r.Context()).Logger.WarnContext(r.Context(), "counting what waits failed", "error", err)
	}
	return n
}

// handler is a page for somebody who is signed in. An error becomes a problem page.
type handler func(w http.ResponseWriter, r *http.Request, c identity.Caller) error

// signedIn lets only people pass who are signed in, and leads others there.
func (p *Pages) signedIn(h handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, ok := signin.Caller(r.Context())
		if !ok {
			toSignIn(w, r)
			return
		}
		if err := h(w, r, c); err != nil {
			problem.Write(w, r, err)
		}
	}
}

// toSignIn leads to the sign-in and from there back. What was posted is gone by
// then, so a post is told so instead.
func toSignIn(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		problem.Write(w, r, problem.ErrSignInNeeded)
		return
	}
	to := "/signin?next=" + url.QueryEscape(r.URL.RequestURI())
	w.Header().Set("Cache-Control", "no-store")
	if r.Header.Get("Sec-Fetch-Site") == "same-origin" {
		web.Forward(w, r, to) // may be a search form, see Forward
		return
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
}

// auditors lets only auditors pass.
func (p *Pages) auditors(h handler) http.HandlerFunc {
	return p.signedIn(func(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
		action := r.Method + " " + chi.RouteContext(r.Context()).RoutePattern()
		if err := p.cfg.Approvals.OnlyAuditors(r.Context(), c, action); err != nil {
			return err
		}
		return h(w, r, c)
	})
}
