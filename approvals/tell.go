package approvals

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/approvals/notify"
	"sallyport/approvals/policy"
	"sallyport/audit/event"
)

// People are told of a state change by notices that are enqueued with it; what
// they are told, and whether it is still true, package notify asks when it sends.

// tellAsked posts what people are told of a new request that waits for them: at
// once those who can decide now, later the reminders and escalations of its rule.
func (s *Service) tellAsked(ctx context.Context, tx pgx.Tx, r *request, rule *policy.Rule) error {
	if r.state != api.Requested {
		return nil
	}
	t := r.terms
	notices := []notify.Notice{r.waiting(t.CreatedAt)}
	if at := t.ApproveBy.Add(-rule.Remind); rule.Remind > 0 && at.After(t.CreatedAt) {
		notices = append(notices, notify.Notice{ID: "reminder/" + r.id, Kind: notify.Reminder, RequestID: r.id,
			Groups: t.Groups(), Due: at})
	}
	for i, e := range rule.Escalate {
		notices = append(notices, notify.Notice{ID: "escalated/" + r.id + "/" + strconv.Itoa(i+1), Kind: notify.Escalated,
			RequestID: r.id, Groups: e.Groups, Due: t.CreatedAt.Add(e.After)})
	}
	return s.desk.Post(ctx, tx, notices...)
}

// waiting is the notice that the request waits for its current stage. Whenever that
// changes it is another notice.
func (r *request) waiting(now time.Time) notify.Notice {
	stage := policy.Quorum(r.terms.Stages(), r.approvals()).Stage
	id := fmt.Sprintf("waiting/%s/%d/%d", r.id, stage, len(r.decision)-len(r.approvals()))
	return notify.Notice{ID: id, Kind: notify.Waiting, RequestID: r.id, Groups: r.waitingGroups(), Stage: stage, Due: now}
}

// tellDecided posts what people are told after a decision: the groups of the next
// stage that it is their turn, or everybody who was told that it is over.
func (s *Service) tellDecided(ctx context.Context, tx pgx.Tx, r *request, now time.Time) error {
	n := len(r.decision) - 1
	if r.state != api.Requested {
		return s.tellClosed(ctx, tx, r, now, r.decision[n].statement.Approver.ID)
	}
	before := *r
	before.decision = r.decision[:n]
	next := r.waiting(now)
	if before.waiting(now).Stage == next.Stage {
		return nil // those who can decide know
	}
	return s.desk.Post(ctx, tx, next)
}

// tellWaiting posts to those who can decide now that the request waits for them.
func (s *Service) tellWaiting(ctx context.Context, tx pgx.Tx, r *request, now time.Time) error {
	return s.desk.Post(ctx, tx, r.waiting(now))
}

// tellClosed posts that the request needs nobody's decision any more. by is the
// person who closed it, or empty: they know.
func (s *Service) tellClosed(ctx context.Context, tx pgx.Tx, r *request, now time.Time, by string) error {
	return s.desk.Post(ctx, tx, notify.Notice{ID: "closed/" + r.id, Kind: notify.Closed, RequestID: r.id, By: by, Due: now})
}

// tellRevoked posts to the grant's person that somebody has ended it.
func (s *Service) tellRevoked(ctx context.Context, tx pgx.Tx, r *request, now time.Time, by string) error {
	return s.desk.Post(ctx, tx, notify.Notice{ID: "revoked/" + r.id, Kind: notify.GrantRevoked, RequestID: r.id, By: by, Due: now})
}

// endWarning is how long before its end a grant's person is warned, at most; at
// most a quarter of the grant, so that the warning is news.
const endWarning = 10 * time.Minute

// tellEnding posts, for the time shortly before the end of a grant that starts,
// the warning to its person.
func (s *Service) tellEnding(ctx context.Context, tx pgx.Tx, r *request) error {
	before := min(endWarning, r.ends.Sub(*r.starts)/4)
	return s.desk.Post(ctx, tx, notify.Notice{ID: "ending/" + r.id, Kind: notify.GrantEnding, RequestID: r.id,
		Due: r.ends.Add(-before)})
}

// tellEmergency posts that a door was opened before approval, to everybody whom
// the terms name, at once.
func (s *Service) tellEmergency(ctx context.Context, tx pgx.Tx, r *request) error {
	return s.desk.Post(ctx, tx, notify.Notice{ID: "emergency/" + r.id, Kind: notify.EmergencyStarted, RequestID: r.id,
		Groups: r.terms.Emergency.Told, Due: r.terms.CreatedAt})
}

// tellReview posts that an emergency waits for its review: to those who can give
// it, and once it is overdue to everybody who was told of the emergency.
func (s *Service) tellReview(ctx context.Context, tx pgx.Tx, r *request, overdue bool) error {
	n := notify.Notice{Kind: notify.ReviewDue, RequestID: r.id, Groups: r.terms.Emergency.ReviewGroups, Due: s.cfg.Clock.Now()}
	if overdue {
		n.Kind, n.Groups = notify.ReviewOverdue, r.terms.Emergency.Told
	}
	n.ID = string(n.Kind) + "/" + r.id + "/" + n.Due.Format("2006-01-02T15:04")
	return s.desk.Post(ctx, tx, n)
}

// tellReviewed posts that an emergency needs nobody's review any more.
func (s *Service) tellReviewed(ctx context.Context, tx pgx.Tx, r *request, now time.Time) error {
	return s.desk.Post(ctx, tx, notify.Notice{ID: "reviewed/" + r.id, Kind: notify.ReviewGiven, RequestID: r.id, Due: now})
}

// teller is the service as package notify asks it.
type teller struct{ *Service }

// Story implements notify.Source.
func (s teller) Story(ctx context.Context, id string) (api.Request, error) {
	r, err := s.find(ctx, id)
	if err != nil {
		return api.Request{}, err
	}
	shown, err := s.show(ctx, identity.Caller{}, []*request{r}, s.cfg.Clock.Now())
	if err != nil {
		return api.Request{}, err
	}
	out := shown[0]
	out.Actions = nil // they were a caller's
	if r.state == api.Requested {
		out.Approvers, err = s.slotsWithPeople(ctx, r)
	}
	return out, err
}

// Notifications lists what people were told, newest first, to operators, who see
// to it that messages arrive, and auditors. That anybody else tried the action, a
// method and a route, is an event (P10).
func (s *Service) Notifications(ctx context.Context, c identity.Caller, action string, f notify.Filter) (api.Page[api.Notification], error) {
	if !c.Has(api.Operator) && !c.Has(api.Auditor) {
		s.cfg.Log.Refused(ctx, c.Event(s.cfg.Clock.Now(), event.Subject{},
			event.AccessRefused{Action: action, Code: ErrNotForYou.Code, Reason: ErrNotForYou.Detail}))
		return api.Page[api.Notification]{}, ErrNotForYou
	}
	if err := s.discloseMessages(ctx, c, f); err != nil {
		return api.Page[api.Notification]{}, err
	}
	return s.desk.List(ctx, f)
}

// Doubts are what an operator should look at in the setup of notifications, given
// the policy in force; see notify.Setup.Doubts.
func (s *Service) Doubts() []string {
	if s.cfg.Notify == nil {
		return nil
	}
	return s.cfg.Notify.Doubts(s.Policy().Told())
}
