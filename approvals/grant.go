package approvals

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals/evidence"
	"sallyport/approvals/identity"
	"sallyport/approvals/policy"
)

// Grant is a grant with the evidence that allows it, for the broker to check.
// It has been read, and its row locked, in the transaction given to LockGrant.
type Grant struct {
	RequestID string
	State     api.State // by the clock, when it was locked
	Person    identity.Person
	Terms     Terms  // parsed from TermsText
	TermsText []byte // the canonical bytes
	TermsHash string // as stored with the request, hex
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

// LockGrant reads a grant and its evidence and locks it until tx ends. It
// returns ErrUnknownRequest if the request does not exist or is not the caller's,
// identity.ErrRemoved if the caller has been removed, and ErrEvidence if its texts
// cannot be read. Whether the grant is good is for Check to say.
func (s *Service) LockGrant(ctx context.Context, tx pgx.Tx, c identity.Caller, id string) (Grant, error) {
	r, err := s.lock(ctx, tx, id)
	if r != nil && r.personID != c.ID {
		return Grant{}, ErrUnknownRequest
	}
	if err != nil {
		return Grant{}, err
	}
	// Under the request's lock: a removal, which ends the person's grants, comes
	// before this or waits for it.
	if err := s.cfg.People.Present(ctx, tx, c.ID); err != nil {
		return Grant{}, err
	}
	r.settle(s.cfg.Clock.Now())
	return s.grantOf(ctx, tx, r, c, policy.MaxExtensions)
}

// grantOf is the caller's settled request as a grant. It may extend so many others.
func (s *Service) grantOf(ctx context.Context, tx pgx.Tx, r *request, c identity.Caller, left int) (Grant, error) {
	g := Grant{
		RequestID: r.id, State: r.state, Person: c.Person,
		Terms: r.terms, TermsText: r.termsText, TermsHash: r.termsHash, Key: r.key,
		Anchor: s.anchor(),
	}
	if r.starts != nil && r.ends != nil {
		g.StartsAt, g.EndsAt = *r.starts, *r.ends
	}
	for _, d := range r.decision {
		if d.void {
			continue
		}
		e, err := d.evidence(ctx, tx)
		if err != nil {
			return Grant{}, err
		}
		g.Decisions = append(g.Decisions, e)
	}
	var err error
	g.Earlier, err = s.earlier(ctx, tx, r.terms, c, left)
	return g, err
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
		return ErrSignInTooOld.With("you signed in %s ago, and rule %q wants it within %s", age.Round(time.Second), g.Terms.Rule.Name, short(most))
	}
	return nil
}

// Use binds a locked grant to the key, if it is not bound, and makes it active.
// It returns ErrOtherKey if the grant is bound to another key. Only the first use
// writes anything; tx must be the one that has held the lock since LockGrant.
func (s *Service) Use(ctx context.Context, tx pgx.Tx, g Grant, fingerprint string) error {
	if g.Key != "" && g.Key != fingerprint {
		return ErrOtherKey
	}
	if g.State == api.Active && g.Key == fingerprint {
		return nil
	}
	tag, err := tx.Exec(ctx, `
		UPDATE requests SET state = 'active', key = $2
		WHERE id = $1 AND state IN ('approved', 'active') AND key IN ('', $2)`, g.RequestID, fingerprint)
	if err != nil {
		return fmt.Errorf("using the grant of request %s: %w", g.RequestID, err)
	}
	if tag.RowsAffected() != 1 {
		return ErrGrantEnded
	}
	return nil
}
