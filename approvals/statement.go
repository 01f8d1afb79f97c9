package approvals

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"sallyport/api"
	"sallyport/approvals/identity"
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
	Groups     []string          `json:"groups"`      // of the approver then, those that the terms name
	PolicyHash string            `json:"policy_hash"` // of the terms' policy
	Comment    string            `json:"comment,omitempty"`
	Time       time.Time         `json:"time"`
	Random     string            `json:"random"` // 128 bits, hex: the hash tells nothing about the comment
}

// StatementApprover is who decided.
type StatementApprover struct {
	ID      string `json:"id"`
	Issuer  string `json:"issuer"`
	Subject string `json:"subject"`
}

func newStatement(t Terms, termsHash string, p identity.Person, in api.DecisionInput, at time.Time) Statement {
	var random [16]byte
	rand.Read(random[:]) // never fails: crypto/rand crashes the process instead
	groups := slices.DeleteFunc(t.groups(), func(g string) bool { return !slices.Contains(p.Groups, g) })
	return Statement{
		Format: StatementFormat, RequestID: t.RequestID, TermsHash: termsHash, Verdict: in.Verdict,
		Approver: StatementApprover{ID: p.ID, Issuer: p.Issuer, Subject: p.Subject},
		Groups:   groups, PolicyHash: t.PolicyHash, Comment: in.Comment,
		Time: at, Random: hex.EncodeToString(random[:]),
	}
}

// Encode returns the canonical bytes, in the same encoding as Terms.Encode.
func (s Statement) Encode() ([]byte, error) {
	s.Time = s.Time.UTC()
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
	return policy.Approval{PersonID: s.Approver.ID, Groups: s.Groups}
}
