package evidence

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/audit/event"
	"sallyport/evidence/controls"
	"sallyport/evidence/pack"
	"sallyport/internal/ids"
)

// row is a row of evidence_packs.
type row struct {
	ID         string
	PersonID   string
	PersonName string
	CreatedAt  time.Time
	PeriodFrom time.Time
	PeriodTo   time.Time
	Zone       string
	Controls   []string
	Seed       string
	EventID    [16]byte
	State      api.PackState
	Attempts   int
	Done       int64
	Total      int64
	First      *int64
	Checkpoint *string
	Start      *string
	EndedAt    *time.Time
	Manifest   string
	Bytes      int64
	Exceptions int64
	Missing    int64
	Problem    string
}

const columns = `id, person_id, person_name, created_at, period_from, period_to, zone, controls, seed, event_id, state, attempts, done, total,
	first, checkpoint, start, ended_at, manifest, bytes, exceptions, missing, problem`

// api is the pack as auditors see it.
func (r row) api() api.Pack {
	out := api.Pack{ID: r.ID, State: r.State, From: r.PeriodFrom.UTC(), To: r.PeriodTo.UTC(), Zone: r.Zone, Controls: r.Controls,
		By: api.Person{ID: r.PersonID, Name: r.PersonName}, CreatedAt: r.CreatedAt.UTC(), Done: r.Done, Total: r.Total,
		Exceptions: r.Exceptions, Missing: r.Missing, Bytes: r.Bytes, Manifest: r.Manifest, File: r.fileName(), Problem: r.Problem}
	if r.State == api.PackReady && r.EndedAt != nil {
		until := r.EndedAt.Add(Kept).UTC()
		out.ExpiresAt = &until
	}
	return out
}

// event is what the broker does for the auditor who asked for the pack.
func (r row) event(at time.Time, data event.Data) event.Event {
	e := event.New(at, event.Actor{Kind: event.Broker}, "", event.Subject{}, data)
	e.OnBehalfOf = &event.Actor{Kind: event.Person, ID: r.PersonID, Name: r.PersonName}
	return e
}

// fileName is what the zip is called: days of the zone, the last one included.
func (r row) fileName() string {
	zone, err := time.LoadLocation(r.Zone)
	if err != nil {
		zone = time.UTC
	}
	return fmt.Sprintf("evidence-%s_%s-%s.zip", r.PeriodFrom.In(zone).Format(time.DateOnly),
		r.PeriodTo.Add(-time.Nanosecond).In(zone).Format(time.DateOnly), strings.TrimPrefix(r.ID, ids.Pack+"-"))
}

// period reads the ends of a period. The end is now at the latest.
func period(in api.PackInput, now time.Time) (from, to time.Time, zone *time.Location, err error) {
	name := in.Zone
	if name == "" {
		name = "UTC"
	}
	if zone, err = time.LoadLocation(name); err != nil || name == "Local" {
		return from, to, nil, ErrZone
	}
	if from, err = moment(in.From, zone); err != nil {
		return from, to, nil, ErrPeriod.On("from")
	}
	to = now
	if in.To != "" {
		if to, err = moment(in.To, zone); err != nil {
			return from, to, nil, ErrPeriod.On("to")
		}
		if to.After(now) {
			to = now
		}
	}
	switch {
	case !from.Before(now):
		return from, to, nil, ErrAhead
	case !from.Before(to):
		return from, to, nil, ErrPeriod
	}
	return from.UTC().Truncate(time.Microsecond), to.UTC().Truncate(time.Microsecond), zone, nil
}

// moment reads a time, or the midnight that begins a date.
func moment(text string, zone *time.Location) (time.Time, error) {
	if t, err := time.ParseInLocation(time.DateOnly, text, zone); err == nil {
		return t, nil
	}
	return time.Parse(time.RFC3339, text)
}

var seedPattern = regexp.MustCompile(`^[A-Za-z0-9._-]{0,64}$`)

