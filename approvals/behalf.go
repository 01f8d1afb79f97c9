package approvals

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/approvals/notify"
	"sallyport/internal/refusal"
)

// What people see and hear of it that somebody decides for another.

// deciding is the action of giving the verdict, and for whom the voter would give
// it if not for themselves.
func (r *request) deciding(who voter, v api.Verdict, people map[string]api.Person) api.Action {
	b, err := r.mayDecide(who, v)
	a := action(string(v), err)
	if err == nil && b.lent != nil {
		a.Delegate = &api.Delegate{Person: named(who.Person), For: people[b.lent.Delegator.ID], Until: b.lent.Until, Delegation: b.lent.ID}
	}
	return a
}

// ErrForAnother refuses a decision that would be for somebody else than the person
// who gives it was shown.
var ErrForAnother = refusal.New(refusal.Conflict, "for-another",
	"meanwhile you would decide for somebody else than you were shown", "look at the request again: it says for whom").On("for")

// seen refuses a decision on the basis if its giver was shown another.
func (b basis) seen(in api.DecisionInput) error {
	of := "me"
	if b.lent != nil {
		of = b.lent.Delegator.ID
	}
	if in.For != "" && in.For != of {
		return ErrForAnother
	}
	return nil
}

// delegators are the ids of those who lend the voter something.
func (v voter) delegators() []string {
	var ids []string
	for _, l := range v.lent {
		ids = append(ids, l.Delegator.ID)
	}
	return ids
}

// tellDelegation posts to the two whom a delegation names that it was made or ended.
func (s *Service) tellDelegation(ctx context.Context, tx pgx.Tx, kind notify.Kind, id string, now time.Time) error {
	return s.desk.Post(ctx, tx, notify.Notice{ID: string(kind) + "/" + id, Kind: kind, DelegationID: id, Due: now})
}

// Delegation implements notify.Source.
func (s teller) Delegation(ctx context.Context, id string) (api.Delegation, error) {
	list, err := readDelegations(ctx, s.cfg.Pool, `SELECT `+delegationColumns+` FROM delegations WHERE id = $1`, id)
	if err != nil {
		return api.Delegation{}, err
	}
	if len(list) == 0 {
		return api.Delegation{}, ErrUnknownDelegation
	}
	return s.showDelegation(ctx, identity.Caller{}, list[0])
}
