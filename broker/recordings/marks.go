package recordings

import (
	"context"
	"fmt"

	"sallyport/approvals/identity"
)

// Counts is how many recordings there are of each of these sessions, to auditors. Those
// of which there are none are left out.
func (s *Store) Counts(ctx context.Context, c identity.Caller, action string, sessions []string) (map[string]int, error) {
	if err := s.cfg.Approvals.OnlyAuditors(ctx, c, action); err != nil {
		return nil, err
	}
	rows, err := s.cfg.Pool.Query(ctx, `SELECT session_id, count(*) FROM session_recordings WHERE session_id = ANY ($1) GROUP BY session_id`, sessions)
	if err != nil {
		return nil, fmt.Errorf("counting recordings: %w", err)
	}
	defer rows.Close()
	counts := map[string]int{}
	for rows.Next() {
		var session string
		var n int
		if err := rows.Scan(&session, &n); err != nil {
			return nil, fmt.Errorf("counting recordings: %w", err)
		}
		counts[session] = n
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("counting recordings: %w", err)
	}
	return counts, nil
}
