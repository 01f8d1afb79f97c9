// Package rollout lets agents deploy: one artifact, batch by batch, by the policy's plan.
// A credential exists only for a host of the batch that is open now, under the lease and
// epoch of the run that asks; what is closed is sealed before it is judged.
//
// How a deployment goes on is decided by package machine, which is pure. This package
// keeps its state in one row, takes one step at a time under the row's lock, writes what
// a step did into the log in the same transaction, and does outside what the state asks
// for. Any replica does that (Run), and can die at any moment: the state says what is
// left to do, and doing it twice is harmless.
//
// Time is that of Config.Clock, or of the database, which all replicas share: one with a
// wrong clock then neither shortens a soak nor prolongs a lease.
package rollout

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/crypto/ssh"
	"k8s.io/apimachinery/pkg/labels"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/audit"
	"sallyport/audit/event"
	"sallyport/broker"
	"sallyport/broker/rollout/gates"
	"sallyport/broker/rollout/plan"
	"sallyport/internal/clock"
	"sallyport/internal/remember"
)

// Run is a run of a pipeline: one job, proved by one token and bound to one key. Who
// calls has verified it just now.
type Run struct {
	ID        string // run-…
	Entry     string // trust entry that admitted it
	Issuer    string
	Subject   string
	Claims    map[string]string
	Key       ssh.PublicKey
	TokenHash string // SHA-256, hex
	Policy    event.PolicyRef
	Source    string    // address of this call
	Expires   time.Time // no certificate outlives it
}

// Actor is the run as events have it.
func (r Run) Actor() event.Actor { return event.Actor{Kind: event.Agent, ID: r.ID, Name: r.Subject} }

// Hosts are the machines.
type Hosts interface {
	// Select are the registered hosts whose labels fit and that have the login.
	Select(ctx context.Context, where labels.Selector, login string) ([]plan.Host, error)
	// Hold is the host, which nobody can change or remove until tx ends.
	Hold(ctx context.Context, tx pgx.Tx, id string) (api.Host, error)
	// Verified is what the hosts have shown of themselves last, by id. A host that has
	// shown nothing, or nothing certain, is Unknown or not there.
	Verified(ctx context.Context, ids []string) (map[string]gates.Posture, error)
}

// Certificates issues certificates; *broker.Broker does.
type Certificates interface {
	IssueAgent(ctx context.Context, key ssh.PublicKey, decide func(ctx context.Context, tx pgx.Tx) (broker.AgentIntent, error)) (api.Certificate, error)
}

// Config is what deployments need. Every field without "optional" must be set.
type Config struct {
	// Pool connects as a member of sallyport_app.
	Pool *pgxpool.Pool
	// Log takes the events, and its key vouches for decisions.
	Log *audit.Log
	// Clock tells the time. Optional: then the database does, for all replicas alike.
	Clock clock.Clock
	// Approvals has the policy in force, People who people are.
	Approvals *approvals.Service
	People    *identity.Store
	// Hosts and Certificates are the doors and their keys.
	Hosts        Hosts
	Certificates Certificates
	// Gates measures what lies outside.
	Gates *gates.Prober
	// Logger receives what goes wrong where no caller can be told. Optional.
	Logger *slog.Logger
	// Fault lets tests fail a change before it is committed. Optional.
	Fault func() error
}

// Service keeps deployments. It is safe for concurrent use, also by several processes
// on one database.
type Service struct {
	cfg    Config
	logged remember.Memory[struct{}] // openings of batches that the log is known to have
	kick   chan struct{}
}

// New returns the service; Run must run for deployments to go on by themselves.
func New(cfg Config) (*Service, error) {
	switch {
	case cfg.Pool == nil:
		return nil, errors.New("rollout: no database")
	case cfg.Log == nil:
		return nil, errors.New("rollout: no log")
	case cfg.Approvals == nil || cfg.People == nil:
		return nil, errors.New("rollout: no approvals or no people")
	case cfg.Hosts == nil || cfg.Certificates == nil:
		return nil, errors.New("rollout: no hosts or nobody who issues certificates")
	case cfg.Gates == nil:
		return nil, errors.New("rollout: nobody measures gates")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Service{cfg: cfg, logged: remember.Memory[struct{}]{Size: 4096}, kick: make(chan struct{}, 1)}, nil
}

// querier is a pool or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// now is the time for all that is decided.
func (s *Service) now(ctx context.Context, db querier) (time.Time, error) {
	if s.cfg.Clock != nil {
		return s.cfg.Clock.Now(), nil
	}
	var at time.Time
	if err := db.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&at); err != nil {
		return at, fmt.Errorf("asking the database for the time: %w", err)
	}
	return at.UTC(), nil
}
