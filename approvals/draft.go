package approvals

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/approvals/evidence"
	"sallyport/approvals/grant"
	"sallyport/approvals/identity"
	"sallyport/internal/ids"
)

// Draft is what somebody has said, and the provider is to sign: a decision on a
// request, the review of an emergency, a decision on a policy or on a deployment.
type Draft struct {
	ID    string
	Nonce string // of the authorization request: the hash of the statement
	// MaxAge, if not 0, and ACRValues, if any, are what the provider is to be asked for.
	MaxAge    time.Duration
	ACRValues []string
}

// Browser is where somebody says something that the provider is to sign.
type Browser struct {
	SignIn   string // the id of their sign-in there
	ClientID string // Sallyport's at their issuer
}

// Signed is what came back from the provider.
type Signed struct {
	IDToken string
	Keys    evidence.Keys // that the provider published when it came back
}

// KeepDraft keeps a statement about a request, a proposal or a deployment for the
// provider's signature. It is bound to the browser's sign-in, good for
// evidence.Lifetime, and changes nothing yet.
func (s *Service) KeepDraft(ctx context.Context, b Browser, about string, st interface{ Encode() ([]byte, error) }, want grant.Assured) (Draft, error) {
	text, err := st.Encode()
	if err != nil {
		return Draft{}, err
	}
	now := s.cfg.Clock.Now()
	d := Draft{ID: ids.New(ids.Draft), Nonce: evidence.Nonce(text), MaxAge: want.MaxAge, ACRValues: want.ACRValues}
	column := map[string]string{}
	for _, kind := range []string{ids.Request, ids.Proposal, ids.Deployment} {
		if ids.Valid(kind, about) {
			column[kind] = about
		}
	}
	return d, pgx.BeginFunc(ctx, s.cfg.Pool, func(tx pgx.Tx) error {
		// The table does not grow: what is over goes, a hundred at a time.
		_, err := tx.Exec(ctx, `
			DELETE FROM decision_drafts WHERE id IN (
				SELECT id FROM decision_drafts WHERE expires_at < $1 ORDER BY expires_at LIMIT 100 FOR UPDATE SKIP LOCKED)`, now)
		if err == nil {
			_, err = tx.Exec(ctx, `
				INSERT INTO decision_drafts (id, sign_in, request_id, proposal_id, deployment_id, statement, created_at, expires_at)
				VALUES ($1, $2, nullif($3, ''), nullif($4, ''), nullif($5, ''), $6, $7, $8)`,
				d.ID, b.SignIn, column[ids.Request], column[ids.Proposal], column[ids.Deployment], text, now, now.Add(evidence.Lifetime))
		}
		if err != nil {
			return fmt.Errorf("drafting what is to be signed about %s: %w", about, err)
		}
		return nil
	})
}

// Complete takes what was drafted, and what the provider has signed:
//
//  1. the draft belongs to the same sign-in, is not too old, and is used now, and
//     never again, whatever comes of it;
//  2. the rules by which it was drafted hold now as they held then: those of
//     Decide, Review or DecideProposal;
//  3. the ID token proves it (package evidence).
//
// A draft of another room's is that room's to take: see TakeUp.
func (s *Service) Complete(ctx context.Context, c identity.Caller, signIn, draft string, in Signed) error {
	d, err := s.TakeUp(ctx, c, signIn, draft, in)
	if err != nil {
		return err
	}
	return s.Take(ctx, d)
}

// TakeUp uses the draft, by rule 1 of Complete. The rest is for whoever drafted it.
func (s *Service) TakeUp(ctx context.Context, c identity.Caller, signIn, draft string, in Signed) (Drafted, error) {
	d := Drafted{Caller: c, Signed: in}
	err := s.cfg.Pool.QueryRow(ctx, `
		UPDATE decision_drafts SET used_at = $3
		WHERE id = $1 AND sign_in = $2 AND used_at IS NULL AND expires_at > $3
		RETURNING coalesce(request_id, proposal_id, deployment_id), statement`, draft, signIn, s.cfg.Clock.Now()).Scan(&d.About, &d.Text)
	if errors.Is(err, pgx.ErrNoRows) {
		return d, ErrDraftGone
	}
	if err != nil {
		return d, fmt.Errorf("taking up a draft: %w", err)
	}
	var form struct {
		Format string `json:"format"`
	}
	if err := json.Unmarshal(d.Text, &form); err != nil {
		return d, ErrEvidence.Because(err)
	}
	d.Format = form.Format
	return d, nil
}

// Take is Complete for a draft that was taken up.
func (s *Service) Take(ctx context.Context, d Drafted) error {
	switch d.Format {
	case StatementFormat:
		return s.completeDecision(ctx, d)
	case ReviewFormat:
		return s.completeReview(ctx, d)
	case PolicyDecisionFormat:
		return s.completePolicyDecision(ctx, d)
	}
	return ErrEvidence.Because(fmt.Errorf("a draft of the form %q", d.Format))
}

// Drafted is a draft that has come back.
type Drafted struct {
	Caller identity.Caller
	About  string // the id of a request, a proposal or a deployment
	Format string // of the statement
	Text   []byte // the statement
	Signed Signed
}

// Is reports whether the statement that was drafted is the caller's own and about
// what the draft was about.
func (d Drafted) Is(by StatementApprover, about string) bool {
	return by == statementPerson(d.Caller) && about == d.About
}
