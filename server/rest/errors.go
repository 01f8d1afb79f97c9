package rest

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"sallyport/api"
	"sallyport/internal/refusal"
	"sallyport/server/problem"
)

// What this package refuses by itself.
var errTime = refusal.New(refusal.Invalid, "bad-time",
	"that is not a time", "write it as RFC 3339: 2026-01-31T15:04:05Z")

// The ways in which huma refuses input.
var (
	malformed = problem.New(http.StatusBadRequest, "malformed-json",
		"the body is not JSON, or there is none", "send one JSON object; /api/v1/openapi.json describes it")
	unreadable = problem.New(http.StatusBadRequest, "unreadable-body",
		"the body could not be read to its end", "send it again")
	late = problem.New(http.StatusRequestTimeout, "body-timeout",
		"the body did not arrive in time", "send it again")
	notJSON = problem.New(http.StatusUnsupportedMediaType, "unsupported-media-type",
		"the body is not JSON by its Content-Type", "send it with Content-Type: application/json")
	unfit = problem.New(http.StatusUnprocessableEntity, "invalid-input",
		"the input does not fit", "/api/v1/openapi.json describes the input")
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
	if op := ctx.Operation(); p.Code == problem.ErrTooLarge.Code && op.MaxBodyBytes > MaxBody+1 {
		p.Detail = fmt.Sprintf("the body of the request is larger than %d MiB", op.MaxBodyBytes>>20)
	}
	for _, e := range m.Errors {
		p.Errors = append(p.Errors, api.ProblemField{
			Location: strings.TrimPrefix(e.Location, "body."), Message: e.Message})
	}
	if len(p.Errors) > 0 && p.Status == http.StatusUnprocessableEntity {
		p.Detail = "the input does not fit: " + fieldText(p.Errors[0])
	}
	return problem.Note(ctx.Context(), p), nil
}

// inputCode finds which way it is, for a caller who changes it.
func inputCode(m *huma.ErrorModel) *api.Problem {
	p := map[int]*api.Problem{
		http.StatusBadRequest:            malformed,
		http.StatusUnsupportedMediaType:  notJSON,
		http.StatusRequestEntityTooLarge: problem.From(problem.ErrTooLarge),
		http.StatusRequestTimeout:        late,
		http.StatusUnprocessableEntity:   unfit,
	}[m.Status]
	if p == nil {
		// Only a body that breaks off reaches this: handlers' errors never do.
		p, m.Status, m.Errors = unreadable, unreadable.Status, nil
	}
	copied := *p
	return &copied
}

func fieldText(f api.ProblemField) string {
	if f.Location == "" || f.Location == "body" {
		return f.Message
	}
	return f.Location + ": " + f.Message
}
