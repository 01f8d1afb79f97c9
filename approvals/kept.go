package approvals

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// What the log names by its hash and does not hold itself, for evidence packs. Whoever
// reads it checks the hash.

// PolicyDocument is the text of a version of the policy with the hash, or
// pgx.ErrNoRows.
func (s *Service) PolicyDocument(ctx context.Context, hash string) ([]byte, error) {
	text, err := oneRow(ctx, s.cfg.Pool, pgx.RowTo[[]byte], `SELECT document FROM policy_versions WHERE hash = $1 LIMIT 1`, hash)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("reading the policy with hash %s: %w", hash, err)
	}
	return text, nil
}

// IDTokens are the ID tokens of those of the statements that have one, by the ids of
// the decisions, on requests or on the policy, and of the reviews.
func (s *Service) IDTokens(ctx context.Context, statements []string) (map[string]string, error) {
	rows, err := s.cfg.Pool.Query(ctx, `
		SELECT id, id_token FROM decisions WHERE id = ANY ($1) AND id_token IS NOT NULL
		UNION ALL SELECT id, id_token FROM reviews WHERE id = ANY ($1) AND id_token IS NOT NULL
		UNION ALL SELECT id, id_token FROM policy_decisions WHERE id = ANY ($1) AND id_token IS NOT NULL`, statements)
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
