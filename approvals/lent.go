package approvals

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/approvals/policy"
	"sallyport/audit/event"
)

// voter is somebody who may decide, with what others lend them. Nothing that is
// lent is lent on: only groups of the delegators themselves are in it.
type voter struct {
	identity.Person
	lent []lent
}

// lent is what a delegation lends.
type lent struct {
	Delegation
	groups []string // of the delegation, those that the delegator was in at their last sign-in
	name   string   // of the delegator
}

// basis is what a decision rests on: groups of the person's own, or lent ones.
type basis struct {
	person identity.Person
	groups []string
	lent   *lent // nil: the person's own
}

// own is what the person has without anybody else.
func own(p identity.Person) basis { return basis{person: p, groups: p.Groups} }

// bases are all that the voter can decide with, their own first.
func (v voter) bases() []basis {
	out := []basis{own(v.Person)}
	for i := range v.lent {
		out = append(out, basis{person: v.Person, groups: v.lent[i].groups, lent: &v.lent[i]})
	}
	return out
}

// groupsOf are those of the basis that the terms name.
func (b basis) groupsOf(t Terms) []string {
	return slices.DeleteFunc(t.Groups(), func(g string) bool { return !slices.Contains(b.groups, g) })
}

// onBehalfOf is the basis in a statement.
func (b basis) onBehalfOf() *StatementDelegator {
	if b.lent == nil {
		return nil
	}
	x := b.lent.Delegator
	return &StatementDelegator{ID: x.ID, Issuer: x.Issuer, Subject: x.Subject, Delegation: b.lent.ID}
}

// is reports whether the statement rests on the basis.
func (b basis) is(s Statement, t Terms) bool {
	if b.lent == nil || s.OnBehalfOf == nil {
		return b.lent == nil && s.OnBehalfOf == nil
	}
	return *s.OnBehalfOf == *b.onBehalfOf() && slices.Equal(s.Groups, b.groupsOf(t))
}

// approval is one that rests on the basis, in the words of the quorum.
func (b basis) approval() policy.Approval {
	a := policy.Approval{PersonID: b.person.ID, Groups: b.groups}
	if b.lent != nil {
		a.Also = []string{b.lent.Delegator.ID}
	}
	return a
}

// decided is the event of a decision on the basis.
func (r *request) decided(c identity.Caller, d decision, b basis, at time.Time) event.Event {
	data := d.event()
	if b.lent == nil {
		return r.event(at, c.Actor(), c.Source, data)
	}
	data.For = b.lent.name
	e := r.event(at, c.Actor(), c.Source, data)
	e.OnBehalfOf = &event.Actor{Kind: event.Person, ID: b.lent.Delegator.ID, Name: b.lent.name}
	return e
}

// at is the voter with what is lent at the time.
func (v voter) at(now time.Time) voter {
	v.lent = slices.DeleteFunc(slices.Clone(v.lent), func(l lent) bool { return !l.Runs(now) })
	return v
}

// lentColumns are what scanLent reads, of delegations d and the delegators x.
const lentColumns = `d.id, d.delegator_id, d.delegate_id, d.note, x.groups, coalesce(nullif(x.name, ''), nullif(x.email, ''), x.id)`

// voter reads what others lend the person, now or later. The delegations have
// not been ended, and their delegators not been removed.
func (s *Service) voter(ctx context.Context, db querier, p identity.Person) (voter, error) {
	return s.readVoter(ctx, db, p, "")
}

// holdVoter is voter, and also keeps the delegations from being ended until tx
// ends. Where requests are locked too, it comes before that.
func (s *Service) holdVoter(ctx context.Context, tx pgx.Tx, p identity.Person) (voter, error) {
	return s.readVoter(ctx, tx, p, ` FOR SHARE OF d`)
}

func (s *Service) readVoter(ctx context.Context, db querier, p identity.Person, lock string) (voter, error) {
	list, err := s.readLent(ctx, db, `
		SELECT `+lentColumns+`
		FROM delegations d JOIN people x ON x.id = d.delegator_id
		WHERE d.delegate_id = $1 AND d.until_at > $2 AND d.ended_at IS NULL AND x.removed_at IS NULL
		ORDER BY d.made_at, d.id`+lock, p.ID, s.cfg.Clock.Now())
	return voter{p, list}, err
}

