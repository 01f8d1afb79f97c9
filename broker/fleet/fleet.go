// Package fleet is the broker's side of enrolled hosts: it lets them in, knows them
// again by their keys, renews their certificates, and takes what they report.
//
// A host gets in by a join token, which an operator made for it, or because an operator
// compared the fingerprint of its key. From then on it is known by that key and by
// nothing else (api/hostapi): it sees and changes only what is its own (P10), because no
// call of a host names a host.
//
// What a host reports is its word. The broker writes it into the log as that, and holds
// it against what it knows itself: a session that no certificate of ours opened is an
// alarm.
package fleet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/time/rate"

	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/audit"
	"sallyport/broker"
	"sallyport/broker/hosts"
	"sallyport/broker/posture"
	"sallyport/internal/clock"
	"sallyport/internal/throttle"
)

const (
	// MaxSilence is how long a host that hears nothing goes on taking certificates that
	// were issued since.
	MaxSilence = 24 * time.Hour
	// renewAfter is when a host asks for its next certificate; three may fail.
	renewAfter = broker.HostCertificateLifetime / 4

	// A host gets so many certificates at once, and then one in ten minutes.
	certificatesBurst, certificateEvery = 5, 10 * time.Minute
	// It makes so many calls with reports at once, and then one a second: a hundred
	// reports each.
	reportsBurst, reportsRate = 30, 1

	seenEvery = 15 * time.Second
)

// Config is what the fleet needs. Every field without "optional" must be set.
type Config struct {
	// Pool connects as a member of sallyport_app.
	Pool *pgxpool.Pool
	// Log takes the events, and its key is what hosts pin.
	Log   *audit.Log
	Clock clock.Clock
	// Hosts is the registry that hosts enrol into.
	Hosts *hosts.Registry
	// Broker certifies hosts, and knows its certificates.
	Broker *broker.Broker
	// Approvals tells operators of alarms.
	Approvals *approvals.Service
	// URL is where hosts reach the broker; their proofs name it.
	URL string
	// RecordingKeys are the auditors' public keys, to which hosts record sessions.
	// Optional: then no session that has to be recorded begins.
	RecordingKeys []string
	// Logger receives what goes wrong where no caller can be told. Optional.
	Logger *slog.Logger
}

// Service is the fleet. It is safe for concurrent use, also by several processes on one
// database.
type Service struct {
	cfg           Config
	nonces        nonces
	acquaintances acquaintances
	postures      *posture.Store
	look          looker
	counted       counted
	certificates  *throttle.Throttle // by host
	reports       *throttle.Throttle // by host
	pieces        *throttle.Throttle // by host

	mu   sync.Mutex
	seen map[string]time.Time // hosts that called, since that was written down; guarded by mu
}

// New returns the fleet.
func New(cfg Config) (*Service, error) {
	switch {
	case cfg.Pool == nil || cfg.Log == nil || cfg.Clock == nil:
		return nil, errors.New("fleet: pool, log and clock must be set")
	case cfg.Hosts == nil || cfg.Broker == nil || cfg.Approvals == nil:
		return nil, errors.New("fleet: hosts, broker and approvals must be set")
	case cfg.URL == "":
		return nil, errors.New("fleet: no URL")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Service{cfg: cfg, seen: map[string]time.Time{}, postures: posture.New(cfg.Pool), look: posture.Look,
		certificates: throttle.New(cfg.Clock, rate.Every(certificateEvery), certificatesBurst),
		reports:      throttle.New(cfg.Clock, reportsRate, reportsBurst),
		pieces:       throttle.New(cfg.Clock, piecesRate, piecesBurst)}, nil
}

// Run looks at hosts from outside, tells of recordings that do not come, and writes down
// which hosts called, until ctx ends. A
// process that dies takes the last few seconds of that with it.
func (s *Service) Run(ctx context.Context) error {
	looking := make(chan struct{})
	go func() {
		defer close(looking)
		s.lookAround(ctx)
	}()
	defer func() { <-looking }()
	tick := time.NewTicker(seenEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := s.TellMissing(ctx); err != nil && ctx.Err() == nil {
			s.cfg.Logger.WarnContext(ctx, "whether recordings are missing could not be seen", "error", err)
		}
		if err := s.writeSeen(ctx); err != nil && ctx.Err() == nil {
			s.cfg.Logger.WarnContext(ctx, "when hosts were last heard of could not be written down", "error", err)
		}
	}
}

func (s *Service) note(hostID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[hostID] = s.cfg.Clock.Now()
}

func (s *Service) writeSeen(ctx context.Context) error {
	s.mu.Lock()
	seen := s.seen
	s.seen = make(map[string]time.Time, len(seen))
	s.mu.Unlock()
	if len(seen) == 0 {
		return nil
	}
	list, at := make([]string, 0, len(seen)), make([]time.Time, 0, len(seen))
	for id, t := range seen {
		list, at = append(list, id), append(at, t)
	}
	_, err := s.cfg.Pool.Exec(ctx, `
		UPDATE enrolled_hosts AS h SET seen_at = greatest(h.seen_at, n.at)
		FROM unnest($1::text[], $2::timestamptz[]) AS n(id, at)
		WHERE h.host_id = n.id`, list, at)
	return err
}

// oneByOne makes enrolments wait for each other: who came first has the token, the name
// and the key.
func oneByOne(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('enrolments of hosts', 0))`); err != nil {
		return fmt.Errorf("waiting for other enrolments: %w", err)
	}
	return nil
}

// onlyOperators lets operators pass. That anybody else tried the action is an event.
func (s *Service) onlyOperators(ctx context.Context, c identity.Caller, action string) error {
	return s.cfg.Hosts.OnlyOperators(ctx, c, action, "")
}

// change runs do in a transaction and wakes the log.
func (s *Service) change(ctx context.Context, do func(tx pgx.Tx) error) error {
	if err := pgx.BeginFunc(ctx, s.cfg.Pool, do); err != nil {
		return err
	}
	s.cfg.Log.Kick()
	return nil
}
