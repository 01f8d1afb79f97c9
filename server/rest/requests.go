package rest

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/internal/ids"
	"sallyport/server/problem"
)

const (
	// maxWait is the longest that a long poll waits.
	maxWait = 60 * time.Second
	// pollEvery is how often a long poll looks. Looking, rather than being told,
	// works across replicas and for changes that only the clock makes.
	pollEvery = 400 * time.Millisecond
)

// RequestPath is exported because huma does not look into embedded types that are not.
type RequestPath struct {
	ID string `path:"id" maxLength:"32" example:"req-4f8k2m9qhx1z"`
}

func (a *API) requests() {
	tag := []string{"requests"}
	register(a, huma.Operation{
		OperationID: "createRequest", Method: http.MethodPost, Path: "/requests", Tags: tag,
		Summary:       "Ask for one login, on one host or on several",
		Description:   "Either host, or selector: the request is then for all hosts with those labels, at most 50, which must fall under one rule. With dry_run=true nothing is asked: the answer is 200 and says what would happen and who could approve.",
		DefaultStatus: http.StatusCreated,
	}, a.createRequest)
	register(a, huma.Operation{
		OperationID: "listRequests", Method: http.MethodGet, Path: "/requests", Tags: tag,
		Summary: "Requests that the caller may see, newest first",
	}, a.listRequests)
	register(a, huma.Operation{
		OperationID: "getRequest", Method: http.MethodGet, Path: "/requests/{id}", Tags: tag,
		Summary:     "One request with decisions, certificates, timeline and what the caller can do",
		Description: "With wait, the answer comes when the request's state is no longer the one given as state, when it has another number of decisions than the one given (the review of an emergency counts as one), or when the time is up.",
	}, a.getRequest)
	register(a, huma.Operation{
		OperationID: "decideRequest", Method: http.MethodPost, Path: "/requests/{id}/decisions", Tags: tag,
		Summary: "Approve or deny",
		Description: "Where the request's assurance is provider, the identity provider must sign the decision, for which the person " +
			"needs a browser: the answer is 409 with the code provider-evidence-needed, and continue is the page to open. " +
			"Nothing is decided until they come back from the provider; wait for that with GET /requests/{id}.",
	}, func(ctx context.Context, c identity.Caller, in *struct {
		RequestPath
		Body api.DecisionInput
	}) (*body[api.Request], error) {
		r, err := a.Approvals.Decide(ctx, c, in.ID, in.Body)
		return reply(r, a.onPage(err, string(in.Body.Verdict), in.Body.Comment, "requests", in.ID, "decide"))
	})
	register(a, huma.Operation{
		OperationID: "cancelRequest", Method: http.MethodPost, Path: "/requests/{id}/cancel", Tags: tag,
		Summary: "Withdraw one's own request before it is decided",
	}, func(ctx context.Context, c identity.Caller, in *RequestPath) (*body[api.Request], error) {
		return reply(a.Approvals.Cancel(ctx, c, in.ID))
	})
	register(a, huma.Operation{
		OperationID: "finishRequest", Method: http.MethodPost, Path: "/requests/{id}/finish", Tags: tag,
		Summary: "End one's own grant early",
	}, func(ctx context.Context, c identity.Caller, in *RequestPath) (*body[api.Request], error) {
		return reply(a.Approvals.Finish(ctx, c, in.ID))
	})
	register(a, huma.Operation{
		OperationID: "extendRequest", Method: http.MethodPost, Path: "/requests/{id}/extend", Tags: tag,
		Summary:       "Ask for a grant that follows one's own without a gap",
		Description:   "The answer is a request of its own, for the same key. The earlier grant stays as it is, and nothing that is open is cut.",
		DefaultStatus: http.StatusCreated,
	}, func(ctx context.Context, c identity.Caller, in *struct {
		RequestPath
		Body api.ExtendInput
	}) (*extendOutput, error) {
		r, err := a.Approvals.Extend(ctx, c, in.ID, in.Body)
		if err != nil {
			return nil, err
		}
		return &extendOutput{Location: Prefix + "/requests/" + r.ID, Body: r}, nil
	})
	register(a, huma.Operation{
		OperationID: "reviewRequest", Method: http.MethodPost, Path: "/requests/{id}/review", Tags: tag,
		Summary: "Sign off an emergency",
		Description: "By somebody independent in one of its review groups, once. not-justified also ends the grant, if it runs. " +
			"Where the emergency's assurance is provider, the answer is 409 with the code provider-evidence-needed, as for decisions.",
	}, func(ctx context.Context, c identity.Caller, in *struct {
		RequestPath
		Body api.ReviewInput
	}) (*body[api.Request], error) {
		r, err := a.Approvals.Review(ctx, c, in.ID, in.Body)
		return reply(r, a.onPage(err, in.Body.Verdict, in.Body.Comment, "requests", in.ID, "review"))
	})
	register(a, huma.Operation{
		OperationID: "issueCertificate", Method: http.MethodPost, Path: "/requests/{id}/certificates", Tags: tag,
		Summary:       "Get a certificate under a grant",
		Description:   "A certificate is for one host, which must be named if the request is for several. The proof is an armored SSHSIG by the key, namespace sallyport-certificate, over: `sallyport certificate request v1`, the broker's URL and the request's id, each on a line of its own.",
		DefaultStatus: http.StatusCreated,
	}, func(ctx context.Context, c identity.Caller, in *struct {
		RequestPath
		Body api.CertificateInput
	}) (*body[api.Certificate], error) {
		return reply(a.Broker.Issue(ctx, c, in.ID, in.Body))
	})
}

