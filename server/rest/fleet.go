package rest

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/broker/sessions"
)

func (a *API) fleet() {
	tag := []string{"hosts"}
	register(a, huma.Operation{
		OperationID: "makeJoinToken", Method: http.MethodPost, Path: "/hosts/join-tokens", Tags: tag, DefaultStatus: http.StatusCreated,
		Summary:     "Let one host enrol (operators)",
		Description: "The token stands in this answer and nowhere else. It is good once, for the name; if a host has that name already, the token is for it.",
	}, func(ctx context.Context, c identity.Caller, in *struct{ Body api.JoinTokenInput }) (*body[api.JoinToken], error) {
		return reply(a.Fleet.MakeToken(ctx, c, in.Body))
	})
	register(a, huma.Operation{
		OperationID: "listJoinTokens", Method: http.MethodGet, Path: "/hosts/join-tokens", Tags: tag,
		Summary: "Join tokens of the last week, without the tokens themselves (operators)",
	}, func(ctx context.Context, c identity.Caller, _ *nothing) (*body[api.Page[api.JoinToken]], error) {
		list, err := a.Fleet.Tokens(ctx, c)
		return page(api.Page[api.JoinToken]{Items: list}, err)
	})
	register(a, huma.Operation{
		OperationID: "withdrawJoinToken", Method: http.MethodDelete, Path: "/hosts/join-tokens/{id}", Tags: tag, DefaultStatus: http.StatusNoContent,
		Summary: "Make a join token good for nothing (operators)",
	}, func(ctx context.Context, c identity.Caller, in *struct {
		ID string `path:"id" maxLength:"32" example:"join-4f8k2m9qhx1z"`
	}) (*nothing, error) {
		return &nothing{}, a.Fleet.WithdrawToken(ctx, c, in.ID)
	})
	register(a, huma.Operation{
		OperationID: "listPendingHosts", Method: http.MethodGet, Path: "/hosts/pending", Tags: tag,
		Summary: "Hosts that wait to be let in, oldest first (operators)",
	}, func(ctx context.Context, c identity.Caller, _ *nothing) (*body[api.Page[api.PendingHost]], error) {
		list, err := a.Fleet.Pending(ctx, c)
		return page(api.Page[api.PendingHost]{Items: list}, err)
	})
	register(a, huma.Operation{
		OperationID: "approveHost", Method: http.MethodPost, Path: "/hosts/pending/{id}/approve", Tags: tag, DefaultStatus: http.StatusCreated,
		Summary: "Let a pending host in, by the fingerprint of its key (operators)",
	}, func(ctx context.Context, c identity.Caller, in *struct {
		PendingPath
		Body api.PendingDecision
	}) (*body[api.Host], error) {
		return a.shown(ctx, c)(a.Fleet.Approve(ctx, c, in.ID, in.Body))
	})
	register(a, huma.Operation{
		OperationID: "refuseHost", Method: http.MethodPost, Path: "/hosts/pending/{id}/refuse", Tags: tag, DefaultStatus: http.StatusNoContent,
		Summary: "Send a pending host away (operators)",
	}, func(ctx context.Context, c identity.Caller, in *struct {
		PendingPath
		Body api.WhyInput
	}) (*nothing, error) {
		return &nothing{}, a.Fleet.Refuse(ctx, c, in.ID, in.Body.Reason)
	})
	register(a, huma.Operation{
		OperationID: "getHostPosture", Method: http.MethodGet, Path: "/hosts/{host}/posture", Tags: tag,
		Summary: "How a host is, and what says so: its own checks and the look from outside (operators, auditors)",
	}, func(ctx context.Context, c identity.Caller, in *HostPath) (*body[api.HostPosture], error) {
		return reply(a.Fleet.Posture(ctx, c, in.Host))
	})
	register(a, huma.Operation{
		OperationID: "quarantineHost", Method: http.MethodPost, Path: "/hosts/{host}/quarantine", Tags: tag,
		Summary:     "Keep a host shut (operators)",
		Description: "It gets no certificates, those that there are open nothing any more, and sessions end on hosts that run sally-host. Grants go on.",
	}, func(ctx context.Context, c identity.Caller, in *struct {
		HostPath
		Body api.WhyInput
	}) (*body[api.Host], error) {
		return a.shown(ctx, c)(a.Hosts.Quarantine(ctx, c, in.Host, in.Body.Reason))
	})
	register(a, huma.Operation{
		OperationID: "releaseHost", Method: http.MethodPost, Path: "/hosts/{host}/release", Tags: tag,
		Summary: "End a quarantine (operators)",
	}, func(ctx context.Context, c identity.Caller, in *struct {
		HostPath
		Body api.WhyInput
	}) (*body[api.Host], error) {
		return a.shown(ctx, c)(a.Hosts.Release(ctx, c, in.Host, in.Body.Reason))
	})
	register(a, huma.Operation{
		OperationID: "labelHosts", Method: http.MethodPost, Path: "/hosts/labels", Tags: tag,
		Summary: "Set and remove labels of all hosts that a selector fits, at most 1000 (operators)",
	}, func(ctx context.Context, c identity.Caller, in *struct{ Body api.LabelsInput }) (*body[api.Page[api.Host]], error) {
		list, err := a.Hosts.Relabel(ctx, c, in.Body)
		if err == nil {
			list, err = a.Broker.Shown(ctx, c, list)
		}
		return page(api.Page[api.Host]{Items: list}, err)
	})
	register(a, huma.Operation{
		OperationID: "listHostSessions", Method: http.MethodGet, Path: "/hosts/{host}/sessions", Tags: tag,
		Summary: "Sessions on a host, latest report first: all of them for operators and auditors, for others their own",
	}, func(ctx context.Context, c identity.Caller, in *struct {
		HostPath
		Live   bool   `query:"live" doc:"true: only those that have not ended"`
		Cursor string `query:"cursor" maxLength:"200" doc:"next of the page before"`
		Limit  int    `query:"limit" minimum:"1" maximum:"200" default:"50"`
	}) (*body[api.Page[api.Session]], error) {
		return page(a.Broker.HostSessions(ctx, c, in.Host, sessions.Filter{Live: in.Live, Cursor: in.Cursor, Limit: in.Limit}))
	})
}

// PendingPath is exported because huma does not look into embedded types that are not.
type PendingPath struct {
	ID string `path:"id" maxLength:"32" example:"enr-4f8k2m9qhx1z"`
}
