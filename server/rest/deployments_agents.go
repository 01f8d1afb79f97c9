package rest

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"sallyport/api"
	"sallyport/broker/agents"
	"sallyport/broker/rollout"
)

// BatchPath is exported because huma does not look into embedded types that are not.
type BatchPath struct {
	DeploymentPath
	Batch int `path:"batch" minimum:"1" maximum:"10000"`
}

// openOutput is a deployment that was opened, or that the run joined.
type openOutput struct {
	Location string `header:"Location"`
	Body     api.Deployment
}

// asRun checks who calls, and hands over.
func asRun[I, O any](a *API, op huma.Operation, f func(ctx context.Context, run rollout.Run, in *I) (O, error)) {
	registerAgent(a, op, func(ctx context.Context, call agents.Call, _ string, in *I) (*body[O], error) {
		run, err := a.Agents.Authenticate(ctx, call)
		if err != nil {
			return nil, err
		}
		return reply(f(ctx, rollout.RunOf(run, call.Source), in))
	})
}

// agentDeployments are the calls of agents. Their signatures are checked by package agents.
func (a *API) agentDeployments() {
	registerAgent(a, huma.Operation{
		OperationID: "openDeployment", Method: http.MethodPost, Path: "/deployments", Tags: deploymentsTag,
		Summary: "Open a deployment of one artifact, or join the one that is under way",
		Description: "With the job's token the first time, which is then taken; made again without it, by the same key, the answer is the same. " +
			"The answer's epoch belongs into every call that follows.",
	}, a.openDeployment)
	asRun(a, huma.Operation{
		OperationID: "deploymentProgress", Method: http.MethodGet, Path: "/deployments/{id}/progress", Tags: deploymentsTag,
		Summary: "How the deployment stands, for its agents",
	}, func(ctx context.Context, run rollout.Run, in *DeploymentPath) (api.Deployment, error) {
		return a.Deployments.Progress(ctx, run, in.ID)
	})
	asRun(a, huma.Operation{
		OperationID: "openBatch", Method: http.MethodPost, Path: "/deployments/{id}/batches/{batch}", Tags: deploymentsTag,
		Summary:     "Open a batch, waiting for it if wait says so",
		Description: "409 with the blocker's code, if it cannot be opened yet. Who waits keeps the lease.",
	}, func(ctx context.Context, run rollout.Run, in *struct {
		BatchPath
		Wait string `query:"wait" maxLength:"16" example:"30s" doc:"How long to wait; at most 60s"`
		Body api.BatchInput
	}) (api.Deployment, error) {
		wait, err := parseDuration("wait", in.Wait, maxWait)
		if err != nil {
			return api.Deployment{}, err
		}
		return a.Deployments.Batch(ctx, run, in.ID, in.Batch, in.Body, wait)
	})
	asRun(a, huma.Operation{
		OperationID: "issueAgentCertificate", Method: http.MethodPost, Path: "/deployments/{id}/certificates", Tags: deploymentsTag,
		Summary: "A certificate for the run's key and one host of the open batch",
	}, func(ctx context.Context, run rollout.Run, in *struct {
		DeploymentPath
		Body api.AgentCertificateInput
	}) (api.AgentCertificate, error) {
		return a.Deployments.Certificate(ctx, run, in.ID, in.Body)
	})
	asRun(a, huma.Operation{
		OperationID: "reportBatch", Method: http.MethodPost, Path: "/deployments/{id}/batches/{batch}/report", Tags: deploymentsTag,
		Summary: "Report what became of hosts of the open batch, which renews the lease",
	}, func(ctx context.Context, run rollout.Run, in *struct {
		BatchPath
		Body api.ReportInput
	}) (api.Deployment, error) {
		return a.Deployments.Report(ctx, run, in.ID, in.Batch, in.Body)
	})
	for _, end := range []struct {
		name, summary string
		do            func(ctx context.Context, run rollout.Run, id string, in api.EndInput) (api.Deployment, error)
	}{
		{"finish", "Say that the run has nothing left to do", a.Deployments.Finish},
		{"abort", "End the deployment as it is", a.Deployments.Abort},
		{"rollback", "Begin to put back the artifact that was verified last", a.Deployments.Rollback},
	} {
		asRun(a, huma.Operation{
			OperationID: end.name + "Deployment", Method: http.MethodPost, Path: "/deployments/{id}/" + end.name, Tags: deploymentsTag,
			Summary: end.summary,
		}, func(ctx context.Context, run rollout.Run, in *struct {
			DeploymentPath
			Body api.EndInput
		}) (api.Deployment, error) {
			return end.do(ctx, run, in.ID, in.Body)
		})
	}
}

// openDeployment redeems the token, if there is one, in the transaction that opens.
func (a *API) openDeployment(ctx context.Context, call agents.Call, token string, in *struct{ Body api.DeploymentInput }) (*openOutput, error) {
	d, err := a.Deployments.OpenBy(ctx, a.Agents, call, token, in.Body)
	if err != nil {
		return nil, err
	}
	return &openOutput{Prefix + "/deployments/" + d.ID, d}, nil
}
