package pages

import (
	"context"

	"sallyport/api"
	"sallyport/approvals/identity"
)

// Policies are the versions of the policy, and proposals for the next.
type Policies interface {
	PolicyInForce(ctx context.Context, c identity.Caller) (api.PolicyVersion, error)
	PolicyVersion(ctx context.Context, c identity.Caller, n int64) (api.PolicyVersion, error)
	PolicyVersions(ctx context.Context, c identity.Caller, cursor string, limit int) (api.Page[api.PolicyVersion], error)
	Proposals(ctx context.Context, c identity.Caller, open bool, cursor string, limit int) (api.Page[api.PolicyProposal], error)
	Proposal(ctx context.Context, c identity.Caller, id string) (api.PolicyProposal, error)
	OnlyPolicyOperators(ctx context.Context, c identity.Caller, action string) error
	PreviewPolicy(ctx context.Context, c identity.Caller, in api.PolicyInput) (api.PolicyProposal, error)
	Propose(ctx context.Context, c identity.Caller, in api.PolicyInput) (api.PolicyProposal, error)
	DecideProposal(ctx context.Context, c identity.Caller, id string, in api.PolicyDecisionInput) (api.PolicyProposal, error)
	Withdraw(ctx context.Context, c identity.Caller, id string) (api.PolicyProposal, error)
}
