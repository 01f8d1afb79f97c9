package rest

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-chi/chi/v5"

	"sallyport/api/hostapi"
	"sallyport/broker/fleet"
	"sallyport/server/problem"
)

// HostPrefix is where enrolled hosts call. Nobody is signed in there: each call is
// signed with the host's key.
const HostPrefix = Prefix + "/host/"

type hostCallKey struct{}

// newHostRoutes answers the calls of hosts, which stand in the same document as all
// others.
func (a *API) newHostRoutes() *chi.Mux {
	router := chi.NewMux()
	router.NotFound(func(w http.ResponseWriter, r *http.Request) { problem.WriteJSON(w, r, problem.ErrRoute) })
	router.MethodNotAllowed(func(w http.ResponseWriter, r *http.Request) { problem.WriteJSON(w, r, problem.ErrMethod) })
	calls := humachi.New(router, huma.Config{
		OpenAPI: a.huma.OpenAPI(), Formats: map[string]huma.Format{"application/json": huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat},
		DefaultFormat: "application/json", RejectUnknownQueryParameters: true, Transformers: []huma.Transformer{inputProblem},
	})
	a.describeHostCalls(calls)
	return router
}

// HostCalls serves the paths below HostPrefix.
func (a *API) HostCalls() http.Handler { return http.StripPrefix(Prefix, a.readHostCall(a.hostRoutes)) }

// readHostCall reads a call whole, because its signature is over all of it.
func (a *API) readHostCall(next http.Handler) http.Handler {
	base := ""
	if u, err := url.Parse(a.URL); err == nil {
		base = strings.TrimRight(u.Path, "/") // what a proxy took off
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		call := fleet.Call{Authorization: r.Header.Get("Authorization"), Method: r.Method, Target: base + r.RequestURI}
		call.Source, _, _ = net.SplitHostPort(r.RemoteAddr)
		if r.Body != nil && r.Body != http.NoBody {
			body, err := io.ReadAll(io.LimitReader(r.Body, hostapi.MaxBody+1))
			switch {
			case len(body) > hostapi.MaxBody:
				problem.WriteJSON(w, r, problem.ErrTooLarge)
				return
			case err != nil:
				problem.WriteJSON(w, r, unreadable)
				return
			}
			call.Body, r.Body = body, io.NopCloser(bytes.NewReader(body))
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), hostCallKey{}, call)))
	})
}

func hostCall(ctx context.Context) fleet.Call {
	call, _ := ctx.Value(hostCallKey{}).(fleet.Call)
	return call
}

// registerHost adds one call of enrolled hosts. f gets the host.
func registerHost[I, O any](a *API, calls huma.API, op huma.Operation, f func(context.Context, fleet.Caller, *I) (*O, error)) {
	registerOpen(calls, op, func(ctx context.Context, in *I) (*O, error) {
		call := hostCall(ctx)
		call.Changes = op.Method != http.MethodGet
		host, err := a.Fleet.Authenticate(ctx, call)
		if err != nil {
			return nil, err
		}
		problem.CallOf(ctx).Host = host.ID
		return f(ctx, host, in)
	})
}

// registerOpen adds one call that f itself authenticates.
func registerOpen[I, O any](calls huma.API, op huma.Operation, f func(context.Context, *I) (*O, error)) {
	op.Tags, op.MaxBodyBytes = []string{"host"}, hostapi.MaxBody+1
	op.Security = []map[string][]string{{"host": {}}}
	huma.Register(calls, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := f(ctx, in)
		if err != nil {
			return nil, answer{problem.Note(ctx, err)}
		}
		return out, nil
	})
}

// enrolmentOutput is an Enrolment, or what the host waits for.
type enrolmentOutput struct {
	Status int
	Body   any
}

func enrolled(status int, e *hostapi.Enrolment, p *hostapi.Pending, err error) (*enrolmentOutput, error) {
	switch {
	case err != nil:
		return nil, err
	case p != nil:
		return &enrolmentOutput{http.StatusAccepted, p}, nil
	}
	return &enrolmentOutput{status, e}, nil
}

type noteOutput struct {
	ContentType string `header:"Content-Type"`
	Body        []byte
}

func (a *API) describeHostCalls(calls huma.API) {
	a.describeRecordingCall(calls)
	registerOpen(calls, huma.Operation{
		OperationID: "enrolHost", Method: http.MethodPost, Path: "/host/enrolments", DefaultStatus: http.StatusCreated,
		Summary:     "Become a host",
		Description: "With a join token the answer is 201 and the enrolment; without one it is 202, and the host asks again until an operator has let it in. Not signed as the other calls are: the proof in it says the same.",
	}, func(ctx context.Context, in *struct{ Body hostapi.EnrolmentInput }) (*enrolmentOutput, error) {
		e, p, err := a.Fleet.Enrol(ctx, hostCall(ctx).Source, in.Body)
		return enrolled(http.StatusCreated, e, p, err)
	})
	registerOpen(calls, huma.Operation{
		OperationID: "getEnrolment", Method: http.MethodGet, Path: "/host/enrolments/{id}",
		Summary: "What became of an enrolment that waited; signed with the key that it was made with, under its id",
	}, func(ctx context.Context, in *struct {
		ID string `path:"id" maxLength:"32" example:"enr-4f8k2m9qhx1z"`
	}) (*enrolmentOutput, error) {
		e, p, err := a.Fleet.Asked(ctx, in.ID, hostCall(ctx))
		return enrolled(http.StatusOK, e, p, err)
	})
	registerHost(a, calls, huma.Operation{
		OperationID: "renewHost", Method: http.MethodPost, Path: "/host/certificates", DefaultStatus: http.StatusCreated,
		Summary: "The host's enrolment as it is now, with a new certificate for its key",
	}, func(ctx context.Context, h fleet.Caller, _ *struct{ Body struct{} }) (*body[*hostapi.Enrolment], error) {
		return reply(a.Fleet.Renew(ctx, h))
	})
	registerHost(a, calls, huma.Operation{
		OperationID: "reportHost", Method: http.MethodPost, Path: "/host/reports",
		Summary: "Tell what the host saw, in order; each number is taken once",
	}, func(ctx context.Context, h fleet.Caller, in *struct{ Body hostapi.Reports }) (*body[hostapi.Accepted], error) {
		return reply(a.Fleet.Report(ctx, h, in.Body.Reports))
	})
	registerHost(a, calls, huma.Operation{
		OperationID: "getRevocations", Method: http.MethodGet, Path: "/host/revocations",
		Summary:     "What has ended before its time, as a note that the log's key signs",
		Description: "The answer comes when there is a list after the one that the host has, or when the time is up; then it says that there is nothing new.",
	}, func(ctx context.Context, _ fleet.Caller, in *struct {
		After uint64 `query:"after" doc:"Number of the list that the host has; 0: none"`
		Wait  string `query:"wait" maxLength:"16" example:"55s" doc:"How long to wait for another; at most 60s"`
	}) (*noteOutput, error) {
		wait, err := parseDuration("wait", in.Wait, hostapi.MaxWait)
		if err != nil {
			return nil, err
		}
		note, err := a.Revocations.News(ctx, in.After, wait, a.Closing)
		return &noteOutput{"text/plain; charset=utf-8", note}, err
	})
}
