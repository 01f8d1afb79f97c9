package approvals

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals/grant"
	"sallyport/approvals/identity"
	"sallyport/approvals/policy"
	"sallyport/audit/event"
	"sallyport/internal/refusal"
)

// Refusals of an emergency, besides the policy's own.
var (
	ErrDrill = refusal.New(refusal.Invalid, "drill-without-emergency",
		"only an emergency can be a drill", "ask for an emergency and say that it is a drill").On("drill")
	ErrEmergencyLater = refusal.New(refusal.Invalid, "emergency-later",
		"an emergency starts now", "leave the start out, or ask without emergency").On("not_before")
	ErrNeedless = refusal.New(refusal.Denied, "emergency-needless",
		"the rule approves this at once by itself", "ask without emergency; to rehearse one, make it a drill").On("emergency")
	ErrUnreviewed = refusal.New(refusal.Denied, "emergency-unreviewed",
		"an earlier emergency of yours has not been reviewed", "ask a reviewer to sign it off; you can ask without emergency meanwhile").On("emergency")
)

// emergencyUnder is the part of the rule that lets the caller open the door before
// anybody has approved, and the duration that they get. A drill may be held also
// where, at this time, nobody would have to approve: rehearsals are for daylight.
func emergencyUnder(rule *policy.Rule, c identity.Caller, in api.RequestInput, t Terms, d time.Duration, now time.Time) (*policy.Emergency, time.Duration, error) {
	e := rule.EmergencyFor(c.Groups)
	switch {
	case e == nil:
		return nil, 0, policy.ErrNoEmergency
	case rule.AutomaticAt(now) && !in.Drill:
		return nil, 0, ErrNeedless
	}
	d, err := rule.CheckEmergency(e, d, t.Reason, t.Ticket)
	return e, d, err
}

// makeEmergency makes the terms those of an emergency. They keep the stages, for
// whoever would have approved is told; they are never automatic, and never
// followed by another grant without a gap: that would be a second emergency.
func makeEmergency(t *Terms, rule *policy.Rule, e *policy.Emergency, drill bool) {
	t.Rule = grant.RuleOf(rule, false)
	t.Rule.Extend = nil
	t.Emergency = &TermsEmergency{
		Drill: drill, Told: []string{}, ReviewGroups: slices.Clone(e.ReviewBy), ReviewBy: t.CreatedAt.Add(e.ReviewWithin),
		Assurance: string(rule.Assurance),
	}
	for _, g := range slices.Concat(t.Groups(), e.Tell, e.ReviewBy) {
		if !slices.Contains(t.Emergency.Told, g) {
			t.Emergency.Told = append(t.Emergency.Told, g)
		}
	}
}

// startEmergency starts the grant of a new request and returns the events of it.
func (r *request) startEmergency(c identity.Caller) ([]event.Event, error) {
	t := r.terms
	started, err := r.grant(t.CreatedAt)
	if err != nil {
		return nil, err
	}
	return []event.Event{
		r.event(t.CreatedAt, c.Actor(), c.Source, event.EmergencyStarted{
			Drill: t.Emergency.Drill, TermsHash: r.termsHash, Host: t.Host.Name, Hosts: t.HostNames(), Login: t.Login, Reason: t.Reason,
			Told: t.Emergency.Told, ReviewGroups: t.Emergency.ReviewGroups, ReviewBy: t.Emergency.ReviewBy,
		}),
		r.event(t.CreatedAt, c.Actor(), c.Source, started),
	}, nil
}

// keepEmergency adds to a new request what makes it an emergency, with the jobs
// that watch over its review.
func (s *Service) keepEmergency(ctx context.Context, tx pgx.Tx, r *request, reviewed []string) error {
	if err := s.checkStillReviewed(ctx, tx, r.terms, reviewed); err != nil {
		return err
	}
	e := r.terms.Emergency
	_, err := tx.Exec(ctx, `
		INSERT INTO emergencies (request_id, person_id, drill, review_groups, review_by) VALUES ($1, $2, $3, $4, $5)`,
		r.id, r.personID, e.Drill, e.ReviewGroups, e.ReviewBy)
	if err != nil {
		return fmt.Errorf("writing emergency %s: %w", r.id, err)
	}
	if err := s.tellEmergency(ctx, tx, r); err != nil {
		return err
	}
	return s.scheduleReview(ctx, tx, r)
}

// earlier is an emergency that somebody had before.
type earlier struct {
	ID           string
	Drill        bool
	ReviewGroups []string
	Reviewed     bool
}

