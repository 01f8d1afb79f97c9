package rest

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/approvals/notify"
)

type notificationsInput struct {
	State   string `query:"state" enum:"waiting,sending,retrying,sent,dropped,failed"`
	Request string `query:"request" maxLength:"32" doc:"Id of the request that they are about"`
	Cursor  string `query:"cursor" maxLength:"200" doc:"next of the page before"`
	Limit   int    `query:"limit" minimum:"1" maximum:"200" default:"50"`
}

func (a *API) notifications() {
	register(a, huma.Operation{
		OperationID: "listNotifications", Method: http.MethodGet, Path: "/notifications", Tags: []string{"notifications"},
		Summary:     "What people were told, newest first (operators and auditors)",
		Description: "To whom, through which channel, and what became of it. state=failed: what was given up.",
	}, func(ctx context.Context, c identity.Caller, in *notificationsInput) (*body[api.Page[api.Notification]], error) {
		return reply(a.Approvals.Notifications(ctx, c, "GET "+Prefix+"/notifications",
			notify.Filter{State: in.State, RequestID: in.Request, Cursor: in.Cursor, Limit: in.Limit}))
	})
}
