// Package refusal is the shape of every "no" that Sallyport says to a caller:
// a stable code for programs, a sentence for people, and a hint about what to
// do next. Each room declares its own refusals as package variables; one table
// in server/problem turns kinds into HTTP statuses, and api turns those into
// exit codes.
//
// An error that is not a refusal is our fault, not the caller's: it is shown as
// "internal error" and its text goes to the log of the process only (P11).
package refusal

import (
	"errors"
	"fmt"
)

// Kind says whose turn it is to act, and so which HTTP status a refusal has.
type Kind int

const (
	// Invalid: the input is malformed or out of its limits. 422
	Invalid Kind = iota + 1
	// Unauthenticated: nobody is signed in, or the proof of it is bad or old. 401
	Unauthenticated
	// Denied: the caller is known and policy says no. 403, exit code 3
	Denied
	// NotFound: no such object, or none that this caller may know of. 404
	NotFound
	// Conflict: the object is no longer in a state that allows this. 409
	Conflict
	// Gone: there was such an object, and it has been removed for good. 410
	Gone
	// TooLarge: a limit on size was exceeded. 413
	TooLarge
	// TooMany: a limit on rate or count was exceeded. 429
	TooMany
	// Unavailable: something that Sallyport needs is down; it fails closed. 503
	Unavailable
)

// Error is one refusal. The package variables are templates: With and Because
// return changed copies which errors.Is still matches by Code.
type Error struct {
	Kind   Kind
	Code   string // stable, kebab-case; the last part of the problem type URI
	Detail string // what is wrong, one sentence in lower case without a full stop
	Hint   string // what to do next; may be empty only when nothing can be done
	Field  string // the input field at fault, in the API's spelling, if one is
	cause  error
}

// New declares a refusal.
func New(kind Kind, code, detail, hint string) *Error {
	return &Error{Kind: kind, Code: code, Detail: detail, Hint: hint}
}

func (e *Error) Error() string {
	if e.cause != nil {
		return e.Detail + ": " + e.cause.Error()
	}
	return e.Detail
}

// Unwrap gives the cause, which is for the process's log and never shown to callers.
func (e *Error) Unwrap() error { return e.cause }

// Is matches refusals by Code, so that copies made by With and Because match
// their template.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// With returns a copy whose detail is the formatted one.
func (e *Error) With(format string, args ...any) *Error {
	c := *e
	c.Detail = fmt.Sprintf(format, args...)
	return &c
}

// Hinting returns a copy whose hint is the formatted one.
func (e *Error) Hinting(format string, args ...any) *Error {
	c := *e
	c.Hint = fmt.Sprintf(format, args...)
	return &c
}

// On returns a copy that names the input field at fault.
func (e *Error) On(field string) *Error {
	c := *e
	c.Field = field
	return &c
}

// Because returns a copy that wraps the cause.
func (e *Error) Because(cause error) *Error {
	c := *e
	c.cause = cause
	return &c
}

// As finds the refusal in an error's chain, or nil.
func As(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return nil
}
