package recordings

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/audit"
	"sallyport/audit/event"
	"sallyport/internal/clock"
	"sallyport/internal/ids"
)

// tidyEvery is how often recordings are looked for whose time is up.
const tidyEvery = time.Hour

// Approvals is what this room needs of the one below.
type Approvals interface {
	OnlyAuditors(ctx context.Context, c identity.Caller, action string) error
	DiscloseSessions(ctx context.Context, c identity.Caller, hostID string) error
}

// Config is what a Store needs. Every field without "optional" must be set.
type Config struct {
	// Pool connects as a member of sallyport_app.
	Pool      *pgxpool.Pool
	Log       *audit.Log
	Approvals Approvals
	Clock     clock.Clock
	// Logger receives what goes wrong in the background. Optional.
	Logger *slog.Logger
}

// Store gives recordings to auditors, and forgets them in time.
type Store struct{ cfg Config }

// New returns a store.
func New(cfg Config) (*Store, error) {
	if cfg.Pool == nil || cfg.Log == nil || cfg.Approvals == nil || cfg.Clock == nil {
		return nil, errors.New("recordings: pool, log, approvals and clock must be set")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Store{cfg}, nil
}

const columns = `SELECT r.session_id, r.number, s.host_id, h.name, s.login, coalesce(s.request_id, ''), coalesce(s.person_id, ''), coalesce(p.name, ''),
	r.bytes, r.began_at, r.event_id, r.claimed, coalesce(r.digest, ''), r.started_at, r.ended_at, r.terminal, r.cut, r.differs, r.removed_at
	FROM session_recordings AS r JOIN host_sessions AS s ON s.id = r.session_id JOIN hosts AS h ON h.id = s.host_id LEFT JOIN people AS p ON p.id = s.person_id `

// row is a recording as it is in the database.
type row struct {
	api.Recording
	event *uuid.UUID
}

func scan(r pgx.CollectableRow) (out row, err error) {
	var began time.Time
	var claimed *int64
	var differs bool
	err = r.Scan(&out.Session, &out.Number, &out.HostID, &out.Host, &out.Login, &out.Request, &out.Person.ID, &out.Person.Name,
		&out.Bytes, &began, &out.event, &claimed, &out.SHA256, &out.StartedAt, &out.EndedAt, &out.Terminal, &out.Cut, &differs, &out.RemovedAt)
	if out.StartedAt == nil {
		out.StartedAt = &began
	}
	for _, t := range []*time.Time{out.StartedAt, out.EndedAt, out.RemovedAt} {
		if t != nil {
			*t = t.UTC()
		}
	}
	switch {
	case out.RemovedAt != nil:
		out.State = api.RecordingForgotten
	case differs:
		out.State = api.RecordingDiffers
	case claimed == nil:
		out.State = api.RecordingGoesOn
	case out.Bytes < *claimed:
		out.State = api.RecordingComes
	default:
		out.State = api.RecordingWhole
	}
	if claimed != nil {
		out.Claimed = *claimed
	}
	return out, err
}

// OfSession are the recordings of a session, in order, to auditors.
func (s *Store) OfSession(ctx context.Context, c identity.Caller, action, sessionID string) ([]api.Recording, error) {
	if err := s.cfg.Approvals.OnlyAuditors(ctx, c, action); err != nil {
		return nil, err
	}
	if !ids.Valid(ids.Session, sessionID) {
		return nil, ErrUnknown
	}
	rows, err := s.find(ctx, `WHERE r.session_id = $1 ORDER BY r.number`, sessionID)
	if err != nil {
		return nil, err
	}
	if len(rows) > 0 {
		if err := s.cfg.Approvals.DiscloseSessions(ctx, c, rows[0].HostID); err != nil {
			return nil, err
		}
	}
	list := make([]api.Recording, len(rows))
	for i, r := range rows {
		list[i] = r.Recording
		if r.event == nil {
			continue
		}
		// Its place in the log, which auditors compare it with, if it has one already.
		if e, err := s.cfg.Log.Find(ctx, *r.event); err == nil && e.Index >= 0 {
			list[i].Event = &e.Index
		}
	}
	return list, nil
}

func (s *Store) find(ctx context.Context, where string, args ...any) ([]row, error) {
	rows, err := s.cfg.Pool.Query(ctx, columns+where, args...)
	if err != nil {
		return nil, fmt.Errorf("reading recordings: %w", err)
	}
	list, err := pgx.CollectRows(rows, scan)
	if err != nil {
		return nil, fmt.Errorf("reading recordings: %w", err)
	}
	return list, nil
}

// Content is a recording on its way to an auditor: the bytes that there were when it was
// asked for.
type Content struct {
	api.Recording
	pool *pgxpool.Pool
}

// Open lets an auditor have a recording. That they have it is in the log before.
func (s *Store) Open(ctx context.Context, c identity.Caller, action, sessionID string, number int) (*Content, error) {
	if err := s.cfg.Approvals.OnlyAuditors(ctx, c, action); err != nil {
		return nil, err
	}
	if !ids.Valid(ids.Session, sessionID) || number < 1 || number > MaxNumber {
		return nil, ErrUnknown
	}
	rows, err := s.find(ctx, `WHERE r.session_id = $1 AND r.number = $2 AND r.removed_at IS NULL`, sessionID, number)
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return nil, ErrUnknown
	}
	r := rows[0].Recording
	if _, err := s.cfg.Log.Record(ctx, c.Event(s.cfg.Clock.Now(),
		event.Subject{RequestID: r.Request, PersonID: r.Person.ID, HostID: r.HostID},
		event.RecordingDisclosed{SessionID: r.Session, Recording: r.Number, Bytes: uint64(r.Bytes)})); err != nil {
		return nil, err
	}
	return &Content{r, s.cfg.Pool}, nil
}

