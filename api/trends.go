package api

import (
	"context"
	"net/http"
	"time"
)

// MaxTrendWeeks is how many weeks one call of Trends covers at most.
const MaxTrendWeeks = 52

// Trends are figures about requests by ISO week, in UTC: a request belongs to the
// week in which it was asked for, whatever became of it later.
type Trends struct {
	Weeks []Week `json:"weeks" doc:"Oldest first; the last one is not over yet"`
}

// Week is one ISO week. Every request of it is in exactly one of the counts from
// Approved to Waiting.
type Week struct {
	Week string    `json:"week" example:"2026-W31" doc:"ISO 8601"`
	From time.Time `json:"from" doc:"Monday, 00:00 UTC"`
	To   time.Time `json:"to" doc:"The next Monday, which is not within"`

	Requests    int `json:"requests" doc:"All that were asked for, extensions among them"`
	Approved    int `json:"approved" doc:"Granted after people had approved"`
	Automatic   int `json:"automatic" doc:"Granted by rule, with nobody asked"`
	Emergencies int `json:"emergencies" doc:"Granted before anybody had approved"`
	Drills      int `json:"drills" doc:"Rehearsals of that"`
	Denied      int `json:"denied"`
	Cancelled   int `json:"cancelled"`
	Expired     int `json:"expired" doc:"Nobody decided in time"`
	Waiting     int `json:"waiting" doc:"Not decided yet"`

	ReviewsLate int `json:"reviews_late" doc:"Emergencies and drills that nobody reviewed by the deadline, whether or not somebody did later"`

	TimeToApprove *Spread `json:"time_to_approve,omitempty" doc:"From the ask to the approval that completed what the rule demands, of those that people approved; absent if there are none"`
}

// NotGranted is how many came to an end without a grant.
func (w Week) NotGranted() int { return w.Denied + w.Cancelled + w.Expired }

// Spread is how long something took.
type Spread struct {
	Median string `json:"median" example:"4m10s" doc:"A Go duration: half took at most so long"`
	P90    string `json:"p90" example:"38m0s" doc:"Nine in ten took at most so long"`
}

// Trends are the figures of the last so many weeks, this one included; 0 means 12.
// Operators and auditors only.
func (c *Client) Trends(ctx context.Context, weeks int) (Trends, error) {
	return fetch[Trends](ctx, c, v1(http.MethodGet, "audit", "trends").where(query("weeks", number(weeks))))
}
