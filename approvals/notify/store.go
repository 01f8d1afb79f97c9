package notify

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/internal/ids"
	"sallyport/internal/refusal"
)

// ErrBadFilter refuses a list that cannot be.
var ErrBadFilter = refusal.New(refusal.Invalid, "bad-message-filter",
	"the messages cannot be narrowed like that", "leave the filter out, or take the cursor as it was given")

// message is what sending needs of a row of messages.
type message struct {
	ID       string
	Channel  string
	PersonID string
	Attempts int
}

// insert writes a message for each recipient that has none of this notice yet,
// and returns the ids of those.
func (d *Desk) insert(ctx context.Context, tx pgx.Tx, n Notice, to []recipient) ([]string, error) {
	var newIDs, channels, people []string
	for _, t := range to {
		newIDs, channels, people = append(newIDs, ids.New(ids.Message)), append(channels, t.channel), append(people, t.person)
	}
	rows, err := tx.Query(ctx, `
		INSERT INTO messages (id, notice, kind, request_id, channel, person_id, created_at, state)
		SELECT id, $1, $2, $3, channel, nullif(person, ''), $4, 'waiting'
		FROM unnest($5::text[], $6::text[], $7::text[]) AS t (id, channel, person)
		ON CONFLICT (notice, channel, person_id) DO NOTHING
		RETURNING id`,
		n.ID, n.Kind, nullable(n.RequestID), d.cfg.Clock.Now(), newIDs, channels, people)
	if err != nil {
		return nil, fmt.Errorf("writing messages: %w", err)
	}
	added, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("writing messages: %w", err)
	}
	return added, nil
}

// toldBefore are those to whom a message of these kinds was sent, or may
// have been: an attempt that failed may have arrived all the same. A dropped
// message's last attempt was not made.
func (d *Desk) toldBefore(ctx context.Context, requestID string, kinds []Kind) ([]recipient, error) {
	rows, err := d.cfg.Pool.Query(ctx, `
		SELECT DISTINCT channel, coalesce(person_id, '')
		FROM messages
		WHERE request_id = $1 AND kind = ANY($2)
			AND (state IN ('sending', 'retrying', 'sent') OR state = 'dropped' AND attempts > 1)`,
		requestID, kinds)
	if err != nil {
		return nil, fmt.Errorf("reading who was told: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (t recipient, err error) {
		return t, row.Scan(&t.channel, &t.person)
	})
	if err != nil {
		return nil, fmt.Errorf("reading who was told: %w", err)
	}
	return list, nil
}

// begin puts an attempt on record. It reports false for a message that needs none.
func (d *Desk) begin(ctx context.Context, id string) (message, bool, error) {
	rows, err := d.cfg.Pool.Query(ctx, `
		UPDATE messages SET state = 'sending', attempts = attempts + 1
		WHERE id = $1 AND state IN ('waiting', 'sending', 'retrying')
		RETURNING id, channel, coalesce(person_id, ''), attempts`, id)
	if err != nil {
		return message{}, false, fmt.Errorf("beginning to send %s: %w", id, err)
	}
	m, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[message])
	if errors.Is(err, pgx.ErrNoRows) {
		return message{}, false, nil
	}
	if err != nil {
		return message{}, false, fmt.Errorf("beginning to send %s: %w", id, err)
	}
	return m, true, nil
}

func (d *Desk) retry(ctx context.Context, m message, why string) error {
	_, err := d.cfg.Pool.Exec(ctx, `UPDATE messages SET state = 'retrying', error = $2 WHERE id = $1`, m.ID, why)
	if err != nil {
		return fmt.Errorf("putting off %s: %w", m.ID, err)
	}
	return nil
}

func (d *Desk) close(ctx context.Context, tx pgx.Tx, m message, state, why string) error {
	_, err := tx.Exec(ctx, `UPDATE messages SET state = $2, error = $3, ended_at = $4 WHERE id = $1`,
		m.ID, state, why, d.cfg.Clock.Now())
	if err != nil {
		return fmt.Errorf("closing %s: %w", m.ID, err)
	}
	return nil
}

