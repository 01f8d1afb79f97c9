package rest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/broker/agents"
	"sallyport/server/problem"
	"sallyport/server/signin"
)

// Calls of deploy agents come without a person: their signature says who calls, and the
// room checks it. Such a call is taken nowhere else, and a person's nowhere here.

// forAgents and forAnybody mark operations that need no person.
const (
	forAgents  = "agents"
	forAnybody = "anybody"
)

func marked(op *huma.Operation, mark string) bool {
	is, _ := op.Metadata[mark].(bool)
	return is
}

func mark(op *huma.Operation, with string) {
	if op.Metadata == nil {
		op.Metadata = map[string]any{}
	}
	op.Metadata[with] = true
}

// agentCall is a call as its agent signed it.
type agentCall struct {
	agents.Call
	token string // empty: none
}

type agentCallKey struct{}

// readAgentCall reads the whole body before anything looks into it: the signature is
// over its bytes.
func (a *API) readAgentCall(ctx huma.Context, next func(huma.Context)) {
	r, w := humachi.Unwrap(ctx)
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		problem.WriteJSON(w, r, problem.ErrTooLarge)
		return
	case errors.Is(err, os.ErrDeadlineExceeded):
		problem.WriteJSON(w, r, late)
		return
	case err != nil:
		problem.WriteJSON(w, r, unreadable)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	call := agentCall{Call: agents.Call{
		Method: r.Method, URL: strings.TrimRight(a.URL, "/") + r.URL.RequestURI(), Body: body,
		Time: r.Header.Get(api.AgentTimeHeader), Nonce: r.Header.Get(api.AgentNonceHeader),
		Key: r.Header.Get(api.AgentKeyHeader), Signature: r.Header.Get(api.AgentSignatureHeader), Source: sourceOf(r),
	}}
	if scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " "); strings.EqualFold(scheme, "Bearer") {
		call.token = strings.TrimSpace(token)
	}
	next(huma.WithValue(ctx, agentCallKey{}, call))
}

// sourceOf is the caller's IP address.
func sourceOf(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	return host
}

// registerAgent adds a call of deploy agents. f gets the call as it was signed, for the
// room to check, and the token, if one came with it.
func registerAgent[I, O any](a *API, op huma.Operation, f func(ctx context.Context, call agents.Call, token string, in *I) (*O, error)) {
	if op.MaxBodyBytes == 0 {
		op.MaxBodyBytes = MaxBody + 1
	}
	op.BodyReadTimeout = -1 // it has been read, and nothing would lift a deadline while the call waits
	mark(&op, forAgents)
	op.Security = []map[string][]string{{"agent": {}}}
	huma.Register(a.huma, op, func(ctx context.Context, in *I) (*O, error) {
		call, _ := ctx.Value(agentCallKey{}).(agentCall)
		out, err := f(ctx, call.Call, call.token, in)
		if err != nil {
			return nil, answer{problem.Note(ctx, err)}
		}
		return out, nil
	})
}

// registerAnybody adds a call that needs no sign-in, and in which one may count. f gets
// the caller, or nil, and the IP address.
func registerAnybody[I, O any](a *API, op huma.Operation, f func(ctx context.Context, c *identity.Caller, source string, in *I) (*O, error)) {
	op.MaxBodyBytes = MaxBody + 1
	mark(&op, forAnybody)
	op.Security = []map[string][]string{{"bearer": {}}, {"cookie": {}}, {}}
	huma.Register(a.huma, op, func(ctx context.Context, in *I) (*O, error) {
		var caller *identity.Caller
		if c, ok := signin.Caller(ctx); ok {
			caller = &c
		}
		source, _ := ctx.Value(sourceKey{}).(string)
		out, err := f(ctx, caller, source, in)
		if err != nil {
			return nil, answer{problem.Note(ctx, err)}
		}
		return out, nil
	})
}

type sourceKey struct{}

// agents are the calls about agents that are not about a deployment.
func (a *API) agents() {
	registerAnybody(a, huma.Operation{
		OperationID: "explainAgent", Method: http.MethodPost, Path: "/deployments/explain", Tags: []string{"deployments"},
		Summary: "Which entry of the policy trusts a token of a job, and which claim fails",
		Description: "For whoever has the token, without signing in; operators hear of every entry for its issuer, and what it lists. " +
			"The token is not taken, and nothing is granted.",
	}, func(ctx context.Context, c *identity.Caller, source string, in *struct{ Body api.AgentExplainInput }) (*body[api.AgentExplanation], error) {
		operator := c != nil && slices.Contains(c.Roles, api.Operator)
		return reply(a.Agents.Explain(ctx, operator, source, in.Body))
	})
}