// Make asks for a pack. It is made in the background.
func (s *Service) Make(ctx context.Context, c identity.Caller, action string, in api.PackInput) (api.Pack, error) {
	if err := s.cfg.Approvals.OnlyAuditors(ctx, c, action); err != nil {
		return api.Pack{}, err
	}
	now := s.cfg.Clock.Now()
	from, to, zone, err := period(in, now)
	if err != nil {
		return api.Pack{}, err
	}
	for _, id := range in.Controls {
		if !slices.Contains(controls.IDs(), id) {
			return api.Pack{}, ErrControl.With("there is no evidence for a criterion %q", id)
		}
	}
	wanted := append([]string{}, in.Controls...)
	slices.Sort(wanted)
	wanted = slices.Compact(wanted)
	if !seedPattern.MatchString(in.Seed) {
		return api.Pack{}, ErrSeed
	}
	id := ids.New(ids.Pack)
	e := c.Event(now, event.Subject{}, event.PackRequested{PackID: id, From: from, To: to, Zone: zone.String(),
		Controls: wanted, Seed: in.Seed})
	err = pgx.BeginFunc(ctx, s.cfg.Pool, func(tx pgx.Tx) error {
		if err := lockPacks(ctx, tx); err != nil {
			return err
		}
		var open int
		if err := tx.QueryRow(ctx, `SELECT count(*) FROM evidence_packs WHERE state IN ('waiting', 'running')`).Scan(&open); err != nil {
			return fmt.Errorf("counting evidence packs: %w", err)
		}
		if open >= MaxWaiting {
			return ErrTooMany
		}
		_, err := tx.Exec(ctx, `
			INSERT INTO evidence_packs (id, person_id, person_name, created_at, period_from, period_to, zone, controls, seed, event_id)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
			id, c.ID, c.DisplayName(), now, from, to, zone.String(), wanted, in.Seed, e.ID)
		if err != nil {
			return fmt.Errorf("writing evidence pack %s: %w", id, err)
		}
		return s.cfg.Log.Stage(ctx, tx, e)
	})
	if err != nil {
		return api.Pack{}, err
	}
	s.cfg.Log.Kick()
	s.wake()
	r, err := s.find(ctx, id)
	return r.api(), err
}

// Pack is one pack.
func (s *Service) Pack(ctx context.Context, c identity.Caller, action, id string) (api.Pack, error) {
	if err := s.cfg.Approvals.OnlyAuditors(ctx, c, action); err != nil {
		return api.Pack{}, err
	}
	r, err := s.find(ctx, id)
	if err != nil {
		return api.Pack{}, err
	}
	return r.api(), nil
}

func (s *Service) find(ctx context.Context, id string) (row, error) {
	if !ids.Valid(ids.Pack, id) {
		return row{}, ErrNoPack
	}
	rows, err := s.cfg.Pool.Query(ctx, `SELECT `+columns+` FROM evidence_packs WHERE id = $1`, id)
	if err != nil {
		return row{}, fmt.Errorf("reading evidence pack %s: %w", id, err)
	}
	r, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[row])
	if errors.Is(err, pgx.ErrNoRows) {
		return row{}, ErrNoPack
	}
	if err != nil {
		return row{}, fmt.Errorf("reading evidence pack %s: %w", id, err)
	}
	return r, nil
}

const defaultLimit, maxLimit = 50, 200

// Packs lists packs, newest first.
func (s *Service) Packs(ctx context.Context, c identity.Caller, action, cursor string, limit int) (api.Page[api.Pack], error) {
	page := api.Page[api.Pack]{Items: []api.Pack{}}
	if err := s.cfg.Approvals.OnlyAuditors(ctx, c, action); err != nil {
		return page, err
	}
	if limit == 0 {
		limit = defaultLimit
	}
	before, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil || limit < 1 || limit > maxLimit || cursor != "" && !ids.Valid(ids.Pack, string(before)) {
		return page, ErrPackPage
	}
	rows, err := s.cfg.Pool.Query(ctx, `
		SELECT `+columns+` FROM evidence_packs
		WHERE $1 = '' OR (created_at, id) < (SELECT created_at, id FROM evidence_packs WHERE id = $1)
		ORDER BY created_at DESC, id DESC LIMIT $2`, string(before), limit+1)
	if err != nil {
		return page, fmt.Errorf("listing evidence packs: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[row])
	if err != nil {
		return page, fmt.Errorf("listing evidence packs: %w", err)
	}
	if len(list) > limit {
		list = list[:limit]
		page.Next = base64.RawURLEncoding.EncodeToString([]byte(list[limit-1].ID))
	}
	for _, r := range list {
		page.Items = append(page.Items, r.api())
	}
	return page, nil
}

// params are the pack's as its manifest has them. root is the log's at the end.
func (r row) params(root string) (pack.Params, error) {
	zone, err := time.LoadLocation(r.Zone)
	if err != nil {
		return pack.Params{}, ErrZone
	}
	p := pack.Params{Period: pack.NewPeriod(r.PeriodFrom, r.PeriodTo, zone), Controls: r.Controls, ControlsVersion: controls.Version,
		Seed: r.Seed, SeedBy: pack.SeedByAuditor}
	if p.Seed == "" {
		p.Seed, p.SeedBy = root, pack.SeedByLog
	}
	return p, nil
}
