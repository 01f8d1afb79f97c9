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
	"sallyport/audit/event"
	"sallyport/internal/ids"
)

// Draft is what somebody has said, and the provider is to sign: a decision on a
// request, the review of an emergency, or a decision on a policy.
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

// keepDraft keeps a statement about a request or a proposal for the provider's
// signature. It is bound to the browser's sign-in, good for evidence.Lifetime,
// and changes nothing yet.
func (s *Service) keepDraft(ctx context.Context, b Browser, about string, st interface{ Encode() ([]byte, error) }, want grant.Assured) (Draft, error) {
	text, err := st.Encode()
	if err != nil {
		return Draft{}, err
	}
	now := s.cfg.Clock.Now()
	d := Draft{ID: ids.New(ids.Draft), Nonce: evidence.Nonce(text), MaxAge: want.MaxAge, ACRValues: want.ACRValues}
	request, proposal := about, ""
	if ids.Valid(ids.Proposal, about) {
		request, proposal = "", about
	}
	return d, pgx.BeginFunc(ctx, s.cfg.Pool, func(tx pgx.Tx) error {
		// The table does not grow: what is over goes, a hundred at a time.
		_, err := tx.Exec(ctx, `
			DELETE FROM decision_drafts WHERE id IN (
				SELECT id FROM decision_drafts WHERE expires_at < $1 ORDER BY expires_at LIMIT 100 FOR UPDATE SKIP LOCKED)`, now)
		if err == nil {
			_, err = tx.Exec(ctx, `
				INSERT INTO decision_drafts (id, sign_in, request_id, proposal_id, statement, created_at, expires_at)
				VALUES ($1, $2, nullif($3, ''), nullif($4, ''), $5, $6, $7)`,
				d.ID, b.SignIn, request, proposal, text, now, now.Add(evidence.Lifetime))
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
func (s *Service) Complete(ctx context.Context, c identity.Caller, signIn, draft string, in Signed) error {
	var about string
	var text []byte
	err := s.cfg.Pool.QueryRow(ctx, `
		UPDATE decision_drafts SET used_at = $3
		WHERE id = $1 AND sign_in = $2 AND used_at IS NULL AND expires_at > $3
		RETURNING coalesce(request_id, proposal_id), statement`, draft, signIn, s.cfg.Clock.Now()).Scan(&about, &text)
	if errors.Is(err, pgx.ErrNoRows) {
		return ErrDraftGone
	}
	if err != nil {
		return fmt.Errorf("taking up a draft: %w", err)
	}
	var form struct {
		Format string `json:"format"`
	}
	if err := json.Unmarshal(text, &form); err != nil {
		return ErrEvidence.Because(err)
	}
	d := drafted{c: c, about: about, text: text, sign: func(ctx context.Context, tx pgx.Tx, at time.Time) (kept, []event.Event, error) {
		return s.keepSigned(ctx, tx, text, in, at)
	}}
	switch form.Format {
	case StatementFormat:
		return s.completeDecision(ctx, d)
	case ReviewFormat:
		return s.completeReview(ctx, d)
	case PolicyDecisionFormat:
		return s.completePolicyDecision(ctx, d)
	}
	return ErrEvidence.Because(fmt.Errorf("a draft of the form %q", form.Format))
}

// drafted is a draft that has come back.
type drafted struct {
	c     identity.Caller
	about string // the id of a request or a proposal
	text  []byte
	// sign gives the statement with the provider's signature, and the event of the
	// provider's keys if they are news.
	sign func(ctx context.Context, tx pgx.Tx, at time.Time) (kept, []event.Event, error)
}

// is reports whether the statement that was drafted is the caller's own and about
// what the draft was about.
func (d drafted) is(by StatementApprover, about string) bool {
	return by == statementPerson(d.c) && about == d.about
}
