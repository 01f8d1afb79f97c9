package problem

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"sallyport/api"
)

// Call is one HTTP call as the process's log knows it. The access log and the
// metrics read Code after the answer was written.
type Call struct {
	// ID is shown to the caller and stands in every line of the log.
	ID string
	// Logger carries the id.
	Logger *slog.Logger
	// Person is the id of who calls, if somebody is signed in.
	Person string
	// Host is the id of the host that calls, if one does.
	Host string
	// Code of the problem that was answered with, if one was.
	Code string
}

type callKey struct{}

// With returns a context that carries the call.
func With(ctx context.Context, c *Call) context.Context {
	return context.WithValue(ctx, callKey{}, c)
}

// CallOf is the call that ctx belongs to. Outside of one it is an empty call
// that logs to the default logger.
func CallOf(ctx context.Context) *Call {
	if c, ok := ctx.Value(callKey{}).(*Call); ok {
		return c
	}
	return &Call{Logger: slog.Default()}
}

// Note turns err into the problem to answer with, remembers its code, and logs
// what the caller must not see.
func Note(ctx context.Context, err error) *api.Problem {
	p, c := *From(err), CallOf(ctx)
	c.Code = p.Code
	switch {
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		// The caller went away: nobody reads the answer, and nothing failed.
		c.Logger.DebugContext(ctx, "caller went away", "error", err)
	case p.Status >= http.StatusInternalServerError:
		c.Logger.ErrorContext(ctx, "call failed", "code", p.Code, "error", err)
	default:
		c.Logger.DebugContext(ctx, "call refused", "code", p.Code, "error", err)
	}
	if c.ID != "" {
		p.Instance = "urn:sallyport:" + c.ID
	}
	return &p
}
