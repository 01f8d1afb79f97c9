package approvals

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/approvals/notify"
	"sallyport/approvals/policy"
	"sallyport/audit/event"
	"sallyport/internal/ids"
	"sallyport/internal/refusal"
)

// MaxDelegations is how many delegations of one person's groups may be there that
// have not ended.
const MaxDelegations = 20

// maxGroups is how many groups one delegation names.
const maxGroups = 50

// Refusals of a delegation.
var (
	ErrUnknownDelegation = refusal.New(refusal.NotFound, "unknown-delegation",
		"there is no such delegation, or it is not for you to see", "list those you may see: sally delegations")
	ErrDelegateNeeded = refusal.New(refusal.Invalid, "delegate-missing",
		"it does not say who shall decide", "name a person by id or by the whole address").On("delegate")
	ErrDelegationTime = refusal.New(refusal.Invalid, "bad-delegation-time",
		"a delegation starts now or within 90 days, and lasts for 90 days at most", "choose other times").On("until")
	ErrNothingToDelegate = refusal.New(refusal.Denied, "nothing-to-delegate",
		"the person is in no group that decides on requests", "only approvers can let somebody decide for them").On("groups")
	ErrOtherGroups = refusal.New(refusal.Denied, "groups-not-yours-to-delegate",
		"only groups that decide on requests, and that the person is in, can be delegated", "leave the groups out to delegate all of them").On("groups")
	ErrSamePerson = refusal.New(refusal.Invalid, "delegate-is-delegator",
		"nobody delegates to themselves", "name somebody else").On("delegate")
	ErrToOneself = refusal.New(refusal.Denied, "delegate-is-maker",
		"an operator does not take anybody's say for themselves", "the person can delegate to you, or another operator can").On("delegate")
	ErrTooManyDelegations = refusal.New(refusal.TooMany, "too-many-delegations",
		"there are too many delegations of this person", "end those that are not needed: sally delegations")
	ErrDelegationOver = refusal.New(refusal.Conflict, "delegation-over",
		"the delegation is over already", "there is nothing to end")
	ErrNotYourDelegation = refusal.New(refusal.Denied, "not-your-delegation",
		"only who is named in a delegation, or an operator, ends it", "ask an operator")
)

