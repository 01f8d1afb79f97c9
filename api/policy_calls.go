package api

import (
	"context"
	"net/http"
	"strconv"
	"time"
)

// Policy is the version in force with its document. Operators and auditors only,
// as are all of these calls that read; those that change something are for
// operators.
func (c *Client) Policy(ctx context.Context) (PolicyVersion, error) {
	return fetch[PolicyVersion](ctx, c, v1(http.MethodGet, "policy"))
}

// PolicyVersions lists the versions, newest first.
func (c *Client) PolicyVersions(ctx context.Context, cursor string, limit int) (Page[PolicyVersion], error) {
	return fetch[Page[PolicyVersion]](ctx, c, v1(http.MethodGet, "policy", "versions").where(query(
		"cursor", cursor, "limit", number(limit))))
}

// PolicyVersion is one version with its document.
func (c *Client) PolicyVersion(ctx context.Context, version int64) (PolicyVersion, error) {
	return fetch[PolicyVersion](ctx, c, v1(http.MethodGet, "policy", "versions", strconv.FormatInt(version, 10)))
}

// PolicyProposals lists proposals, newest first.
func (c *Client) PolicyProposals(ctx context.Context, open bool, cursor string, limit int) (Page[PolicyProposal], error) {
	return fetch[Page[PolicyProposal]](ctx, c, v1(http.MethodGet, "policy", "proposals").where(query(
		"open", yes(open), "cursor", cursor, "limit", number(limit))))
}

// PolicyProposal is one proposal with its document, diff and effect.
func (c *Client) PolicyProposal(ctx context.Context, id string) (PolicyProposal, error) {
	return fetch[PolicyProposal](ctx, c, v1(http.MethodGet, "policy", "proposals", id))
}

// WaitPolicyProposal is PolicyProposal, as soon as it has been decided on or
// withdrawn, or as it is after the time, which is at most MaxWait.
func (c *Client) WaitPolicyProposal(ctx context.Context, id string, wait time.Duration) (PolicyProposal, error) {
	what := v1(http.MethodGet, "policy", "proposals", id).where(query("wait", wait.String()))
	what.longer = wait
	return fetch[PolicyProposal](ctx, c, what)
}

// PreviewPolicy says how the document differs from the version in force and what
// it changes, and proposes nothing.
func (c *Client) PreviewPolicy(ctx context.Context, in PolicyInput) (PolicyProposal, error) {
	return fetch[PolicyProposal](ctx, c, v1(http.MethodPost, "policy", "proposals").with(in).where(query("dry_run", "true")))
}

// ProposePolicy proposes the document as the next version.
func (c *Client) ProposePolicy(ctx context.Context, in PolicyInput) (PolicyProposal, error) {
	return fetch[PolicyProposal](ctx, c, v1(http.MethodPost, "policy", "proposals").with(in))
}

// DecidePolicy approves a proposal, which brings it into force, or denies it.
func (c *Client) DecidePolicy(ctx context.Context, id string, in PolicyDecisionInput) (PolicyProposal, error) {
	return fetch[PolicyProposal](ctx, c, v1(http.MethodPost, "policy", "proposals", id, "decisions").with(in))
}

// WithdrawPolicy takes back the caller's own proposal.
func (c *Client) WithdrawPolicy(ctx context.Context, id string) (PolicyProposal, error) {
	return fetch[PolicyProposal](ctx, c, v1(http.MethodPost, "policy", "proposals", id, "withdraw"))
}
