package rollout

import (
	"context"
	"errors"
	"slices"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/evidence"
	"sallyport/approvals/identity"
	"sallyport/broker/rollout/plan"
)

// errDrafted ends the transaction in which a decision was tried, and nothing more.
var errDrafted = errors.New("only drafted")

// DraftDecision prepares what the caller says to a deployment for the provider's
// signature. What Decide would refuse is refused here already.
func (s *Service) DraftDecision(ctx context.Context, c identity.Caller, b approvals.Browser, id string, in api.DeploymentDecisionInput) (approvals.Draft, error) {
	if err := checkDecision(&in); err != nil {
		return approvals.Draft{}, err
	}
	var a answer
	var terms *plan.Terms
	_, err := s.decided(ctx, c, id, func(ctx context.Context, ch *change, c identity.Caller) (err error) {
		if a, err = ch.answer(ctx, c, in); err != nil {
			return err
		}
		if terms = ch.terms; terms.Assurance != evidence.Provider {
			return approvals.ErrNoProviderEvidence
		}
		return errDrafted
	})
	if !errors.Is(err, errDrafted) {
		return approvals.Draft{}, err
	}
	a.statement.ClientID = b.ClientID
	return s.cfg.Approvals.KeepDraft(ctx, b, id, a.statement, terms.Assured())
}

// Complete takes what was drafted, here or in package approvals, and what the provider
// has signed, by the rules of approvals.Complete.
func (s *Service) Complete(ctx context.Context, c identity.Caller, signIn, draft string, in approvals.Signed) error {
	d, err := s.cfg.Approvals.TakeUp(ctx, c, signIn, draft, in)
	if err != nil {
		return err
	}
	if d.Format != plan.DecisionFormat {
		return s.cfg.Approvals.Take(ctx, d)
	}
	st, err := plan.ParseStatement(d.Text)
	if err != nil {
		return ErrEvidence.Because(err)
	}
	if !d.Is(st.Approver, st.DeploymentID) {
		return approvals.ErrDraftGone
	}
	_, err = s.decided(ctx, c, st.DeploymentID, func(ctx context.Context, ch *change, c identity.Caller) error {
		return ch.complete(ctx, c, d, st)
	})
	return err
}

// complete takes the statement, if the person may still say just that.
func (c *change) complete(ctx context.Context, who identity.Caller, d approvals.Drafted, st plan.Statement) error {
	in := api.DeploymentDecisionInput{Verdict: st.Verdict, Comment: st.Comment, TermsHash: st.TermsHash}
	in.About, in.Batch, in.Gate = st.Of()
	if !st.Until.IsZero() {
		in.Until = &st.Until
	}
	a, err := c.answer(ctx, who, in)
	if err != nil {
		return err
	}
	if st.About != a.about || !slices.Equal(st.Groups, a.statement.Groups) {
		return approvals.ErrDraftGone // another question, or other groups, have come meanwhile
	}
	a.statement = st
	return c.sign(ctx, a, d)
}

// sign takes the answer with the provider's signature.
func (c *change) sign(ctx context.Context, a answer, d approvals.Drafted) error {
	keysHash, events, err := c.s.cfg.Approvals.KeepKeys(ctx, c.tx, d.Signed.Keys, c.at())
	if err != nil {
		return err
	}
	c.events = append(c.events, events...)
	note, err := keysNote(ctx, c.tx, keysHash)
	if err != nil {
		return err
	}
	return c.take(ctx, a, plan.Decision{Text: d.Text, IDToken: d.Signed.IDToken, Keys: note}, keysHash)
}

// keysNote is the note about the provider's keys with the hash.
func keysNote(ctx context.Context, tx pgx.Tx, hash string) (note []byte, err error) {
	if err := tx.QueryRow(ctx, `SELECT note FROM provider_keys WHERE hash = $1`, hash).Scan(&note); err != nil {
		return nil, err
	}
	return note, nil
}
