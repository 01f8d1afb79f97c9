package rest

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
)

type nothing struct{}

func (a *API) people() {
	register(a, huma.Operation{
		OperationID: "getMe", Method: http.MethodGet, Path: "/me", Tags: []string{"people"},
		Summary: "Who I am, my roles and my grants",
	}, a.me)
}

func (a *API) me(ctx context.Context, c identity.Caller, _ *nothing) (*body[api.Me], error) {
	grants, err := a.Approvals.List(ctx, c, approvals.ListFilter{
		Scope: approvals.Mine, States: []api.State{api.Approved, api.Active}, Limit: 200})
	if err != nil {
		return nil, err
	}
	waiting, err := a.Approvals.CountWaiting(ctx, c)
	if err != nil {
		return nil, err
	}
	me := api.Me{Person: c.API(), Roles: c.Roles, SignedInAt: c.AuthTime, Grants: grants.Items, Waiting: waiting}
	if me.Roles == nil {
		me.Roles = []api.Role{}
	}
	if me.Grants == nil {
		me.Grants = []api.Request{}
	}
	slices.SortFunc(me.Grants, func(x, y api.Request) int { return endOf(x).Compare(endOf(y)) })
	return &body[api.Me]{me}, nil
}

func endOf(r api.Request) time.Time {
	if r.EndsAt == nil {
		return time.Time{}
	}
	return *r.EndsAt
}
