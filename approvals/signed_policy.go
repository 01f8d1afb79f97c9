package approvals

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals/grant"
	"sallyport/approvals/identity"
	"sallyport/approvals/policy"
	"sallyport/audit/event"
)

// DraftPolicyDecision prepares the caller's decision on a proposal for the
// provider's signature. What DecideProposal would refuse is refused here already.
func (s *Service) DraftPolicyDecision(ctx context.Context, c identity.Caller, b Browser, id string, in api.PolicyDecisionInput) (Draft, error) {
	if err := checkPolicyDecision(&in); err != nil {
		return Draft{}, err
	}
	c, err := s.callerNow(ctx, c)
	if err != nil {
		return Draft{}, err
	}
	head, err := s.current(ctx)
	if err != nil {
		return Draft{}, err
	}
	if len(operatorGroups(head, c.Person)) == 0 { // others do not hear whether there is such a proposal
		return Draft{}, ErrPolicyOperators
	}
	p, err := s.findProposal(ctx, s.cfg.Pool, id, false)
	if err != nil {
		return Draft{}, err
	}
	if _, err := s.decidable(ctx, s.cfg.Pool, p, c.Person, in.Verdict, head); err != nil {
		return Draft{}, err
	}
	switch {
	case in.Statement != "" && in.Statement != p.hash:
		return Draft{}, ErrOtherProposal
	case head.Assurance != policy.Provider:
		return Draft{}, ErrNoProviderEvidence
	}
	st := p.newDecision(head, c.Person, in, notBefore(s.cfg.Clock.Now(), p.created))
	st.ClientID = b.ClientID
	return s.KeepDraft(ctx, b, id, st, grant.PolicyAssured(head))
}

// completePolicyDecision takes a decision on a proposal that was drafted.
func (s *Service) completePolicyDecision(ctx context.Context, d Drafted) error {
	var st PolicyStatement
	if err := grant.ParseCanonical(d.Text, &st); err != nil {
		return ErrEvidence.Because(err)
	}
	if !d.Is(st.Approver, st.ProposalID) {
		return ErrDraftGone
	}
	_, err := s.takePolicyDecision(ctx, d.Caller, st.ProposalID, st.Verdict, func(tx pgx.Tx, c identity.Caller, p *proposal, head *policy.Policy, at time.Time) (policyDecision, []event.Event, error) {
		switch {
		case st.ProposalHash != p.hash || st.DocumentHash != p.statement.DocumentHash:
			return policyDecision{}, nil, ErrOtherProposal
		case st.PolicyHash != head.Hash || !slices.Equal(st.Groups, operatorGroups(head, c.Person)):
			return policyDecision{}, nil, ErrDraftGone // another version, or other groups, have come meanwhile
		}
		k, events, err := s.keepSigned(ctx, tx, d.Text, d.Signed, notBefore(at, st.Time))
		return policyDecision{k, st}, events, err
	})
	return err
}