// Write writes the recording to w, piece by piece.
func (c *Content) Write(ctx context.Context, w io.Writer) error {
	for at := int64(0); at < c.Bytes; {
		var data []byte
		if err := c.pool.QueryRow(ctx, `SELECT data FROM recording_pieces WHERE session_id = $1 AND number = $2 AND at = $3`, c.Session, c.Number, at).Scan(&data); err != nil {
			return fmt.Errorf("reading a recording: %w", err)
		}
		if _, err := w.Write(data); err != nil {
			return err
		}
		at += int64(len(data))
	}
	return nil
}

// Run forgets recordings whose time is up, until ctx ends.
func (s *Store) Run(ctx context.Context) error {
	tick := time.NewTicker(tidyEvery)
	defer tick.Stop()
	for {
		if err := s.Tidy(ctx); err != nil && ctx.Err() == nil {
			s.cfg.Logger.WarnContext(ctx, "recordings whose time is up could not be forgotten", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Tidy forgets recordings whose time is up.
func (s *Store) Tidy(ctx context.Context) error {
	for {
		over, err := s.find(ctx, `WHERE r.removed_at IS NULL AND r.began_at < $1 ORDER BY r.began_at LIMIT 20`, s.cfg.Clock.Now().Add(-Kept))
		if err != nil || len(over) == 0 {
			return err
		}
		for _, r := range over {
			if err := s.forget(ctx, r); err != nil {
				return err
			}
		}
	}
}

func (s *Store) forget(ctx context.Context, r row) error {
	err := pgx.BeginFunc(ctx, s.cfg.Pool, func(tx pgx.Tx) error {
		now := s.cfg.Clock.Now()
		tag, err := tx.Exec(ctx, `UPDATE session_recordings SET removed_at = $3 WHERE session_id = $1 AND number = $2 AND removed_at IS NULL`, r.Session, r.Number, now)
		if err != nil || tag.RowsAffected() == 0 { // another replica was first
			return err
		}
		if _, err := tx.Exec(ctx, `DELETE FROM recording_pieces WHERE session_id = $1 AND number = $2`, r.Session, r.Number); err != nil {
			return err
		}
		return s.cfg.Log.Stage(ctx, tx, event.New(now, event.Actor{Kind: event.Broker}, "",
			event.Subject{RequestID: r.Request, PersonID: r.Person.ID, HostID: r.HostID},
			event.RecordingExpired{SessionID: r.Session, Recording: r.Number, Bytes: uint64(r.Bytes)}))
	})
	if err != nil {
		return fmt.Errorf("forgetting a recording: %w", err)
	}
	s.cfg.Log.Kick()
	return nil
}
