package approvals

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/approvals/notify"
	"sallyport/approvals/policy"
)

// tellProposed posts to operators, by the version in force, that another of them
// has proposed a policy.
func (s *Service) tellProposed(ctx context.Context, tx pgx.Tx, p *proposal, head *policy.Policy) error {
	return s.desk.Post(ctx, tx, notify.Notice{ID: "proposed/" + p.id, Kind: notify.ProposalWaiting, ProposalID: p.id,
		Groups: head.Roles[api.Operator], By: p.authorID, Due: p.created})
}

// tellProposalClosed posts that a proposal needs nobody's decision any more, to
// operators and its author. by is the person who closed it: they know.
func (s *Service) tellProposalClosed(ctx context.Context, tx pgx.Tx, p *proposal, head *policy.Policy, now time.Time, by string) error {
	return s.desk.Post(ctx, tx, notify.Notice{ID: "proposal-closed/" + p.id, Kind: notify.ProposalClosed, ProposalID: p.id,
		Groups: head.Roles[api.Operator], By: by, Due: now})
}

// Proposal implements notify.Source: the proposal as lists show it.
func (s teller) Proposal(ctx context.Context, id string) (api.PolicyProposal, error) {
	p, err := s.findProposal(ctx, s.cfg.Pool, id, false)
	if err != nil {
		return api.PolicyProposal{}, err
	}
	list, err := s.showProposals(ctx, identity.Caller{}, []*proposal{p})
	if err != nil {
		return api.PolicyProposal{}, err
	}
	list[0].Actions = nil // they were a caller's
	return list[0], nil
}

// CountProposals is how many proposals wait for the caller's decision: open ones of
// others, for the version in force.
func (s *Service) CountProposals(ctx context.Context, c identity.Caller) (int, error) {
	head := s.Policy()
	if len(operatorGroups(head, c.Person)) == 0 {
		return 0, nil
	}
	var n int
	err := s.cfg.Pool.QueryRow(ctx, `
		SELECT count(*) FROM policy_proposals WHERE state = 'open' AND author_id <> $1 AND base_version = $2`,
		c.ID, head.Version).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("counting proposals: %w", err)
	}
	return n, nil
}
