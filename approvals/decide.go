package approvals

import (
	"context"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
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
//  2. the approver is not the requester, has not decided on it before, and was
//     in a group of its terms at their last sign-in, whatever the caller says (P5);
//  3. an approval fills a place in the current stage;
//  4. terms that the approver names are the request's (P4).
//
// Requests are decided one decision at a time, so that of two approvals at the
// same instant each sees the other. A refused decision is an event.
func (s *Service) Decide(ctx context.Context, c identity.Caller, id string, in api.DecisionInput) (api.Request, error) {
	if in.Verdict != api.Approve && in.Verdict != api.Deny {
		return api.Request{}, ErrBadVerdict
	}
	if err := text("comment", in.Comment, maxReason); err != nil {
		return api.Request{}, err
	}
	person, err := s.cfg.People.Person(ctx, c.ID)
	if err != nil {
		return api.Request{}, err
	}
	c.Person = person
	var r *request
	err = pgx.BeginFunc(ctx, s.cfg.Pool, func(tx pgx.Tx) (err error) {
		if r, err = s.lock(ctx, tx, id); err != nil {
			return err
		}
		return s.decide(ctx, tx, c, r, in)
	})
	if refused := refusal.As(err); r != nil && refused != nil && (refused.Kind == refusal.Denied || refused.Kind == refusal.Conflict) {
		s.cfg.Log.Refused(ctx, r.event(s.cfg.Clock.Now(), c.Actor(), c.Source,
			event.DecisionRefused{Verdict: string(in.Verdict), Code: refused.Code, Reason: refused.Detail}))
		if !r.visible(c) {
			err = ErrUnknownRequest
		}
	}
	if err != nil {
		return api.Request{}, err
	}
	s.cfg.Log.Kick()
	return s.Get(ctx, c, id)
}

// decide takes the decision on a locked request.
func (s *Service) decide(ctx context.Context, tx pgx.Tx, c identity.Caller, r *request, in api.DecisionInput) error {
	now := s.cfg.Clock.Now()
	r.settle(now)
	if err := r.mayDecide(c.Person, in.Verdict); err != nil {
		return err
	}
	if in.TermsHash != "" && in.TermsHash != r.termsHash {
		return ErrOtherTerms
	}
	// Replicas' clocks differ a little; decisions are never dated before what they follow.
	at := now
	if after := r.lastTime(); at.Before(after) {
		at = after
	}
	d := decision{id: ids.New(ids.Decision), statement: newStatement(r.terms, r.termsHash, c.Person, in, at)}
	var err error
	if d.text, err = d.statement.Encode(); err != nil {
		return err
	}
	d.hash = hash(d.text)
	if err := r.insertDecision(ctx, tx, d); err != nil {
		return err
	}
	events := []event.Event{r.event(at, c.Actor(), c.Source, event.RequestDecided{
		DecisionID: d.id, Verdict: string(in.Verdict), Comment: in.Comment, TermsHash: r.termsHash,
		Groups: d.statement.Groups, Evidence: string(d.text), EvidenceHash: d.hash,
	})}
	switch {
	case in.Verdict == api.Deny:
		events = append(events, r.event(at, c.Actor(), c.Source, r.close(api.Denied)))
	case policy.Quorum(r.terms.stages(), r.approvals()).Complete:
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
	return s.cfg.Log.Stage(ctx, tx, events...)
}
