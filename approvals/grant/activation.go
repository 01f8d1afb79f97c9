package grant

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"sallyport/api"
	"sallyport/approvals/evidence"
	"sallyport/approvals/policy"
	"sallyport/audit/vouch"
	"sallyport/internal/ids"
)

// ErrAuthorApproved says that nobody but its author approved a version (P5).
var ErrAuthorApproved = errors.New("its author approved it")

// The forms of the texts about versions of the policy.
const (
	ProposalFormat       = "sallyport.policy-proposal/1"
	PolicyDecisionFormat = "sallyport.policy-decision/2"
	ActivationFormat     = "sallyport.policy-activation/1"

	// Decisions of before the provider could sign them have the assurance session,
	// whatever the version said that was in force: the broker's note is what there is.
	policyDecisionBefore = "sallyport.policy-decision/1"
)

// What the broker's notes about them vouch for (package audit/vouch): of the
// first two, the hash of the statement; of the last, the text itself.
const (
	ProposalKind   = "policy-proposal/1"
	DecisionKind   = "policy-decision/1"
	ActivationKind = "policy-activation/1"
)

// ProposalStatement is what an operator proposes, in a form that is kept.
type ProposalStatement struct {
	Format       string            `json:"format"` // ProposalFormat
	ProposalID   string            `json:"proposal_id"`
	DocumentHash string            `json:"document_hash"` // SHA-256, hex
	BaseVersion  int64             `json:"base_version,string"`
	BaseHash     string            `json:"base_hash"` // of the version that was in force
	Author       StatementApprover `json:"author"`
	Groups       []string          `json:"groups"` // of the author then, that made them an operator
	Comment      string            `json:"comment,omitempty"`
	Time         time.Time         `json:"time"`
	Random       string            `json:"random"`    // 128 bits, hex
	Assurance    string            `json:"assurance"` // session: the broker's word
	SignIn       *StatementSignIn  `json:"sign_in"`   // of the author
}

// Encode returns the canonical bytes, in the same encoding as Terms.Encode.
func (s ProposalStatement) Encode() ([]byte, error) {
	s.Time, s.SignIn = s.Time.UTC(), s.SignIn.utc()
	return Canonical(s)
}

// PolicyStatement is what another operator says to a proposal, in a form that is kept.
type PolicyStatement struct {
	Format       string            `json:"format"` // PolicyDecisionFormat
	ProposalID   string            `json:"proposal_id"`
	ProposalHash string            `json:"proposal_hash"` // of the proposal's statement
	DocumentHash string            `json:"document_hash"` // that it proposes
	PolicyHash   string            `json:"policy_hash"`   // of the version in force
	Verdict      api.Verdict       `json:"verdict"`
	Approver     StatementApprover `json:"approver"`
	Groups       []string          `json:"groups"` // of the approver then, that made them an operator
	Comment      string            `json:"comment,omitempty"`
	Time         time.Time         `json:"time"`
	Random       string            `json:"random"`              // 128 bits, hex
	Assurance    string            `json:"assurance"`           // that of the version in force
	SignIn       *StatementSignIn  `json:"sign_in,omitempty"`   // of the approver, with session
	ClientID     string            `json:"client_id,omitempty"` // Sallyport's at the approver's issuer, with provider
}

// Encode returns the canonical bytes, in the same encoding as Terms.Encode.
func (s PolicyStatement) Encode() ([]byte, error) {
	s.Time, s.SignIn = s.Time.UTC(), s.SignIn.utc()
	return Canonical(s)
}

// Activation says why a version is in force. Without the two hashes it came from
// the broker's own file.
type Activation struct {
	Format       string    `json:"format"` // ActivationFormat
	Version      int64     `json:"version,string"`
	Hash         string    `json:"hash"`                    // of the document
	ProposalHash string    `json:"proposal_hash,omitempty"` // of the proposal's statement
	DecisionHash string    `json:"decision_hash,omitempty"` // of the approval's statement
	EventID      string    `json:"event_id"`                // policy.activated
	Time         time.Time `json:"time"`
}

// Encode returns the canonical bytes, in the same encoding as Terms.Encode.
func (a Activation) Encode() ([]byte, error) {
	a.Time = a.Time.UTC()
	return Canonical(a)
}

// VersionEvidence is all that is kept about how a version came into force.
type VersionEvidence struct {
	Version  int64
	Document []byte
	Note     []byte // about the activation
	EventID  string

	// Of a version that was proposed:
	Proposal, Decision *VouchedStatement
	Proof              evidence.Proof // of the approval
	Base               []byte         // the document that it followed
}

// VouchedStatement is a canonical statement with the note that vouches for it.
type VouchedStatement struct {
	Text []byte
	Note []byte
}

// Open returns the statement's hash, if the log's key vouches for it.
func (v *VouchedStatement) Open(kind, logKey string) (string, error) {
	said, err := vouch.Open(kind, v.Note, logKey)
	if err != nil {
		return "", err
	}
	if said != Hash(v.Text) {
		return "", errors.New("the note vouches for another statement")
	}
	return said, nil
}

