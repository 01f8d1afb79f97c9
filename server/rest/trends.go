package rest

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"sallyport/api"
	"sallyport/approvals/identity"
)

type trendsInput struct {
	Weeks int `query:"weeks" minimum:"1" maximum:"52" default:"12" doc:"How many ISO weeks, this one included"`
}

func (a *API) trends() {
	register(a, huma.Operation{
		OperationID: "getTrends", Method: http.MethodGet, Path: "/audit/trends", Tags: []string{"audit"},
		Summary:     "Requests, emergencies and time to approve by week (operators and auditors)",
		Description: "A request belongs to the ISO week, in UTC, in which it was asked for.",
	}, func(ctx context.Context, c identity.Caller, in *trendsInput) (*body[api.Trends], error) {
		return reply(a.Approvals.Trends(ctx, c, in.Weeks))
	})
}
