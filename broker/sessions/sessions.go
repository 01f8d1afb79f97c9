// Package sessions keeps what hosts report of the logins on them. A session is what a
// host says it is; that it belongs to a request is said only if a certificate of that
// request, for that host and login, was good when it began (package broker/fleet sees
// to it). Nothing is decided by it: it is there to be looked at.
package sessions

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"sallyport/api"
	"sallyport/internal/ids"
	"sallyport/internal/refusal"
)

// ErrPage refuses a page of a list that there is not.
var ErrPage = refusal.New(refusal.Invalid, "session-page", "there is no such page of the list",
	"give a limit from 1 to 200, and the cursor exactly as it was returned, or none")

// Session is one login, as it is written down.
type Session struct {
	ID          string
	HostID      string
	HostSession string // the host's own name for it
	RequestID   string // empty: it belongs to no certificate that we know
	PersonID    string
	Deployment  string // whose agent's certificate opened it, instead of a request's
	Serial      uint64
	Login       string
	Client      string
	StartedAt   time.Time // zero: its start was never reported
	EndedAt     time.Time
	EndReason   string
	Alarm       string // code of what is wrong with it
}

// Find returns the session that the host calls by that name, or nil. The caller holds a
// lock on the host, without which another could begin it meanwhile.
func Find(ctx context.Context, tx pgx.Tx, hostID, name string) (*Session, error) {
	rows, err := tx.Query(ctx, `
		SELECT id, coalesce(request_id, ''), coalesce(person_id, ''), serial, login, client, started_at, ended_at
		FROM host_sessions WHERE host_id = $1 AND host_session = $2`, hostID, name)
	if err != nil {
		return nil, fmt.Errorf("finding a session: %w", err)
	}
	s, err := pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) (*Session, error) {
		s := &Session{HostID: hostID, HostSession: name}
		var started, ended *time.Time
		err := row.Scan(&s.ID, &s.RequestID, &s.PersonID, &s.Serial, &s.Login, &s.Client, &started, &ended)
		s.StartedAt, s.EndedAt = value(started), value(ended)
		return s, err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("finding a session: %w", err)
	}
	return s, nil
}

