package notify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/audit"
	"sallyport/internal/clock"
)

// Source says what messages are about is like now; package approvals is it.
type Source interface {
	// Story is the request as everybody sees it who may see it, with who can decide.
	Story(ctx context.Context, requestID string) (api.Request, error)
	// Delegation is one as those see it whom it names.
	Delegation(ctx context.Context, id string) (api.Delegation, error)
	// Proposal is one of a policy, as lists show it.
	Proposal(ctx context.Context, id string) (api.PolicyProposal, error)
}

// Config is what a desk needs. Every field without "optional" must be set.
type Config struct {
	Pool   *pgxpool.Pool
	Log    *audit.Log
	Clock  clock.Clock
	People *identity.Store
	Source Source
	// URL is where links lead, without a slash at its end.
	URL string
	// Setup says through which channels whom to tell. Optional: then nobody is told.
	Setup *Setup
	// Observe is told of each attempt's outcome: sent, retrying, dropped or failed.
	// Optional.
	Observe func(channel, outcome string)
	// Logger receives what goes wrong where no caller can be told. Optional.
	Logger *slog.Logger
}

// Desk takes notices and sees to it that people are told. It is safe for
// concurrent use, also by several processes on one database.
type Desk struct {
	cfg   Config
	queue *river.Client[pgx.Tx]
}

// Queue is the name of River's queue for the desk's jobs: a receiver that is slow
// keeps nothing waiting but messages.
const Queue = "messages"

// New returns a desk, which needs Register and Bind before it can take notices.
func New(cfg Config) (*Desk, error) {
	switch {
	case cfg.Pool == nil:
		return nil, errors.New("notify: no database")
	case cfg.Log == nil:
		return nil, errors.New("notify: no log")
	case cfg.Clock == nil:
		return nil, errors.New("notify: no clock")
	case cfg.People == nil:
		return nil, errors.New("notify: no people")
	case cfg.Source == nil:
		return nil, errors.New("notify: no source")
	case cfg.Setup != nil && cfg.URL == "":
		return nil, errors.New("notify: no URL for links")
	}
	if cfg.Setup == nil {
		cfg.Setup = &Setup{}
	}
	if cfg.Observe == nil {
		cfg.Observe = func(string, string) {}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Desk{cfg: cfg}, nil
}

// noticeJob asks to spread a notice when it is due.
type noticeJob struct {
	Notice Notice `json:"notice"`
}

// Kind is the job's name in the queue.
func (noticeJob) Kind() string { return "notice" }

// messageJob asks to send one message.
type messageJob struct {
	MessageID string `json:"message_id"`
	Notice    Notice `json:"notice"`
}

// Kind is the job's name in the queue.
func (messageJob) Kind() string { return "message" }

// Register adds the desk's workers, which work off Queue.
func (d *Desk) Register(workers *river.Workers) {
	river.AddWorker(workers, river.WorkFunc(func(ctx context.Context, job *river.Job[noticeJob]) error {
		return d.spread(ctx, job.Args.Notice)
	}))
	river.AddWorker(workers, river.WorkFunc(func(ctx context.Context, job *river.Job[messageJob]) error {
		return d.send(ctx, job.Args)
	}))
}

// Bind gives the desk the queue that its jobs are put into.
func (d *Desk) Bind(queue *river.Client[pgx.Tx]) { d.queue = queue }

// Post enqueues notices in the caller's transaction: if it rolls back, they never
// were; once it is committed, they are told, whatever becomes of this process.
// Where nothing is configured there is nobody to tell and nothing is enqueued.
func (d *Desk) Post(ctx context.Context, tx pgx.Tx, notices ...Notice) error {
	if len(notices) == 0 || !d.cfg.Setup.any() {
		return nil
	}
	jobs := make([]river.InsertManyParams, len(notices))
	for i, n := range notices {
		jobs[i] = river.InsertManyParams{Args: noticeJob{n}, InsertOpts: &river.InsertOpts{Queue: Queue, ScheduledAt: n.Due}}
	}
	if _, err := d.queue.InsertManyTx(ctx, tx, jobs); err != nil {
		return fmt.Errorf("enqueueing what people are to be told: %w", err)
	}
	return nil
}

// wait makes a job come again if it is early: the queue's clock is ahead of ours.
// It looks often, as nobody knows by how much the clocks differ later.
func (d *Desk) wait(due time.Time) error {
	if early := due.Sub(d.cfg.Clock.Now()); early > 0 {
		return river.JobSnooze(min(early, time.Second))
	}
	return nil
}

// link is where a message leads.
func (d *Desk) link(n Notice) string {
	switch {
	case n.RequestID != "":
		return d.cfg.URL + "/requests/" + n.RequestID
	case n.DelegationID != "":
		return d.cfg.URL + "/delegations"
	case n.ProposalID != "":
		return d.cfg.URL + "/policy/proposals/" + n.ProposalID
	case n.Alarm != nil:
		return d.cfg.URL + "/hosts/" + n.Alarm.HostID
	case n.Kind == DeliveryFailed:
		return d.cfg.URL + "/notifications?state=failed"
	}
	return d.cfg.URL + "/"
}