// earlierEmergencies are those that stand in the way of the person's next one
// until they are reviewed, newest first. A real one waits for real ones only:
// nobody is locked out for having rehearsed. A drill waits for every one, since it
// opens the door as well: it must not be the way around an unreviewed emergency.
func (s *Service) earlierEmergencies(ctx context.Context, db querier, personID string, drill bool) ([]earlier, error) {
	rows, err := db.Query(ctx, `
		SELECT e.request_id AS id, e.drill, e.review_groups, v.id IS NOT NULL AS reviewed
		FROM emergencies e LEFT JOIN reviews v ON v.request_id = e.request_id
		WHERE e.person_id = $1 AND ($2 OR NOT e.drill)
		ORDER BY e.number DESC`, personID, drill)
	if err != nil {
		return nil, fmt.Errorf("reading earlier emergencies: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[earlier])
	if err != nil {
		return nil, fmt.Errorf("reading earlier emergencies: %w", err)
	}
	return list, nil
}

// checkReviewed refuses an emergency while an earlier one of the person waits for
// its review, and while the newest has a review that its text and the log do not
// prove: somebody wrote it into the database. (The others were proved when
// the newest was asked for.) It returns the ids of those that it proved.
func (s *Service) checkReviewed(ctx context.Context, personID string, drill bool) ([]string, error) {
	list, err := s.earlierEmergencies(ctx, s.cfg.Pool, personID, drill)
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(list, func(e earlier) bool { return !e.Reviewed }); i >= 0 {
		return nil, list[i].unreviewed()
	}
	proved := []string{}
	for _, e := range newest(list) {
		r, err := s.find(ctx, e.ID)
		if errors.Is(err, ErrEvidence) {
			return nil, ErrUnreviewed.With("the review of your emergency %s is not proved, so it does not count", e.ID).
				Hinting("tell an operator: the database may have been changed by hand").Because(err)
		}
		if err != nil {
			return nil, err
		}
		logged, err := s.reviewLogged(ctx, r)
		if err != nil {
			return nil, err
		}
		if !logged {
			return nil, ErrUnreviewed.With("the review of your emergency %s is not in the log", e.ID).
				Hinting("tell an operator: the database may have been changed by hand")
		}
		proved = append(proved, e.ID)
	}
	return proved, nil
}

// checkStillReviewed is checkReviewed where no other ask of the person can come in
// between: since it, nothing may have come that it did not see.
func (s *Service) checkStillReviewed(ctx context.Context, tx pgx.Tx, t Terms, proved []string) error {
	list, err := s.earlierEmergencies(ctx, tx, t.Person.ID, t.Emergency.Drill)
	if err != nil {
		return err
	}
	for _, e := range newest(list) {
		if !e.Reviewed || !slices.Contains(proved, e.ID) {
			return e.unreviewed()
		}
	}
	return nil
}

// newest are the first real one and the first drill of the list.
func newest(list []earlier) (out []earlier) {
	for _, drill := range []bool{false, true} {
		if i := slices.IndexFunc(list, func(e earlier) bool { return e.Drill == drill }); i >= 0 {
			out = append(out, list[i])
		}
	}
	return out
}

func (e earlier) unreviewed() error {
	what := "emergency"
	if e.Drill {
		what = "emergency drill"
	}
	return ErrUnreviewed.With("your %s %s has not been reviewed", what, e.ID).
		Hinting("ask somebody from %s to review it; you can ask without emergency meanwhile", strings.Join(e.ReviewGroups, " or "))
}

// emergency is what makes the request one, as everybody who may see it sees it.
func (r *request) emergency(people map[string]api.Person, now time.Time) *api.Emergency {
	e := r.terms.Emergency
	if e == nil {
		return nil
	}
	out := &api.Emergency{Drill: e.Drill, Told: e.Told, ReviewGroups: e.ReviewGroups, ReviewBy: e.ReviewBy, Assurance: e.ReviewAssurance()}
	if r.review == nil {
		out.Overdue = !now.Before(e.ReviewBy)
		return out
	}
	v := r.review.statement
	out.Review = &api.Review{ID: r.review.id, Reviewer: people[v.Reviewer.ID], Verdict: v.Verdict, Comment: v.Comment,
		Late: v.Late, Running: v.Running, At: r.review.taken, Evidence: r.review.shown(v.Said())}
	return out
}

// emergencyRule says how the caller could open the door of the rule before
// anybody has approved, or is nil.
func emergencyRule(r *policy.Rule, c identity.Caller) *api.EmergencyRule {
	e := r.EmergencyFor(c.Groups)
	if e == nil {
		return nil
	}
	return &api.EmergencyRule{MaxDuration: short(e.MaxDuration), DefaultDuration: short(e.DefaultDuration),
		Told: e.Tell, ReviewGroups: e.ReviewBy, ReviewWithin: short(e.ReviewWithin)}
}

// Emergencies counts emergencies, and the reviews that they wait for.
type Emergencies struct {
	Real, Drills        int // ever
	Unreviewed, Overdue int // now, of both
}

// CountEmergencies is the same in every replica.
func (s *Service) CountEmergencies(ctx context.Context) (Emergencies, error) {
	rows, err := s.cfg.Pool.Query(ctx, `
		SELECT count(*) FILTER (WHERE NOT e.drill) AS real, count(*) FILTER (WHERE e.drill) AS drills,
			count(*) FILTER (WHERE v.id IS NULL) AS unreviewed,
			count(*) FILTER (WHERE v.id IS NULL AND e.review_by <= $1) AS overdue
		FROM emergencies e LEFT JOIN reviews v ON v.request_id = e.request_id`, s.cfg.Clock.Now())
	if err != nil {
		return Emergencies{}, fmt.Errorf("counting emergencies: %w", err)
	}
	n, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[Emergencies])
	if err != nil {
		return Emergencies{}, fmt.Errorf("counting emergencies: %w", err)
	}
	return n, nil
}
