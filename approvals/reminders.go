package approvals

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"sallyport/audit/event"
)

// reviewJob asks to look, at Due, whether an emergency has been reviewed. Nothing
// depends on it but the event and what people are told: whether a review is
// overdue, the clock says.
type reviewJob struct {
	RequestID string    `json:"request_id"`
	Due       time.Time `json:"due"`
}

// Kind is the job's name in the queue.
func (reviewJob) Kind() string { return "emergency_review" }

// remindAgain is how often the reviewers of an overdue emergency are reminded.
const remindAgain = 24 * time.Hour

func (s *Service) addReviewWorker(workers *river.Workers) {
	river.AddWorker(workers, river.WorkFunc(func(ctx context.Context, job *river.Job[reviewJob]) error {
		return s.watchReview(ctx, job.Args)
	}))
}

// scheduleReview enqueues, in the transaction that starts an emergency, the looks
// at its review: when half of the time is over, when a quarter is left, and at the
// deadline.
func (s *Service) scheduleReview(ctx context.Context, tx pgx.Tx, r *request) error {
	by := r.terms.Emergency.ReviewBy
	within := by.Sub(r.terms.CreatedAt)
	for _, left := range []time.Duration{within / 2, within / 4, 0} {
		if err := s.scheduleLook(ctx, tx, r, by.Add(-left)); err != nil {
			return err
		}
	}
	return nil
}

// scheduleLook enqueues one look, once, however often it is asked for.
func (s *Service) scheduleLook(ctx context.Context, tx pgx.Tx, r *request, at time.Time) error {
	_, err := s.queue.InsertTx(ctx, tx, reviewJob{RequestID: r.id, Due: at}, &river.InsertOpts{
		ScheduledAt: at, UniqueOpts: river.UniqueOpts{ByArgs: true}})
	if err != nil {
		return fmt.Errorf("scheduling the review of request %s: %w", r.id, err)
	}
	return nil
}

// watchReview does a reviewJob. While nobody has reviewed the emergency, it reminds
// those who can; from the deadline on it says so in the log, once, and goes on
// reminding. It may run any number of times, in several replicas at once: the
// rows decide who writes the event.
func (s *Service) watchReview(ctx context.Context, job reviewJob) error {
	if early := job.Due.Sub(s.cfg.Clock.Now()); early > 0 {
		return river.JobSnooze(early) // the queue's clock is ahead of ours
	}
	err := pgx.BeginFunc(ctx, s.cfg.Pool, func(tx pgx.Tx) error {
		r, err := s.lock(ctx, tx, job.RequestID)
		if err != nil || r.terms.Emergency == nil || r.review != nil {
			return err
		}
		now := s.cfg.Clock.Now()
		overdue := !now.Before(r.terms.Emergency.ReviewBy)
		if !overdue {
			return s.tellReview(ctx, tx, r, overdue)
		}
		if err := s.recordOverdue(ctx, tx, r, now); err != nil {
			return err
		}
		late := now.Sub(r.terms.Emergency.ReviewBy)
		next := now.Add(remindAgain - late%remindAgain)
		if err := s.scheduleLook(ctx, tx, r, next); err != nil {
			return err
		}
		return s.tellReview(ctx, tx, r, overdue)
	})
	if errors.Is(err, ErrUnknownRequest) || errors.Is(err, ErrEvidence) {
		return river.JobCancel(err) // another attempt would find the same
	}
	if err != nil {
		return err
	}
	s.cfg.Log.Kick()
	return nil
}

// recordOverdue writes the event, the first time.
func (s *Service) recordOverdue(ctx context.Context, tx pgx.Tx, r *request, now time.Time) error {
	tag, err := tx.Exec(ctx, `INSERT INTO overdue_reviews (request_id, noted_at) VALUES ($1, $2) ON CONFLICT DO NOTHING`, r.id, now)
	if err != nil {
		return fmt.Errorf("noting that the review of request %s is overdue: %w", r.id, err)
	}
	if tag.RowsAffected() == 0 {
		return nil
	}
	e := r.terms.Emergency
	return s.cfg.Log.Stage(ctx, tx, r.event(now, event.Actor{Kind: event.Broker}, "",
		event.ReviewOverdue{Drill: e.Drill, ReviewGroups: e.ReviewGroups, ReviewBy: e.ReviewBy}))
}
