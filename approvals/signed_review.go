package approvals

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals/evidence"
	"sallyport/approvals/identity"
	"sallyport/audit/event"
)

// DraftReview prepares the caller's review of an emergency for the provider's
// signature. What Review would refuse is refused here already.
func (s *Service) DraftReview(ctx context.Context, c identity.Caller, b Browser, id string, in api.ReviewInput) (Draft, error) {
	if err := checkReview(&in); err != nil {
		return Draft{}, err
	}
	c, err := s.callerNow(ctx, c)
	if err != nil {
		return Draft{}, err
	}
	r, err := s.find(ctx, id)
	if err != nil {
		return Draft{}, err
	}
	if !r.visible(c) {
		return Draft{}, ErrUnknownRequest
	}
	trades, err := s.trades(ctx, c.ID)
	if err == nil {
		err = r.mayReview(c.Person, trades)
	}
	if err == nil && r.terms.Emergency.ReviewAssurance() != evidence.Provider {
		err = ErrNoProviderEvidence
	}
	if err != nil {
		return Draft{}, err
	}
	want, err := r.terms.ReviewAssured()
	if err != nil {
		return Draft{}, err
	}
	at := s.cfg.Clock.Now()
	if at.Before(r.terms.CreatedAt) { // replicas' clocks differ a little
		at = r.terms.CreatedAt
	}
	st := r.newReview(c.Person, in, at)
	st.ClientID = b.ClientID
	return s.KeepDraft(ctx, b, id, st, want)
}

// completeReview takes a review that was drafted.
func (s *Service) completeReview(ctx context.Context, d Drafted) error {
	st, err := ParseReview(d.Text)
	if err != nil {
		return ErrEvidence.Because(err)
	}
	if !d.Is(st.Reviewer, st.RequestID) {
		return ErrDraftGone
	}
	_, err = s.takeReview(ctx, d.Caller, st.RequestID, st.Verdict, func(tx pgx.Tx, c identity.Caller, r *request, at time.Time) (review, []event.Event, error) {
		now := r.newReview(c.Person, api.ReviewInput{Verdict: st.Verdict, Comment: st.Comment}, st.Time)
		if st.TermsHash != now.TermsHash || st.PolicyHash != now.PolicyHash || st.Late != now.Late || !slices.Equal(st.Groups, now.Groups) {
			return review{}, nil, ErrDraftGone // their groups have changed meanwhile
		}
		k, events, err := s.keepSigned(ctx, tx, d.Text, d.Signed, at)
		return review{kept: k, statement: st}, events, err
	})
	return err
}
