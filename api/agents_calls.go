package api

import (
	"context"
	"net/http"
)

// ExplainAgent says what becomes of a job's token, and why. It needs no sign-in; operators
// hear more.
func (c *Client) ExplainAgent(ctx context.Context, token string) (AgentExplanation, error) {
	return fetch[AgentExplanation](ctx, c, v1(http.MethodPost, "deployments", "explain").with(AgentExplainInput{Token: token}))
}
