// Package evidence says whether a decision is proved. It is pure: it needs the
// statement, what came with it and the log's public key, and neither a database
// nor a provider that still exists. The broker asks it each time before it
// issues a certificate, and a verifier can ask the same years later.
//
// How strong a proof must be is its assurance, which the terms fix:
//
//   - session: the broker's own word. The statement says how the approver had
//     signed in, and that is all there is.
//   - provider: the identity provider's signature. The approver went to it once
//     more, with a nonce that is the hash of the statement, so that the ID token
//     it gave (OpenID Connect Core 1.0) is a signature over that statement.
//
// A further assurance is a further entry in the table of methods; what the table
// does not have proves nothing.
package evidence

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"time"
)

// The assurances.
const (
	Session  = "session"
	Provider = "provider"
)

const (
	// Lifetime is how long a person may take between saying what they decide and
	// coming back with the proof of it.
	Lifetime = 10 * time.Minute
	// Leeway is how far the clocks of Sallyport and of a provider may be apart.
	Leeway = 5 * time.Minute
	// AgeLeeway is added to the age that an authentication may have: on the way
	// from the provider's check to its token a little time passes.
	AgeLeeway = time.Minute
)

// Decision is what must be proved, as the statement and the terms have it.
type Decision struct {
	Statement []byte // the canonical bytes
	// Issuer and Subject are the approver's, ClientID is Sallyport's at the issuer.
	Issuer, Subject, ClientID string
	// Groups are those that the approver decides for.
	Groups []string
	// AuthTime is when the approver's sign-in was authenticated, with session.
	AuthTime time.Time
	// Made is when the approver said it, Taken when the broker took the decision.
	Made, Taken time.Time
	// MaxAge is how old the approver's authentication may have been, if not 0, and
	// ACRValues are those of which the provider must state one, if there are any.
	MaxAge    time.Duration
	ACRValues []string
}

// Proof is what came with a statement. Which of it there is depends on the
// assurance.
type Proof struct {
	IDToken string // provider: as the provider signed it
	Keys    []byte // provider: the note about its keys then, see Keys
}

// Anchor is what a proof is measured by. It comes from the verifier, and never
// from the database.
type Anchor struct {
	LogKey string // the log's public key, note format
}

// method proves decisions of one assurance.
type method func(Decision, Proof, Anchor) error

// methods are all assurances.
var methods = map[string]method{
	Session:  session,
	Provider: provider,
}

// Verify says why the proof does not prove the decision with the assurance, or nil.
func Verify(assurance string, d Decision, p Proof, a Anchor) error {
	prove, ok := methods[assurance]
	if !ok {
		return fmt.Errorf("%w %q", ErrAssurance, assurance)
	}
	return prove(d, p, a)
}

// Nonce is what a token must carry to be a signature over the statement: the
// base64url of its SHA-256.
func Nonce(statement []byte) string {
	sum := sha256.Sum256(statement)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// What can be wrong. Verify's errors wrap one of these.
var (
	ErrAssurance = errors.New("there is no assurance")
	ErrForm      = errors.New("the proof is not of the form that its assurance has")
	ErrTime      = errors.New("the times do not fit each other")
	ErrKeys      = errors.New("nobody vouches for the provider's keys")
	ErrSignature = errors.New("the ID token is not signed by one of the provider's keys")
	ErrIssuer    = errors.New("the ID token is another provider's")
	ErrAudience  = errors.New("the ID token was made for another client")
	ErrPerson    = errors.New("the ID token is about another person")
	ErrNonce     = errors.New("the ID token is not about this decision")
	ErrGroups    = errors.New("the ID token does not name the groups that the decision needs")
	ErrNoAge     = errors.New("the ID token does not say when the person was authenticated (auth_time)")
	ErrAge       = errors.New("the person was authenticated too long ago")
	ErrACR       = errors.New("the person was not authenticated in one of the ways that the rule wants (acr)")
)

// session proves nothing beyond what the statement says: the broker wrote it
// down when the person pressed the button.
func session(d Decision, p Proof, _ Anchor) error {
	switch {
	case p.IDToken != "" || p.Keys != nil || d.ClientID != "" || d.AuthTime.IsZero():
		return ErrForm
	case !d.Taken.Equal(d.Made) || d.AuthTime.After(d.Made):
		return ErrTime
	}
	return nil
}
