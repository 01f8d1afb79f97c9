package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"sallyport/api"
	"sallyport/internal/refusal"
)

// exitInterrupted is what shells know as the end by Ctrl-C: 128 + SIGINT.
const exitInterrupted = 130

// exitStatus ends sally with another program's exit code and without a word.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// usageError says that the command line is wrong.
type usageError struct{ detail, hint string }

func (e *usageError) Error() string { return e.detail }

func usage(format string, args ...any) *usageError {
	return &usageError{detail: fmt.Sprintf(format, args...)}
}

func (e *usageError) hinting(format string, args ...any) *usageError {
	e.hint = fmt.Sprintf(format, args...)
	return e
}

// waitingError says that a request is not decided yet, or that its grant has not
// started.
type waitingError struct{ detail, hint string }

func (e *waitingError) Error() string { return e.detail }

// Refusals of sally itself.
var (
	errDenied = refusal.New(refusal.Denied, "request-denied",
		"the request was denied", "talk to the approver, or ask again with a better reason")
	errExpired = refusal.New(refusal.Conflict, "request-expired",
		"nobody decided on the request in time", "ask again, and tell an approver")
	errOver = refusal.New(refusal.Conflict, "request-over",
		"the request is over", "ask again: sally ssh")
	errNobody = refusal.New(refusal.Unauthenticated, "nobody-signed-in",
		"nobody signed in in time", "try again: sally login, or sally login --device")
	errNoRule = refusal.New(refusal.Denied, "no-rule",
		"no rule lets you ask for this", "see: sally hosts")
	errNotYours = refusal.New(refusal.Denied, "not-yours",
		"the grant is somebody else's", "ask for your own: sally request")
	errNoAction = refusal.New(refusal.Denied, "not-allowed",
		"you cannot decide on this request", "see who can: sally show REQUEST")
	errOtherSite = refusal.New(refusal.Denied, "other-site",
		"the page to go on is at another site", "check the URL: --url, SALLYPORT_URL")
	errUndecided = refusal.New(refusal.Conflict, "not-confirmed",
		"nothing was done", "")
)

// exit tells what went wrong, if anything did, and returns the exit code.
func (s *sally) exit(ctx context.Context, err error) int {
	if err == nil {
		return api.ExitDone
	}
	if status, ok := errors.AsType[exitStatus](err); ok {
		return int(status)
	}
	var code int
	detail, hint := err.Error(), ""
	var (
		wrong   *usageError
		waiting *waitingError
		problem *api.Problem
		refused *refusal.Error
		network *net.OpError
	)
	switch {
	case ctx.Err() != nil || errors.Is(err, context.Canceled):
		code, detail = exitInterrupted, "interrupted"
		if hinted, ok := errors.AsType[*interrupted](err); ok {
			hint = hinted.hint
		}
	case errors.As(err, &wrong):
		code, hint = api.ExitUsage, wrong.hint
	case !s.started: // cobra's, about the command line
		code, hint = api.ExitUsage, "sally --help"
	case errors.As(err, &waiting):
		code, hint = api.ExitWaiting, waiting.hint
	case errors.As(err, &problem):
		code, hint = problem.ExitCode(), problem.Hint
		if strings.HasPrefix(problem.Code, "agent-") {
			break // about a job: nobody signs in there
		}
		if problem.Status == 401 && s.Getenv("SALLYPORT_TOKEN") != "" {
			hint = "SALLYPORT_TOKEN is not, or no longer, good at this broker"
		} else if problem.Status == 401 {
			hint = "sign in again: sally login"
		}
	case errors.As(err, &refused):
		code, detail, hint = kindCode(refused.Kind), refused.Error(), refused.Hint
	case errors.Is(err, api.ErrNotABroker):
		code, hint = api.ExitFailed, "check the URL: --url, SALLYPORT_URL"
	case errors.As(err, &network):
		code, hint = api.ExitFailed, "is the broker running, and is its URL right? --url, SALLYPORT_URL"
	default:
		code = api.ExitFailed
	}
	s.err.Line("sally: %s", detail)
	if problem != nil {
		for _, f := range problem.Errors {
			if f.Message != problem.Detail {
				s.err.Line("  %s: %s", f.Location, f.Message)
			}
		}
	}
	if hint != "" {
		s.err.Line("hint: %s", hint)
	}
	return code
}

// kindCode is the exit code of sally's own refusals.
func kindCode(k refusal.Kind) int {
	switch k {
	case refusal.Invalid, refusal.TooLarge:
		return api.ExitUsage
	case refusal.Denied:
		return api.ExitDenied
	}
	return api.ExitFailed
}

// interrupted adds to the end by Ctrl-C what goes on without us.
type interrupted struct{ hint string }

func (e *interrupted) Error() string { return "interrupted" }
func (e *interrupted) Unwrap() error { return context.Canceled }
