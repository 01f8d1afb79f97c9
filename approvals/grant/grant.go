package grant

import (
	"time"

	"sallyport/api"
	"sallyport/approvals/evidence"
)

// Grant is a grant with the evidence that allows it, for the broker to check.
// It has been read, and its row locked, in the transaction given to LockGrant.
type Grant struct {
	RequestID string
	State     api.State   // by the clock, when it was locked
	Person    TermsPerson // the requester, as they are known now
	Terms     Terms       // parsed from TermsText
	TermsText []byte      // the canonical bytes
	TermsHash string      // as stored with the request, hex
	Decisions []Evidence
	StartsAt  time.Time // zero if the request has no grant, as EndsAt
	EndsAt    time.Time
	Key       string // fingerprint that the grant is bound to; empty before the first
	// Earlier is the grant that this one extends, if the terms name one.
	Earlier *Grant
	// Anchor is what the decisions' proofs are measured by. It is the checker's own.
	Anchor evidence.Anchor
}

// Evidence is one decision as it is kept. With assurance session nothing in it is
// signed by anybody: who can write to the database as the broker does could make
// up a whole statement in a person's name, and what betrays it is that the log
// has no request.decided event with its hash. With assurance provider there is no
// such statement without the provider's signature.
type Evidence struct {
	Statement []byte    // canonical, see Statement
	Hash      string    // SHA-256 of Statement as stored, hex
	Taken     time.Time // by the broker
	Proof     evidence.Proof
	// Delegation is the note of the delegation that the statement names, see
	// OpenDelegation; nil if it was given for nobody else.
	Delegation []byte
}

// CheckSignIn refuses a sign-in that is older than the grant's terms want it at
// each certificate. authTime is when the provider authenticated the person.
func (g Grant) CheckSignIn(authTime, now time.Time) error {
	if g.Terms.Rule.MaxSignInAge == "" {
		return nil
	}
	most, err := time.ParseDuration(g.Terms.Rule.MaxSignInAge)
	if err != nil || most <= 0 {
		return ErrEvidence.With("the terms' age of sign-in cannot be read")
	}
	if age := now.Sub(authTime); age >= most {
		return ErrSignInTooOld.With("you signed in %s ago, and rule %q wants it within %s", age.Round(time.Second), g.Terms.Rule.Name, Short(most))
	}
	return nil
}
