package approvals

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"time"

	"sallyport/api"
	"sallyport/approvals/policy"
)

// StatementFormat names the form of Statement.
const StatementFormat = "sallyport.decision/1"

// Statement is what an approver decided, in a form that is kept: its canonical
// bytes are the evidence of the decision, and their hash stands in the log.
type Statement struct {
	Format     string            `json:"format"` // StatementFormat
	RequestID  string            `json:"request_id"`
	TermsHash  string            `json:"terms_hash"`
	Verdict    api.Verdict       `json:"verdict"`
	Approver   StatementApprover `json:"approver"`
	Groups     []string          `json:"groups"`      // that the approver decided with, of those that the terms name
	PolicyHash string            `json:"policy_hash"` // of the terms' policy
	Comment    string            `json:"comment,omitempty"`
	Time       time.Time         `json:"time"`                // when the approver said it
	Random     string            `json:"random"`              // 128 bits, hex: the hash tells nothing about the comment
	Assurance  string            `json:"assurance"`           // how it is proved, see package evidence
	SignIn     *StatementSignIn  `json:"sign_in,omitempty"`   // of the approver, with session
	ClientID   string            `json:"client_id,omitempty"` // Sallyport's at the approver's issuer, with provider

	OnBehalfOf *StatementDelegator `json:"on_behalf_of,omitempty"` // whose groups they are, if not the approver's own
}

// StatementApprover is who decided.
type StatementApprover struct {
	ID      string `json:"id"`
	Issuer  string `json:"issuer"`
	Subject string `json:"subject"`
}

// StatementSignIn is how the approver had signed in, by the provider's word then.
type StatementSignIn struct {
	AuthTime time.Time `json:"auth_time"`
	AMR      []string  `json:"amr"`
	ACR      string    `json:"acr"`
}

// newStatement is what somebody decides on the terms, not proved in any way yet.
func newStatement(t Terms, termsHash string, b basis, in api.DecisionInput, at time.Time) Statement {
	var random [16]byte
	rand.Read(random[:]) // never fails: crypto/rand crashes the process instead
	p := b.person
	return Statement{
		Format: StatementFormat, RequestID: t.RequestID, TermsHash: termsHash, Verdict: in.Verdict,
		Approver: StatementApprover{ID: p.ID, Issuer: p.Issuer, Subject: p.Subject},
		Groups:   b.groupsOf(t), PolicyHash: t.PolicyHash, Comment: in.Comment,
		Time: at, Random: hex.EncodeToString(random[:]), Assurance: t.Rule.Assurance, OnBehalfOf: b.onBehalfOf(),
	}
}

// Encode returns the canonical bytes, in the same encoding as Terms.Encode.
func (s Statement) Encode() ([]byte, error) {
	s.Time = s.Time.UTC()
	if s.SignIn != nil {
		signIn := *s.SignIn
		signIn.AuthTime = signIn.AuthTime.UTC()
		s.SignIn = &signIn
	}
	return canonical(s)
}

// ParseStatement reads a canonical statement, and nothing that Encode would not
// have produced.
func ParseStatement(text []byte) (Statement, error) {
	var s Statement
	if err := parseCanonical(text, &s); err != nil {
		return Statement{}, fmt.Errorf("reading a decision: %w", err)
	}
	if s.Format != StatementFormat {
		return Statement{}, fmt.Errorf("reading a decision: format %q is not %q", s.Format, StatementFormat)
	}
	return s, nil
}

// approval is the statement in the words of the quorum.
func (s Statement) approval() policy.Approval {
	a := policy.Approval{PersonID: s.Approver.ID, Groups: s.Groups}
	if s.OnBehalfOf != nil {
		a.Also = []string{s.OnBehalfOf.ID}
	}
	return a
}
