package recordings

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// DueAfter is how long after a session's end was reported all that was recorded of it
	// may take to come: hosts bring what waited at 1 MiB a second.
	DueAfter = time.Hour
	// overdueAtOnce is how many sessions are told of in one transaction.
	overdueAtOnce = 100
)

// Expect notes that a session which had to be recorded has ended.
func Expect(ctx context.Context, tx pgx.Tx, sessionID string, now time.Time) error {
	if _, err := tx.Exec(ctx, `INSERT INTO expected_recordings (session_id, due_at) VALUES ($1, $2)`, sessionID, now.Add(DueAfter)); err != nil {
		return fmt.Errorf("expecting a recording: %w", err)
	}
	return nil
}

// Missing is a session that had to be recorded, and of which not all is there.
type Missing struct {
	SessionID, HostID, Host, RequestID, PersonID string
	Serial                                       uint64
	Login, Client                                string
	Whole                                        int // recordings that are
}

// there is whether all of session x was recorded and has come:
//
//  1. There is a recording at least: nobody can tell a session in which nothing was
//     started from one whose recordings were lost.
//  2. None of their numbers is left out.
//  3. The end of each is in the log, and its bytes are what that says. So they are, too,
//     if they were forgotten since.
const there = `coalesce((SELECT max(r.number) = count(*) AND bool_and(coalesce(r.bytes = r.claimed, false) AND NOT r.differs)
	FROM session_recordings AS r WHERE r.session_id = x.session_id), false)`

// Overdue returns sessions of which not all came in time, each once, and forgets those of
// which it has.
func Overdue(ctx context.Context, tx pgx.Tx, now time.Time) ([]Missing, error) {
	if _, err := tx.Exec(ctx, `DELETE FROM expected_recordings AS x WHERE x.due_at <= $1 AND `+there, now); err != nil {
		return nil, fmt.Errorf("looking for missing recordings: %w", err)
	}
	rows, err := tx.Query(ctx, `
		WITH late AS (
			UPDATE expected_recordings SET told_at = $1 WHERE session_id IN (
				SELECT session_id FROM expected_recordings WHERE due_at <= $1 AND told_at IS NULL ORDER BY due_at LIMIT $2 FOR UPDATE SKIP LOCKED)
			RETURNING session_id)
		SELECT s.id, s.host_id, h.name, coalesce(s.request_id, ''), coalesce(s.person_id, ''), s.serial, s.login, s.client,
			(SELECT count(*) FROM session_recordings AS r WHERE r.session_id = s.id AND r.bytes = r.claimed AND NOT r.differs)
		FROM late JOIN host_sessions AS s ON s.id = late.session_id JOIN hosts AS h ON h.id = s.host_id`, now, overdueAtOnce)
	if err != nil {
		return nil, fmt.Errorf("looking for missing recordings: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Missing])
	if err != nil {
		return nil, fmt.Errorf("looking for missing recordings: %w", err)
	}
	return list, nil
}
