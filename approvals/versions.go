package approvals

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"sallyport/approvals/policy"
	"sallyport/audit/event"
)

// activate makes the document a version: the newest one if that has the same
// hash, else a new one, with its event. Of several processes that start at once
// with one document, one makes the version.
func (s *Service) activate(ctx context.Context, p *policy.Policy) (*policy.Policy, error) {
	active := *p
	now := s.cfg.Clock.Now()
	err := pgx.BeginFunc(ctx, s.cfg.Pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('policy versions', 0))`); err != nil {
			return err
		}
		var newest string
		err := tx.QueryRow(ctx, `SELECT version, hash FROM policy_versions ORDER BY version DESC LIMIT 1`).
			Scan(&active.Version, &newest)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		if newest == p.Hash {
			return nil
		}
		active.Version++
		_, err = tx.Exec(ctx, `
			INSERT INTO policy_versions (version, hash, document, activated_at) VALUES ($1, $2, $3, $4)`,
			active.Version, p.Hash, p.Text, now)
		if err != nil {
			return err
		}
		ref := event.PolicyRef{Version: active.Version, Hash: active.Hash}
		return s.cfg.Log.Stage(ctx, tx, event.New(now, event.Actor{Kind: event.Broker}, "", event.Subject{},
			event.PolicyActivated{Rules: len(p.Rules), Bytes: len(p.Text)}).Under(ref))
	})
	if err != nil {
		return nil, fmt.Errorf("activating the policy: %w", err)
	}
	s.cfg.Log.Kick()
	return &active, nil
}
