// Package rest is /api/v1: every call reads its input strictly, finds out who
// calls, and hands over to a room, which decides what this caller may do with
// this object (P10). The calls are described by Go types; the OpenAPI 3.1
// document at /api/v1/openapi.json is made from the same types.
//
// Every error is an RFC 9457 problem with a code and a hint.
package rest

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-chi/chi/v5"

	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/approvals/policy"
	"sallyport/audit"
	"sallyport/broker"
	"sallyport/broker/agents"
	"sallyport/broker/fleet"
	"sallyport/broker/hosts"
	"sallyport/broker/recordings"
	"sallyport/broker/revocations"
	"sallyport/broker/rollout"
	"sallyport/evidence"
	"sallyport/server/problem"
	"sallyport/server/signin"
)

// Prefix is where the API is.
const Prefix = "/api/v1"

// MaxBody is how many bytes a request's body may have, except one that proposes a
// policy (api.MaxPolicyBody).
const MaxBody = 64 << 10

// Config is what the API needs. Every field without "optional" must be set.
type Config struct {
	// URL is where clients reach the broker, without the prefix; the OpenAPI
	// document names it.
	URL string
	// Version of the program, for the OpenAPI document.
	Version   string
	Approvals *approvals.Service
	Broker    *broker.Broker
	Hosts     *hosts.Registry
	Agents    *agents.Service
	Log       *audit.Log
	Evidence  *evidence.Service
	// Fleet are the enrolled hosts, and Revocations what they are told.
	Fleet       *fleet.Service
	Revocations *revocations.List
	// Recordings are what hosts recorded of sessions.
	Recordings *recordings.Store
	// Deployments are what agents do.
	Deployments *rollout.Service
	// Closing, once closed, makes long polls answer with what they have, so that
	// the process can stop. Optional.
	Closing <-chan struct{}
}

// API answers the calls of /api/v1.
type API struct {
	Config
	router     *chi.Mux
	hostRoutes *chi.Mux
	huma       huma.API
}

// New registers all calls.
func New(cfg Config) (*API, error) {
	switch {
	case cfg.URL == "":
		return nil, errors.New("rest: no URL")
	case cfg.Approvals == nil || cfg.Broker == nil || cfg.Hosts == nil:
		return nil, errors.New("rest: approvals, broker and hosts must be set")
	case cfg.Agents == nil:
		return nil, errors.New("rest: no agents")
	case cfg.Log == nil:
		return nil, errors.New("rest: no log")
	case cfg.Evidence == nil:
		return nil, errors.New("rest: no evidence")
	case cfg.Fleet == nil || cfg.Revocations == nil || cfg.Recordings == nil:
		return nil, errors.New("rest: fleet, revocations and recordings must be set")
	case cfg.Deployments == nil:
		return nil, errors.New("rest: no deployments")
	}
	a := &API{Config: cfg, router: chi.NewMux()}
	a.router.NotFound(func(w http.ResponseWriter, r *http.Request) {
		problem.WriteJSON(w, r, problem.ErrRoute)
	})
	a.router.MethodNotAllowed(func(w http.ResponseWriter, r *http.Request) {
		problem.WriteJSON(w, r, problem.ErrMethod)
	})
	a.huma = humachi.New(a.router, huma.Config{
		OpenAPI:                      document(cfg),
		Formats:                      map[string]huma.Format{"application/json": huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat},
		DefaultFormat:                "application/json",
		RejectUnknownQueryParameters: true,
		Transformers:                 []huma.Transformer{inputProblem},
	})
	a.huma.UseMiddleware(a.signedIn)
	a.people()
	a.requests()
	a.hosts()
	a.explain()
	a.agents()
	a.audit()
	a.packs()
	a.recordings()
	a.trends()
	a.notifications()
	a.delegations()
	a.policy()
	a.fleet()
	a.hostRoutes = a.newHostRoutes()
	a.deployments()
	a.agentDeployments()

	text, err := describe(a.huma.OpenAPI())
	if err != nil {
		return nil, err
	}
	a.router.Get("/openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/vnd.oai.openapi+json;version=3.1")
		w.Write(text)
	})
	return a, nil
}

// ServeHTTP serves the paths below Prefix; mount it there.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.router.ServeHTTP(w, r) }

// signedIn refuses calls without a caller before anything of them is read, but for
// those of operations that need none.
func (a *API) signedIn(ctx huma.Context, next func(huma.Context)) {
	switch op := ctx.Operation(); {
	case marked(op, forAgents):
		a.readAgentCall(ctx, next)
		return
	case marked(op, forAnybody):
		r, _ := humachi.Unwrap(ctx)
		next(huma.WithValue(ctx, sourceKey{}, sourceOf(r)))
		return
	}
	if _, ok := signin.Caller(ctx.Context()); !ok {
		r, w := humachi.Unwrap(ctx)
		problem.WriteJSON(w, r, problem.ErrSignInNeeded)
		return
	}
	next(ctx)
}

// register adds one call. f gets the caller; its errors become problems.
func register[I, O any](a *API, op huma.Operation, f func(context.Context, identity.Caller, *I) (*O, error)) {
	if op.MaxBodyBytes == 0 {
		op.MaxBodyBytes = MaxBody + 1 // huma refuses a body that reaches the limit
	}
	op.Security = []map[string][]string{{"bearer": {}}, {"cookie": {}}}
	huma.Register(a.huma, op, func(ctx context.Context, in *I) (*O, error) {
		caller, ok := signin.Caller(ctx)
		if !ok {
			return nil, answer{problem.Note(ctx, problem.ErrSignInNeeded)}
		}
		out, err := f(ctx, caller, in)
		if err != nil {
			return nil, answer{problem.Note(ctx, err)}
		}
		return out, nil
	})
}

// body is an answer that is JSON and nothing else.
type body[T any] struct{ Body T }

// reply makes a body of what a room returned.
func reply[T any](v T, err error) (*body[T], error) {
	if err != nil {
		return nil, err
	}
	return &body[T]{v}, nil
}

// parseDuration reads a Go duration of a query parameter.
func parseDuration(name, text string, most time.Duration) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d > most {
		return 0, policy.ErrBadDuration.With("%s=%q is not a duration between 0s and %s", name, text, most).
			Hinting("write it like 30s, at most %s", most).On("query." + name)
	}
	return d, nil
}
