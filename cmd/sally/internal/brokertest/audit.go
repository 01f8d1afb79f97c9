package brokertest

import (
	"net/http"
	"strconv"
	"time"

	"sallyport/api"
)

// auditing answers the calls of those who look back; Olga Operator is an auditor,
// too. The log has five events, of which a page has two, and one page is empty.
func (b *Broker) auditing(handle func(string, func(http.ResponseWriter, *http.Request, string))) {
	handle("GET /audit/events", func(w http.ResponseWriter, r *http.Request, who string) {
		if who != "operator" {
			refuse(w, 403, "auditors-only", "only auditors may read the log", "ask an auditor")
			return
		}
		at := time.Date(2025, 3, 10, 23, 50, 0, 0, time.UTC)
		erin, log := api.EventActor{Kind: "person", ID: "per-000000000008", Name: "Erin \x1b[2JEngineer"}, []api.Event{}
		about := r.FormValue("request") + r.FormValue("host") + r.FormValue("person")
		for i, e := range []api.Event{
			{Type: "request.created", Actor: erin, Summary: "asked for dba@db-1 for 30m, about " + about, Request: "req-000000000001"},
			{Type: "request.decided", Actor: api.EventActor{Kind: "person", Name: "Alex Approver"}, OnBehalfOf: &api.EventActor{Kind: "person", Name: "Sam Security"},
				Summary: "approved it for Sam Security", Request: "req-000000000001", Data: map[string]any{"verdict": "approve"}},
			{Type: "grant.started", Actor: api.EventActor{Kind: "broker"}, Summary: "started the grant, until 00:20:00 UTC", Request: "req-000000000001"},
			{Type: "access.refused", Actor: erin, Summary: "was refused GET /log"},
			{Type: "grant.ended", Actor: erin, Summary: "ended the grant early, being done", Request: "req-000000000001"},
		} {
			e.Index, e.Time = int64(i), at.Add(time.Duration(i)*5*time.Minute)
			log = append([]api.Event{e}, log...)
		}
		page := map[string]api.Page[api.Event]{
			"": {Items: log[:2], Next: "3"}, "3": {Items: []api.Event{}, Next: "2"}, "2": {Items: log[2:4], Next: "1"}, "1": {Items: log[4:]},
		}[r.FormValue("before")]
		if limit, err := strconv.Atoi(r.FormValue("limit")); err == nil && len(page.Items) > limit {
			page.Items, page.Next = page.Items[:limit], "3"
		}
		answer(w, 200, api.EventPage{Page: page, Pruned: pruned(page, r)})
	})
	handle("GET /audit/trends", func(w http.ResponseWriter, r *http.Request, who string) {
		if !governor(w, who) {
			return
		}
		from := time.Date(2025, 3, 10, 0, 0, 0, 0, time.UTC)
		answer(w, 200, api.Trends{Weeks: []api.Week{
			{Week: "2025-W10", From: from.AddDate(0, 0, -7), To: from},
			{Week: "2025-W11", From: from, To: from.AddDate(0, 0, 7), Requests: 12, Approved: 5, Automatic: 2, Emergencies: 1, Drills: 1, ReviewsLate: 1,
				Denied: 1, Cancelled: 1, Waiting: 1, TimeToApprove: &api.Spread{Median: "4m10s", P90: "1h15m0s"}},
		}})
	})
}

// pruned is said by the last page of the log, unless a request's events are all there.
func pruned(page api.Page[api.Event], r *http.Request) *api.Pruned {
	if page.Next != "" || r.FormValue("request") != "" {
		return nil
	}
	return &api.Pruned{Before: 16, Latest: time.Date(2025, 1, 31, 9, 0, 0, 0, time.UTC), Archive: "log-0-15.zip", ArchiveSHA256: "ab12"}
}
