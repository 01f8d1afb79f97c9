package api

import (
	"context"
	"net/http"
	"time"
)

// KnownPerson is a person as operators and auditors see them.
type KnownPerson struct {
	Person
	Roles      []Role    `json:"roles" doc:"Under the policy in force, by the groups at the last sign-in"`
	SignedInAt time.Time `json:"signed_in_at" doc:"When the provider last vouched for them"`
	Removed    *Removal  `json:"removed,omitempty" doc:"Present if they may not sign in"`
}

// Removal says that a person is let in no more.
type Removal struct {
	At     time.Time `json:"at"`
	By     Person    `json:"by"`
	Reason string    `json:"reason"`
}

// WhyInput is the reason for what an operator does to a person.
type WhyInput struct {
	Reason string `json:"reason" minLength:"1" maxLength:"2000"`
}

// RemovedPerson is a person who has been removed, and what ended with it.
type RemovedPerson struct {
	Person    KnownPerson `json:"person"`
	SignIns   int         `json:"sign_ins" doc:"How many sign-ins ended"`
	Cancelled []string    `json:"cancelled" doc:"Undecided requests of theirs"`
	Ended     []string    `json:"ended" doc:"Grants of theirs"`
	Voided    []string    `json:"voided" doc:"Undecided requests on which their approval counts no more"`
	Stand     []string    `json:"stand" doc:"Running grants of others that they helped approve; they go on unless they are revoked"`
}

// RevocationInput names what is to open nothing any more: exactly one of its
// fields, and why.
type RevocationInput struct {
	Request string `json:"request,omitempty" maxLength:"32" doc:"Its grant and those that extend it; one that waits is cancelled"`
	Person  string `json:"person,omitempty" maxLength:"32" doc:"All requests of the person with this id"`
	Serial  string `json:"serial,omitempty" maxLength:"32" doc:"One certificate and the sessions that it opened; its grant goes on"`
	Agent   string `json:"agent,omitempty" maxLength:"64" doc:"One run of a deploy agent, by its id: what it has open closes, and what it deploys is held"`
	Host    string `json:"host,omitempty" maxLength:"64" doc:"All requests for the host with this name or id, those for several hosts among them"`
	Reason  string `json:"reason" minLength:"1" maxLength:"2000"`
}

// Revocation is what a revocation ended; all lists are empty if all was over.
type Revocation struct {
	Ended     []string `json:"ended" doc:"Requests whose grants ended"`
	Cancelled []string `json:"cancelled" doc:"Requests that waited"`
	Runs      []string `json:"runs,omitempty" doc:"Runs of deploy agents"`
	Serials   []string `json:"serials,omitempty" doc:"Certificates that open nothing any more, of a grant that goes on"`
}

// PeopleFilter narrows People. Zero fields do not filter.
type PeopleFilter struct {
	Search  string // part of the name, address or subject, or the id
	Removed bool   // only who has been removed
	Cursor  string
	Limit   int
}

// People lists everybody who has ever signed in, by name. Operators and auditors only.
func (c *Client) People(ctx context.Context, f PeopleFilter) (Page[KnownPerson], error) {
	removed := ""
	if f.Removed {
		removed = "true"
	}
	return fetch[Page[KnownPerson]](ctx, c, v1(http.MethodGet, "people").where(query(
		"search", f.Search, "removed", removed, "cursor", f.Cursor, "limit", number(f.Limit))))
}

// RemovePerson keeps a person out, and ends all that is theirs. Operators only, as
// is RestorePerson.
func (c *Client) RemovePerson(ctx context.Context, id string, in WhyInput) (RemovedPerson, error) {
	return fetch[RemovedPerson](ctx, c, v1(http.MethodPost, "people", id, "remove").with(in))
}

// RestorePerson lets a removed person sign in again.
func (c *Client) RestorePerson(ctx context.Context, id string, in WhyInput) (KnownPerson, error) {
	return fetch[KnownPerson](ctx, c, v1(http.MethodPost, "people", id, "restore").with(in))
}

// Revoke ends grants. Operators, and others for what is their own.
func (c *Client) Revoke(ctx context.Context, in RevocationInput) (Revocation, error) {
	return fetch[Revocation](ctx, c, v1(http.MethodPost, "revocations").with(in))
}

// Extend asks for a grant that follows the caller's own without a gap.
func (c *Client) Extend(ctx context.Context, id string, in ExtendInput) (Request, error) {
	return fetch[Request](ctx, c, v1(http.MethodPost, "requests", id, "extend").with(in))
}
