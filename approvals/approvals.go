// Package approvals turns an ask into a grant, or not: it matches the policy,
// freezes the terms (P4), takes decisions of distinct people (P5), starts the
// clock when the quorum is there (P3) and stops it at the end. It issues nothing:
// package broker asks it for the evidence and checks that itself.
//
// Two texts carry everything that must be provable later: the Terms, which say
// what was asked for and what it needs, and for each decision a Statement, which
// says who decided what about which terms. Both have one canonical form, never
// change, and stand in the log, whole and by their hash. Every state change is
// committed together with its event.
//
// Time needs no help to pass: a request that is past its approve_by is expired
// and a grant that is past its end has ended for every reader at that instant,
// whether or not a job has written it down yet.
package approvals

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"

	"sallyport/approvals/identity"
	"sallyport/approvals/notify"
	"sallyport/approvals/policy"
	"sallyport/audit"
	"sallyport/internal/clock"
	"sallyport/internal/together"
)

// Target is what approvals must know of a host.
type Target struct {
	ID, Name string
	Labels   map[string]string
	Logins   []string
}

// Hosts finds hosts; package broker/hosts has them.
type Hosts interface {
	// Target finds a host by id or name, or returns a refusal of kind NotFound.
	Target(ctx context.Context, nameOrID string) (Target, error)
	// Targets are all hosts, by name.
	Targets(ctx context.Context) ([]Target, error)
}

// Config is what the service needs. Every field without "optional" must be set.
type Config struct {
	// Pool connects as a member of sallyport_app.
	Pool *pgxpool.Pool
	// Log takes the events, in the transactions of the state changes.
	Log *audit.Log
	// Clock decides what is past.
	Clock clock.Clock
	// People are those who have signed in, with their groups then.
	People *identity.Store
	// Hosts are what can be asked for.
	Hosts Hosts
	// Policy is the broker's own file: the first version, if the database has none.
	// Later ones are proposed and approved (Propose, DecideProposal).
	Policy *policy.Policy
	// Notify says through which channels people are told. Optional: nobody is told.
	Notify *notify.Setup
	// URL is where messages link to, without a slash at its end. Needed with Notify.
	URL string
	// Told hears of each attempt to tell somebody, and how it ended. Optional.
	Told func(channel, outcome string)
	// Logger receives what goes wrong where no caller can be told. Optional.
	Logger *slog.Logger
}

// Service is the approvals room. It is safe for concurrent use, also by several
// processes on one database.
type Service struct {
	cfg    Config
	grants *together.Questions[string, found]
	queue  *river.Client[pgx.Tx]
	desk   *notify.Desk

	inForce atomic.Pointer[inForce]
	looked  atomic.Int64 // when this process last knew the version in force, in microseconds since 1970
	looking sync.Mutex   // held while it finds out
	older   sync.Map     // policies by version, of those that grants still name and that are in force no more
	forged  sync.Map     // versions in the database that nobody vouches for, and that were told of

	settled settledWeeks // figures that do not change any more; see Trends
}

// New finds the policy in force, or puts the first version into force, and returns
// the service.
func New(ctx context.Context, cfg Config) (*Service, error) {
	switch {
	case cfg.Pool == nil:
		return nil, errors.New("approvals: no database")
	case cfg.Log == nil:
		return nil, errors.New("approvals: no log")
	case cfg.Clock == nil:
		return nil, errors.New("approvals: no clock")
	case cfg.People == nil:
		return nil, errors.New("approvals: no people")
	case cfg.Hosts == nil:
		return nil, errors.New("approvals: no hosts")
	case cfg.Policy == nil:
		return nil, errors.New("approvals: no policy")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Service{cfg: cfg}
	s.grants = together.New(s.readGrants)
	var err error
	s.desk, err = notify.New(notify.Config{Pool: cfg.Pool, Log: cfg.Log, Clock: cfg.Clock, People: cfg.People,
		Source: teller{s}, URL: cfg.URL, Setup: cfg.Notify, Observe: cfg.Told, Logger: cfg.Logger})
	if err != nil {
		return nil, err
	}
	if s.queue, err = s.newQueue(); err != nil {
		return nil, err
	}
	s.desk.Bind(s.queue)
	if err := s.begin(ctx, cfg.Policy); err != nil {
		return nil, err
	}
	if err := s.look(ctx); err != nil {
		return nil, ErrPolicyUnknown.Because(err)
	}
	return s, nil
}