// Delegate lets somebody decide for another for a while. The rules:
//
//  1. One lets others decide for oneself. Operators can do so for anybody, but
//     never let themselves decide: they configure, and approve nothing by that.
//  2. What is lent are groups that decide on requests under the policy in force and
//     that the delegator is in: all of them, or those that are named. What somebody
//     else lends is not among them, so there are no chains. Groups that the
//     delegator leaves later lend nothing from their next sign-in on; those that
//     they enter later are not lent.
//  3. It is dated, and says why. It lasts MaxDelegation at most.
//  4. Both are people who may sign in.
//
// It never lets anybody decide on a request that they, the delegator, or whoever
// made it asked for (P5): that is for mayDecide and Grant.Check. People are named
// by id or address exactly, and who tries in vain is in the log.
func (s *Service) Delegate(ctx context.Context, c identity.Caller, in api.DelegationInput) (api.Delegation, error) {
	const action = "delegations.make"
	person, err := s.cfg.People.Person(ctx, c.ID)
	if err != nil {
		return api.Delegation{}, err
	}
	c.Person = person
	delegator := c.Person
	if who := trim(in.Delegator); who != "" && who != "me" && who != c.ID {
		if !c.Has(api.Operator) {
			return api.Delegation{}, s.refusedTo(ctx, c, action, event.Subject{}, ErrNotOperator)
		}
		if delegator, err = s.findPresent(ctx, who, "delegator"); err != nil {
			return api.Delegation{}, err
		}
	}
	p, err := s.current(ctx)
	if err != nil {
		return api.Delegation{}, err
	}
	d, err := s.delegation(p, in, delegator, c.Person)
	if refused := refusal.As(err); refused != nil && refused.Kind == refusal.Denied {
		return api.Delegation{}, s.refusedTo(ctx, c, action, event.Subject{PersonID: delegator.ID}, refused)
	}
	if err != nil {
		return api.Delegation{}, err
	}
	if trim(in.Delegate) == "" {
		return api.Delegation{}, ErrDelegateNeeded
	}
	delegate, err := s.findPresent(ctx, trim(in.Delegate), "delegate")
	switch {
	case errors.Is(err, identity.ErrUnknownPerson):
		return api.Delegation{}, s.refusedTo(ctx, c, action, event.Subject{PersonID: delegator.ID}, refusal.As(err))
	case err != nil:
		return api.Delegation{}, err
	case delegate.ID == delegator.ID:
		return api.Delegation{}, ErrSamePerson
	case delegate.ID == c.ID:
		return api.Delegation{}, s.refusedTo(ctx, c, action, event.Subject{PersonID: delegator.ID}, ErrToOneself)
	}
	d.Delegate = approver(delegate)
	note, err := d.Note(s.cfg.Log.Vouch)
	if err != nil {
		return api.Delegation{}, fmt.Errorf("vouching for a delegation: %w", err)
	}
	err = pgx.BeginFunc(ctx, s.cfg.Pool, func(tx pgx.Tx) error {
		// Two delegations of one person at once are counted one after the other.
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('delegations of ' || $1, 0))`, delegator.ID); err != nil {
			return fmt.Errorf("counting delegations: %w", err)
		}
		both := []string{delegator.ID, delegate.ID}
		slices.Sort(both) // two that name each other do not wait for each other
		for _, id := range both {
			if err := s.cfg.People.HoldPresent(ctx, tx, id); err != nil {
				return err
			}
		}
		var n int
		err := tx.QueryRow(ctx, `SELECT count(*) FROM delegations WHERE delegator_id = $1 AND until_at > $2 AND ended_at IS NULL`,
			delegator.ID, d.MadeAt).Scan(&n)
		if err != nil {
			return fmt.Errorf("counting delegations: %w", err)
		}
		if n >= MaxDelegations {
			return ErrTooManyDelegations.With("there are %d delegations of this person, and no more are allowed", n)
		}
		_, err = tx.Exec(ctx, `
			INSERT INTO delegations (id, delegator_id, delegate_id, made_by, note, made_at, from_at, until_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
			d.ID, delegator.ID, delegate.ID, c.ID, note, d.MadeAt, d.From, d.Until)
		if err != nil {
			return fmt.Errorf("writing delegation %s: %w", d.ID, err)
		}
		if err := s.tellDelegation(ctx, tx, notify.DelegationMade, d.ID, d.MadeAt); err != nil {
			return err
		}
		return s.cfg.Log.Stage(ctx, tx, c.Event(d.MadeAt, event.Subject{PersonID: delegator.ID}, event.DelegationMade{
			DelegationID: d.ID, Delegator: delegator.DisplayName(), Delegate: delegate.DisplayName(), DelegateID: delegate.ID,
			Groups: d.Groups, From: d.From, Until: d.Until, Reason: d.Reason, Note: string(note), NoteHash: hash(note),
		}).Under(ref(p)))
	})
	if err != nil {
		return api.Delegation{}, err
	}
	s.cfg.Log.Kick()
	return s.Delegation(ctx, c, d.ID)
}

// delegation is what the input says, but for whom it is to.
func (s *Service) delegation(p *policy.Policy, in api.DelegationInput, delegator, by identity.Person) (Delegation, error) {
	now := s.cfg.Clock.Now()
	d := Delegation{Format: DelegationFormat, ID: ids.New(ids.Delegation), Delegator: approver(delegator), MadeBy: approver(by),
		From: now, Until: in.Until.UTC().Truncate(time.Microsecond), Reason: trim(in.Reason), MadeAt: now}
	if in.From != nil {
		d.From = in.From.UTC().Truncate(time.Microsecond)
	}
	switch {
	case d.Reason == "":
		return d, ErrNoWhy
	case d.From.Before(now) || d.From.After(now.Add(MaxDelegation)), !d.Until.After(d.From) || d.Until.Sub(d.From) > MaxDelegation:
		return d, ErrDelegationTime
	case len(in.Groups) > maxGroups:
		return d, ErrOtherGroups
	}
	if err := text("reason", d.Reason, maxReason); err != nil {
		return d, err
	}
	deciding := lendable(p, delegator)
	for _, g := range in.Groups {
		if !slices.Contains(deciding, g) {
			return d, ErrOtherGroups.With("%q is no group of this person that decides on requests", strings.ToValidUTF8(g, "?"))
		}
	}
	if d.Groups = slices.Compact(slices.Sorted(slices.Values(in.Groups))); len(d.Groups) == 0 {
		d.Groups = deciding
	}
	switch {
	case len(d.Groups) == 0:
		return d, ErrNothingToDelegate
	case len(d.Groups) > maxGroups:
		return d, ErrOtherGroups.With("the person is in more groups that decide than one delegation names").Hinting("name at most %d", maxGroups)
	}
	return d, nil
}

// lendable are the person's groups that decide on requests, sorted.
func lendable(p *policy.Policy, of identity.Person) []string {
	groups := slices.DeleteFunc(p.Approvers(), func(g string) bool { return !slices.Contains(of.Groups, g) })
	slices.Sort(groups)
	return groups
}

