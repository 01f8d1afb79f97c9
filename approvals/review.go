package approvals

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals/evidence"
	"sallyport/approvals/identity"
	"sallyport/audit/event"
	"sallyport/internal/ids"
	"sallyport/internal/refusal"
)

// Refusals of a review.
var (
	ErrBadReview = refusal.New(refusal.Invalid, "bad-review",
		"that is not a verdict on an emergency", "say justified or not-justified").On("verdict")
	ErrNoComment = refusal.New(refusal.Invalid, "comment-required",
		"a review says why", "say what you looked at and what you found").On("comment")
	ErrNotEmergency = refusal.New(refusal.Conflict, "not-an-emergency",
		"the request is no emergency, there is nothing to review", "list what waits for a review: sally requests --review waiting")
	ErrOwnReview = refusal.New(refusal.Denied, "own-emergency",
		"nobody reviews their own emergency", "somebody else has to; the request names who can")
	ErrNotReviewer = refusal.New(refusal.Denied, "not-reviewer",
		"you are in none of the groups that review this emergency", "the request names who can")
	ErrNotIndependent = refusal.New(refusal.Denied, "not-independent",
		"an emergency of your own waits for its review", "have yours reviewed first, by somebody else: nobody trades signatures")
	ErrReviewed = refusal.New(refusal.Conflict, "already-reviewed",
		"the emergency has been reviewed", "a review stands; look at it: sally show")
	errSignedReview = ErrProviderEvidence.With("reviews of this emergency are signed by the identity provider, so they are given in a browser").
			Hinting("open the request's page and review it there, or run: sally review")
)

// review is a row of reviews.
type review struct {
	kept
	id        string
	statement ReviewStatement
}

// Review signs off an emergency, once and for all. The rules:
//
//  1. the request is an emergency that nobody has reviewed, running or not;
//  2. the reviewer is independent: not the requester, in a group of the terms at
//     their last sign-in, and without an unreviewed emergency of their own (P5);
//  3. the reviewer has not been removed, and says why;
//  4. the terms take the broker's own word for it (assurance session). Under others
//     the answer is ErrProviderEvidence, and DraftReview and Complete are the way.
//
// Whoever finds that the emergency was not justified also ends its grant, if it
// runs. Of two reviews at once one counts. A review after the deadline counts, and
// says that it was late. A refused review is an event.
func (s *Service) Review(ctx context.Context, c identity.Caller, id string, in api.ReviewInput) (api.Request, error) {
	if err := checkReview(&in); err != nil {
		return api.Request{}, err
	}
	c, err := s.takeReview(ctx, c, id, in.Verdict, func(_ pgx.Tx, c identity.Caller, r *request, at time.Time) (review, []event.Event, error) {
		if r.terms.Emergency.ReviewAssurance() == evidence.Provider {
			return review{}, nil, errSignedReview
		}
		st := r.newReview(c.Person, in, at)
		st.SignIn = signInOf(c)
		k, err := keep(st, at)
		return review{kept: k, statement: st}, nil, err
	})
	if err != nil {
		return api.Request{}, err
	}
	return s.Get(ctx, c, id)
}

func checkReview(in *api.ReviewInput) error {
	if in.Verdict != api.Justified && in.Verdict != api.NotJustified {
		return ErrBadReview
	}
	if in.Comment = strings.TrimSpace(in.Comment); in.Comment == "" {
		return ErrNoComment
	}
	return text("comment", in.Comment, maxReason)
}

// prepareReview makes the review, by the caller as they are known now, of a locked
// request that they may review, to be taken at the time; and the events that come
// before its own.
type prepareReview func(tx pgx.Tx, c identity.Caller, r *request, at time.Time) (review, []event.Event, error)

