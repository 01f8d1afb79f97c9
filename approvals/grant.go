package approvals

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals/identity"
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
}

// Evidence is one decision as it is kept. Nothing in it is signed by the approver:
// who can write to the database as the broker does could make up a whole statement
// in a person's name. What betrays it is that the log has no request.decided event
// with its hash.
type Evidence struct {
	Statement []byte // canonical, see Statement
	Hash      string // SHA-256 of Statement as stored, hex
}

// LockGrant reads a grant and its evidence and locks it until tx ends. It
// returns ErrUnknownRequest if the request does not exist or is not the caller's,
// and ErrEvidence if its texts cannot be read. Whether the grant is good is for
// Check to say.
func (s *Service) LockGrant(ctx context.Context, tx pgx.Tx, c identity.Caller, id string) (Grant, error) {
	r, err := s.lock(ctx, tx, id)
	if r != nil && r.personID != c.ID {
		return Grant{}, ErrUnknownRequest
	}
	if err != nil {
		return Grant{}, err
	}
	r.settle(s.cfg.Clock.Now())
	g := Grant{
		RequestID: r.id, State: r.state, Person: c.Person,
		Terms: r.terms, TermsText: r.termsText, TermsHash: r.termsHash, Key: r.key,
	}
	if r.starts != nil && r.ends != nil {
		g.StartsAt, g.EndsAt = *r.starts, *r.ends
	}
	for _, d := range r.decision {
		g.Decisions = append(g.Decisions, Evidence{Statement: d.text, Hash: d.hash})
	}
	return g, nil
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
