package grant

import (
	"fmt"
	"time"

	"sallyport/api"
	"sallyport/approvals/policy"
	"sallyport/internal/remember"
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

// Encode returns the canonical bytes, in the same encoding as Terms.Encode.
func (s Statement) Encode() ([]byte, error) {
	s.Time, s.SignIn = s.Time.UTC(), s.SignIn.utc()
	return Canonical(s)
}

// ParseStatement reads a canonical statement, and nothing that Encode would not
// have produced. It remembers what it has read, as ParseTerms does: the result must
// not be changed.
func ParseStatement(text []byte) (Statement, error) {
	key := remember.Of(text)
	if s, ok := readStatements.Get(key); ok {
		return s, nil
	}
	s, err := parseStatement(text)
	if err == nil {
		readStatements.Put(key, s)
	}
	return s, err
}

var readStatements = remember.Memory[Statement]{Size: 4096}

func parseStatement(text []byte) (Statement, error) {
	var s Statement
	if err := ParseCanonical(text, &s); err != nil {
		return Statement{}, fmt.Errorf("reading a decision: %w", err)
	}
	if s.Format != StatementFormat {
		return Statement{}, fmt.Errorf("reading a decision: format %q is not %q", s.Format, StatementFormat)
	}
	return s, nil
}

// Approval is the statement in the words of the quorum.
func (s Statement) Approval() policy.Approval {
	a := policy.Approval{PersonID: s.Approver.ID, Groups: s.Groups}
	if s.OnBehalfOf != nil {
		a.Also = []string{s.OnBehalfOf.ID}
	}
	return a
}
