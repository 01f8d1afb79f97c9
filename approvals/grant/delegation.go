package grant

import (
	"fmt"
	"slices"
	"time"

	"sallyport/approvals/evidence"
	"sallyport/audit/vouch"
	"sallyport/internal/ids"
)

// DelegationFormat names the form of Delegation.
const DelegationFormat = "sallyport.delegation/1"

// MaxDelegation is how long one person can decide for another at most.
const MaxDelegation = 90 * 24 * time.Hour

// delegationKind is the kind of notes about delegations.
const delegationKind = "delegation/1"

// Delegation lets one person, the delegate, decide for another, the delegator,
// for a while. It is kept as a note by which the broker vouches for it with the
// log's key: a row that somebody writes into the database lends nothing.
type Delegation struct {
	Format    string            `json:"format"` // DelegationFormat
	ID        string            `json:"id"`
	Delegator StatementApprover `json:"delegator"`
	Delegate  StatementApprover `json:"delegate"`
	MadeBy    StatementApprover `json:"made_by"` // the delegator, or an operator
	Groups    []string          `json:"groups"`  // that are lent; only those that the delegator still is in count
	From      time.Time         `json:"from"`
	Until     time.Time         `json:"until"` // excluded
	Reason    string            `json:"reason"`
	MadeAt    time.Time         `json:"made_at"`
}

// Encode returns the canonical bytes, in the same encoding as Terms.Encode.
func (d Delegation) Encode() ([]byte, error) {
	d.From, d.Until, d.MadeAt = d.From.UTC(), d.Until.UTC(), d.MadeAt.UTC()
	return Canonical(d)
}

// Note has vouch sign the delegation.
func (d Delegation) Note(vouch func(kind, text string) ([]byte, error)) ([]byte, error) {
	text, err := d.Encode()
	if err != nil {
		return nil, err
	}
	return vouch(delegationKind, string(text))
}

// OpenDelegation reads a delegation for which the anchor vouches.
func OpenDelegation(note []byte, a evidence.Anchor) (Delegation, error) {
	text, err := vouch.Open(delegationKind, note, a.LogKey)
	if err != nil {
		return Delegation{}, err
	}
	var d Delegation
	if err := ParseCanonical([]byte(text), &d); err != nil {
		return Delegation{}, fmt.Errorf("reading a delegation: %w", err)
	}
	if d.Format != DelegationFormat {
		return Delegation{}, fmt.Errorf("reading a delegation: format %q is not %q", d.Format, DelegationFormat)
	}
	return d, nil
}

// Runs reports whether the delegation lends anything at the time, unless it was ended.
func (d Delegation) Runs(at time.Time) bool {
	return !at.Before(d.From) && at.Before(d.Until)
}

// About reports whether somebody whose rights it lends, or who made it, asked for
// the terms: nobody chooses who decides on their own request (P5).
func (d Delegation) About(p TermsPerson) bool {
	return p.Is(d.Delegator.ID, d.Delegator.Issuer, d.Delegator.Subject) || p.Is(d.MadeBy.ID, d.MadeBy.Issuer, d.MadeBy.Subject)
}

// StatementDelegator is for whom somebody decided, and what let them.
type StatementDelegator struct {
	ID         string `json:"id"`
	Issuer     string `json:"issuer"`
	Subject    string `json:"subject"`
	Delegation string `json:"delegation"` // its id
}

// Behind are all who stand behind the decision: who gave it, and for whom.
func (s Statement) Behind() []StatementApprover {
	people := []StatementApprover{s.Approver}
	if f := s.OnBehalfOf; f != nil {
		people = append(people, StatementApprover{ID: f.ID, Issuer: f.Issuer, Subject: f.Subject})
	}
	return people
}

// ownGroups are those that the approver's own evidence must name: none, if
// they decided with somebody else's.
func (s Statement) ownGroups() []string {
	if s.OnBehalfOf != nil {
		return nil
	}
	return s.Groups
}

// checkDelegation says why the decision, if it was given for somebody, is not
// allowed by the delegation that it names, or nil:
//
//  1. the anchor vouches for the delegation, which names the approver, and the one
//     for whom they decided;
//  2. it lent all groups that the decision rests on;
//  3. it had been made and ran when the decision was said, and when it was taken;
//  4. the requester neither lent anything by it nor made it (P5).
//
// That somebody has ended it since changes nothing: who decided could do so then.
func (s Statement) checkDelegation(t Terms, e Evidence, a evidence.Anchor) error {
	f := s.OnBehalfOf
	if f == nil {
		if e.Delegation != nil {
			return ErrEvidence.With("a decision comes with a delegation that it does not name")
		}
		return nil
	}
	d, err := OpenDelegation(e.Delegation, a)
	if err != nil {
		return ErrEvidence.With("nobody vouches for the delegation of a decision").Because(err)
	}
	notLent := func(g string) bool { return !slices.Contains(d.Groups, g) }
	switch {
	case !ids.Valid(ids.Delegation, d.ID) || d.ID != f.Delegation || d.Delegate != s.Approver,
		d.Delegator != StatementApprover{ID: f.ID, Issuer: f.Issuer, Subject: f.Subject}:
		return ErrEvidence.With("a decision was given under somebody else's delegation")
	case len(s.Groups) == 0 || slices.ContainsFunc(s.Groups, notLent):
		return ErrEvidence.With("a decision rests on groups that were not delegated")
	case s.Time.Before(d.MadeAt) || !d.Runs(s.Time) || !d.Runs(e.Taken) || d.Until.Sub(d.From) > MaxDelegation:
		return ErrEvidence.With("a decision was given while its delegation did not run")
	case d.About(t.Person):
		return ErrEvidence.With("a decision was given for the requester")
	}
	return nil
}
