package audit

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/mod/sumdb/tlog"

	"sallyport/api"
	"sallyport/audit/event"
)

// Entry is an event with its place in the log.
type Entry struct {
	Index    int64 // -1 while pending
	ID       uuid.UUID
	Type     string
	Time     time.Time // when the event happened
	Leaf     []byte    // the exact bytes
	LeafHash tlog.Hash // of Leaf, computed here

	// Receipt is c2sp.org/tlog-proof under the checkpoint that the event came in with.
	// Only Lane.Append sets it, where it costs nothing; Log.Receipt makes the others.
	Receipt []byte
}

// scanEntry reads the columns index, event_id, type, time, leaf.
func scanEntry(row pgx.CollectableRow) (Entry, error) {
	var e Entry
	if err := row.Scan(&e.Index, &e.ID, &e.Type, &e.Time, &e.Leaf); err != nil {
		return Entry{}, err
	}
	e.Time = e.Time.UTC()
	e.LeafHash = tlog.RecordHash(e.Leaf)
	return e, nil
}

// Event decodes the leaf.
func (e Entry) Event() (event.Event, error) { return event.Decode(e.Leaf) }

// API is the entry as the API shows it. An event that only a newer version of
// Sallyport can read is shown by its type and data.
func (e Entry) API(withLeaf bool) api.Event {
	out := api.Event{Index: e.Index, ID: e.ID.String(), Type: e.Type, Time: e.Time,
		Summary: e.Type, LeafHash: hex.EncodeToString(e.LeafHash[:])}
	if withLeaf {
		out.Leaf = e.Leaf
	}
	var fields struct {
		Actor  event.Actor `json:"actor"`
		Source string      `json:"source"`

		OnBehalfOf *event.Actor   `json:"on_behalf_of"`
		Subject    event.Subject  `json:"subject"`
		Data       map[string]any `json:"data"`
	}
	dec := json.NewDecoder(bytes.NewReader(e.Leaf))
	dec.UseNumber()
	if err := dec.Decode(&fields); err != nil {
		return out
	}
	out.Actor = api.EventActor{Kind: string(fields.Actor.Kind), ID: fields.Actor.ID, Name: fields.Actor.Name}
	if a := fields.OnBehalfOf; a != nil {
		out.OnBehalfOf = &api.EventActor{Kind: string(a.Kind), ID: a.ID, Name: a.Name}
	}
	out.Source = fields.Source
	out.Request, out.Host, out.Person = fields.Subject.RequestID, fields.Subject.HostID, fields.Subject.PersonID
	out.Hosts = fields.Subject.HostIDs
	out.Data = fields.Data
	if ev, err := e.Event(); err == nil {
		out.Summary = ev.Data.Summary()
	}
	return out
}

// Filter narrows Entries. Zero fields do not filter.
type Filter struct {
	Type      string // a type, or a prefix that ends in "."
	RequestID string
	PersonID  string    // as actor, as subject or as the one acted for
	HostID    string    // also as one of several
	From, To  time.Time // From is within, To is not
	Text      string    // words that it has, the last of which may go on; only for Search
	Before    int64     // only entries with a lower index; 0 means from the newest
	After     int64     // only entries with a higher index, from there on; not with Before
	Limit     int       // 1 to 200; 0 means 50
}

// where gives the conditions on columns that pending and entries share.
func (f Filter) where() (conditions string, args []any) {
	var all []string
	add := func(condition string, arg any) {
		args = append(args, arg)
		all = append(all, strings.ReplaceAll(condition, "?", fmt.Sprintf("$%d", len(args))))
	}
	switch {
	case strings.HasSuffix(f.Type, "."):
		add("starts_with(type, ?)", f.Type)
	case f.Type != "":
		add("type = ?", f.Type)
	}
	if f.RequestID != "" {
		add("request_id = ?", f.RequestID)
	}
	if f.PersonID != "" {
		add("(actor_id = ? OR person_id = ? OR data->'on_behalf_of'->>'id' = ?)", f.PersonID)
	}
	if f.HostID != "" {
		add("(host_id = ? OR data->'subject'->'host_ids' @> to_jsonb(?::text))", f.HostID) // two indexes
	}
	if !f.From.IsZero() {
		add("time >= ?", f.From)
	}
	if !f.To.IsZero() {
		add("time < ?", f.To)
	}
	if f.Text != "" {
		add("audit.words(data) @@ ("+strings.ReplaceAll(words, "$TEXT", "?")+")", f.Text)
	}
	if len(all) == 0 {
		return "true", nil
	}
	return strings.Join(all, " AND "), args
}

