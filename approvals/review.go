package approvals

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/audit"
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
)

// ReviewFormat names the form of ReviewStatement.
const ReviewFormat = "sallyport.review/1"

// ReviewStatement is the sign-off after an emergency, in a form that is kept, as
// Statement is for a decision.
type ReviewStatement struct {
	Format     string            `json:"format"` // ReviewFormat
	RequestID  string            `json:"request_id"`
	TermsHash  string            `json:"terms_hash"`
	Verdict    string            `json:"verdict"` // api.Justified or api.NotJustified
	Reviewer   StatementApprover `json:"reviewer"`
	Groups     []string          `json:"groups"`      // of the reviewer then, those that may review
	PolicyHash string            `json:"policy_hash"` // of the terms' policy
	Comment    string            `json:"comment"`
	Late       bool              `json:"late"`    // at the deadline or after it
	Running    bool              `json:"running"` // the grant had not ended: what came after is not signed off
	SignIn     *StatementSignIn  `json:"sign_in"` // of the reviewer: a review is the broker's own word
	Time       time.Time         `json:"time"`
	Random     string            `json:"random"` // 128 bits, hex: the hash tells nothing about the comment
}

// Encode returns the canonical bytes, in the same encoding as Terms.Encode.
func (s ReviewStatement) Encode() ([]byte, error) {
	s.Time = s.Time.UTC()
	return canonical(s)
}

// ParseReview reads a canonical review, and nothing that Encode would not have
// produced.
func ParseReview(text []byte) (ReviewStatement, error) {
	var s ReviewStatement
	if err := parseCanonical(text, &s); err != nil {
		return ReviewStatement{}, fmt.Errorf("reading a review: %w", err)
	}
	if s.Format != ReviewFormat {
		return ReviewStatement{}, fmt.Errorf("reading a review: format %q is not %q", s.Format, ReviewFormat)
	}
	return s, nil
}

// CheckReview verifies that the evidence signs off the emergency of the terms. It
// is pure. The rules:
//
//  1. The evidence's hash fits its bytes, which are canonical and name these terms.
//  2. The verdict is one, and says why.
//  3. The reviewer is a person, in a group that the terms let review, and not the
//     requester under any id (P5).
//  4. It was given after the door was opened, and says so if it was late.
func CheckReview(t Terms, termsHash string, e Evidence) (ReviewStatement, error) {
	if t.Emergency == nil {
		return ReviewStatement{}, ErrEvidence.With("a review of what was no emergency")
	}
	if hash(e.Statement) != e.Hash {
		return ReviewStatement{}, ErrEvidence.With("a review's hash does not fit the review")
	}
	s, err := ParseReview(e.Statement)
	if err != nil {
		return s, ErrEvidence.With("a review cannot be read").Because(err)
	}
	among := func(g string) bool { return slices.Contains(t.Emergency.ReviewGroups, g) }
	switch {
	case s.RequestID != t.RequestID || s.TermsHash != termsHash || s.PolicyHash != t.PolicyHash:
		return s, ErrEvidence.With("a review is about other terms")
	case s.Verdict != api.Justified && s.Verdict != api.NotJustified || strings.TrimSpace(s.Comment) == "":
		return s, ErrEvidence.With("a review does not say what it found")
	case !ids.Valid(ids.Person, s.Reviewer.ID):
		return s, ErrEvidence.With("a review is not a person's")
	case t.Person.is(s.Reviewer.ID, s.Reviewer.Issuer, s.Reviewer.Subject):
		return s, ErrEvidence.With("a review is the requester's own")
	case !slices.ContainsFunc(s.Groups, among):
		return s, ErrEvidence.With("a review is by somebody who may not review")
	case s.Time.Before(t.CreatedAt) || s.Late != !s.Time.Before(t.Emergency.ReviewBy):
		return s, ErrEvidence.With("a review was given out of its time")
	}
	return s, nil
}

// is reports whether somebody is the requester, by id or by what the provider
// calls them.
func (p TermsPerson) is(id, issuer, subject string) bool {
	return p.ID == id || p.Issuer == issuer && p.Subject == subject
}

// review is a row of reviews.
type review struct {
	id        string
	text      []byte
	hash      string
	statement ReviewStatement
}

