package grant

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"sallyport/api"
	"sallyport/approvals/evidence"
	"sallyport/internal/ids"
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
	Late       bool              `json:"late"`                // at the deadline or after it
	Running    bool              `json:"running"`             // the grant had not ended: what came after is not signed off
	Assurance  string            `json:"assurance,omitempty"` // that of the terms' emergency
	SignIn     *StatementSignIn  `json:"sign_in,omitempty"`   // of the reviewer, with session
	ClientID   string            `json:"client_id,omitempty"` // Sallyport's at the reviewer's issuer, with provider
	Time       time.Time         `json:"time"`                // when the reviewer said it
	Random     string            `json:"random"`              // 128 bits, hex: the hash tells nothing about the comment
}

// Encode returns the canonical bytes, in the same encoding as Terms.Encode.
func (s ReviewStatement) Encode() ([]byte, error) {
	s.Time, s.SignIn = s.Time.UTC(), s.SignIn.utc()
	return Canonical(s)
}

// ParseReview reads a canonical review, and nothing that Encode would not have
// produced.
func ParseReview(text []byte) (ReviewStatement, error) {
	var s ReviewStatement
	if err := ParseCanonical(text, &s); err != nil {
		return ReviewStatement{}, fmt.Errorf("reading a review: %w", err)
	}
	if s.Format != ReviewFormat {
		return ReviewStatement{}, fmt.Errorf("reading a review: format %q is not %q", s.Format, ReviewFormat)
	}
	return s, nil
}

// ReviewAssurance is what proves a review of the emergency: session or provider.
func (e TermsEmergency) ReviewAssurance() string {
	if e.Assurance == "" {
		return evidence.Session
	}
	return e.Assurance
}

// CheckReview verifies that the evidence signs off the emergency of the terms. It
// is pure. The rules:
//
//  1. The evidence's hash fits its bytes, which are canonical and name these terms.
//  2. The verdict is one, and says why.
//  3. The reviewer is a person, in a group that the terms let review, and not the
//     requester under any id (P5).
//  4. It was given after the door was opened, and says so if it was late.
//  5. It is proved as strongly as the terms want it, which package evidence says.
func CheckReview(t Terms, termsHash string, e Evidence, a evidence.Anchor) (ReviewStatement, error) {
	if t.Emergency == nil {
		return ReviewStatement{}, ErrEvidence.With("a review of what was no emergency")
	}
	if Hash(e.Statement) != e.Hash {
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
	case t.Person.Is(s.Reviewer.ID, s.Reviewer.Issuer, s.Reviewer.Subject):
		return s, ErrEvidence.With("a review is the requester's own")
	case !slices.ContainsFunc(s.Groups, among):
		return s, ErrEvidence.With("a review is by somebody who may not review")
	case s.Time.Before(t.CreatedAt) || s.Late != !s.Time.Before(t.Emergency.ReviewBy):
		return s, ErrEvidence.With("a review was given out of its time")
	}
	want, err := t.ReviewAssured()
	if err == nil {
		err = s.Said().Proved(want, e, a)
	}
	if err != nil {
		return s, ErrEvidence.With("a review is not proved").Because(err)
	}
	return s, nil
}

// Is reports whether somebody is the requester, by id or by what the provider
// calls them.
func (p TermsPerson) Is(id, issuer, subject string) bool {
	return p.ID == id || p.Issuer == issuer && p.Subject == subject
}