// Filter narrows List. Zero fields do not filter.
type Filter struct {
	State     string // waiting, sending, retrying, sent, dropped or failed
	RequestID string
	Cursor    string
	Limit     int // 1 to 200; 0 means 50
}

// List returns messages, newest first. Who may see them is for the caller to say.
func (d *Desk) List(ctx context.Context, f Filter) (api.Page[api.Notification], error) {
	states := []string{"", "waiting", "sending", "retrying", "sent", "dropped", "failed"}
	if !slices.Contains(states, f.State) || f.Limit < 0 || f.Limit > 200 {
		return api.Page[api.Notification]{}, ErrBadFilter
	}
	if f.Limit == 0 {
		f.Limit = 50
	}
	before, beforeID, err := parseCursor(f.Cursor)
	if err != nil {
		return api.Page[api.Notification]{}, err
	}
	rows, err := d.cfg.Pool.Query(ctx, `
		SELECT m.id, m.kind, coalesce(m.request_id, ''), m.channel, m.person_id, coalesce(p.name, ''), coalesce(p.email, ''),
			m.state, m.attempts, m.error, m.created_at, m.ended_at
		FROM messages m LEFT JOIN people p ON p.id = m.person_id
		WHERE (@state = '' OR m.state = @state)
			AND (@request = '' OR m.request_id = @request)
			AND (@before_id = '' OR (m.created_at, m.id) < (@before, @before_id))
		ORDER BY m.created_at DESC, m.id DESC
		LIMIT @limit`,
		pgx.NamedArgs{"state": f.State, "request": f.RequestID, "before": before, "before_id": beforeID, "limit": f.Limit + 1})
	if err != nil {
		return api.Page[api.Notification]{}, fmt.Errorf("reading messages: %w", err)
	}
	list, err := pgx.CollectRows(rows, scanNotification)
	if err != nil {
		return api.Page[api.Notification]{}, fmt.Errorf("reading messages: %w", err)
	}
	page := api.Page[api.Notification]{Items: list}
	if len(list) > f.Limit {
		page.Items = list[:f.Limit]
		last := page.Items[f.Limit-1]
		page.Next = cursor(last.CreatedAt, last.ID)
	}
	return page, nil
}

func scanNotification(row pgx.CollectableRow) (api.Notification, error) {
	var n api.Notification
	var personID *string
	var p api.Person
	err := row.Scan(&n.ID, &n.Kind, &n.Request, &n.Channel, &personID, &p.Name, &p.Email,
		&n.State, &n.Attempts, &n.Error, &n.CreatedAt, &n.EndedAt)
	if personID != nil {
		p.ID = *personID
		n.Person = &p
	}
	n.CreatedAt = n.CreatedAt.UTC()
	if n.EndedAt != nil {
		*n.EndedAt = n.EndedAt.UTC()
	}
	return n, err
}

// cursor names the last message of a page: those after it are older, or as old
// with a lower id.
func cursor(created time.Time, id string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatInt(created.UnixMicro(), 10) + "." + id))
}

func parseCursor(s string) (time.Time, string, error) {
	if s == "" {
		return time.Time{}, "", nil
	}
	text, err := base64.RawURLEncoding.DecodeString(s)
	micros, id, ok := strings.Cut(string(text), ".")
	n, numErr := strconv.ParseInt(micros, 10, 64)
	if err != nil || numErr != nil || !ok || !ids.Valid(ids.Message, id) {
		return time.Time{}, "", ErrBadFilter.On("cursor")
	}
	return time.UnixMicro(n).UTC(), id, nil
}

// nullable is how an id that may be absent is stored.
func nullable(id string) *string {
	if id == "" {
		return nil
	}
	return &id
}
