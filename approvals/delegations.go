package approvals

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/internal/ids"
)

// DelegationScope narrows Delegations to one relation to the caller.
type DelegationScope string

// The scopes.
const (
	AllDelegations DelegationScope = ""      // all that the caller may see
	MyDelegations  DelegationScope = "mine"  // others decide for the caller
	DelegatedToMe  DelegationScope = "to-me" // the caller decides for others
)

// DelegationFilter narrows Delegations. Zero fields do not filter.
type DelegationFilter struct {
	Scope  DelegationScope
	Past   bool // also those that are over
	Cursor string
	Limit  int // 1 to 200; 0 means 50
}

// delegationRow is a row of delegations.
type delegationRow struct {
	ID, DelegatorID, DelegateID, MadeBy string
	Note                                []byte
	MadeAt                              time.Time
	EndedAt                             *time.Time
	EndedBy                             *string
}

const delegationColumns = `id, delegator_id, delegate_id, made_by, note, made_at, ended_at, ended_by`

func readDelegations(ctx context.Context, db querier, sql string, args ...any) ([]delegationRow, error) {
	rows, err := db.Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("reading delegations: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[delegationRow])
	if err != nil {
		return nil, fmt.Errorf("reading delegations: %w", err)
	}
	return list, nil
}

// mayEnd reports whether the caller may end the delegation.
func (row delegationRow) mayEnd(c identity.Caller) bool {
	return row.DelegatorID == c.ID || row.DelegateID == c.ID || c.Has(api.Operator)
}

// delegationRow finds a delegation for those who may see it: who is named in it,
// operators and auditors (P10).
func (s *Service) delegationRow(ctx context.Context, c identity.Caller, id string) (delegationRow, error) {
	if !ids.Valid(ids.Delegation, id) {
		return delegationRow{}, ErrUnknownDelegation
	}
	list, err := readDelegations(ctx, s.cfg.Pool, `SELECT `+delegationColumns+` FROM delegations WHERE id = $1`, id)
	if err != nil {
		return delegationRow{}, err
	}
	if len(list) == 0 || list[0].DelegatorID != c.ID && list[0].DelegateID != c.ID && !reads(c) {
		return delegationRow{}, ErrUnknownDelegation
	}
	return list[0], nil
}

// Delegation is one of those that Delegations lists for the caller.
func (s *Service) Delegation(ctx context.Context, c identity.Caller, id string) (api.Delegation, error) {
	row, err := s.delegationRow(ctx, c, id)
	if err != nil {
		return api.Delegation{}, err
	}
	return s.showDelegation(ctx, c, row)
}

// showDelegation is showDelegations of one.
func (s *Service) showDelegation(ctx context.Context, c identity.Caller, row delegationRow) (api.Delegation, error) {
	shown, err := s.showDelegations(ctx, c, []delegationRow{row})
	if err == nil && len(shown) == 0 {
		err = ErrEvidence.Because(errors.New("the broker does not vouch for " + row.ID))
	}
	if err != nil {
		return api.Delegation{}, err
	}
	return shown[0], nil
}

// Delegations lists, newest first, those by which the caller decides for others or
// others for the caller, and for operators and auditors all (P10).
func (s *Service) Delegations(ctx context.Context, c identity.Caller, f DelegationFilter) (api.Page[api.Delegation], error) {
	var page api.Page[api.Delegation]
	switch f.Scope {
	case AllDelegations, MyDelegations, DelegatedToMe:
	default:
		return page, ErrBadFilter
	}
	if f.Limit < 0 || f.Limit > 200 || f.Cursor != "" && !ids.Valid(ids.Delegation, f.Cursor) {
		return page, ErrBadFilter
	}
	if f.Limit == 0 {
		f.Limit = 50
	}
	list, err := readDelegations(ctx, s.cfg.Pool, `
		SELECT `+delegationColumns+`
		FROM delegations
		WHERE (@all OR @me IN (delegator_id, delegate_id))
			AND (@scope <> 'mine' OR delegator_id = @me)
			AND (@scope <> 'to-me' OR delegate_id = @me)
			AND (@past OR ended_at IS NULL AND until_at > @now)
			AND (@after = '' OR (made_at, id) < (SELECT made_at, id FROM delegations WHERE id = @after))
		ORDER BY made_at DESC, id DESC
		LIMIT @limit`, pgx.NamedArgs{"all": reads(c), "me": c.ID, "scope": string(f.Scope), "past": f.Past,
		"now": s.cfg.Clock.Now(), "after": f.Cursor, "limit": f.Limit + 1})
	if err != nil {
		return page, err
	}
	if len(list) > f.Limit {
		list = list[:f.Limit]
		page.Next = list[f.Limit-1].ID
	}
	page.Items, err = s.showDelegations(ctx, c, list)
	return page, err
}

// showDelegations turns rows into what the caller sees, by what their notes say.
// One that the broker does not vouch for was written by hand, and is left out.
func (s *Service) showDelegations(ctx context.Context, c identity.Caller, list []delegationRow) ([]api.Delegation, error) {
	names, err := s.namesOf(ctx, list)
	if err != nil {
		return nil, err
	}
	out := []api.Delegation{}
	for _, row := range list {
		d, err := OpenDelegation(row.Note, s.anchor())
		if err == nil && (d.ID != row.ID || d.Delegator.ID != row.DelegatorID || d.Delegate.ID != row.DelegateID) {
			err = errors.New("the note is about another one")
		}
		if err != nil {
			s.cfg.Logger.ErrorContext(ctx, "a delegation is left out of a list", slog.String("delegation", row.ID), slog.Any("error", err))
			continue
		}
		shown := api.Delegation{ID: d.ID, State: row.state(d, s.cfg.Clock.Now()), Delegator: names[d.Delegator.ID], Delegate: names[d.Delegate.ID],
			MadeBy: names[d.MadeBy.ID], Groups: d.Groups, From: d.From, Until: d.Until, Reason: d.Reason, MadeAt: d.MadeAt}
		if row.EndedAt != nil && row.EndedBy != nil {
			at, by := row.EndedAt.UTC(), names[*row.EndedBy]
			shown.EndedAt, shown.EndedBy = &at, &by
		}
		shown.CanEnd = row.mayEnd(c) && (shown.State == "planned" || shown.State == "running")
		out = append(out, shown)
	}
	return out, nil
}

// state is how far the delegation has come, by the clock.
func (row delegationRow) state(d Delegation, now time.Time) string {
	switch {
	case row.EndedAt != nil:
		return "ended"
	case d.Runs(now):
		return "running"
	case now.Before(d.From):
		return "planned"
	}
	return "over"
}

// namesOf are the people whom the rows name.
func (s *Service) namesOf(ctx context.Context, list []delegationRow) (map[string]api.Person, error) {
	who := []string{}
	for _, row := range list {
		who = append(who, row.DelegatorID, row.DelegateID, row.MadeBy)
		if row.EndedBy != nil {
			who = append(who, *row.EndedBy)
		}
	}
	found, err := s.cfg.People.People(ctx, who)
	if err != nil {
		return nil, err
	}
	names := make(map[string]api.Person, len(found))
	for _, p := range found {
		names[p.ID] = named(p)
	}
	return names, nil
}
