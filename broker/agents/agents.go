// Package agents decides who is a deploy agent: which job of which pipeline, proved by
// the token of its own OIDC issuer, and by a key that the job made for itself.
//
// A job shows its token once. What the issuer says in it must be what an entry of the
// policy lists (package claims), signed by a key that the issuer has now (package jwks).
// From then on the job is a run, known by its key: every call is signed by that, for this
// method, address and body, once and now, so that nothing of what others can see of a
// call is of use to them. A token is bound to the key in one of two ways:
//
//   - in the audience, where a job can choose it: the issuer itself signs the hash of the
//     key (api.AgentAudience), and the token is worth nothing to whoever steals it;
//   - by proof: the key signs the hash of the token, and the first key counts. A second
//     one means that one of the two is a thief. There is an alarm, and the run is over.
//
// One token makes one run, one key belongs to one run, and the database decides who was
// first, in the transaction in which the run begins to do something. If it cannot be
// asked, nobody is admitted. An agent is never a person: it approves nothing, asks for no
// person's login, and is let in nowhere but where deployments are made.
package agents

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/crypto/ssh"
	"golang.org/x/time/rate"

	"sallyport/approvals/policy"
	"sallyport/audit"
	"sallyport/audit/event"
	"sallyport/broker/agents/jwks"
	"sallyport/internal/clock"
	"sallyport/internal/refusal"
	"sallyport/internal/throttle"
)

// What this package refuses.
var (
	ErrToken = refusal.New(refusal.Unauthenticated, "agent-token-invalid",
		"the token is not one that its issuer signed, or not for here",
		"send the job's own OIDC token, as its issuer made it: sally deploy explain --token-file says more")
	ErrTokenForm = refusal.New(refusal.Invalid, "agent-token-unreadable",
		"that is not a token", "send one OIDC token as its issuer made it: three parts of base64url with dots between").On("token")
	ErrUntrusted = refusal.New(refusal.Denied, "agent-not-trusted",
		"no entry of the policy trusts this token",
		"sally deploy explain --token-file says which claim fails; agents stand in the policy under agents:")
	ErrNotBound = refusal.New(refusal.Denied, "agent-key-not-bound",
		"the token's audience binds it to another key or nonce than those of this call",
		"ask the issuer for a token whose audience is the broker's, #, and the hash of this job's own key and nonce")
	ErrProof = refusal.New(refusal.Unauthenticated, "agent-proof-invalid",
		"the call is not signed by the key that it names, or not now",
		"sign each call anew with the job's key, and see that the clock is right")
	ErrTokenRedeemed = refusal.New(refusal.Conflict, "agent-token-redeemed",
		"the token has been taken already, with this key",
		"go on without it: sign the calls that follow with the same key")
	ErrTokenShared = refusal.New(refusal.Denied, "agent-token-shared",
		"the token has been shown with another key before: one of the two has stolen it",
		"find out how the token got out of the job, then start a new job; who runs the broker has been alarmed")
	ErrKeyReused = refusal.New(refusal.Conflict, "agent-key-reused",
		"the key belongs to another run", "make a new key for each job, and keep none")
	ErrReplayed = refusal.New(refusal.Conflict, "agent-call-replayed",
		"the call has been made before", "sign each call anew, with a nonce of its own")
	ErrRunOver = refusal.New(refusal.Unauthenticated, "agent-run-over",
		"the run has ended, or there is none of this key", "start a new job: it begins with a new token and a new key")
	ErrNoRun = refusal.New(refusal.NotFound, "no-such-run",
		"there is no such run of an agent", "look at the deployment for the runs that it had")
	ErrTooMany = refusal.New(refusal.TooMany, "too-many-tokens",
		"too many tokens were shown from this address", "wait a minute and try again")
)

const (
	// Tokens that are shown from one address: so many at once, and then a second.
	tokensAtOnce, tokensRate = 60, 2
	// Refusals that become events, from one address and from all.
	refusedAtOnce, refusedEvery       = 20, 10 * time.Second
	refusedAllAtOnce, refusedAllEvery = 200, time.Second
)

// Config is what agents need. Every field without "optional" must be set.
type Config struct {
	// Pool connects as a member of sallyport_app.
	Pool *pgxpool.Pool
	// Log takes the events.
	Log *audit.Log
	// Clock decides what is past.
	Clock clock.Clock
	// Keys are the issuers'.
	Keys *jwks.Keys
	// Policy is the version in force, or why it cannot be known.
	Policy func(context.Context) (*policy.Policy, error)
	// URL is where clients reach the broker: the audience of entries that name none,
	// and what signed calls begin with.
	URL string
	// Logger receives what goes wrong where no caller can be told. Optional.
	Logger *slog.Logger
}