// Review signs off an emergency, once and for all. The rules:
//
//  1. the request is an emergency that nobody has reviewed, running or not;
//  2. the reviewer is independent: not the requester, in a group of the terms at
//     their last sign-in, and without an unreviewed emergency of their own (P5);
//  3. the reviewer has not been removed, and says why.
//
// Whoever finds that the emergency was not justified also ends its grant, if it
// runs. Of two reviews at once one counts. A review after the deadline counts, and
// says that it was late. A refused review is an event.
func (s *Service) Review(ctx context.Context, c identity.Caller, id string, in api.ReviewInput) (api.Request, error) {
	if in.Verdict != api.Justified && in.Verdict != api.NotJustified {
		return api.Request{}, ErrBadReview
	}
	if in.Comment = strings.TrimSpace(in.Comment); in.Comment == "" {
		return api.Request{}, ErrNoComment
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
		present := s.cfg.People.HoldPresent(ctx, tx, c.ID)
		if r, err = s.lock(ctx, tx, id); err != nil {
			return err
		}
		if present != nil {
			return present
		}
		return s.review(ctx, tx, c, r, in)
	})
	if refused := refusal.As(err); r != nil && refused != nil && (refused.Kind == refusal.Denied || refused.Kind == refusal.Conflict) {
		s.cfg.Log.Refused(ctx, r.event(s.cfg.Clock.Now(), c.Actor(), c.Source,
			event.ReviewRefused{Verdict: in.Verdict, Code: refused.Code, Reason: refused.Detail}))
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

// review takes the review of a locked request.
func (s *Service) review(ctx context.Context, tx pgx.Tx, c identity.Caller, r *request, in api.ReviewInput) error {
	own, err := s.hasUnreviewed(ctx, tx, c.ID)
	if err != nil {
		return err
	}
	at := s.cfg.Clock.Now()
	r.settle(at)
	if err := r.mayReview(c.Person, own); err != nil {
		return err
	}
	// Replicas' clocks differ a little; a review is never dated before its emergency.
	if at.Before(r.terms.CreatedAt) {
		at = r.terms.CreatedAt
	}
	v := review{id: ids.New(ids.Review), statement: r.newReview(c, in, at)}
	if v.text, err = v.statement.Encode(); err != nil {
		return err
	}
	v.hash = hash(v.text)
	if err := r.insertReview(ctx, tx, v); err != nil {
		return err
	}
	events := []event.Event{r.event(at, c.Actor(), c.Source, event.ReviewGiven{
		Drill: r.terms.Emergency.Drill, ReviewID: v.id, Verdict: in.Verdict, Comment: in.Comment, Late: v.statement.Late,
		TermsHash: r.termsHash, Groups: v.statement.Groups, Evidence: string(v.text), EvidenceHash: v.hash,
	})}
	if in.Verdict == api.NotJustified && r.granted() {
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

// mayReview says why the person cannot review the request, or nil. unreviewed:
// they have an emergency of their own that waits for its review. Two people who
// each need the other's signature are not independent of each other.
func (r *request) mayReview(p identity.Person, unreviewed bool) error {
	switch e := r.terms.Emergency; {
	case e == nil:
		return ErrNotEmergency
	case r.terms.Person.is(p.ID, p.Issuer, p.Subject):
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

func (r *request) newReview(c identity.Caller, in api.ReviewInput, at time.Time) ReviewStatement {
	var random [16]byte
	rand.Read(random[:]) // never fails: crypto/rand crashes the process instead
	e := r.terms.Emergency
	return ReviewStatement{
		Format: ReviewFormat, RequestID: r.id, TermsHash: r.termsHash, Verdict: in.Verdict,
		Reviewer:   StatementApprover{ID: c.ID, Issuer: c.Issuer, Subject: c.Subject},
		Groups:     slices.DeleteFunc(slices.Clone(e.ReviewGroups), func(g string) bool { return !slices.Contains(c.Groups, g) }),
		PolicyHash: r.terms.PolicyHash, Comment: in.Comment,
		SignIn: &StatementSignIn{AuthTime: c.AuthTime.UTC(), AMR: append([]string{}, c.AMR...), ACR: c.ACR},
		Late:   !at.Before(e.ReviewBy), Running: r.granted(), Time: at, Random: hex.EncodeToString(random[:]),
	}
}

// insertReview adds a review to a locked request, in the database and in r.
func (r *request) insertReview(ctx context.Context, tx pgx.Tx, v review) error {
	r.review = &v
	_, err := tx.Exec(ctx, `
		INSERT INTO reviews (id, request_id, requester_id, reviewer_id, statement, statement_hash, reviewed_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		v.id, r.id, r.personID, v.statement.Reviewer.ID, v.text, v.hash, v.statement.Time)
	if err != nil {
		return fmt.Errorf("writing the review of request %s: %w", r.id, err)
	}
	return nil
}

// addReviews reads the reviews of those that are emergencies. One that does not
// sign off its terms was written by hand.
func addReviews(ctx context.Context, db querier, list []*request) error {
	byID, keys := map[string]*request{}, []string{}
	for _, r := range list {
		if r.terms.Emergency != nil {
			byID[r.id], keys = r, append(keys, r.id)
		}
	}
	if len(keys) == 0 {
		return nil
	}
	rows, err := db.Query(ctx, `SELECT request_id, id, statement, statement_hash FROM reviews WHERE request_id = ANY($1)`, keys)
	if err != nil {
		return fmt.Errorf("reading reviews: %w", err)
	}
	var id string
	var v review
	_, err = pgx.ForEachRow(rows, []any{&id, &v.id, &v.text, &v.hash}, func() error {
		r := byID[id]
		statement, err := CheckReview(r.terms, r.termsHash, Evidence{Statement: v.text, Hash: v.hash})
		if err != nil {
			r.broken = ErrEvidence.Because(fmt.Errorf("request %s: %w", id, err))
		}
		r.review = &review{id: v.id, text: slices.Clone(v.text), hash: v.hash, statement: statement}
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading reviews: %w", err)
	}
	return nil
}

// reviewLogged reports whether the log has the request's review, exactly.
func (s *Service) reviewLogged(ctx context.Context, r *request) (bool, error) {
	entries, err := s.cfg.Log.Entries(ctx, audit.Filter{RequestID: r.id, Type: "review.given"})
	if err != nil {
		return false, err
	}
	for _, entry := range entries {
		e, err := entry.Event()
		if err != nil {
			return false, err
		}
		given, ok := e.Data.(event.ReviewGiven)
		if ok && r.review != nil && e.Subject.RequestID == r.id && given.EvidenceHash == r.review.hash && given.Evidence == string(r.review.text) {
			return true, nil
		}
	}
	return false, nil
}

// waitsForReview is true of a row e of emergencies that nobody has reviewed.
const waitsForReview = `(NOT EXISTS (SELECT FROM reviews v WHERE v.request_id = e.request_id))`

// hasUnreviewed reports whether the person has an emergency, a real one, that
// nobody has reviewed.
func (s *Service) hasUnreviewed(ctx context.Context, db querier, personID string) (bool, error) {
	rows, err := db.Query(ctx, `SELECT EXISTS (SELECT FROM emergencies e WHERE e.person_id = $1 AND NOT e.drill AND `+waitsForReview+`)`, personID)
	if err != nil {
		return false, fmt.Errorf("reading unreviewed emergencies: %w", err)
	}
	found, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[bool])
	if err != nil {
		return false, fmt.Errorf("reading unreviewed emergencies: %w", err)
	}
	return found, nil
}

// addReviewActions says of the emergencies of a list whether the caller can review
// them, and if not, why.
func (s *Service) addReviewActions(ctx context.Context, c identity.Caller, list []*request, out []api.Request) error {
	waits := func(r *request) bool { return r.mayReview(c.Person, false) == nil }
	own := false
	if slices.ContainsFunc(list, waits) {
		var err error
		if own, err = s.hasUnreviewed(ctx, s.cfg.Pool, c.ID); err != nil {
			return err
		}
	}
	for i, r := range list {
		if r.terms.Emergency != nil {
			out[i].Actions = append(out[i].Actions, action("review", r.mayReview(c.Person, own)))
		}
	}
	return nil
}

// reviewsForMe selects the emergencies e that @me could review.
const reviewsForMe = `(e.person_id <> @me AND e.review_groups && @groups::text[] AND ` + waitsForReview + `
	AND NOT EXISTS (SELECT FROM emergencies mine WHERE mine.person_id = @me AND NOT mine.drill
		AND NOT EXISTS (SELECT FROM reviews v WHERE v.request_id = mine.request_id)))`

// CountReviews is how many emergencies wait for the caller's review.
func (s *Service) CountReviews(ctx context.Context, c identity.Caller) (int, error) {
	var n int
	err := s.cfg.Pool.QueryRow(ctx, `SELECT count(*) FROM emergencies e WHERE `+reviewsForMe,
		pgx.NamedArgs{"me": c.ID, "groups": notNil(c.Groups)}).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("counting reviews: %w", err)
	}
	return n, nil
}
