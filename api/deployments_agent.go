package api

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// The calls of a deploy agent. They need a client whose transport signs them (see
// [AgentMessage]); only the first carries a token. Made again, because an answer was
// lost, a call changes nothing.

// OpenDeployment opens a deployment, or joins the one of the same artifact that is
// under way. Its epoch belongs into all calls that follow.
func (c *Client) OpenDeployment(ctx context.Context, in DeploymentInput) (Deployment, error) {
	return fetch[Deployment](ctx, c, v1(http.MethodPost, "deployments").with(in))
}

// DeploymentProgress is how a deployment stands, for its agents.
func (c *Client) DeploymentProgress(ctx context.Context, id string) (Deployment, error) {
	return fetch[Deployment](ctx, c, v1(http.MethodGet, "deployments", id, "progress"))
}

// OpenBatch opens a batch, and waits so long (at most a minute) until it may be opened.
// What keeps it from being opened is a [Problem] of status 409 or 423.
func (c *Client) OpenBatch(ctx context.Context, id string, batch int, in BatchInput, wait time.Duration) (Deployment, error) {
	call := v1(http.MethodPost, "deployments", id, "batches", strconv.Itoa(batch)).with(in)
	if wait > 0 {
		call = call.where(query("wait", fmt.Sprintf("%ds", int(wait.Seconds()))))
		call.longer = wait
	}
	return fetch[Deployment](ctx, c, call)
}

// CertifyAgent gets a certificate for the agent's own key and one host of the open batch.
func (c *Client) CertifyAgent(ctx context.Context, id string, in AgentCertificateInput) (AgentCertificate, error) {
	return fetch[AgentCertificate](ctx, c, v1(http.MethodPost, "deployments", id, "certificates").with(in))
}

// ReportBatch says what became of hosts of the open batch, and renews the lease.
func (c *Client) ReportBatch(ctx context.Context, id string, batch int, in ReportInput) (Deployment, error) {
	return fetch[Deployment](ctx, c, v1(http.MethodPost, "deployments", id, "batches", strconv.Itoa(batch), "report").with(in))
}

// FinishDeployment says that the agent has nothing left to do.
func (c *Client) FinishDeployment(ctx context.Context, id string, in EndInput) (Deployment, error) {
	return fetch[Deployment](ctx, c, v1(http.MethodPost, "deployments", id, "finish").with(in))
}

// AbortDeployment ends a deployment as it is.
func (c *Client) AbortDeployment(ctx context.Context, id string, in EndInput) (Deployment, error) {
	return fetch[Deployment](ctx, c, v1(http.MethodPost, "deployments", id, "abort").with(in))
}

// RollBackDeployment begins to put back the artifact that was verified last.
func (c *Client) RollBackDeployment(ctx context.Context, id string, in EndInput) (Deployment, error) {
	return fetch[Deployment](ctx, c, v1(http.MethodPost, "deployments", id, "rollback").with(in))
}
