package agents

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"golang.org/x/crypto/ssh"
)

// Authenticate finds the run that makes a call without a token:
//
//  1. the call is signed by the key that it names, now;
//  2. the key has a run that is neither over nor revoked;
//  3. the policy in force still has the run's entry, and it trusts what it trusted then;
//  4. the call has not been made before, which is recorded at once.
//
// A run whose answer got lost on the way comes back like that, too.
func (s *Service) Authenticate(ctx context.Context, call Call) (Run, error) {
	p, err := s.cfg.Policy(ctx)
	if err != nil {
		return Run{}, err
	}
	a := attempt{source: call.Source, policy: p}
	run, err := s.authenticate(ctx, &a, call)
	if err != nil {
		s.record(ctx, a, err)
		return Run{}, err
	}
	return run, nil
}

func (s *Service) authenticate(ctx context.Context, a *attempt, call Call) (Run, error) {
	var err error
	if a.key, err = s.signer(call, ""); err != nil {
		return Run{}, err
	}
	run, fresh, err := s.called(ctx, a.key, call.Nonce)
	if err != nil {
		return Run{}, err
	}
	a.run = &run
	entry := a.policy.Agent(run.Entry)
	switch {
	case !run.Revoked.IsZero():
		return Run{}, ErrRunOver.With("the run was revoked: %s", run.RevokedWhy)
	case !s.cfg.Clock.Now().Before(run.Expires):
		return Run{}, ErrRunOver.With("the run's time is up")
	case entry == nil || entry.Hash() != run.EntryHash:
		return Run{}, ErrUntrusted.With("the policy's entry %q has changed since the run began", run.Entry).
			Hinting("start a new job: it is judged by the policy in force now")
	case !fresh:
		return Run{}, ErrReplayed
	}
	return run, nil
}

// called is the run of a key, and whether the nonce is new to it; from then on it is not.
func (s *Service) called(ctx context.Context, key ssh.PublicKey, nonce string) (run Run, fresh bool, err error) {
	rows, err := s.cfg.Pool.Query(ctx, `
		WITH run AS (SELECT `+columns+` FROM agent_runs WHERE fingerprint = $1),
		call AS (INSERT INTO agent_calls (run_id, nonce, at) SELECT id, $2, $3 FROM run ON CONFLICT DO NOTHING RETURNING run_id)
		SELECT EXISTS (SELECT FROM call) AS fresh, `+columns+` FROM run`,
		ssh.FingerprintSHA256(key), nonce, s.cfg.Clock.Now())
	if err != nil {
		return Run{}, false, fmt.Errorf("looking for the run of a key: %w", err)
	}
	found, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[struct {
		Fresh bool
		row
	}])
	if errors.Is(err, pgx.ErrNoRows) {
		return Run{}, false, ErrRunOver
	}
	if err != nil {
		return Run{}, false, fmt.Errorf("looking for the run of a key: %w", err)
	}
	run, err = found.run()
	return run, found.Fresh, err
}
