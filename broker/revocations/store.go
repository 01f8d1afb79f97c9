package revocations

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// entry is one row of the list.
type entry struct {
	number  uint64
	what    string // serial, ended, extended or sealed
	request string
	serial  uint64
	by      string // the request that extends it
	at      time.Time
	reason  string
	until   time.Time

	deployment, host string // of one that is sealed
}

// head is the list's number. What has a number up to it is committed: each transaction
// has its number from just before its commit on, and others wait for that.
func (l *List) head(ctx context.Context) (number uint64, err error) {
	if err := l.cfg.Pool.QueryRow(ctx, `SELECT number FROM revocation_head`).Scan(&number); err != nil {
		return 0, fmt.Errorf("reading the number of the list of revocations: %w", err)
	}
	return number, nil
}

// read returns what came after the list with the number, but for what no host needs any
// more: its time is over, and no session of its grant is known to live.
func (l *List) read(ctx context.Context, after uint64, now time.Time) ([]entry, error) {
	rows, err := l.cfg.Pool.Query(ctx, `
		SELECT number, what, coalesce(request_id, ''), coalesce(serial, 0), coalesce(extends_by, ''), at, reason, until,
			coalesce(deployment_id, ''), coalesce(host_id, '')
		FROM revocations AS r
		WHERE number > $1 AND (until > $2
			OR EXISTS (SELECT FROM host_sessions AS s WHERE s.request_id = r.request_id AND s.ended_at IS NULL))
		ORDER BY number`, after, now)
	if err != nil {
		return nil, fmt.Errorf("reading the list of revocations: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (e entry, err error) {
		err = row.Scan(&e.number, &e.what, &e.request, &e.serial, &e.by, &e.at, &e.reason, &e.until, &e.deployment, &e.host)
		e.at, e.until = e.at.UTC(), e.until.UTC()
		return e, err
	})
	if err != nil {
		return nil, fmt.Errorf("reading the list of revocations: %w", err)
	}
	return list, nil
}

// EndedAt is when the certificate was revoked, or its request's grant ended before its
// time, whichever was first; zero if neither.
func EndedAt(ctx context.Context, tx pgx.Tx, serial uint64, requestID string) (time.Time, error) {
	var at *time.Time
	err := tx.QueryRow(ctx, `
		SELECT min(at) FROM revocations WHERE what = 'serial' AND serial = $1 OR what = 'ended' AND request_id = $2`, serial, requestID).Scan(&at)
	if err != nil {
		return time.Time{}, fmt.Errorf("looking for the end of a certificate: %w", err)
	}
	if at == nil {
		return time.Time{}, nil
	}
	return at.UTC(), nil
}

// SealedAt is when the deployment sealed the host after it was issued a certificate at
// that time; zero if it has not.
func SealedAt(ctx context.Context, tx pgx.Tx, deployment, host string, issued time.Time) (time.Time, error) {
	var at *time.Time
	err := tx.QueryRow(ctx, `
		SELECT min(at) FROM revocations WHERE what = 'sealed' AND host_id = $2 AND deployment_id = $1 AND at >= $3`, deployment, host, issued).Scan(&at)
	if err != nil {
		return time.Time{}, fmt.Errorf("looking for when a host was sealed: %w", err)
	}
	if at == nil {
		return time.Time{}, nil
	}
	return at.UTC(), nil
}
