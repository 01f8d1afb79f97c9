package agents

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"golang.org/x/crypto/ssh"

	"sallyport/approvals/claims"
	"sallyport/approvals/policy"
	"sallyport/audit/event"
	"sallyport/broker/certs"
	"sallyport/internal/ids"
	"sallyport/internal/throttle"
)

// Redeem takes a token that a job shows with its first call, and does then with what it
// is for, in one transaction, with the event agent.admitted:
//
//  1. the call is signed by the key that it names, over this token, now;
//  2. the policy names the token's issuer, which has signed it with a key that it has now;
//  3. an entry of the policy trusts what it says, its audience and its times;
//  4. neither the token nor the key has made a run before.
//
// An error of then rolls everything back, and the token can be shown again. A token that
// was shown with another key before is an alarm, which ends the run that it made.
//
// Issuers are asked before the transaction begins, so that nobody waits for them with it.
func (s *Service) Redeem(ctx context.Context, shown string, call Call, then func(ctx context.Context, tx pgx.Tx, run Run) error) (Run, error) {
	if !s.tokens.Allow(throttle.Network(call.Source)) {
		return Run{}, ErrTooMany
	}
	p, err := s.cfg.Policy(ctx)
	if err != nil {
		return Run{}, err
	}
	if err := s.sweep(ctx); err != nil {
		return Run{}, err
	}
	attempt := attempt{source: call.Source, policy: p}
	run, err := s.redeem(ctx, &attempt, shown, call, then)
	if err != nil {
		s.record(ctx, attempt, err)
		return Run{}, err
	}
	s.cfg.Log.Kick()
	return run, nil
}

func (s *Service) redeem(ctx context.Context, a *attempt, shown string, call Call, then func(context.Context, pgx.Tx, Run) error) (Run, error) {
	key, err := s.signer(call, shown)
	if err != nil {
		return Run{}, err
	}
	a.key = key
	t, err := readToken(shown)
	if err != nil {
		return Run{}, ErrToken.With("the token cannot be read: %v", err)
	}
	a.token = &t
	if err := s.verify(ctx, a.policy, t); err != nil {
		return Run{}, err
	}
	a.verified = true
	now := s.cfg.Clock.Now()
	a.verdicts = s.judge(a.policy, t, &binding{key, call.Nonce}, now)
	decided := decides(a.verdicts)
	if decided == nil {
		// It may have expired, or be bound otherwise, and still be one that was taken.
		if err := s.seen(ctx, a, t, key); err != nil {
			return Run{}, err
		}
		return Run{}, refuse(a.verdicts)
	}
	entry := decided.entry
	run := Run{ID: ids.New(ids.Run), Entry: entry.Name, EntryHash: entry.Hash(), Provider: entry.Provider,
		Issuer: t.claims.Issuer, Subject: t.claims.Subject, Claims: claims.Told(entry.Wants(), t.claims), TokenHash: t.hash(),
		Key: key, Fingerprint: ssh.FingerprintSHA256(key), Policy: ref(a.policy), Source: call.Source,
		Created: now, Expires: now.Add(entry.Lifetime)}
	taken := false
	err = pgx.BeginTxFunc(ctx, s.cfg.Pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
		made, err := insert(ctx, tx, run, t, certs.Line(key))
		if err != nil {
			return err
		}
		if taken = !made; taken {
			return errTaken
		}
		if err := s.cfg.Log.Stage(ctx, tx, run.admitted(t, entry)); err != nil {
			return err
		}
		a.elsewhere = true // what is refused from here on is not about the agent
		return then(ctx, tx, run)
	})
	if !taken {
		return run, err
	}
	if err := s.seen(ctx, a, t, key); err != nil {
		return Run{}, err
	}
	return Run{}, ErrKeyReused
}

var errTaken = errors.New("the token or the key has a run")

func (r Run) admitted(t token, entry *policy.Agent) event.Event {
	return event.New(r.Created, r.Actor(), r.Source, event.Subject{}, event.AgentAdmitted{
		RunID: r.ID, Entry: r.Entry, EntryHash: r.EntryHash, Provider: string(r.Provider), Issuer: r.Issuer, Subject: r.Subject,
		Claims: r.Claims, TokenID: t.id(), TokenHash: r.TokenHash, SignedBy: t.keyID, Binding: string(entry.Binding),
		Key: r.Fingerprint, ExpiresAt: r.Expires,
	}).Under(r.Policy)
}

// seen refuses a verified token that was taken before: by the same key, or by another,
// which is an alarm. It returns nil if it was not.
func (s *Service) seen(ctx context.Context, a *attempt, t token, key ssh.PublicKey) error {
	first, found, err := ofToken(ctx, s.cfg.Pool, t)
	switch {
	case err != nil:
		return err
	case !found:
		return nil
	}
	a.run = &first
	if first.Fingerprint == ssh.FingerprintSHA256(key) {
		return ErrTokenRedeemed
	}
	// If the issuer signed the first key's hash, it is the second that is a thief's, and
	// to end the run would be to do his work.
	known := a.policy.Agent(first.Entry)
	bound := known != nil && known.Hash() == first.EntryHash && known.Binding == policy.BindAudience
	return s.alarm(ctx, a, first, t, key, !bound)
}

// alarm records that a token was shown with a second key, and ends the run that the first
// made. It returns ErrTokenShared when both are committed.
func (s *Service) alarm(ctx context.Context, a *attempt, first Run, t token, second ssh.PublicKey, revoke bool) error {
	if !first.Revoked.IsZero() {
		return ErrTokenShared // it is known; this attempt is recorded as one that was refused
	}
	ctx = context.WithoutCancel(ctx) // who hangs up is found out, too
	now := s.cfg.Clock.Now()
	err := pgx.BeginTxFunc(ctx, s.cfg.Pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
		e := event.New(now, event.Actor{Kind: event.Agent, Name: first.Entry}, a.source, event.Subject{}, event.AgentTokenShared{
			RunID: first.ID, Entry: first.Entry, Issuer: first.Issuer, Subject: first.Subject, TokenHash: t.hash(),
			FirstKey: first.Fingerprint, FirstSource: first.Source, FirstAt: first.Created,
			SecondKey: ssh.FingerprintSHA256(second), Revoked: revoke,
		}).Under(ref(a.policy))
		if err := s.cfg.Log.Stage(ctx, tx, e); err != nil || !revoke {
			return err
		}
		return s.Revoke(ctx, tx, Revoker{Actor: event.Actor{Kind: event.Broker}, Policy: ref(a.policy)}, first.ID,
			"its token was shown with a second key")
	})
	if err != nil {
		return err
	}
	a.elsewhere = true
	s.cfg.Log.Kick()
	s.cfg.Logger.ErrorContext(ctx, "a deploy agent's token was shown with two keys", "run", first.ID, "entry", first.Entry,
		"first_source", first.Source, "second_source", a.source, "revoked", revoke)
	return ErrTokenShared
}
