package approvals

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/audit/event"
	"sallyport/internal/ids"
	"sallyport/internal/refusal"
)

// Refusals of what an operator wants to do to a person.
var (
	ErrOwnRemoval = refusal.New(refusal.Denied, "own-removal",
		"nobody removes themselves", "another operator has to")
	ErrOwnInterest = refusal.New(refusal.Denied, "own-interest",
		"this person can decide on a request of yours that waits, or review an emergency of yours",
		"cancel the request, or let another operator do it: nobody chooses who decides on them")
)

// errNotPeoples is ErrNotReader where people are read about.
var errNotPeoples = ErrNotReader.With("only operators and auditors see who there is").Hinting("ask an operator; who you are: sally whoami")

// People lists everybody who has ever signed in, by name, to operators and
// auditors. That anybody else tried is an event (P10).
func (s *Service) People(ctx context.Context, c identity.Caller, f identity.PeopleFilter) (api.Page[api.KnownPerson], error) {
	var page api.Page[api.KnownPerson]
	if !reads(c) {
		return page, s.refusedTo(ctx, c, "people.list", event.Subject{}, errNotPeoples)
	}
	if f.Limit < 0 || f.Limit > 200 || f.After != "" && !ids.Valid(ids.Person, f.After) {
		return page, ErrBadFilter
	}
	if f.Limit == 0 {
		f.Limit = 50
	}
	limit := f.Limit
	f.Limit++
	list, err := s.cfg.People.Known(ctx, f)
	if err != nil {
		return page, err
	}
	if len(list) > limit {
		list = list[:limit]
		page.Next = list[limit-1].ID
	}
	if err := s.disclosePeople(ctx, c, "list", event.Subject{}); err != nil {
		return page, err
	}
	page.Items, err = s.known(ctx, list)
	return page, err
}

// KnownPerson is one person as People shows them.
func (s *Service) KnownPerson(ctx context.Context, c identity.Caller, id string) (api.KnownPerson, error) {
	if !reads(c) {
		return api.KnownPerson{}, s.refusedTo(ctx, c, "people.show", event.Subject{}, errNotPeoples)
	}
	p, err := s.cfg.People.Person(ctx, id)
	if err != nil {
		return api.KnownPerson{}, err
	}
	if err := s.disclosePeople(ctx, c, "person", event.Subject{PersonID: p.ID}); err != nil {
		return api.KnownPerson{}, err
	}
	known, err := s.known(ctx, []identity.Person{p})
	if err != nil {
		return api.KnownPerson{}, err
	}
	return known[0], nil
}

func (s *Service) known(ctx context.Context, list []identity.Person) ([]api.KnownPerson, error) {
	var by []string
	for _, p := range list {
		if p.Removed != nil {
			by = append(by, p.Removed.By)
		}
	}
	operators, err := s.cfg.People.People(ctx, notNil(by))
	if err != nil {
		return nil, err
	}
	out := make([]api.KnownPerson, len(list))
	for i, p := range list {
		out[i] = api.KnownPerson{Person: p.API(), Roles: s.Policy().RolesOf(p.Groups), SignedInAt: p.SignedInAt}
		if p.Removed == nil {
			continue
		}
		out[i].Removed = &api.Removal{At: p.Removed.At, Reason: p.Removed.Why}
		if j := slices.IndexFunc(operators, func(o identity.Person) bool { return o.ID == p.Removed.By }); j >= 0 {
			out[i].Removed.By = named(operators[j])
		}
	}
	return out, nil
}

