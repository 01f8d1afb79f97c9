package approvals

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals/evidence"
	"sallyport/approvals/identity"
	"sallyport/audit/event"
	"sallyport/internal/ids"
)

// DraftDecision prepares the caller's decision on a request for the provider's
// signature. What Decide would refuse is refused here already.
func (s *Service) DraftDecision(ctx context.Context, c identity.Caller, b Browser, id string, in api.DecisionInput) (Draft, error) {
	if err := checkDecision(in); err != nil {
		return Draft{}, err
	}
	c, err := s.callerNow(ctx, c)
	if err != nil {
		return Draft{}, err
	}
	who, err := s.voter(ctx, s.cfg.Pool, c.Person)
	if err != nil {
		return Draft{}, err
	}
	now := s.cfg.Clock.Now()
	who = who.at(now)
	r, err := s.find(ctx, id)
	switch {
	case err != nil:
		return Draft{}, err
	case !r.visibleTo(c, who, now):
		return Draft{}, ErrUnknownRequest
	case r.broken != nil:
		return Draft{}, r.broken
	case r.terms.Rule.Assurance != evidence.Provider:
		return Draft{}, ErrNoProviderEvidence
	case in.TermsHash != "" && in.TermsHash != r.termsHash:
		return Draft{}, ErrOtherTerms
	}
	basis, err := r.mayDecide(who, in.Verdict)
	if err == nil {
		err = basis.seen(in)
	}
	if err != nil {
		return Draft{}, err
	}
	want, err := r.terms.Assured()
	if err != nil {
		return Draft{}, err
	}
	st := newStatement(r.terms, r.termsHash, basis, in, now)
	st.ClientID = b.ClientID
	return s.KeepDraft(ctx, b, id, st, want)
}

// completeDecision takes a decision that was drafted.
func (s *Service) completeDecision(ctx context.Context, d Drafted) error {
	st, err := ParseStatement(d.Text)
	if err != nil {
		return ErrEvidence.Because(err)
	}
	if !d.Is(st.Approver, st.RequestID) {
		return ErrDraftGone
	}
	_, err = s.take(ctx, d.Caller, st.RequestID, st.Verdict, func(tx pgx.Tx, b basis, r *request, at time.Time) (decision, []event.Event, error) {
		if st.TermsHash != r.termsHash {
			return decision{}, nil, ErrOtherTerms
		}
		if !b.is(st, r.terms) {
			return decision{}, nil, ErrDraftGone // what was delegated has changed meanwhile
		}
		k, events, err := s.keepSigned(ctx, tx, d.Text, d.Signed, at)
		return decision{kept: k, id: ids.New(ids.Decision), statement: st}, events, err
	})
	return err
}