// readLent reads what the query, which begins with lentColumns, selects. What the
// broker does not vouch for was written by hand, and lends nothing.
func (s *Service) readLent(ctx context.Context, db querier, sql string, args ...any) ([]lent, error) {
	rows, err := db.Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("reading delegations: %w", err)
	}
	var list []lent
	var id, delegator, delegate, name string
	var note []byte
	var has []string
	_, err = pgx.ForEachRow(rows, []any{&id, &delegator, &delegate, &note, &has, &name}, func() error {
		d, err := OpenDelegation(note, s.anchor())
		if err == nil && (d.ID != id || d.Delegator.ID != delegator || d.Delegate.ID != delegate) {
			err = fmt.Errorf("the note is about %s", d.ID)
		}
		if err != nil {
			s.cfg.Logger.ErrorContext(ctx, "a delegation lends nothing", slog.String("delegation", id), slog.Any("error", err))
			return nil
		}
		groups := slices.DeleteFunc(slices.Clone(d.Groups), func(g string) bool { return !slices.Contains(has, g) })
		list = append(list, lent{d, groups, name})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading delegations: %w", err)
	}
	return list, nil
}

// delegationNote reads the note of the delegation that the statement names; none
// if it names none.
func delegationNote(ctx context.Context, db querier, st Statement) (note []byte, err error) {
	if st.OnBehalfOf == nil {
		return nil, nil
	}
	if err := db.QueryRow(ctx, `SELECT note FROM delegations WHERE id = $1`, st.OnBehalfOf.Delegation).Scan(&note); err != nil {
		return nil, fmt.Errorf("reading a delegation: %w", err)
	}
	return note, nil
}

// mayDecide returns what the voter can give the verdict with, or says why they
// cannot. Their own groups come first. The request must be settled.
func (r *request) mayDecide(v voter, verdict api.Verdict) (basis, error) {
	var why error = ErrNotApprover
	for _, b := range v.bases() {
		err := r.mayRest(b, verdict)
		if err == nil {
			return b, nil
		}
		if why == ErrNotApprover {
			why = err
		}
	}
	return basis{}, why
}

// mayRest says why the verdict cannot rest on the basis, or nil.
func (r *request) mayRest(b basis, v api.Verdict) error {
	switch {
	case r.personID == b.person.ID:
		return ErrOwnRequest
	case len(b.groupsOf(r.terms)) == 0:
		return ErrNotApprover
	case b.lent != nil && b.lent.About(r.terms.Person):
		return ErrDelegatorAsks
	case r.behind(b.person.ID):
		return ErrAlreadyDecided
	case b.lent != nil && r.behind(b.lent.Delegator.ID):
		return ErrDelegatorDecided
	case r.state != api.Requested:
		return ErrClosed.With("the request is %s", r.state)
	case v == api.Approve && !policy.MayFill(r.terms.Stages(), r.approvals(), b.approval()):
		return ErrNotNeeded
	}
	return nil
}

// behind reports whether the person has decided on the request, or somebody has
// for them. A decision that counts no more still takes away its giver's say, but
// not that of the one for whom it was given.
func (r *request) behind(personID string) bool {
	return slices.ContainsFunc(r.decision, func(d decision) bool {
		f := d.statement.OnBehalfOf
		return d.statement.Approver.ID == personID || f != nil && f.ID == personID && !d.void
	})
}

// visibleTo reports whether the caller may know of the request: as visible says,
// by what others lend them now, or because they decided on it for somebody, or
// somebody did for them (P10).
func (r *request) visibleTo(c identity.Caller, v voter, now time.Time) bool {
	reads := func(l lent) bool {
		return l.Runs(now) && !l.About(r.terms.Person) &&
			slices.ContainsFunc(r.terms.Readers(), func(g string) bool { return slices.Contains(l.groups, g) })
	}
	delegated := func(d decision) bool {
		f := d.statement.OnBehalfOf
		return f != nil && (f.ID == c.ID || d.statement.Approver.ID == c.ID)
	}
	return r.visible(c) || slices.ContainsFunc(v.lent, reads) || slices.ContainsFunc(r.decision, delegated)
}