// Lendable are the groups that Delegate would lend of a person now: of the caller,
// or for operators of anybody, by id or address exactly. It is for who fills in a
// form; the person may be in none.
func (s *Service) Lendable(ctx context.Context, c identity.Caller, delegator string) (api.Person, []string, error) {
	person := c.Person
	if delegator != "" && delegator != c.ID {
		if !c.Has(api.Operator) {
			return api.Person{}, nil, s.refusedTo(ctx, c, "delegations.make", event.Subject{}, ErrNotOperator)
		}
		var err error
		if person, err = s.findPresent(ctx, delegator, "delegator"); err != nil {
			return api.Person{}, nil, err
		}
	}
	return named(person), lendable(s.Policy(), person), nil
}

// approver is a person in statements.
func approver(p identity.Person) StatementApprover {
	return StatementApprover{ID: p.ID, Issuer: p.Issuer, Subject: p.Subject}
}

// findPresent finds a person by id or address, exactly. Who has been removed is
// unknown: that somebody was is not everybody's business.
func (s *Service) findPresent(ctx context.Context, idOrEmail, field string) (identity.Person, error) {
	p, err := s.cfg.People.Find(ctx, idOrEmail)
	if err == nil && p.Removed != nil {
		err = identity.ErrUnknownPerson
	}
	if refused := refusal.As(err); refused != nil {
		return identity.Person{}, refused.On(field)
	}
	return p, err
}

// EndDelegation ends one before its time: the delegator, the delegate, who gives it
// back, or an operator. What was decided under it stands.
func (s *Service) EndDelegation(ctx context.Context, c identity.Caller, id string) (api.Delegation, error) {
	row, err := s.delegationRow(ctx, c, id)
	if err != nil {
		return api.Delegation{}, err
	}
	// Who may see it and is neither named in it nor an operator is an auditor.
	if !row.mayEnd(c) {
		return api.Delegation{}, s.refusedTo(ctx, c, "delegations.end", event.Subject{PersonID: row.DelegatorID}, ErrNotYourDelegation)
	}
	names, err := s.namesOf(ctx, []delegationRow{row})
	if err != nil {
		return api.Delegation{}, err
	}
	err = pgx.BeginFunc(ctx, s.cfg.Pool, func(tx pgx.Tx) error {
		return s.endDelegation(ctx, tx, row, names, c)
	})
	if err != nil {
		return api.Delegation{}, err
	}
	s.cfg.Log.Kick()
	return s.Delegation(ctx, c, id)
}

// endDelegation ends one in the transaction, with the event of it, or returns
// ErrDelegationOver.
func (s *Service) endDelegation(ctx context.Context, tx pgx.Tx, row delegationRow, names map[string]api.Person, c identity.Caller) error {
	now := s.cfg.Clock.Now()
	if now.Before(row.MadeAt) {
		now = row.MadeAt // replicas' clocks differ a little
	}
	tag, err := tx.Exec(ctx, `
		UPDATE delegations SET ended_at = $2, ended_by = $3 WHERE id = $1 AND ended_at IS NULL AND until_at > $2`, row.ID, now, c.ID)
	if err != nil {
		return fmt.Errorf("ending delegation %s: %w", row.ID, err)
	}
	if tag.RowsAffected() == 0 {
		return ErrDelegationOver
	}
	if err := s.tellDelegation(ctx, tx, notify.DelegationEnded, row.ID, now); err != nil {
		return err
	}
	return s.cfg.Log.Stage(ctx, tx, c.Event(now, event.Subject{PersonID: row.DelegatorID}, event.DelegationEnded{
		DelegationID: row.ID, Delegator: names[row.DelegatorID].Name, Delegate: names[row.DelegateID].Name, DelegateID: row.DelegateID,
	}))
}

// endDelegationsOf ends all delegations of a person's groups, and to them.
func (s *Service) endDelegationsOf(ctx context.Context, tx pgx.Tx, personID string, c identity.Caller) error {
	list, err := readDelegations(ctx, tx, `
		SELECT `+delegationColumns+`
		FROM delegations WHERE $1 IN (delegator_id, delegate_id) AND until_at > $2 AND ended_at IS NULL
		ORDER BY id FOR UPDATE`, personID, s.cfg.Clock.Now())
	if err != nil {
		return err
	}
	names, err := s.namesOf(ctx, list)
	if err != nil {
		return err
	}
	for _, row := range list {
		if err := s.endDelegation(ctx, tx, row, names, c); err != nil && !errors.Is(err, ErrDelegationOver) {
			return err
		}
	}
	return nil
}
