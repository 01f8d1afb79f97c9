package rest

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/broker"
	"sallyport/broker/hosts"
)

// HostPath is exported because huma does not look into embedded types that are not.
type HostPath struct {
	Host string `path:"host" maxLength:"63" doc:"Name or id" example:"db-1"`
}

func (a *API) hosts() {
	tag := []string{"hosts"}
	register(a, huma.Operation{
		OperationID: "listHosts", Method: http.MethodGet, Path: "/hosts", Tags: tag,
		Summary: "Hosts that the caller may ask for, with logins, state and the rule that would apply",
	}, func(ctx context.Context, c identity.Caller, in *struct {
		Selector string          `query:"selector" maxLength:"1000" example:"env=prod,class in (web,database)" doc:"Kubernetes label-selector syntax"`
		Search   string          `query:"search" maxLength:"63" doc:"Part of the name"`
		State    []api.HostState `query:"state" maxItems:"8" example:"drifted,silent" doc:"Only hosts that are shown as one of these"`
		Cursor   string          `query:"cursor" maxLength:"200" doc:"next of the page before"`
		Limit    int             `query:"limit" minimum:"1" maximum:"200" default:"50"`
	}) (*body[api.Page[api.Host]], error) {
		return page(a.Broker.ListHosts(ctx, c, broker.HostFilter{States: in.State, Filter: hosts.Filter{
			Selector: in.Selector, Search: in.Search, Cursor: in.Cursor, Limit: in.Limit}}))
	})
	register(a, huma.Operation{
		OperationID: "getHost", Method: http.MethodGet, Path: "/hosts/{host}", Tags: tag,
		Summary: "One host",
	}, func(ctx context.Context, c identity.Caller, in *HostPath) (*body[api.Host], error) {
		return reply(a.Broker.Host(ctx, c, in.Host))
	})
	register(a, huma.Operation{
		OperationID: "registerHost", Method: http.MethodPost, Path: "/hosts", Tags: tag,
		Summary: "Register a host (operators)", DefaultStatus: http.StatusCreated,
	}, func(ctx context.Context, c identity.Caller, in *struct{ Body api.HostInput }) (*body[api.Host], error) {
		return a.shown(ctx, c)(a.Hosts.Register(ctx, c, in.Body))
	})
	register(a, huma.Operation{
		OperationID: "changeHost", Method: http.MethodPut, Path: "/hosts/{host}", Tags: tag,
		Summary: "Replace a host's description (operators)",
	}, func(ctx context.Context, c identity.Caller, in *struct {
		HostPath
		Body api.HostInput
	}) (*body[api.Host], error) {
		return a.shown(ctx, c)(a.Hosts.Change(ctx, c, in.Host, in.Body))
	})
	register(a, huma.Operation{
		OperationID: "removeHost", Method: http.MethodDelete, Path: "/hosts/{host}", Tags: tag,
		Summary: "Remove a host: it can no longer be asked for (operators)", DefaultStatus: http.StatusNoContent,
	}, func(ctx context.Context, c identity.Caller, in *HostPath) (*nothing, error) {
		return &nothing{}, a.Hosts.Remove(ctx, c, in.Host)
	})
	register(a, huma.Operation{
		OperationID: "issueHostCertificate", Method: http.MethodPost, Path: "/hosts/{host}/certificate", Tags: tag,
		Summary: "Certify the host's own key, so that nobody is asked \"are you sure\" (operators)", DefaultStatus: http.StatusCreated,
	}, func(ctx context.Context, c identity.Caller, in *HostPath) (*body[api.HostCertificate], error) {
		return reply(a.Broker.IssueHost(ctx, c, in.Host))
	})
}

// shown answers with a host as the broker shows it: with its state and rules.
func (a *API) shown(ctx context.Context, c identity.Caller) func(api.Host, error) (*body[api.Host], error) {
	return func(h api.Host, err error) (*body[api.Host], error) {
		if err != nil {
			return nil, err
		}
		return reply(a.Broker.Host(ctx, c, h.ID))
	}
}
