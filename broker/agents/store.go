package agents

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/crypto/ssh"

	"sallyport/approvals/policy"
	"sallyport/audit/event"
)

// columns of agent_runs that a Run is made of, in the order of row.
const columns = `id, entry, entry_hash, provider, issuer, subject, claims, token_hash, key, fingerprint,
	policy_version, policy_hash, source, created_at, expires_at, revoked_at, revoked_why`

type row struct {
	ID, Entry, EntryHash, Provider, Issuer, Subject string
	Claims                                          map[string]string
	TokenHash, Key, Fingerprint                     string
	PolicyVersion                                   int64
	PolicyHash, Source                              string
	Created, Expires                                time.Time
	Revoked                                         *time.Time
	RevokedWhy                                      string
}

func (r row) run() (Run, error) {
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(r.Key))
	if err != nil {
		return Run{}, fmt.Errorf("the key of run %s: %w", r.ID, err)
	}
	out := Run{ID: r.ID, Entry: r.Entry, EntryHash: r.EntryHash, Provider: policy.AgentProvider(r.Provider),
		Issuer: r.Issuer, Subject: r.Subject, Claims: r.Claims, TokenHash: r.TokenHash, Key: key, Fingerprint: r.Fingerprint,
		Policy: event.PolicyRef{Version: r.PolicyVersion, Hash: r.PolicyHash}, Source: r.Source,
		Created: r.Created.UTC(), Expires: r.Expires.UTC(), RevokedWhy: r.RevokedWhy}
	if r.Revoked != nil {
		out.Revoked = r.Revoked.UTC()
	}
	return out, nil
}

// one is the one run that a query finds, or pgx.ErrNoRows.
func one(rows pgx.Rows, err error) (Run, error) {
	if err != nil {
		return Run{}, err
	}
	found, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[row])
	if err != nil {
		return Run{}, err
	}
	return found.run()
}

type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

func (s *Service) get(ctx context.Context, db querier, id string) (Run, error) {
	run, err := one(db.Query(ctx, `SELECT `+columns+` FROM agent_runs WHERE id = $1`, id))
	if errors.Is(err, pgx.ErrNoRows) {
		return Run{}, ErrNoRun
	}
	if err != nil {
		return Run{}, fmt.Errorf("reading a run: %w", err)
	}
	return run, nil
}

// ofToken is the run that a token made, if one did.
func ofToken(ctx context.Context, db querier, t token) (run Run, found bool, err error) {
	run, err = one(db.Query(ctx, `SELECT `+columns+` FROM agent_runs WHERE issuer = $1 AND token_id = $2`, t.claims.Issuer, t.id()))
	if errors.Is(err, pgx.ErrNoRows) {
		return Run{}, false, nil
	}
	if err != nil {
		return Run{}, false, fmt.Errorf("looking for a token's run: %w", err)
	}
	return run, true, nil
}

// insert makes the run, unless the token or the key has one already: then it reports
// false. It waits for others who are about to make one of the same token or key.
func insert(ctx context.Context, tx pgx.Tx, run Run, t token, key string) (bool, error) {
	tag, err := tx.Exec(ctx, `
		INSERT INTO agent_runs (id, entry, entry_hash, provider, issuer, subject, token_id, token_hash, claims, key, fingerprint,
			policy_version, policy_hash, source, created_at, expires_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
		ON CONFLICT DO NOTHING`,
		run.ID, run.Entry, run.EntryHash, string(run.Provider), run.Issuer, run.Subject, t.id(), run.TokenHash, run.Claims, key, run.Fingerprint,
		run.Policy.Version, run.Policy.Hash, run.Source, run.Created, run.Expires)
	if err != nil {
		return false, fmt.Errorf("admitting an agent: %w", err)
	}
	return tag.RowsAffected() == 1, nil
}

// sweep deletes up to some thousand calls that are too old to be made again.
func (s *Service) sweep(ctx context.Context) error {
	_, err := s.cfg.Pool.Exec(ctx, `DELETE FROM agent_calls WHERE (run_id, nonce) IN (
		SELECT run_id, nonce FROM agent_calls WHERE at < $1 ORDER BY at LIMIT 5000 FOR UPDATE SKIP LOCKED)`,
		s.cfg.Clock.Now().Add(-callMemory))
	if err != nil {
		return fmt.Errorf("deleting old calls: %w", err)
	}
	return nil
}