// RemovePerson keeps a person out from now on, whatever the provider says of
// them. The rules:
//
//  1. An operator does it, and says why; nobody removes themselves, so that there
//     is always one left who can restore; and nobody removes who could decide on a
//     waiting request of theirs, or review an emergency of theirs (P5).
//  2. All sign-ins of the person end, of browsers and sallies.
//  3. Their waiting requests are cancelled, their grants end as revoked.
//  4. Approvals that they gave, or others for them, on requests that are undecided
//     count no more, and nobody decides for them or by them any more. The approvals stay, and the person cannot decide there again. Their denials stand, and so
//     do grants that they helped approve: who approved was entitled to then. Those
//     that run are named in the answer, for the operator to revoke.
//
// All of it is one transaction, whose events come before person.removed in the log.
func (s *Service) RemovePerson(ctx context.Context, c identity.Caller, id, reason string) (api.RemovedPerson, error) {
	var out api.RemovedPerson
	err := s.governPerson(ctx, c, id, reason, "people.remove", func(tx pgx.Tx, p identity.Person, why string) (event.Data, []event.Event, error) {
		at := s.cfg.Clock.Now()
		signIns, err := s.cfg.People.Remove(ctx, tx, p.ID, identity.Removal{At: at, By: c.ID, Why: why})
		if err != nil {
			return nil, nil, err
		}
		// Before requests are locked, as everywhere.
		if err := s.endDelegationsOf(ctx, tx, p.ID, c); err != nil {
			return nil, nil, err
		}
		how := stopping{why: "revoked", comment: "the person was removed: " + why, actor: c.Actor(), source: c.Source}
		var gone stopped
		if err := s.stopAll(ctx, tx, p.ID, how, &gone); err != nil {
			return nil, nil, err
		}
		voided, err := s.voidApprovals(ctx, tx, p.ID, how, &gone)
		if err != nil {
			return nil, nil, err
		}
		stand, err := s.standing(ctx, tx, p.ID)
		if err != nil {
			return nil, nil, err
		}
		out = api.RemovedPerson{SignIns: signIns, Cancelled: notNil(gone.cancelled), Ended: notNil(gone.ended), Voided: notNil(voided), Stand: stand}
		return event.PersonRemoved{Name: p.DisplayName(), Reason: why, SignIns: signIns,
			Cancelled: len(gone.cancelled), Ended: len(gone.ended), Voided: len(voided)}, gone.events, nil
	})
	if err != nil {
		return api.RemovedPerson{}, err
	}
	out.Person, err = s.KnownPerson(ctx, c, id)
	return out, err
}

// RestorePerson lets a removed person sign in again. What ended stays ended.
func (s *Service) RestorePerson(ctx context.Context, c identity.Caller, id, reason string) (api.KnownPerson, error) {
	err := s.governPerson(ctx, c, id, reason, "people.restore", func(tx pgx.Tx, p identity.Person, why string) (event.Data, []event.Event, error) {
		err := s.cfg.People.Restore(ctx, tx, p.ID, s.cfg.Clock.Now())
		return event.PersonRestored{Name: p.DisplayName(), Reason: why}, nil, err
	})
	if err != nil {
		return api.KnownPerson{}, err
	}
	return s.KnownPerson(ctx, c, id)
}

