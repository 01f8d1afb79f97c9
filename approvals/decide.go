package approvals

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals/evidence"
	"sallyport/approvals/identity"
	"sallyport/approvals/policy"
	"sallyport/audit/event"
	"sallyport/internal/ids"
	"sallyport/internal/refusal"
)

// Decide records an approver's verdict; the approval that completes the quorum
// starts the grant, one deny closes the request. The rules:
//
//  1. the request is undecided, by its state and by the clock;
//  2. the approver is not the requester, has not decided on it before, has not been
//     removed, and was in a group of its terms at their last sign-in, whatever the
//     caller says (P5);
//  3. an approval fills a place in the current stage;
//  4. terms that the approver names are the request's (P4), and so is for whom they
//     say that they decide;
//  5. the terms take the broker's own word for it (assurance session). Under others
//     the answer is ErrProviderEvidence, and Draft and Complete are the way.
//
// Requests are decided one decision at a time, so that of two approvals at the
// same instant each sees the other. A refused decision is an event.
func (s *Service) Decide(ctx context.Context, c identity.Caller, id string, in api.DecisionInput) (api.Request, error) {
	if err := checkDecision(in); err != nil {
		return api.Request{}, err
	}
	c, err := s.take(ctx, c, id, in.Verdict, func(_ pgx.Tx, b basis, r *request, at time.Time) (decision, []event.Event, error) {
		if in.TermsHash != "" && in.TermsHash != r.termsHash {
			return decision{}, nil, ErrOtherTerms
		}
		if err := b.seen(in); err != nil {
			return decision{}, nil, err
		}
		if r.terms.Rule.Assurance == evidence.Provider {
			return decision{}, nil, ErrProviderEvidence
		}
		st := newStatement(r.terms, r.termsHash, b, in, at)
		st.SignIn = signInOf(c)
		k, err := keep(st, at)
		return decision{kept: k, id: ids.New(ids.Decision), statement: st}, nil, err
	})
	if err != nil {
		return api.Request{}, err
	}
	return s.Get(ctx, c, id)
}

func checkDecision(in api.DecisionInput) error {
	if in.Verdict != api.Approve && in.Verdict != api.Deny {
		return ErrBadVerdict
	}
	return text("comment", in.Comment, maxReason)
}

// prepare makes the decision on a locked request that may be decided by the
// caller, on the basis, to be taken at the time, and the events that come before
// its own.
type prepare func(tx pgx.Tx, b basis, r *request, at time.Time) (decision, []event.Event, error)

// take takes one decision, and returns the caller as they are known now.
func (s *Service) take(ctx context.Context, c identity.Caller, id string, v api.Verdict, p prepare) (identity.Caller, error) {
	person, err := s.cfg.People.Person(ctx, c.ID)
	if err != nil {
		return c, err
	}
	c.Person = person
	var r *request
	var who voter
	err = pgx.BeginFunc(ctx, s.cfg.Pool, func(tx pgx.Tx) (err error) {
		present := s.cfg.People.HoldPresent(ctx, tx, c.ID)
		if who, err = s.holdVoter(ctx, tx, c.Person); err != nil {
			return err
		}
		if r, err = s.lock(ctx, tx, id); err != nil {
			return err
		}
		if present != nil {
			return present
		}
		return s.takeLocked(ctx, tx, c, who, r, v, p)
	})
	if refused := refusal.As(err); r != nil && refused != nil && (refused.Kind == refusal.Denied || refused.Kind == refusal.Conflict) {
		if !refused.Is(ErrProviderEvidence) { // which refuses nothing, but names the way
			s.cfg.Log.Refused(ctx, r.event(s.cfg.Clock.Now(), c.Actor(), c.Source,
				event.DecisionRefused{Verdict: string(v), Code: refused.Code, Reason: refused.Detail}))
		}
		if !r.visibleTo(c, who, s.cfg.Clock.Now()) {
			err = ErrUnknownRequest
		}
	}
	if err != nil {
		return c, err
	}
	s.cfg.Log.Kick()
	return c, nil
}

// takeLocked takes the decision on a locked request.
func (s *Service) takeLocked(ctx context.Context, tx pgx.Tx, c identity.Caller, who voter, r *request, v api.Verdict, p prepare) error {
	now := s.cfg.Clock.Now()
	r.settle(now)
	// Replicas' clocks differ a little; decisions are never dated before what they follow.
	at := now
	if after := r.lastTime(); at.Before(after) {
		at = after
	}
	b, err := r.mayDecide(who.at(at), v)
	if err != nil {
		return err
	}
	d, events, err := p(tx, b, r, at)
	if err != nil {
		return err
	}
	want, err := r.terms.Assured()
	if err != nil {
		return err
	}
	if err := s.checkProof(ctx, tx, want, d.statement.Said(), d.kept); err != nil {
		return err
	}
	if err := r.insertDecision(ctx, tx, d); err != nil {
		return err
	}
	events = append(events, r.decided(c, d, b, at))
	switch {
	case v == api.Deny:
		events = append(events, r.event(at, c.Actor(), c.Source, r.close(api.Denied)))
	case policy.Quorum(r.terms.Stages(), r.approvals()).Complete:
		started, err := r.grant(at)
		if err != nil {
			return err
		}
		events = append(events, r.event(at, c.Actor(), c.Source, started))
		if err := s.schedule(ctx, tx, r); err != nil {
			return err
		}
	}
	if err := r.save(ctx, tx); err != nil {
		return err
	}
	if err := s.tellDecided(ctx, tx, r, at); err != nil {
		return err
	}
	return s.cfg.Log.Stage(ctx, tx, events...)
}
