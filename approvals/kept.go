package approvals

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"sallyport/audit"
)

// Kept reads what the log names by its hash and does not hold itself, for evidence
// packs, and what the broker still asks the log about, for retention. It needs no
// running Service. Whoever reads a text checks its hash.
type Kept struct {
	Pool *pgxpool.Pool
	Log  *audit.Log // only for InForce
}

// PolicyDocument is the text of a version of the policy with the hash, or
// pgx.ErrNoRows.
func (k Kept) PolicyDocument(ctx context.Context, hash string) ([]byte, error) {
	text, err := oneRow(ctx, k.Pool, pgx.RowTo[[]byte], `SELECT document FROM policy_versions WHERE hash = $1 LIMIT 1`, hash)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("reading the policy with hash %s: %w", hash, err)
	}
	return text, nil
}

// IDTokens are the ID tokens of those of the statements that have one, by the ids of
// the decisions, on requests, on the policy or on deployments, and of the reviews.
func (k Kept) IDTokens(ctx context.Context, statements []string) (map[string]string, error) {
	rows, err := k.Pool.Query(ctx, `
		SELECT id, id_token FROM decisions WHERE id = ANY ($1) AND id_token IS NOT NULL
		UNION ALL SELECT id, id_token FROM reviews WHERE id = ANY ($1) AND id_token IS NOT NULL
		UNION ALL SELECT id, id_token FROM policy_decisions WHERE id = ANY ($1) AND id_token IS NOT NULL
		UNION ALL SELECT id, id_token FROM deployment_decisions WHERE id = ANY ($1) AND id_token IS NOT NULL`, statements)
	if err != nil {
		return nil, fmt.Errorf("reading ID tokens: %w", err)
	}
	tokens := map[string]string{}
	var id, token string
	_, err = pgx.ForEachRow(rows, []any{&id, &token}, func() error {
		tokens[id] = token
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading ID tokens: %w", err)
	}
	return tokens, nil
}

// Open are the ids of the requests whose events the log must still have:
//
//  1. those that are not over, because issuing asks the log for the start of a grant;
//  2. those that they extend, for the same reason;
//  3. emergencies that nobody has reviewed.
func (k Kept) Open(ctx context.Context) ([]string, error) {
	rows, err := k.Pool.Query(ctx, `
		WITH RECURSIVE open (id) AS (
			SELECT id FROM requests WHERE state IN ('requested', 'approved', 'active')
			UNION SELECT x.extends FROM extensions AS x JOIN open ON open.id = x.request_id
		)
		SELECT id FROM open
		UNION SELECT e.request_id FROM emergencies AS e WHERE `+waitsForReview)
	if err != nil {
		return nil, fmt.Errorf("reading what is not over: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("reading what is not over: %w", err)
	}
	return list, nil
}

// Deploying are the ids of the deployments that are not over: the broker issues agents'
// certificates only while the log has the opening of a deployment, and of its batch.
func (k Kept) Deploying(ctx context.Context) ([]string, error) {
	rows, err := k.Pool.Query(ctx, `SELECT id FROM deployments WHERE ended_at IS NULL`)
	if err != nil {
		return nil, fmt.Errorf("reading which deployments are not over: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("reading which deployments are not over: %w", err)
	}
	return list, nil
}

// InForce is the event of the policy in force, which brokers look for in the log
// whenever they read the policy; audit.ErrNoEntry if no version is in force.
func (k Kept) InForce(ctx context.Context) (uuid.UUID, error) {
	s := &Service{cfg: Config{Pool: k.Pool, Log: k.Log, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}}
	var found uuid.UUID
	err := s.believed(ctx, k.Pool, func(v version) (logged bool, err error) {
		if logged, err = s.activationLogged(ctx, v); logged {
			found = v.eventID
		}
		return logged, err
	})
	if err == nil && found == uuid.Nil {
		err = audit.ErrNoEntry
	}
	return found, err
}

// PolicyDocument is Kept's.
func (s *Service) PolicyDocument(ctx context.Context, hash string) ([]byte, error) {
	return Kept{Pool: s.cfg.Pool}.PolicyDocument(ctx, hash)
}

// IDTokens is Kept's.
func (s *Service) IDTokens(ctx context.Context, statements []string) (map[string]string, error) {
	return Kept{Pool: s.cfg.Pool}.IDTokens(ctx, statements)
}