// reads is visibleTo, where nobody needs to know what else is lent.
func (s *Service) reads(ctx context.Context, c identity.Caller, r *request) (bool, error) {
	if r.visible(c) {
		return true, nil
	}
	v, err := s.voter(ctx, s.cfg.Pool, c.Person)
	return err == nil && r.visibleTo(c, v, s.cfg.Clock.Now()), err
}

// behindSQL is true where somebody, a column or parameter, stands behind a
// decision on the request: what request.behind says.
func behindSQL(who string) string {
	return strings.ReplaceAll(`EXISTS (SELECT FROM decisions d WHERE d.request_id = requests.id AND (d.approver_id = WHO
		OR d.for_id = WHO AND NOT EXISTS (SELECT FROM void_decisions v WHERE v.decision_id = d.id)))`, "WHO", who)
}

// lentSQL is true where a column with groups has one that is lent to @me by
// somebody who neither asked for the request nor is barred by the condition on
// l.delegator. @borrowed, all groups that are lent, is there for the index.
func lentSQL(column, condition string) string {
	return `(` + column + ` && @borrowed::text[] AND EXISTS (
		SELECT FROM jsonb_to_recordset(@lent) AS l (delegator text, maker text, groups text[])
		WHERE ` + column + ` && l.groups AND requests.person_id NOT IN (l.delegator, l.maker) AND ` + condition + `))`
}

// addLent gives a query with lentSQL its arguments.
func (v voter) addLent(to pgx.NamedArgs) error {
	type row struct {
		Delegator string   `json:"delegator"`
		Maker     string   `json:"maker"`
		Groups    []string `json:"groups"`
	}
	rows, borrowed := []row{}, []string{}
	for _, l := range v.lent {
		rows = append(rows, row{l.Delegator.ID, l.MadeBy.ID, l.groups})
		borrowed = append(borrowed, l.groups...)
	}
	text, err := json.Marshal(rows)
	to["lent"], to["borrowed"] = string(text), borrowed
	return err
}

// addDelegates names, in slots of the request, those who could decide for one of
// the slot's groups because somebody delegates to them.
func (s *Service) addDelegates(ctx context.Context, r *request, slots []api.Slot) error {
	now := s.cfg.Clock.Now()
	groups := r.terms.Groups()
	if len(groups) == 0 {
		return nil
	}
	list, err := s.readLent(ctx, s.cfg.Pool, `
		SELECT `+lentColumns+`
		FROM delegations d JOIN people x ON x.id = d.delegator_id JOIN people y ON y.id = d.delegate_id
		WHERE d.from_at <= $1 AND d.until_at > $1 AND d.ended_at IS NULL AND x.removed_at IS NULL AND y.removed_at IS NULL
			AND x.groups && $2::text[]
		ORDER BY y.name, d.made_at, d.id`, now, groups)
	if err != nil {
		return err
	}
	var who []string
	list = slices.DeleteFunc(list, func(l lent) bool {
		return !l.Runs(now) || r.behind(l.Delegate.ID) || l.Delegate.ID == r.personID || r.behind(l.Delegator.ID) || l.About(r.terms.Person)
	})
	for _, l := range list {
		who = append(who, l.Delegate.ID, l.Delegator.ID)
	}
	if len(who) == 0 {
		return nil
	}
	found, err := s.cfg.People.People(ctx, who)
	if err != nil {
		return err
	}
	people := map[string]identity.Person{}
	for _, p := range found {
		people[p.ID] = p
	}
	for i := range slots {
		in := func(groups []string) bool {
			return slices.ContainsFunc(slots[i].Groups, func(g string) bool { return slices.Contains(groups, g) })
		}
		for _, l := range list {
			// Who is in a group of the slot needs nobody's.
			if in(l.groups) && !in(people[l.Delegate.ID].Groups) && len(slots[i].Delegates) < maxPeople {
				slots[i].Delegates = append(slots[i].Delegates, api.Delegate{Person: named(people[l.Delegate.ID]),
					For: named(people[l.Delegator.ID]), Until: l.Until, Delegation: l.ID})
			}
		}
	}
	return nil
}