// takeReview takes one review, and returns the caller as they are known now.
func (s *Service) takeReview(ctx context.Context, c identity.Caller, id, verdict string, p prepareReview) (identity.Caller, error) {
	c, err := s.callerNow(ctx, c)
	if err != nil {
		return c, err
	}
	trades, err := s.trades(ctx, c.ID)
	if err != nil {
		return c, err
	}
	var r *request
	err = pgx.BeginFunc(ctx, s.cfg.Pool, func(tx pgx.Tx) (err error) {
		present := s.cfg.People.HoldPresent(ctx, tx, c.ID)
		if r, err = s.lock(ctx, tx, id); err != nil {
			return err
		}
		if present != nil {
			return present
		}
		return s.takeReviewLocked(ctx, tx, c, r, trades, p)
	})
	if refused := refusal.As(err); r != nil && refused != nil && (refused.Kind == refusal.Denied || refused.Kind == refusal.Conflict) {
		if !refused.Is(ErrProviderEvidence) { // which refuses nothing, but names the way
			s.cfg.Log.Refused(ctx, r.event(s.cfg.Clock.Now(), c.Actor(), c.Source,
				event.ReviewRefused{Verdict: verdict, Code: refused.Code, Reason: refused.Detail}))
		}
		if !r.visible(c) {
			err = ErrUnknownRequest
		}
	}
	if err == nil {
		s.cfg.Log.Kick()
	}
	return c, err
}

// takeReviewLocked takes the review of a locked request. trades: the reviewer has
// an unreviewed emergency of their own, as far as was known before the lock.
func (s *Service) takeReviewLocked(ctx context.Context, tx pgx.Tx, c identity.Caller, r *request, trades bool, p prepareReview) error {
	own, err := s.hasUnreviewed(ctx, tx, c.ID)
	if err != nil {
		return err
	}
	at := s.cfg.Clock.Now()
	r.settle(at)
	if err := r.mayReview(c.Person, own || trades); err != nil {
		return err
	}
	// Replicas' clocks differ a little; a review is never dated before its emergency.
	if at.Before(r.terms.CreatedAt) {
		at = r.terms.CreatedAt
	}
	v, events, err := p(tx, c, r, at)
	if err != nil {
		return err
	}
	e, err := v.evidence(ctx, tx)
	if err != nil {
		return err
	}
	if _, err := CheckReview(r.terms, r.termsHash, e, s.anchor()); err != nil {
		return Unproved(err)
	}
	v.id = ids.New(ids.Review)
	if err := r.insertReview(ctx, tx, v); err != nil {
		return err
	}
	events = append(events, r.event(at, c.Actor(), c.Source, v.event(r.terms)))
	if v.statement.Verdict == api.NotJustified && r.granted() {
		events = append(events, r.event(at, c.Actor(), c.Source, r.end("revoked", at)))
	}
	if err := r.save(ctx, tx); err != nil {
		return err
	}
	if err := s.tellReviewed(ctx, tx, r, at); err != nil {
		return err
	}
	return s.cfg.Log.Stage(ctx, tx, events...)
}

// event is the review as the log has it.
func (v review) event(t Terms) event.ReviewGiven {
	st := v.statement
	return event.ReviewGiven{
		Drill: t.Emergency.Drill, ReviewID: v.id, Verdict: st.Verdict, Comment: st.Comment, Late: st.Late,
		TermsHash: st.TermsHash, Groups: st.Groups, Evidence: string(v.text), EvidenceHash: v.hash,
		Assurance: st.Said().Assurance, IDTokenHash: v.idTokenHash(), KeysHash: v.keysHash,
	}
}

// mayReview says why the person cannot review the request, or nil. unreviewed:
// they have an emergency of their own that waits for its review. Two people who
// each need the other's signature are not independent of each other.
func (r *request) mayReview(p identity.Person, unreviewed bool) error {
	switch e := r.terms.Emergency; {
	case e == nil:
		return ErrNotEmergency
	case r.terms.Person.Is(p.ID, p.Issuer, p.Subject):
		return ErrOwnReview
	case !slices.ContainsFunc(e.ReviewGroups, func(g string) bool { return slices.Contains(p.Groups, g) }):
		return ErrNotReviewer
	case r.review != nil:
		return ErrReviewed
	case unreviewed:
		return ErrNotIndependent
	}
	return nil
}

// newReview is what the person finds about the request, not proved in any way yet.
func (r *request) newReview(p identity.Person, in api.ReviewInput, at time.Time) ReviewStatement {
	e := r.terms.Emergency
	return ReviewStatement{
		Format: ReviewFormat, RequestID: r.id, TermsHash: r.termsHash, Verdict: in.Verdict,
		Reviewer:   approver(p),
		Groups:     slices.DeleteFunc(slices.Clone(e.ReviewGroups), func(g string) bool { return !slices.Contains(p.Groups, g) }),
		PolicyHash: r.terms.PolicyHash, Comment: in.Comment,
		Late: !at.Before(e.ReviewBy), Running: r.granted(), Assurance: e.Assurance, Time: at, Random: random128(),
	}
}
