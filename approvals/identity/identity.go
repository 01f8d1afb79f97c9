// Package identity knows who is asking: people as the OIDC provider vouches for
// them, and their sign-ins.
//
// A sign-in belongs to one browser, or to one sally that a person in a browser
// has authorised (by authorization code, RFC 6749 and 7636, or device code, RFC
// 8628). Whatever a caller shows leads to its sign-in, so that ending that ends
// everything, at once and for good:
//
//   - A browser's sign-in ends with sign-out, with time without use, or at an
//     absolute limit. What it authorises inherits that limit.
//   - A sally's refresh tokens are one family: each use gives the next, and a
//     second use of one ends the sign-in (RFC 9700 section 4.14.2).
//   - Whoever has been removed has no sign-in, whatever the provider says of them.
//   - Every secret is 256 random bits (user codes: 34, for ten minutes), given out
//     once and stored as SHA-256 (P11).
//
// What a person may do is not known here: roles and rules are the policy's.
package identity

import (
	"slices"
	"time"

	"sallyport/api"
	"sallyport/audit/event"
)

// Person is someone who signs in, identified by (Issuer, Subject).
type Person struct {
	ID         string
	Issuer     string
	Subject    string
	Name       string
	Email      string
	Groups     []string // at the last sign-in
	SignedInAt time.Time
	Removed    *Removal // nil: they may sign in
}

// DisplayName is what to call the person: name, address or id.
func (p Person) DisplayName() string {
	switch {
	case p.Name != "":
		return p.Name
	case p.Email != "":
		return p.Email
	}
	return p.ID
}

// Caller is a person who acts now, and how they proved who they are.
type Caller struct {
	Person
	// Source is the IP address that the call came from.
	Source string
	// AuthTime is when the provider authenticated the person.
	AuthTime time.Time
	// AMR and ACR are how, in the provider's words; empty if it did not say.
	AMR []string
	ACR string
	// Via is "web" or "cli".
	Via string
	// Roles are the person's under the policy in force, by their groups.
	Roles []api.Role
	// Policy is that version; zero, if it is not known, and then there are no roles.
	Policy event.PolicyRef
}

// Actor is the caller as the log names them.
func (c Caller) Actor() event.Actor {
	return event.Actor{Kind: event.Person, ID: c.ID, Name: c.DisplayName()}
}

// Event is an event that the caller causes, under the version of the policy that
// gave them their roles.
func (c Caller) Event(at time.Time, about event.Subject, data event.Data) event.Event {
	e := event.New(at, c.Actor(), c.Source, about, data)
	if c.Policy != (event.PolicyRef{}) {
		e = e.Under(c.Policy)
	}
	return e
}

// Has reports whether the caller has the role under the policy in force.
func (c Caller) Has(role api.Role) bool { return slices.Contains(c.Roles, role) }

// API is the person as the API shows them.
func (p Person) API() api.Person {
	return api.Person{ID: p.ID, Name: p.DisplayName(), Email: p.Email, Issuer: p.Issuer, Subject: p.Subject, Groups: p.Groups}
}
