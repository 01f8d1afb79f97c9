// Package ids makes the identifiers that people read, type and say aloud:
// a kind, a hyphen and 12 characters of Crockford's base 32 in lower case
// (no i, l, o, u), 60 random bits, such as "req-4f8k2m9qhx1z". They are safe
// unquoted in shells, URLs, file names, key ids and certificate principals.
package ids

import (
	"crypto/rand"
	"strings"
)

// Kinds of identifiers.
const (
	Person      = "per"
	Host        = "host"
	Request     = "req"
	Decision    = "dec"
	Draft       = "dft" // of a decision
	Review      = "rev"
	Proposal    = "pol" // of a policy
	TokenFamily = "fam"
	Message     = "msg"
	Delegation  = "del"
	Deployment  = "dep"
	Pack        = "pack" // of evidence
	JoinToken   = "join" // of a host; not the token itself
	Enrolment   = "enr"  // of a host that waits to be let in
	Session     = "ses"  // on a host
	Run         = "run"  // of a deploy agent
)

const (
	alphabet = "0123456789abcdefghjkmnpqrstvwxyz"
	length   = 12
)

// New returns a fresh identifier of the kind. It cannot fail: crypto/rand
// crashes the process rather than returning bad randomness.
func New(kind string) string {
	var b [length]byte
	rand.Read(b[:])
	for i := range b {
		b[i] = alphabet[b[i]&31]
	}
	return kind + "-" + string(b[:])
}

// Valid reports whether s is an identifier of the kind.
func Valid(kind, s string) bool {
	rest, ok := strings.CutPrefix(s, kind+"-")
	return ok && len(rest) == length && strings.Trim(rest, alphabet) == ""
}
