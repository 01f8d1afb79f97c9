// Package audit is the append-only, tamper-evident log (P1, P7, P8): it takes
// events, makes them leaves of an RFC 6962 Merkle tree in PostgreSQL, signs the
// tree's head as a C2SP checkpoint, and proves that an event is in it. It knows
// nothing of requests or certificates.
//
//   - An event waits as pending, committed in the same transaction as the state
//     change that it describes (Stage).
//   - A sequencer, running in every replica (Run), takes what waits, locks the
//     one-row head, appends entries and tree hashes, signs the checkpoint, moves
//     the head and commits. Indexes are 0..n-1 whatever crashes.
//   - Wait returns when an event has its place.
//   - If the database's log is behind, or contradicts, the last checkpoint that
//     this process knows, nothing is taken and nothing is said to be in the log (P9).
//
// Bounds: a batch has at most 4096 events; at most 16384 events are waited for in
// one process, above which Stage, Record and Wait refuse (ErrBusy); Wait gives up
// after ten seconds (ErrUnavailable), and what was committed is sequenced later.
//
// Formats: c2sp.org/tlog-checkpoint, tlog-tiles, tlog-proof; the tree and its
// proofs are golang.org/x/mod/sumdb/tlog's, the signatures sumdb/note's.
package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"sallyport/audit/checkpoint"
	"sallyport/internal/clock"
)

// Config is what a log needs. Every field without "optional" must be set.
type Config struct {
	// Pool connects as a member of sallyport_app. Open refuses a role that could
	// rewrite the log.
	Pool *pgxpool.Pool
	// Signer signs checkpoints; its name is the log's origin.
	Signer note.Signer
	// VerifierKey is the public half of Signer, in note's format.
	VerifierKey string
	// Clock tells Healthy how long events have waited.
	Clock clock.Clock
	// StateFile keeps the last checkpoint outside the database, so that a
	// database put back to an older state is noticed (P9), also after a restart.
	// It is trusted: keep it where the database's administrator cannot write.
	// Optional: without it, only this process's memory notices.
	StateFile string
	// Logger receives what goes wrong. Optional.
	Logger *slog.Logger
	// Fault lets tests fail the sequencer at a step: before "lock", "append" and
	// "commit", and at "committed", when everything is durable. Optional.
	Fault func(step string) error
}

// Log is an open log. It is safe for concurrent use, also by several processes
// on one database.
type Log struct {
	cfg      Config
	verifier note.Verifier
	logger   *slog.Logger

	known     knownHead
	waiters   waiters
	lane      lane
	disclosed disclosures
	kick      chan struct{}          // holds one element while somebody wants a batch
	failure   atomic.Pointer[failed] // of the last attempt to sequence; nil after a success
	state     *stateFile             // nil without Config.StateFile
}

// failed is why the last attempt to sequence failed.
type failed struct{ err error }

// Open checks the configuration, the database's role, its head and the last
// known checkpoint, and returns the log. It creates the head of an empty log.
func Open(ctx context.Context, cfg Config) (*Log, error) {
	if cfg.Pool == nil || cfg.Signer == nil || cfg.VerifierKey == "" || cfg.Clock == nil {
		return nil, errors.New("opening the log: pool, signer, verifier key and clock must be set")
	}
	l := &Log{cfg: cfg, logger: cfg.Logger, kick: make(chan struct{}, 1)}
	if l.logger == nil {
		l.logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	empty, err := l.checkKeys()
	if err != nil {
		return nil, err
	}
	if cfg.StateFile != "" {
		l.state = newStateFile(cfg.StateFile)
		kept, err := l.state.read(l.verifier)
		if err != nil {
			return nil, err
		}
		l.known.store(kept)
	}
	if err := checkRole(ctx, cfg.Pool); err != nil {
		return nil, err
	}
	if l.known.load() == nil {
		root := tlog.Hash(empty.root)
		if _, err := cfg.Pool.Exec(ctx, "SELECT audit.start($1, $2)", root[:], string(empty.checkpoint)); err != nil {
			return nil, fmt.Errorf("starting the log: %w", err)
		}
	}
	if _, err := l.check(ctx); err != nil {
		return nil, err
	}
	return l, l.saveState()
}

// checkKeys makes sure that the two halves of the key belong together, by
// signing the head of an empty log, which it returns.
func (l *Log) checkKeys() (head, error) {
	verifier, err := note.NewVerifier(l.cfg.VerifierKey)
	if err != nil {
		return head{}, ErrKey.Because(err)
	}
	l.verifier = verifier
	root, err := tlog.TreeHash(0, nil)
	if err != nil {
		return head{}, err
	}
	msg, err := checkpoint.Sign(tlog.Tree{Hash: root}, l.cfg.Signer)
	if err != nil {
		return head{}, err
	}
	if _, err := checkpoint.Open(msg, verifier); err != nil {
		return head{}, ErrKey.Because(err)
	}
	return head{root: root, checkpoint: msg}, nil
}

// VerifierKey is the public key that checkpoints verify with, note format.
func (l *Log) VerifierKey() string { return l.cfg.VerifierKey }

// backlogLimit is how long an event may wait before Healthy complains: no
// replica's sequencer is at work.
const backlogLimit = time.Minute

// Healthy says why the log cannot take events now, or nil.
func (l *Log) Healthy(ctx context.Context) error {
	if _, err := l.check(ctx); err != nil {
		return err
	}
	if f := l.failure.Load(); f != nil {
		return f.err
	}
	var oldest time.Time
	err := l.cfg.Pool.QueryRow(ctx, "SELECT time FROM audit.pending ORDER BY arrival LIMIT 1").Scan(&oldest)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return ErrUnavailable.Because(err)
	}
	if err == nil && l.cfg.Clock.Now().Sub(oldest) > backlogLimit {
		return ErrUnavailable.With("events have waited for their place in the audit log for more than %s", backlogLimit)
	}
	if err := l.state.failure(); err != nil {
		return ErrUnavailable.With("the last checkpoint cannot be kept outside the database").Because(err)
	}
	return nil
}

func (l *Log) fault(step string) error {
	if l.cfg.Fault == nil {
		return nil
	}
	return l.cfg.Fault(step)
}