// Check verifies by itself that the version may be in force; that the log says so
// too is for the caller to find out. It is pure, and trusts nothing but the log's
// key. The rules:
//
//  1. A broker vouches that this document became this version, by this event.
//  2. Either the document was the broker's own file; or a broker vouches for a
//     proposal of the document, and for an approval of that proposal.
//  3. The approver is not the author (P5), and both were operators under the
//     version that was in force, not under the one proposed.
//  4. The approval came after the proposal, under the version that the proposal
//     was made for.
//  5. The approval is proved as strongly as that version wants it, which package
//     evidence says.
func (e VersionEvidence) Check(logKey string) (Activation, error) {
	var a Activation
	text, err := vouch.Open(ActivationKind, e.Note, logKey)
	if err != nil {
		return a, err
	}
	if err := ParseCanonical([]byte(text), &a); err != nil {
		return a, fmt.Errorf("reading an activation: %w", err)
	}
	if a.Format != ActivationFormat || a.Version != e.Version || a.Hash != Hash(e.Document) || a.EventID != e.EventID {
		return a, errors.New("the activation is another version's")
	}
	if _, err := uuid.Parse(a.EventID); err != nil {
		return a, fmt.Errorf("reading an activation: %w", err)
	}
	if a.ProposalHash == "" && a.DecisionHash == "" {
		return a, nil
	}
	return a, e.checkApproval(a, logKey)
}

func (e VersionEvidence) checkApproval(a Activation, logKey string) error {
	if e.Proposal == nil || e.Decision == nil {
		return errors.New("the proposal or its approval is missing")
	}
	for _, s := range []struct {
		what, kind, want string
		of               *VouchedStatement
	}{
		{"the proposal", ProposalKind, a.ProposalHash, e.Proposal},
		{"the approval", DecisionKind, a.DecisionHash, e.Decision},
	} {
		got, err := s.of.Open(s.kind, logKey)
		if err == nil && got != s.want {
			err = errors.New("it is another one")
		}
		if err != nil {
			return fmt.Errorf("%s: %w", s.what, err)
		}
	}
	approval := Evidence{Statement: e.Decision.Text, Taken: a.Time, Proof: e.Proof}
	return CheckApproval(a, e.Proposal.Text, approval, e.Base, evidence.Anchor{LogKey: logKey})
}

// CheckApproval verifies rules 2 to 5 of VersionEvidence.Check without the broker's
// notes: for a verifier to whom the log has said that the statements are authentic.
// baseDocument is the one that was in force.
func CheckApproval(a Activation, proposal []byte, approval Evidence, baseDocument []byte, anchor evidence.Anchor) error {
	var p ProposalStatement
	var d PolicyStatement
	if err := ParseCanonical(proposal, &p); err != nil {
		return fmt.Errorf("the proposal: %w", err)
	}
	if err := ParseCanonical(approval.Statement, &d); err != nil {
		return fmt.Errorf("the approval: %w", err)
	}
	base, err := policy.Parse(baseDocument)
	if err != nil {
		return fmt.Errorf("the version before: %w", err)
	}
	operator := func(groups []string) bool { return slices.Contains(base.RolesOf(groups), api.Operator) }
	switch {
	case p.Format != ProposalFormat || d.Format != PolicyDecisionFormat && d.Format != policyDecisionBefore:
		return errors.New("the statements are not of the forms that they should have")
	case p.DocumentHash != a.Hash || d.DocumentHash != a.Hash:
		return errors.New("another document was proposed or approved")
	case d.ProposalID != p.ProposalID || d.ProposalHash != a.ProposalHash:
		return errors.New("another proposal was approved")
	case p.BaseHash != base.Hash || d.PolicyHash != base.Hash || p.BaseVersion >= a.Version:
		return errors.New("it was proposed or approved under another version")
	case d.Verdict != api.Approve:
		return errors.New("the proposal was not approved")
	case !ids.Valid(ids.Person, p.Author.ID) || !ids.Valid(ids.Person, d.Approver.ID):
		return errors.New("the author or the approver is no person")
	case SamePerson(p.Author, d.Approver):
		return ErrAuthorApproved
	case !operator(p.Groups) || !operator(d.Groups):
		return errors.New("its author or its approver was no operator")
	case p.Assurance != evidence.Session || p.SignIn == nil:
		return errors.New("it is not said how the author had signed in")
	case d.Time.Before(p.Time) || a.Time.Before(d.Time):
		return errors.New("it was approved out of its time")
	}
	want := PolicyAssured(base)
	if d.Format == policyDecisionBefore {
		want.Assurance = evidence.Session
	}
	if err := d.Said().Proved(want, approval, anchor); err != nil {
		return fmt.Errorf("the approval is not proved: %w", err)
	}
	return nil
}

// SamePerson reports whether two are one person, by either way to tell.
func SamePerson(a, b StatementApprover) bool {
	return a.ID == b.ID || a.Issuer == b.Issuer && a.Subject == b.Subject
}
