package brokertest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"sallyport/api"
)

// emergency opens the first host's door before anybody approves: for 15 minutes,
// and for who has none that waits for a review. The approver reviews it.
func (b *Broker) emergency(w http.ResponseWriter, r *http.Request, who string, in api.RequestInput, h *api.Host) {
	if h.Name != "db-1" {
		refuse(w, 403, "no-emergency", "the rule does not let you open this door before somebody has approved", "ask without it")
		return
	}
	for _, q := range b.requests {
		if e := q.Emergency; e != nil && e.Review == nil && !e.Drill {
			refuse(w, 403, "emergency-unreviewed", "your emergency "+q.ID+" has not been reviewed", "ask somebody from security to review it")
			return
		}
	}
	now := time.Now().UTC()
	e := &api.Emergency{Drill: in.Drill, Told: []string{"approvers", "security"}, ReviewGroups: []string{"security"}, ReviewBy: now.Add(24 * time.Hour)}
	if r.FormValue("dry_run") == "true" {
		answer(w, 200, api.Preview{Host: *h, Login: in.Login, Rule: h.Rules[0].Rule, Duration: "15m0s", Approvers: slots(0),
			ApproveBy: now.Add(time.Hour), CertificateLifetime: "5m0s", Emergency: e})
		return
	}
	q := &api.Request{ID: fmt.Sprintf("req-%012d", len(b.requests)+1), Requester: people[who], HostID: h.ID, Host: h.Name,
		Login: in.Login, Duration: "15m0s", Reason: in.Reason, Ticket: in.Ticket, Rule: h.Rules[0].Rule, CreatedAt: now,
		ApproveBy: now.Add(time.Hour), Approvers: slots(0), Emergency: e}
	start(q)
	b.requests = append(b.requests, q)
	answer(w, 201, b.seen(q, who))
}

func reviewAction(q *api.Request, who string) []api.Action {
	switch {
	case q.Emergency == nil:
		return nil
	case who == "engineer":
		return []api.Action{{Name: "review", Why: "nobody reviews their own emergency"}}
	case q.Emergency.Review != nil:
		return []api.Action{{Name: "review", Why: "the emergency has been reviewed"}}
	}
	return []api.Action{{Name: "review", Allowed: true}}
}

func (b *Broker) review(w http.ResponseWriter, r *http.Request, who string) {
	q := b.find(w, r)
	var in api.ReviewInput
	if q == nil || json.NewDecoder(r.Body).Decode(&in) != nil {
		return
	}
	switch {
	case q.Emergency == nil:
		refuse(w, 409, "not-an-emergency", "the request is no emergency, there is nothing to review", "")
		return
	case who == "engineer":
		refuse(w, 403, "own-emergency", "nobody reviews their own emergency", "somebody else has to")
		return
	case q.Emergency.Review != nil:
		refuse(w, 409, "already-reviewed", "the emergency has been reviewed", "")
		return
	case b.Signed:
		b.onPage(w, "/requests/"+q.ID+"/review", in.Verdict, in.Comment)
		return
	}
	b.takeReview(q, who, in)
	answer(w, 200, b.seen(q, who))
}

// reviewInBrowser is what the reviewer's browser does on the page, all at once.
func (b *Broker) reviewInBrowser(w http.ResponseWriter, r *http.Request) {
	b.Lock()
	defer b.Unlock()
	if q := b.find(w, r); q != nil && b.Signed {
		in := api.ReviewInput{Verdict: r.FormValue("verdict"), Comment: r.FormValue("comment")}
		if b.InBrowser != "" {
			in.Verdict = string(b.InBrowser)
		}
		b.takeReview(q, "approver", in)
	}
}

func (b *Broker) takeReview(q *api.Request, who string, in api.ReviewInput) {
	now := time.Now().UTC()
	q.Emergency.Review = &api.Review{ID: "rev-1", Reviewer: people[who], Verdict: in.Verdict, Comment: in.Comment,
		Late: q.Emergency.Overdue, At: now}
	q.Emergency.Overdue = false
	if in.Verdict == api.NotJustified && !q.State.Final() {
		q.State, q.EndsAt, q.EndReason = api.Ended, &now, "revoked"
	}
	b.wake()
}

// emergencyFits is the part of the list's filters that is about emergencies.
func emergencyFits(q *api.Request, r *http.Request) bool {
	e := q.Emergency
	if e == nil {
		return r.FormValue("emergency") == "" && r.FormValue("review") == "" && r.FormValue("scope") != "reviews"
	}
	switch {
	case r.FormValue("review") == "overdue":
		return e.Review == nil && e.Overdue
	case r.FormValue("review") == "waiting" || r.FormValue("scope") == "reviews":
		return e.Review == nil
	}
	return true
}
