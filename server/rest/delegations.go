package rest

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
)

type delegationsInput struct {
	Scope  string `query:"scope" enum:"mine,to-me" doc:"mine: others decide for the caller; to-me: the caller decides for others"`
	Past   bool   `query:"past" doc:"true: also those that are over or were ended"`
	Cursor string `query:"cursor" maxLength:"32" doc:"next of the page before"`
	Limit  int    `query:"limit" minimum:"1" maximum:"200" default:"50"`
}

func (a *API) delegations() {
	tag := []string{"delegations"}
	register(a, huma.Operation{
		OperationID: "listDelegations", Method: http.MethodGet, Path: "/delegations", Tags: tag,
		Summary: "Who decides for whom: those that name the caller, for operators and auditors all; newest first",
	}, func(ctx context.Context, c identity.Caller, in *delegationsInput) (*body[api.Page[api.Delegation]], error) {
		return page(a.Approvals.Delegations(ctx, c, approvals.DelegationFilter{
			Scope: approvals.DelegationScope(in.Scope), Past: in.Past, Cursor: in.Cursor, Limit: in.Limit}))
	})
	register(a, huma.Operation{
		OperationID: "createDelegation", Method: http.MethodPost, Path: "/delegations", Tags: tag,
		Summary:       "Let somebody decide for the caller for a while",
		Description:   "Operators can name another delegator, and not themselves as the delegate. It never lets anybody decide on a request of the delegate, the delegator or whoever made it.",
		DefaultStatus: http.StatusCreated,
	}, func(ctx context.Context, c identity.Caller, in *struct{ Body api.DelegationInput }) (*body[api.Delegation], error) {
		return reply(a.Approvals.Delegate(ctx, c, in.Body))
	})
	register(a, huma.Operation{
		OperationID: "getDelegation", Method: http.MethodGet, Path: "/delegations/{id}", Tags: tag,
		Summary: "One delegation, to those whom it names, operators and auditors",
	}, func(ctx context.Context, c identity.Caller, in *struct {
		ID string `path:"id" maxLength:"32" example:"del-4f8k2m9qhx1z"`
	}) (*body[api.Delegation], error) {
		return reply(a.Approvals.Delegation(ctx, c, in.ID))
	})
	register(a, huma.Operation{
		OperationID: "endDelegation", Method: http.MethodPost, Path: "/delegations/{id}/end", Tags: tag,
		Summary:     "End a delegation at once",
		Description: "By the delegator, the delegate, or an operator. What was decided under it stands.",
	}, func(ctx context.Context, c identity.Caller, in *struct {
		ID string `path:"id" maxLength:"32" example:"del-4f8k2m9qhx1z"`
	}) (*body[api.Delegation], error) {
		return reply(a.Approvals.EndDelegation(ctx, c, in.ID))
	})
}