type createInput struct {
	DryRun bool `query:"dry_run" doc:"Only say what would happen"`
	Body   api.RequestInput
}

// createOutput is a Request, or a Preview of one.
type createOutput struct {
	Status   int
	Location string `header:"Location"`
	Body     any
}

func (a *API) createRequest(ctx context.Context, c identity.Caller, in *createInput) (*createOutput, error) {
	if in.DryRun {
		p, err := a.Approvals.Preview(ctx, c, in.Body)
		if err != nil {
			return nil, err
		}
		return &createOutput{Status: http.StatusOK, Body: p}, nil
	}
	r, err := a.Approvals.Request(ctx, c, in.Body)
	if err != nil {
		return nil, err
	}
	return &createOutput{Status: http.StatusCreated, Location: Prefix + "/requests/" + r.ID, Body: r}, nil
}

// extendOutput is the request that extends another.
type extendOutput struct {
	Location string `header:"Location"`
	Body     api.Request
}

type listInput struct {
	Scope  string      `query:"scope" enum:"mine,waiting,reviews" doc:"mine: asked for by the caller; waiting: waiting for the caller's decision; reviews: emergencies waiting for the caller's review"`
	State  []api.State `query:"state" enum:"requested,approved,active,ended,denied,cancelled,expired" doc:"Any of these, separated by commas"`
	Host   string      `query:"host" maxLength:"63" doc:"Name or id; finds requests for several hosts by each"`
	Cursor string      `query:"cursor" maxLength:"200" doc:"next of the page before"`
	Limit  int         `query:"limit" minimum:"1" maximum:"200" default:"50"`

	Emergency bool   `query:"emergency" doc:"true: emergencies only, drills among them"`
	Review    string `query:"review" enum:"waiting,overdue" doc:"Emergencies that nobody has reviewed: all, or those past their deadline"`
}

func (a *API) listRequests(ctx context.Context, c identity.Caller, in *listInput) (*body[api.Page[api.Request]], error) {
	f := approvals.ListFilter{Scope: approvals.Scope(in.Scope), States: in.State, Cursor: in.Cursor, Limit: in.Limit,
		Emergency: in.Emergency, Review: approvals.Review(in.Review)}
	switch {
	case in.Host == "":
	case ids.Valid(ids.Host, in.Host): // also one that was removed since
		f.HostID = in.Host
	default:
		h, err := a.Broker.Host(ctx, c, in.Host)
		if err != nil {
			return nil, err
		}
		f.HostID = h.ID
	}
	return page(a.Approvals.List(ctx, c, f))
}

// page is reply for lists: an empty one is [], never null.
func page[T any](p api.Page[T], err error) (*body[api.Page[T]], error) {
	if p.Items == nil {
		p.Items = []T{}
	}
	return reply(p, err)
}

type getInput struct {
	RequestPath
	Wait  string    `query:"wait" maxLength:"16" example:"30s" doc:"How long to wait for another state; at most 60s"`
	State api.State `query:"state" enum:"requested,approved,active,ended,denied,cancelled,expired" doc:"The state that the caller knows"`
	Known int       `query:"decisions" minimum:"-1" default:"-1" doc:"How many decisions the caller knows, a review among them; -1: another number is nothing to answer for"`
}

// onPage adds to the refusal of what the identity provider has to sign the address
// of the page on which it can be said.
func (a *API) onPage(err error, verdict, comment string, path ...string) error {
	if !errors.Is(err, approvals.ErrProviderEvidence) {
		return err
	}
	q := url.Values{"verdict": {verdict}}
	if comment != "" {
		q.Set("comment", comment)
	}
	page := strings.TrimRight(a.URL, "/")
	for _, part := range path {
		page += "/" + url.PathEscape(part)
	}
	p := problem.From(err)
	p.Continue = page + "?" + q.Encode()
	return p
}

func (a *API) getRequest(ctx context.Context, c identity.Caller, in *getInput) (*body[api.Request], error) {
	wait, err := parseDuration("wait", in.Wait, maxWait)
	if err != nil {
		return nil, err
	}
	if wait > 0 && in.State != "" {
		if err := a.await(ctx, c, in, wait); err != nil {
			return nil, err
		}
	}
	return reply(a.Broker.Request(ctx, c, in.ID))
}

// await returns when the request's state is no longer the known one, or its
// decisions are more, or the wait is over.
func (a *API) await(ctx context.Context, c identity.Caller, in *getInput, wait time.Duration) error {
	return a.until(ctx, wait, func() (bool, error) {
		state, decisions, err := a.Approvals.State(ctx, c, in.ID)
		return state != in.State || in.Known >= 0 && decisions != in.Known, err
	})
}

// until looks again and again, until there is news or an error, the time is up, or
// the process is about to stop.
func (a *API) until(ctx context.Context, wait time.Duration, news func() (bool, error)) error {
	up := time.NewTimer(wait)
	defer up.Stop()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		if there, err := news(); there || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-up.C:
			return nil
		case <-a.Closing:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
