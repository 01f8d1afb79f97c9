package rest

import (
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"sallyport/api"
	"sallyport/internal/refusal"
	"sallyport/server/problem"
)

// What this package refuses by itself.
var (
	errDuration = refusal.New(refusal.Invalid, "bad-duration",
		"that is not a duration", "write it like 90s, 30m or 2h")
	errTime = refusal.New(refusal.Invalid, "bad-time",
		"that is not a time", "write it as RFC 3339: 2026-01-31T15:04:05Z")
	errAuditorsOnly = refusal.New(refusal.Denied, "auditors-only",
		"only auditors may read the log", "ask an operator to add your group to the auditor role in the policy")
)

// answer is a problem in the shape that huma sends errors in.
type answer struct{ *api.Problem }

// GetStatus implements huma.StatusError.
func (a answer) GetStatus() int { return a.Status }

// ContentType implements huma.ContentTypeFilter.
func (answer) ContentType(string) string { return problem.ContentType }

// inputProblem turns what huma says about bad input into our problem. The values
// that huma would echo are left out: they may be what nobody should log (P11).
func inputProblem(ctx huma.Context, _ string, v any) (any, error) {
	m, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	p := inputCode(m)
	for _, e := range m.Errors {
		p.Errors = append(p.Errors, api.ProblemField{
			Location: strings.TrimPrefix(e.Location, "body."), Message: e.Message})
	}
	if len(p.Errors) > 0 && p.Status == http.StatusUnprocessableEntity {
		p.Detail = "the input does not fit: " + fieldText(p.Errors[0])
	}
	return problem.Note(ctx.Context(), p), nil
}

// inputCode gives each way in which huma refuses input its code and hint.
func inputCode(m *huma.ErrorModel) *api.Problem {
	with := func(code, detail, hint string) *api.Problem {
		p := problem.New(m.Status, code, detail)
		p.Hint = hint
		return p
	}
	const see = "/api/v1/openapi.json describes the input"
	switch m.Status {
	case http.StatusBadRequest:
		return with("malformed-json", "the body is not JSON, or there is none", "send one JSON object; "+see)
	case http.StatusUnsupportedMediaType:
		return with("unsupported-media-type", "the body is not JSON by its Content-Type", "send it with Content-Type: application/json")
	case http.StatusRequestEntityTooLarge:
		return problem.From(problem.ErrTooLarge)
	case http.StatusRequestTimeout:
		return with("body-timeout", "the body did not arrive in time", "send it again")
	case http.StatusUnprocessableEntity:
		return with("invalid-input", "the input does not fit", see)
	}
	// Only a body that breaks off reaches this: handlers' errors never do.
	m.Status = http.StatusBadRequest
	m.Errors = nil
	return with("unreadable-body", "the body could not be read to its end", "send it again")
}

func fieldText(f api.ProblemField) string {
	if f.Location == "" || f.Location == "body" {
		return f.Message
	}
	return f.Location + ": " + f.Message
}
