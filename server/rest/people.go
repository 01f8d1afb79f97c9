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
	tag := []string{"people"}
	register(a, huma.Operation{
		OperationID: "listPeople", Method: http.MethodGet, Path: "/people", Tags: tag,
		Summary: "Everybody who has ever signed in, by name; for operators and auditors",
	}, func(ctx context.Context, c identity.Caller, in *listPeople) (*body[api.Page[api.KnownPerson]], error) {
		return page(a.Approvals.People(ctx, c, identity.PeopleFilter{Search: in.Search, Removed: in.Removed, After: in.Cursor, Limit: in.Limit}))
	})
	register(a, huma.Operation{
		OperationID: "removePerson", Method: http.MethodPost, Path: "/people/{id}/remove", Tags: tag,
		Summary:     "Keep a person out, and end all that is theirs; for operators",
		Description: "Sign-ins, waiting requests and grants end at once. Approvals of theirs that have not opened anything count no more.",
	}, func(ctx context.Context, c identity.Caller, in *governInput) (*body[api.RemovedPerson], error) {
		return reply(a.Approvals.RemovePerson(ctx, c, in.ID, in.Body.Reason))
	})
	register(a, huma.Operation{
		OperationID: "restorePerson", Method: http.MethodPost, Path: "/people/{id}/restore", Tags: tag,
		Summary:     "Let a removed person sign in again; for operators",
		Description: "What ended with the removal stays ended.",
	}, func(ctx context.Context, c identity.Caller, in *governInput) (*body[api.KnownPerson], error) {
		return reply(a.Approvals.RestorePerson(ctx, c, in.ID, in.Body.Reason))
	})
	register(a, huma.Operation{
		OperationID: "revoke", Method: http.MethodPost, Path: "/revocations", Tags: []string{"revocations"},
		Summary:     "End a request, all of a person's or of a host's, one certificate, or a run of a deploy agent, at once and for good",
		Description: "Operators revoke anybody's; others their own, which is the same as being done. No certificate is issued any more, those that there are open nothing, and the sessions end on hosts that run sally-host.",
	}, func(ctx context.Context, c identity.Caller, in *struct{ Body api.RevocationInput }) (*body[api.Revocation], error) {
		if in.Body.Agent != "" {
			return reply(a.Agents.RevokeFor(ctx, c, in.Body))
		}
		return reply(a.Revocations.Revoke(ctx, c, in.Body))
	})
}

type listPeople struct {
	Search  string `query:"search" maxLength:"255" doc:"Part of the name, the address or the subject, or the id"`
	Removed bool   `query:"removed" doc:"true: only those who have been removed"`
	Cursor  string `query:"cursor" maxLength:"32" doc:"next of the page before"`
	Limit   int    `query:"limit" minimum:"1" maximum:"200" default:"50"`
}

type governInput struct {
	ID   string `path:"id" maxLength:"32" example:"per-4f8k2m9qhx1z"`
	Body api.WhyInput
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
	reviews, err := a.Approvals.CountReviews(ctx, c)
	if err != nil {
		return nil, err
	}
	proposals, err := a.Approvals.CountProposals(ctx, c)
	if err != nil {
		return nil, err
	}
	me := api.Me{Proposals: proposals, Person: c.API(), Roles: c.Roles, SignedInAt: c.AuthTime, Grants: grants.Items, Waiting: waiting, Reviews: reviews}
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
