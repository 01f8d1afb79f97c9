package approvals

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/approvals/policy"
)

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
		RequestID: r.id, State: r.state, Person: TermsPerson{ID: c.ID, Issuer: c.Issuer, Subject: c.Subject},
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