// Insert writes a session down, with its end if it is over.
func Insert(ctx context.Context, tx pgx.Tx, s *Session, now time.Time) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO host_sessions (id, host_id, host_session, request_id, person_id, serial, login, client, started_at, ended_at, end_reason, alarm, reported_at, deployment_id)
		VALUES ($1, $2, $3, nullif($4, ''), nullif($5, ''), $6, $7, $8, $9, $10, $11, $12, $13, nullif($14, ''))`,
		s.ID, s.HostID, s.HostSession, s.RequestID, s.PersonID, s.Serial, s.Login, s.Client,
		pointer(s.StartedAt), pointer(s.EndedAt), s.EndReason, s.Alarm, now, s.Deployment)
	if err != nil {
		return fmt.Errorf("writing down a session: %w", err)
	}
	return nil
}

// End writes down that a session is over.
func End(ctx context.Context, tx pgx.Tx, id string, at time.Time, reason string) error {
	if _, err := tx.Exec(ctx, `UPDATE host_sessions SET ended_at = $2, end_reason = $3 WHERE id = $1`, id, at, reason); err != nil {
		return fmt.Errorf("writing down the end of a session: %w", err)
	}
	return nil
}

// Store reads sessions.
type Store struct{ pool *pgxpool.Pool }

// New returns a store.
func New(pool *pgxpool.Pool) *Store { return &Store{pool} }

const (
	// maxOfRequest is how many sessions a request is shown with, the latest.
	maxOfRequest = 200
	defaultLimit = 50
	maxLimit     = 200
)

const columns = `s.id, s.host_id, h.name, coalesce(s.request_id, ''), coalesce(s.person_id, ''), coalesce(p.name, ''), s.serial, s.login,
	s.client, s.started_at, s.ended_at, s.end_reason, CASE WHEN s.alarm = '' AND EXISTS (
		SELECT FROM expected_recordings AS x WHERE x.session_id = s.id AND x.told_at IS NOT NULL) THEN 'recording-missing' ELSE s.alarm END,
	s.reported_at, coalesce(s.deployment_id, '')`

const from = ` FROM host_sessions AS s JOIN hosts AS h ON h.id = s.host_id LEFT JOIN people AS p ON p.id = s.person_id `

// OfRequest are those that the request's certificates opened, oldest first.
func (s *Store) OfRequest(ctx context.Context, requestID string) ([]api.Session, error) {
	rows, err := s.pool.Query(ctx, `SELECT * FROM (
		SELECT `+columns+from+`WHERE s.request_id = $1 ORDER BY s.reported_at DESC, s.id DESC LIMIT $2) AS last
		ORDER BY reported_at, id`, requestID, maxOfRequest)
	if err != nil {
		return nil, fmt.Errorf("reading sessions: %w", err)
	}
	list, err := pgx.CollectRows(rows, scan)
	if err != nil {
		return nil, fmt.Errorf("reading sessions: %w", err)
	}
	return list, nil
}

// MaxOfDeployment is how many sessions a deployment is shown with, the latest.
const MaxOfDeployment = 500

// OfDeployment are those that certificates of the deployment's agents opened, latest
// report first.
func (s *Store) OfDeployment(ctx context.Context, deploymentID string) ([]api.Session, error) {
	rows, err := s.pool.Query(ctx, `
		SELECT `+columns+from+`WHERE s.deployment_id = $1 ORDER BY s.reported_at DESC, s.id DESC LIMIT $2`, deploymentID, MaxOfDeployment)
	if err != nil {
		return nil, fmt.Errorf("reading sessions: %w", err)
	}
	list, err := pgx.CollectRows(rows, scan)
	if err != nil {
		return nil, fmt.Errorf("reading sessions: %w", err)
	}
	return list, nil
}

// Filter narrows OfHost. Zero fields do not filter.
type Filter struct {
	PersonID string // only theirs
	Live     bool   // only those that have not ended
	Cursor   string
	Limit    int // 1 to 200; 0 means 50
}

// OfHost are those on a host, latest report first.
func (s *Store) OfHost(ctx context.Context, hostID string, f Filter) (api.Page[api.Session], error) {
	page := api.Page[api.Session]{Items: []api.Session{}}
	at, id, err := readCursor(f.Cursor)
	if f.Limit == 0 {
		f.Limit = defaultLimit
	}
	if err != nil || f.Limit < 1 || f.Limit > maxLimit {
		return page, ErrPage
	}
	rows, err := s.pool.Query(ctx, `
		SELECT `+columns+from+`
		WHERE s.host_id = $1 AND ($2 = '' OR s.person_id = $2) AND (NOT $3 OR s.ended_at IS NULL)
			AND ($4::timestamptz IS NULL OR (s.reported_at, s.id) < ($4, $5))
		ORDER BY s.reported_at DESC, s.id DESC LIMIT $6`, hostID, f.PersonID, f.Live, at, id, f.Limit+1)
	if err != nil {
		return page, fmt.Errorf("reading sessions: %w", err)
	}
	if page.Items, err = pgx.CollectRows(rows, scan); err != nil {
		return page, fmt.Errorf("reading sessions: %w", err)
	}
	if len(page.Items) > f.Limit {
		page.Items = page.Items[:f.Limit]
		last := page.Items[f.Limit-1]
		page.Next = base64.RawURLEncoding.EncodeToString([]byte(last.ReportedAt.Format(time.RFC3339Nano) + " " + last.ID))
	}
	return page, nil
}

func scan(row pgx.CollectableRow) (s api.Session, err error) {
	err = row.Scan(&s.ID, &s.HostID, &s.Host, &s.Request, &s.Person.ID, &s.Person.Name, &s.Serial, &s.Login,
		&s.Client, &s.StartedAt, &s.EndedAt, &s.EndReason, &s.Alarm, &s.ReportedAt, &s.Deployment)
	s.ReportedAt = s.ReportedAt.UTC()
	for _, t := range []*time.Time{s.StartedAt, s.EndedAt} {
		if t != nil {
			*t = t.UTC()
		}
	}
	return s, err
}

func readCursor(cursor string) (*time.Time, string, error) {
	if cursor == "" {
		return nil, "", nil
	}
	text, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil {
		return nil, "", err
	}
	when, id, _ := strings.Cut(string(text), " ")
	at, err := time.Parse(time.RFC3339Nano, when)
	if err == nil && !ids.Valid(ids.Session, id) {
		err = errors.New("no session's id")
	}
	return &at, id, err
}

func value(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}

func pointer(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