// governPerson lets an operator do something to another person, one operator
// after the other, and keeps the event of it behind those that do returns.
func (s *Service) governPerson(ctx context.Context, c identity.Caller, id, reason, action string,
	do func(tx pgx.Tx, p identity.Person, why string) (event.Data, []event.Event, error)) error {
	about := event.Subject{PersonID: id}
	if !c.Has(api.Operator) {
		return s.refusedTo(ctx, c, action, event.Subject{}, ErrNotOperator)
	}
	why := trim(reason)
	if why == "" {
		return ErrNoWhy
	}
	if err := text("reason", why, maxReason); err != nil {
		return err
	}
	p, err := s.cfg.People.Person(ctx, id)
	if err != nil {
		return err
	}
	if p.ID == c.ID {
		return s.refusedTo(ctx, c, action, about, ErrOwnRemoval)
	}
	err = pgx.BeginFunc(ctx, s.cfg.Pool, func(tx pgx.Tx) error {
		// Two operators who remove each other at once: one of them comes first, and
		// the other is none any more.
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('removing people', 0))`); err != nil {
			return fmt.Errorf("waiting for other operators: %w", err)
		}
		if err := s.cfg.People.Present(ctx, tx, c.ID); err != nil {
			return err
		}
		if err := s.checkInterest(ctx, tx, c, p); err != nil {
			return err
		}
		data, events, err := do(tx, p, why)
		if err != nil {
			return err
		}
		return s.cfg.Log.Stage(ctx, tx, append(events, c.Event(s.cfg.Clock.Now(), about, data))...)
	})
	if refused := refusal.As(err); refused != nil && refused.Kind == refusal.Denied {
		return s.refusedTo(ctx, c, action, about, refused)
	}
	if err != nil {
		return err
	}
	s.cfg.Log.Kick()
	return nil
}

// checkInterest refuses when the person could decide on a waiting request of the
// caller's, or review an emergency of theirs.
func (s *Service) checkInterest(ctx context.Context, tx pgx.Tx, c identity.Caller, p identity.Person) error {
	var own bool
	err := tx.QueryRow(ctx, `
		SELECT EXISTS (SELECT FROM requests WHERE person_id = @me AND `+stateNow+` = 'requested' AND approver_groups && @groups::text[])
			OR EXISTS (SELECT FROM emergencies e WHERE e.person_id = @me AND e.review_groups && @groups::text[]
				AND NOT EXISTS (SELECT FROM reviews v WHERE v.request_id = e.request_id))`,
		pgx.NamedArgs{"me": c.ID, "groups": notNil(p.Groups), "now": s.cfg.Clock.Now()}).Scan(&own)
	if err != nil {
		return fmt.Errorf("looking for requests of the operator: %w", err)
	}
	if own {
		return ErrOwnInterest
	}
	return nil
}

// voidApprovals makes approvals of a person count no more on requests that are
// still undecided, and returns the ids of those.
func (s *Service) voidApprovals(ctx context.Context, tx pgx.Tx, personID string, how stopping, out *stopped) ([]string, error) {
	rows, err := tx.Query(ctx, `
		SELECT r.id FROM decisions d JOIN requests r ON r.id = d.request_id
		WHERE $1 IN (d.approver_id, d.for_id) AND r.state = 'requested' ORDER BY r.created_at, r.id`, personID)
	if err != nil {
		return nil, fmt.Errorf("reading a person's decisions: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("reading a person's decisions: %w", err)
	}
	var voided []string
	for _, id := range list {
		r, err := s.lock(ctx, tx, id)
		if err != nil {
			return nil, err
		}
		now := s.cfg.Clock.Now()
		if r.settle(now) != nil || r.state != api.Requested {
			continue // over already; its own job keeps that
		}
		for i := range r.decision {
			d := &r.decision[i]
			if d.void || !slices.ContainsFunc(d.statement.Behind(), func(p StatementApprover) bool { return p.ID == personID }) {
				continue
			}
			d.void = true
			if _, err := tx.Exec(ctx, `INSERT INTO void_decisions (decision_id, voided_at) VALUES ($1, $2)`, d.id, now); err != nil {
				return nil, fmt.Errorf("voiding decision %s: %w", d.id, err)
			}
			out.events = append(out.events, r.event(now, how.actor, how.source,
				event.DecisionVoided{DecisionID: d.id, Approver: d.statement.Approver.ID, EvidenceHash: d.hash}))
			voided = append(voided, r.id)
		}
		if err := r.save(ctx, tx); err != nil {
			return nil, err
		}
		if err := s.tellWaiting(ctx, tx, r, now); err != nil {
			return nil, err
		}
	}
	return voided, nil
}

// standing are running grants of others that the person helped approve.
func (s *Service) standing(ctx context.Context, tx pgx.Tx, personID string) ([]string, error) {
	rows, err := tx.Query(ctx, `
		SELECT id FROM requests
		WHERE `+stateNow+` IN ('approved', 'active') AND id IN (SELECT request_id FROM decisions WHERE @who IN (approver_id, for_id))
		ORDER BY created_at, id LIMIT 200`, pgx.NamedArgs{"who": personID, "now": s.cfg.Clock.Now()})
	if err != nil {
		return nil, fmt.Errorf("reading what a person has approved: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("reading what a person has approved: %w", err)
	}
	return notNil(list), nil
}
