package approvals

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"sallyport/api"
	"sallyport/approvals/notify"
	"sallyport/audit/event"
	"sallyport/migrations"
)

// settleJob asks to keep, and to write into the log, what time has brought about
// for a request at Due: it expired, or its grant ended. Nothing depends on it but
// the event: whoever reads a request settles it by the clock.
type settleJob struct {
	RequestID string    `json:"request_id"`
	Due       time.Time `json:"due"`
}

// Kind is the job's name in the queue.
func (settleJob) Kind() string { return "request_settle" }

// rescueAfter is longer than any job takes (River ends it after a minute).
const rescueAfter = 2 * time.Minute

// newQueue returns the River client that works off settleJobs.
func (s *Service) newQueue() (*river.Client[pgx.Tx], error) {
	workers := river.NewWorkers()
	river.AddWorker(workers, river.WorkFunc(func(ctx context.Context, job *river.Job[settleJob]) error {
		return s.work(ctx, job.Args)
	}))
	s.addReviewWorker(workers)
	s.desk.Register(workers)
	return river.NewClient(riverpgxv5.New(s.cfg.Pool), &river.Config{
		Schema:  migrations.JobsSchema,
		Queues:  map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: 4}, notify.Queue: {MaxWorkers: 8}},
		Workers: workers,
		Logger:  s.cfg.Logger,
		// What a process that died was working on is taken up by another one soon.
		RescueStuckJobsAfter: rescueAfter,
	})
}

// Run works off what time brings about (requests expire, grants end), and looks
// for newer versions of the policy, until ctx ends. Every replica may run it.
func (s *Service) Run(ctx context.Context) error {
	if err := s.queue.Start(ctx); err != nil {
		return fmt.Errorf("starting the job queue: %w", err)
	}
	s.watch(ctx)
	<-s.queue.Stopped() // the end of ctx stops it
	return nil
}

// schedule enqueues the jobs for what time will bring about for the request in
// its present state, in the transaction that brought it there.
func (s *Service) schedule(ctx context.Context, tx pgx.Tx, r *request) error {
	due := []*time.Time{&r.terms.ApproveBy}
	if r.granted() {
		due = []*time.Time{r.useBy, r.ends}
	}
	for _, at := range due {
		if at == nil {
			continue
		}
		_, err := s.queue.InsertTx(ctx, tx, settleJob{RequestID: r.id, Due: *at}, &river.InsertOpts{ScheduledAt: *at})
		if err != nil {
			return fmt.Errorf("scheduling request %s: %w", r.id, err)
		}
	}
	if r.granted() {
		return s.tellEnding(ctx, tx, r)
	}
	return nil
}

// work does a settleJob. It may run any number of times, in several replicas at
// once: the row's lock and its state decide who writes the event, once.
func (s *Service) work(ctx context.Context, job settleJob) error {
	if early := job.Due.Sub(s.cfg.Clock.Now()); early > 0 {
		return river.JobSnooze(early) // the queue's clock is ahead of ours
	}
	err := pgx.BeginFunc(ctx, s.cfg.Pool, func(tx pgx.Tx) error {
		r, err := s.lock(ctx, tx, job.RequestID)
		if err != nil {
			return err
		}
		now := s.cfg.Clock.Now()
		data := r.settle(now)
		if data == nil {
			return nil
		}
		if err := r.save(ctx, tx); err != nil {
			return err
		}
		if r.state == api.Expired {
			if err := s.tellClosed(ctx, tx, r, now, ""); err != nil {
				return err
			}
		}
		return s.cfg.Log.Stage(ctx, tx, r.event(now, event.Actor{Kind: event.Broker}, "", data))
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
