package audit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/audit/event"
	"sallyport/audit/retention"
)

// Pruned is a record in the log of entries that were archived and removed.
type Pruned struct {
	Index int64 // of the record
	ID    uuid.UUID
	Time  time.Time
	event.RetentionPruned
}

// Prunes are the records of pruning that the log's key vouches for, the newest first;
// of those that there are in the database, at most 200. The entries that one is about
// may still be there: it is written before they are removed.
func (l *Log) Prunes(ctx context.Context) ([]Pruned, error) {
	entries, err := l.Entries(ctx, Filter{Type: "retention.pruned", Limit: 200})
	if err != nil {
		return nil, err
	}
	var out []Pruned
	for _, entry := range entries {
		e, err := entry.Event()
		if err != nil {
			continue // a newer program's
		}
		if d, ok := e.Data.(event.RetentionPruned); ok && retention.Check(d, l.verifier) == nil && int64(d.Before) <= entry.Index {
			out = append(out, Pruned{Index: entry.Index, ID: entry.ID, Time: entry.Time, RetentionPruned: d})
		}
	}
	return out, nil
}

// API is the record as the API shows it.
func (p *Pruned) API() *api.Pruned {
	if p == nil {
		return nil
	}
	return &api.Pruned{Event: p.Index, At: p.Time, Before: int64(p.Before), Earliest: p.Earliest, Latest: p.Latest,
		Archive: p.Archive, ArchiveSHA256: p.ArchiveSHA256}
}

// Begins reports whether nothing about the entry's request came before it.
func (e Entry) Begins() bool {
	return e.Type == "request.created" || e.Type == "emergency.started"
}

// LastPruned is the newest record of entries that are gone; nil if there is none, or if
// all of them happened before the time.
func (l *Log) LastPruned(ctx context.Context, since time.Time) (*Pruned, error) {
	oldest, err := l.Oldest(ctx)
	if err != nil || oldest == 0 {
		return nil, err
	}
	records, err := l.Prunes(ctx)
	if err != nil {
		return nil, err
	}
	for i, r := range records {
		if int64(r.Before) <= oldest && !r.Latest.Before(since) {
			return &records[i], nil
		}
	}
	return nil, nil
}

// pruned is ErrPruned if the log says that the entry, which is not in the database,
// was pruned, and ErrNoEntry if it does not.
func (l *Log) pruned(ctx context.Context, index int64) error {
	records, err := l.Prunes(ctx)
	if err != nil {
		return err
	}
	var about *Pruned // the oldest about entries so far, and of two the later one
	for i, r := range records {
		if index < int64(r.Before) && (about == nil || r.Before < about.Before) {
			about = &records[i]
		}
	}
	switch {
	case about == nil || index < 0:
		return ErrNoEntry
	case index < int64(about.First):
		return ErrPruned.With("entry %d was pruned before %s; in which archive it is says entry %d, which is in the archive %s",
			index, about.Time.Format(time.DateOnly), about.Previous, about.Archive).
			Hinting("read that entry first: sally audit event %d --pack %s", about.Previous, about.Archive)
	}
	return ErrPruned.With("entry %d was pruned on %s; it is in the archive %s with SHA-256 %s, says entry %d",
		index, about.Time.Format(time.DateOnly), about.Archive, about.ArchiveSHA256, about.Index).
		Hinting("read it there: sally audit event %d --pack %s. Its receipt can still be had: sally audit receipt %d", index, about.Archive, index)
}

// FirstAbout is the oldest entry about any of the requests, or ErrNoEntry.
func (l *Log) FirstAbout(ctx context.Context, requests []string) (Entry, error) {
	// MATERIALIZED, or PostgreSQL would rather read all entries in their order.
	return l.one(ctx, `
		WITH about AS MATERIALIZED (SELECT index FROM audit.entries WHERE request_id = ANY ($1))
		SELECT index, event_id, type, time, leaf FROM audit.entries WHERE index = (SELECT min(index) FROM about)`, requests)
}

// FirstAfter is the first entry from the index on that happened after the time, or
// ErrNoEntry.
func (l *Log) FirstAfter(ctx context.Context, index int64, t time.Time) (Entry, error) {
	return l.one(ctx, `
		SELECT index, event_id, type, time, leaf FROM audit.entries
		WHERE index >= $1 AND time > $2 ORDER BY index LIMIT 1`, index, t)
}

// one is the entry that a query finds, or ErrNoEntry.
func (l *Log) one(ctx context.Context, sql string, args ...any) (Entry, error) {
	rows, err := l.cfg.Pool.Query(ctx, sql, args...)
	if err != nil {
		return Entry{}, fmt.Errorf("looking for an entry: %w", unavailable(err))
	}
	e, err := pgx.CollectExactlyOneRow(rows, scanEntry)
	if errors.Is(err, pgx.ErrNoRows) {
		return Entry{}, ErrNoEntry
	}
	if err != nil {
		return Entry{}, fmt.Errorf("looking for an entry: %w", unavailable(err))
	}
	return e, nil
}

// Span is the earliest and the latest time of the entries with indexes of [from, to).
// ErrNoEntry if there are none.
func (l *Log) Span(ctx context.Context, from, to int64) (earliest, latest time.Time, err error) {
	var a, b *time.Time
	err = l.cfg.Pool.QueryRow(ctx, "SELECT min(time), max(time) FROM audit.entries WHERE index >= $1 AND index < $2", from, to).Scan(&a, &b)
	if err != nil {
		return earliest, latest, fmt.Errorf("reading the times of entries: %w", unavailable(err))
	}
	if a == nil {
		return earliest, latest, ErrNoEntry
	}
	return a.UTC(), b.UTC(), nil
}

// Partition is a stretch of the log that is kept, and removed, together.
type Partition struct {
	Name         string
	First, Until int64 // Until is not in it
}

// Partitions are those that there are, from the oldest on; the last ones are empty.
func (l *Log) Partitions(ctx context.Context) ([]Partition, error) {
	rows, err := l.cfg.Pool.Query(ctx, "SELECT name, first, until FROM audit.partitions()")
	if err != nil {
		return nil, fmt.Errorf("reading the log's partitions: %w", unavailable(err))
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Partition])
	if err != nil {
		return nil, fmt.Errorf("reading the log's partitions: %w", unavailable(err))
	}
	return list, nil
}