// Service admits agents and knows them again. It is safe for concurrent use, also by
// several processes on one database.
type Service struct {
	cfg     Config
	tokens  *throttle.Throttle // shown, by address
	refused *throttle.Throttle // recorded, by address
	all     *throttle.Throttle // recorded, of all
	revoked []func(ctx context.Context, tx pgx.Tx, run Run) error
}

// New returns the service.
func New(cfg Config) (*Service, error) {
	switch {
	case cfg.Pool == nil:
		return nil, errors.New("agents: no database")
	case cfg.Log == nil:
		return nil, errors.New("agents: no log")
	case cfg.Clock == nil:
		return nil, errors.New("agents: no clock")
	case cfg.Keys == nil:
		return nil, errors.New("agents: no issuers' keys")
	case cfg.Policy == nil:
		return nil, errors.New("agents: no policy")
	case cfg.URL == "":
		return nil, errors.New("agents: no URL")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Service{cfg: cfg,
		tokens:  throttle.New(cfg.Clock, tokensRate, tokensAtOnce),
		refused: throttle.New(cfg.Clock, rate.Every(refusedEvery), refusedAtOnce),
		all:     throttle.New(cfg.Clock, rate.Every(refusedAllEvery), refusedAllAtOnce),
	}, nil
}

// Run is one job that was admitted.
type Run struct {
	ID              string
	Entry           string // of the policy, that trusts it
	EntryHash       string // of what that trusted then
	Provider        policy.AgentProvider
	Issuer, Subject string
	Claims          map[string]string // that the entry goes by, and what ran
	TokenHash       string            // SHA-256, hex
	Key             ssh.PublicKey
	Fingerprint     string          // of the key, SHA256:…
	Policy          event.PolicyRef // under which it was admitted
	Source          string          // IP address that it was admitted from
	Created         time.Time
	Expires         time.Time // no call is taken at or after it
	Revoked         time.Time // zero: it is not
	RevokedWhy      string
}

// Actor is the run as the log names it.
func (r Run) Actor() event.Actor {
	return event.Actor{Kind: event.Agent, ID: r.ID, Name: r.Entry}
}

// OnRevoke has f called in the transaction that revokes a run, so that what the run was
// doing is stopped with it. It belongs before the first call.
func (s *Service) OnRevoke(f func(ctx context.Context, tx pgx.Tx, run Run) error) {
	s.revoked = append(s.revoked, f)
}

// ref names a version of the policy in events.
func ref(p *policy.Policy) event.PolicyRef { return event.PolicyRef{Version: p.Version, Hash: p.Hash} }

// Revoker is who ends a run before its time.
type Revoker struct {
	Actor  event.Actor
	Source string          // IP address; empty for the broker
	Policy event.PolicyRef // that gives the right, or is in force
}

// Revoke ends a run in the caller's transaction, and what it was doing (OnRevoke). A run
// that is revoked already stays so. The reason is for people, and in the log.
func (s *Service) Revoke(ctx context.Context, tx pgx.Tx, by Revoker, runID, reason string) error {
	if reason == "" {
		return errors.New("agents: revoking without a reason")
	}
	now := s.cfg.Clock.Now()
	run, err := one(tx.Query(ctx, `UPDATE agent_runs SET revoked_at = $2, revoked_why = $3
		WHERE id = $1 AND revoked_at IS NULL RETURNING `+columns, runID, now, reason))
	if errors.Is(err, pgx.ErrNoRows) {
		_, err := s.get(ctx, tx, runID)
		return err
	}
	if err != nil {
		return fmt.Errorf("revoking a run: %w", err)
	}
	e := event.New(now, by.Actor, by.Source, event.Subject{},
		event.AgentRevoked{RunID: run.ID, Entry: run.Entry, Key: run.Fingerprint, Reason: reason}).Under(by.Policy)
	if err := s.cfg.Log.Stage(ctx, tx, e); err != nil {
		return err
	}
	for _, f := range s.revoked {
		if err := f(ctx, tx, run); err != nil {
			return fmt.Errorf("stopping what a revoked run was doing: %w", err)
		}
	}
	return nil
}

// Get is a run, for pages and for evidence.
func (s *Service) Get(ctx context.Context, runID string) (Run, error) {
	return s.get(ctx, s.cfg.Pool, runID)
}
