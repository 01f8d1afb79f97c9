package identity

import (
	"context"
	"fmt"
)

// Everybody returns all people who have signed in and have not been removed, by
// name.
func (s *Store) Everybody(ctx context.Context) ([]Person, error) {
	return s.people(ctx, `SELECT `+personColumns+` FROM people WHERE removed_at IS NULL ORDER BY name, email, id`)
}

// CountPresent counts those of everybody who are in any of the groups, as db sees
// them now.
func (s *Store) CountPresent(ctx context.Context, db row, groups []string) (n int, err error) {
	err = db.QueryRow(ctx, `SELECT count(*) FROM people WHERE groups && $1::text[] AND removed_at IS NULL`, groups).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("counting people: %w", err)
	}
	return n, nil
}
