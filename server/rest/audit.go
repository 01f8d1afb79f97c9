package rest

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/audit"
)

type eventIndex struct {
	Index int64 `path:"index" minimum:"0" doc:"Place in the log" example:"42"`
}

func (a *API) audit() {
	tag := []string{"audit"}
	register(a, huma.Operation{
		OperationID: "listEvents", Method: http.MethodGet, Path: "/audit/events", Tags: tag,
		Summary: "Events of the log, newest first (auditors)",
		Description: "A page may have fewer events than its limit, even none, and still a next: " +
			"a search reads only so much of a long log at once, and goes on from there.",
	}, a.listEvents)
	register(a, huma.Operation{
		OperationID: "getEvent", Method: http.MethodGet, Path: "/audit/events/{index}", Tags: tag,
		Summary: "One event with the exact bytes of its leaf (auditors)",
	}, func(ctx context.Context, c identity.Caller, in *eventIndex) (*body[api.Event], error) {
		if err := a.Approvals.OnlyAuditors(ctx, c, "GET /api/v1/audit/events/{index}"); err != nil {
			return nil, err
		}
		entry, err := a.Log.Entry(ctx, in.Index)
		if err != nil {
			return nil, err
		}
		if err := a.Approvals.DiscloseEntry(ctx, c, entry); err != nil {
			return nil, err
		}
		return &body[api.Event]{entry.API(true)}, nil
	})
	register(a, huma.Operation{
		OperationID: "getReceipt", Method: http.MethodGet, Path: "/audit/events/{index}/receipt", Tags: tag,
		Summary:     "Proof that an event is in the log: c2sp.org/tlog-proof (auditors)",
		Description: "Text that can be verified offline with the log's verifier key, /log/vkey.",
	}, func(ctx context.Context, c identity.Caller, in *eventIndex) (*textOutput, error) {
		if err := a.Approvals.OnlyAuditors(ctx, c, "GET /api/v1/audit/events/{index}/receipt"); err != nil {
			return nil, err
		}
		text, err := a.Log.Receipt(ctx, in.Index)
		return &textOutput{"text/plain; charset=utf-8", text}, err
	})
}

type textOutput struct {
	ContentType string `header:"Content-Type"`
	Body        []byte
}

type eventsInput struct {
	Type    string `query:"type" maxLength:"64" example:"request." doc:"A type, or a prefix that ends in a dot"`
	Request string `query:"request" maxLength:"32" doc:"Id of the request it is about"`
	Person  string `query:"person" maxLength:"32" doc:"Id of the person who did it or whom it concerns"`
	Host    string `query:"host" maxLength:"32" doc:"Id of the host it is about"`
	From    string `query:"from" maxLength:"40" doc:"Not before this time, RFC 3339"`
	To      string `query:"to" maxLength:"40" doc:"Before this time, RFC 3339"`
	Text    string `query:"text" maxLength:"800" example:"failover replica" doc:"Words that it has, in any order, the last of which may go on; at most 200 characters"`
	Before  int64  `query:"before" minimum:"0" doc:"Only events with a lower index; next of the page before"`
	After   int64  `query:"after" minimum:"0" doc:"Only events with a higher index, from there on; previous of the page after. Not with before"`
	Limit   int    `query:"limit" minimum:"1" maximum:"200" default:"50"`
}

func (a *API) listEvents(ctx context.Context, c identity.Caller, in *eventsInput) (*body[api.EventPage], error) {
	if err := a.Approvals.OnlyAuditors(ctx, c, "GET /api/v1/audit/events"); err != nil {
		return nil, err
	}
	from, err := parseTime("from", in.From)
	if err != nil {
		return nil, err
	}
	to, err := parseTime("to", in.To)
	if err != nil {
		return nil, err
	}
	f := audit.Filter{Type: in.Type, RequestID: in.Request, PersonID: in.Person,
		HostID: in.Host, From: from, To: to, Text: in.Text, Before: in.Before, After: in.After, Limit: in.Limit}
	found, err := a.Log.Search(ctx, f)
	if err != nil {
		return nil, err
	}
	if err := a.Approvals.DiscloseSearch(ctx, c, f); err != nil {
		return nil, err
	}
	p := api.EventPage{Page: api.Page[api.Event]{Items: make([]api.Event, len(found.Entries))}}
	p.Pruned = found.Pruned.API()
	for i, entry := range found.Entries {
		p.Items[i] = entry.API(false)
	}
	if found.Next > 0 {
		p.Next = strconv.FormatInt(found.Next, 10)
	}
	if found.Newer > 0 {
		p.Previous = strconv.FormatInt(found.Newer, 10)
	}
	return &body[api.EventPage]{p}, nil
}

func parseTime(name, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, errTime.With("%s=%q is not a time", name, text).On("query." + name)
	}
	return t.UTC(), nil
}
