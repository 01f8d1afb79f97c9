package rest

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/broker/rollout"
)

// DeploymentPath is exported because huma does not look into embedded types that are not.
type DeploymentPath struct {
	ID string `path:"id" maxLength:"32" example:"dep-4f8k2m9qhx1z"`
}

type deploymentsInput struct {
	Service     string `query:"service" maxLength:"63"`
	Environment string `query:"environment" maxLength:"63"`
	Running     bool   `query:"running" doc:"true: only those that are under way"`
	Cursor      string `query:"cursor" maxLength:"32" doc:"next of the page before"`
	Limit       int    `query:"limit" minimum:"1" maximum:"200" default:"50"`
}

var deploymentsTag = []string{"deployments"}

// deployments are the calls of people.
func (a *API) deployments() {
	register(a, huma.Operation{
		OperationID: "listDeployments", Method: http.MethodGet, Path: "/deployments", Tags: deploymentsTag,
		Summary: "Deployments that the caller may see, newest first: operators and auditors all, others those that name a group of theirs",
	}, func(ctx context.Context, c identity.Caller, in *deploymentsInput) (*body[api.Page[api.Deployment]], error) {
		return reply(a.Deployments.List(ctx, c, rollout.Filter{Service: in.Service, Environment: in.Environment, Running: in.Running, Cursor: in.Cursor, Limit: in.Limit}))
	})
	register(a, huma.Operation{
		OperationID: "getDeployment", Method: http.MethodGet, Path: "/deployments/{id}", Tags: deploymentsTag,
		Summary: "How one deployment stands: its batches, hosts and gates, and what it waits for",
	}, func(ctx context.Context, c identity.Caller, in *DeploymentPath) (*body[api.Deployment], error) {
		return reply(a.Deployments.View(ctx, c, in.ID))
	})
	register(a, huma.Operation{
		OperationID: "controlDeployment", Method: http.MethodPost, Path: "/deployments/{id}/control", Tags: deploymentsTag,
		Summary:     "Stop, resume, abort or roll back a deployment",
		Description: "By operators, and by members of the groups that the policy's entry names. A stop closes at once what is open.",
	}, func(ctx context.Context, c identity.Caller, in *struct {
		DeploymentPath
		Body api.ControlInput
	}) (*body[api.Deployment], error) {
		return reply(a.Deployments.Control(ctx, c, in.ID, in.Body))
	})
	register(a, huma.Operation{
		OperationID: "decideDeployment", Method: http.MethodPost, Path: "/deployments/{id}/decisions", Tags: deploymentsTag,
		Summary:     "Approve or deny the start of a deployment, a gate, or going on in a freeze",
		Description: "By members of the groups that the deployment's terms name. An override of freezes has a reason, and ends within 24 hours.",
	}, func(ctx context.Context, c identity.Caller, in *struct {
		DeploymentPath
		Body api.DeploymentDecisionInput
	}) (*body[api.Deployment], error) {
		d, err := a.Deployments.Decide(ctx, c, in.ID, in.Body)
		return reply(d, a.onPage(err, string(in.Body.Verdict), in.Body.Comment, "deployments", in.ID))
	})
}
