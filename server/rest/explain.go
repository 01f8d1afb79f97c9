package rest

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/broker/hosts"
)

func (a *API) explain() {
	tag := []string{"explain"}
	register(a, huma.Operation{
		OperationID: "explain", Method: http.MethodPost, Path: "/explain", Tags: tag,
		Summary: "Why somebody can or cannot ask for a login on a host",
		Description: "For oneself; operators and auditors for anybody. Nothing is asked. " +
			"A host that the caller may not know of gets the same answer as one that is not there.",
	}, func(ctx context.Context, c identity.Caller, in *struct{ Body api.ExplainInput }) (*body[api.Explanation], error) {
		return reply(a.Approvals.Explain(ctx, c, in.Body))
	})
	register(a, huma.Operation{
		OperationID: "getHostReach", Method: http.MethodGet, Path: "/hosts/{host}/reach", Tags: tag,
		Summary: "Who can reach a login on a host (operators and auditors)",
	}, func(ctx context.Context, c identity.Caller, in *struct {
		HostPath
		Login  string `query:"login" required:"true" minLength:"1" maxLength:"32"`
		Cursor string `query:"cursor" maxLength:"200" doc:"next of the page before"`
		Limit  int    `query:"limit" minimum:"1" maximum:"200" default:"50"`
	}) (*body[api.HostReach], error) {
		return reply(a.Approvals.HostReach(ctx, c, in.Host, in.Login, in.Cursor, in.Limit))
	})
	register(a, huma.Operation{
		OperationID: "getPersonReach", Method: http.MethodGet, Path: "/people/{person}/reach", Tags: tag,
		Summary:     "What a person can reach",
		Description: "me is oneself; operators and auditors may name anybody, by id or address.",
	}, func(ctx context.Context, c identity.Caller, in *struct {
		Person   string `path:"person" maxLength:"255" example:"me"`
		Selector string `query:"selector" maxLength:"1000" doc:"Only hosts whose labels fit, in Kubernetes label-selector syntax"`
		Search   string `query:"search" maxLength:"63" doc:"Part of the host's name"`
		Cursor   string `query:"cursor" maxLength:"200" doc:"next of the page before"`
		Limit    int    `query:"limit" minimum:"1" maximum:"200" default:"50"`
	}) (*body[api.PersonReach], error) {
		return reply(a.Broker.PersonReach(ctx, c, in.Person, hosts.Filter{
			Selector: in.Selector, Search: in.Search, Cursor: in.Cursor, Limit: in.Limit}))
	})
}