// Entries lists entries, newest first. With a RequestID, events that still wait
// are included first, with index -1.
func (l *Log) Entries(ctx context.Context, f Filter) ([]Entry, error) {
	if f.Limit < 0 || f.Limit > 200 {
		return nil, ErrFilter.On("limit")
	}
	if f.Limit == 0 {
		f.Limit = 50
	}
	where, args := f.where()
	// One statement, hence one snapshot: an event that is sequenced meanwhile is
	// seen exactly once.
	var b strings.Builder
	b.WriteString("SELECT index, event_id, type, time, leaf FROM (")
	if f.RequestID != "" && f.Before == 0 && f.After == 0 {
		b.WriteString("SELECT -1::bigint AS index, event_id, type, time, leaf, arrival FROM audit.pending WHERE " + where + " UNION ALL ")
	}
	b.WriteString("(SELECT index, event_id, type, time, leaf, NULL::bigint AS arrival FROM audit.entries WHERE " + where)
	if f.Before > 0 {
		args = append(args, f.Before)
		fmt.Fprintf(&b, " AND index < $%d", len(args))
	}
	order := "DESC"
	if f.After > 0 {
		args = append(args, f.After)
		fmt.Fprintf(&b, " AND index > $%d", len(args))
		order = "ASC" // the nearest
	}
	args = append(args, f.Limit)
	fmt.Fprintf(&b, " ORDER BY index %s LIMIT $%d)) AS found", order, len(args))
	fmt.Fprintf(&b, " ORDER BY arrival DESC NULLS LAST, index DESC LIMIT $%d", len(args))

	rows, err := l.cfg.Pool.Query(ctx, b.String(), args...)
	if err != nil {
		return nil, fmt.Errorf("listing entries: %w", err)
	}
	entries, err := pgx.CollectRows(rows, scanEntry)
	if err != nil {
		return nil, fmt.Errorf("listing entries: %w", err)
	}
	return entries, nil
}

// Entry is one entry of the log, or ErrNoEntry; ErrPruned, which names the archive, if
// it was pruned.
func (l *Log) Entry(ctx context.Context, index int64) (Entry, error) {
	rows, err := l.cfg.Pool.Query(ctx,
		"SELECT index, event_id, type, time, leaf FROM audit.entries WHERE index = $1", index)
	if err != nil {
		return Entry{}, fmt.Errorf("reading entry %d: %w", index, err)
	}
	e, err := pgx.CollectExactlyOneRow(rows, scanEntry)
	if errors.Is(err, pgx.ErrNoRows) {
		return Entry{}, l.pruned(ctx, index)
	}
	if err != nil {
		return Entry{}, fmt.Errorf("reading entry %d: %w", index, err)
	}
	return e, nil
}

// Find is the entry of one event, or ErrNoEntry while it has no place.
func (l *Log) Find(ctx context.Context, id uuid.UUID) (Entry, error) {
	entries, err := l.byID(ctx, []uuid.UUID{id})
	if err != nil {
		return Entry{}, err
	}
	if len(entries) == 0 {
		return Entry{}, ErrNoEntry
	}
	return entries[0], nil
}

// Places are the indexes of those of the events that have their places.
func (l *Log) Places(ctx context.Context, ids []uuid.UUID) (map[uuid.UUID]int64, error) {
	rows, err := l.cfg.Pool.Query(ctx, `SELECT event_id, index FROM audit.event_ids WHERE event_id = ANY ($1)`, ids)
	if err != nil {
		return nil, fmt.Errorf("reading the places of events: %w", err)
	}
	places := map[uuid.UUID]int64{}
	var id uuid.UUID
	var index int64
	if _, err := pgx.ForEachRow(rows, []any{&id, &index}, func() error { places[id] = index; return nil }); err != nil {
		return nil, fmt.Errorf("reading the places of events: %w", err)
	}
	return places, nil
}

// byID reads those of the events that have their places.
func (l *Log) byID(ctx context.Context, ids []uuid.UUID) ([]Entry, error) {
	return entriesByID(ctx, l.cfg.Pool, ids)
}

func entriesByID(ctx context.Context, q querier, ids []uuid.UUID) ([]Entry, error) {
	rows, err := q.Query(ctx, `
		SELECT e.index, e.event_id, e.type, e.time, e.leaf
		FROM audit.event_ids AS i JOIN audit.entries AS e ON e.index = i.index WHERE i.event_id = ANY ($1)`, ids)
	if err != nil {
		return nil, fmt.Errorf("reading entries by event: %w", err)
	}
	entries, err := pgx.CollectRows(rows, scanEntry)
	if err != nil {
		return nil, fmt.Errorf("reading entries by event: %w", err)
	}
	return entries, nil
}
