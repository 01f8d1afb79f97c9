package approvals

import (
	"crypto/rand"
	"encoding/hex"
	"time"

	"sallyport/api"
)

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
