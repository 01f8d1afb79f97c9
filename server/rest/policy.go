package rest

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/server/problem"
	"sallyport/server/signin"
)

// ProposalPath is exported because huma does not look into embedded types that are not.
type ProposalPath struct {
	ID string `path:"id" maxLength:"32" example:"pol-4f8k2m9qhx1z"`
}

type proposeInput struct {
	DryRun bool `query:"dry_run" doc:"Only say how it differs from the version in force and what it changes"`
	Body   api.PolicyInput
}

// proposeOutput is a proposal, made or not.
type proposeOutput struct {
	Status   int
	Location string `header:"Location"`
	Body     api.PolicyProposal
}

func (a *API) policy() {
	tag := []string{"policy"}
	register(a, huma.Operation{
		OperationID: "getPolicy", Method: http.MethodGet, Path: "/policy", Tags: tag,
		Summary: "The version in force, with its document (operators and auditors)",
	}, func(ctx context.Context, c identity.Caller, _ *nothing) (*body[api.PolicyVersion], error) {
		return reply(a.Approvals.PolicyInForce(ctx, c))
	})
	register(a, huma.Operation{
		OperationID: "listPolicyVersions", Method: http.MethodGet, Path: "/policy/versions", Tags: tag,
		Summary: "All versions, newest first (operators and auditors)",
	}, func(ctx context.Context, c identity.Caller, in *struct {
		Cursor string `query:"cursor" maxLength:"200" doc:"next of the page before"`
		Limit  int    `query:"limit" minimum:"1" maximum:"200" default:"50"`
	}) (*body[api.Page[api.PolicyVersion]], error) {
		return page(a.Approvals.PolicyVersions(ctx, c, in.Cursor, in.Limit))
	})
	register(a, huma.Operation{
		OperationID: "getPolicyVersion", Method: http.MethodGet, Path: "/policy/versions/{version}", Tags: tag,
		Summary: "One version, with its document (operators and auditors)",
	}, func(ctx context.Context, c identity.Caller, in *struct {
		Version int64 `path:"version" minimum:"1"`
	}) (*body[api.PolicyVersion], error) {
		return reply(a.Approvals.PolicyVersion(ctx, c, in.Version))
	})
	register(a, huma.Operation{
		OperationID: "listPolicyProposals", Method: http.MethodGet, Path: "/policy/proposals", Tags: tag,
		Summary: "Proposals, newest first (operators and auditors)",
	}, func(ctx context.Context, c identity.Caller, in *struct {
		Open   bool   `query:"open" doc:"true: only those that nobody has decided on"`
		Cursor string `query:"cursor" maxLength:"200" doc:"next of the page before"`
		Limit  int    `query:"limit" minimum:"1" maximum:"200" default:"50"`
	}) (*body[api.Page[api.PolicyProposal]], error) {
		return page(a.Approvals.Proposals(ctx, c, in.Open, in.Cursor, in.Limit))
	})
	register(a, huma.Operation{
		OperationID: "proposePolicy", Method: http.MethodPost, Path: "/policy/proposals", Tags: tag,
		Summary: "Propose a document as the next version (operators)",
		Description: "It comes into force when another operator approves it. The document is read strictly, and its tests are run. " +
			"The body may have 8 MiB. With dry_run=true nothing is proposed: the answer is 200 and says what would change.",
		DefaultStatus: http.StatusCreated, MaxBodyBytes: api.MaxPolicyBody + 1, BodyReadTimeout: time.Minute,
		Middlewares: huma.Middlewares{a.operatorsOnly},
	}, func(ctx context.Context, c identity.Caller, in *proposeInput) (*proposeOutput, error) {
		if in.DryRun {
			p, err := a.Approvals.PreviewPolicy(ctx, c, in.Body)
			return &proposeOutput{Status: http.StatusOK, Body: p}, err
		}
		p, err := a.Approvals.Propose(ctx, c, in.Body)
		return &proposeOutput{Status: http.StatusCreated, Location: Prefix + "/policy/proposals/" + p.ID, Body: p}, err
	})
	register(a, huma.Operation{
		OperationID: "getPolicyProposal", Method: http.MethodGet, Path: "/policy/proposals/{id}", Tags: tag,
		Summary:     "One proposal with its document, diff and effect (operators and auditors)",
		Description: "With wait, the answer comes when the proposal has been decided on or withdrawn, or when the time is up.",
	}, func(ctx context.Context, c identity.Caller, in *struct {
		ProposalPath
		Wait string `query:"wait" maxLength:"16" example:"30s" doc:"How long to wait for a decision; at most 60s"`
	}) (*body[api.PolicyProposal], error) {
		wait, err := parseDuration("wait", in.Wait, maxWait)
		if err == nil && wait > 0 {
			err = a.until(ctx, wait, func() (bool, error) { return a.Approvals.ProposalClosed(ctx, c, in.ID) })
		}
		if err != nil {
			return nil, err
		}
		return reply(a.Approvals.Proposal(ctx, c, in.ID))
	})
	register(a, huma.Operation{
		OperationID: "decidePolicyProposal", Method: http.MethodPost, Path: "/policy/proposals/{id}/decisions", Tags: tag,
		Summary: "Approve a proposal, which brings it into force, or deny it (operators other than its author)",
		Description: "Where the proposal's assurance is provider, the answer is 409 with the code provider-evidence-needed, as for " +
			"decisions on requests, and nothing is decided until the person comes back from the identity provider; wait for that with " +
			"GET /policy/proposals/{id}.",
	}, func(ctx context.Context, c identity.Caller, in *struct {
		ProposalPath
		Body api.PolicyDecisionInput
	}) (*body[api.PolicyProposal], error) {
		p, err := a.Approvals.DecideProposal(ctx, c, in.ID, in.Body)
		return reply(p, a.onPage(err, string(in.Body.Verdict), in.Body.Comment, "policy", "proposals", in.ID, "decide"))
	})
	register(a, huma.Operation{
		OperationID: "withdrawPolicyProposal", Method: http.MethodPost, Path: "/policy/proposals/{id}/withdraw", Tags: tag,
		Summary: "Take back one's own proposal",
	}, func(ctx context.Context, c identity.Caller, in *ProposalPath) (*body[api.PolicyProposal], error) {
		return reply(a.Approvals.Withdraw(ctx, c, in.ID))
	})
}

// operatorsOnly refuses others before their body, which may be large, is read.
func (a *API) operatorsOnly(ctx huma.Context, next func(huma.Context)) {
	c, _ := signin.Caller(ctx.Context())
	if err := a.Approvals.OnlyPolicyOperators(ctx.Context(), c, ctx.Method()+" "+Prefix+ctx.Operation().Path); err != nil {
		r, w := humachi.Unwrap(ctx)
		problem.WriteJSON(w, r, err)
		return
	}
	next(ctx)
}
