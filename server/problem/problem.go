// Package problem turns errors into answers: an RFC 9457 problem for programs,
// a page for people.
//
// A refusal is shown as it is, with its code and its hint. Any other error is
// our fault: the caller sees "internal error" and the id of the call, and the
// text goes to the process's log under the same id (P11).
package problem

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"sallyport/api"
	"sallyport/internal/refusal"
)

// TypePrefix and a refusal's code together are the problem's type URI.
const TypePrefix = "urn:sallyport:problem:"

// ContentType is RFC 9457's media type.
const ContentType = "application/problem+json"

// Refusals that belong to HTTP and the process, not to any room.
var (
	ErrSignInNeeded = refusal.New(refusal.Unauthenticated, "sign-in-needed",
		"nobody is signed in", "sign in with your browser, or run: sally login")
	ErrRoute = refusal.New(refusal.NotFound, "unknown-address",
		"there is nothing at this address", "begin at the start page; the calls of the API are listed at /api/v1/openapi.json")
	ErrText = refusal.New(refusal.Invalid, "unstorable-text",
		"the text has characters that cannot be stored, such as NUL", "leave them out")
	ErrTooLarge = refusal.New(refusal.TooLarge, "body-too-large",
		"the body of the request is larger than 64 KiB", "shorten it")
	ErrTooMany = refusal.New(refusal.TooMany, "too-many-attempts",
		"too many attempts from this address", "wait a minute and try again")
	ErrCrossOrigin = refusal.New(refusal.Denied, "cross-origin",
		"another site sent this request", "open Sallyport itself and repeat it there")
	ErrDatabase = refusal.New(refusal.Unavailable, "database-unavailable",
		"the database does not answer, so nothing can be decided or issued",
		"try again in a moment; an operator sees the cause in the broker's log and at /readyz")
	ErrTimeout = refusal.New(refusal.Unavailable, "timed-out",
		"it took too long", "try again; what was committed before is not lost")
)

// Problems with statuses that no kind of refusal has.
var (
	// ErrMethod answers a method that an address does not take.
	ErrMethod = New(http.StatusMethodNotAllowed, "unknown-method",
		"this address does not take that method", "the calls of the API are listed at /api/v1/openapi.json")
	errInternal = New(http.StatusInternalServerError, "internal",
		"internal error", "try again; if it stays, give the operator the id of this call")
)

// statuses is the one table of kinds and HTTP statuses.
var statuses = map[refusal.Kind]int{
	refusal.Invalid:         http.StatusUnprocessableEntity,
	refusal.Unauthenticated: http.StatusUnauthorized,
	refusal.Denied:          http.StatusForbidden,
	refusal.NotFound:        http.StatusNotFound,
	refusal.Conflict:        http.StatusConflict,
	refusal.Gone:            http.StatusGone,
	refusal.TooLarge:        http.StatusRequestEntityTooLarge,
	refusal.TooMany:         http.StatusTooManyRequests,
	refusal.Unavailable:     http.StatusServiceUnavailable,
}

// From is the problem that shows err to a caller, to be read only. It never
// carries the text of an error that is not a refusal.
func From(err error) *api.Problem {
	var p *api.Problem
	if errors.As(err, &p) {
		return p
	}
	r := classify(err)
	if r == nil {
		return errInternal
	}
	status, ok := statuses[r.Kind]
	if !ok {
		status = http.StatusInternalServerError
	}
	p = New(status, r.Code, r.Detail, r.Hint)
	if r.Field != "" {
		p.Errors = []api.ProblemField{{Location: r.Field, Message: r.Detail}}
	}
	return p
}

// New is a problem with its type and title made from the code.
func New(status int, code, detail, hint string) *api.Problem {
	title := strings.ReplaceAll(code, "-", " ")
	if title != "" {
		title = strings.ToUpper(title[:1]) + title[1:]
	}
	return &api.Problem{Type: TypePrefix + code, Title: title, Status: status, Detail: detail, Code: code, Hint: hint}
}

// classify finds the refusal in err, or the one that fits errors of the things
// that Sallyport stands on. It returns nil for an internal error.
func classify(err error) *refusal.Error {
	if r := refusal.As(err); r != nil {
		return r
	}
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return ErrTooLarge
	case databaseGone(err):
		return ErrDatabase
	case unstorable(err):
		return ErrText
	case errors.Is(err, context.DeadlineExceeded):
		return ErrTimeout
	}
	return nil
}

// databaseGone reports whether err says that PostgreSQL cannot be reached, or is
// starting, stopping or full (SQLSTATE classes 08, 53 and 57P).
func databaseGone(err error) bool {
	var connect *pgconn.ConnectError
	if errors.As(err, &connect) {
		return true
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return strings.HasPrefix(pg.Code, "08") || strings.HasPrefix(pg.Code, "53") || strings.HasPrefix(pg.Code, "57P")
	}
	var op *net.OpError
	return errors.As(err, &op) || errors.Is(err, io.ErrUnexpectedEOF)
}

// unstorable reports whether err is PostgreSQL's refusal of a character: JSON
// and URLs can carry NUL, its text cannot.
func unstorable(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (pg.Code == "22021" || pg.Code == "22P05")
}

// Write answers with err: a page if the caller prefers HTML, else JSON.
func Write(w http.ResponseWriter, r *http.Request, err error) {
	p := prepare(w, r, err)
	if wantsHTML(r) {
		page(w, r, p)
		return
	}
	encode(w, p)
}

// WriteJSON answers with err as problem+json, whatever the caller prefers.
func WriteJSON(w http.ResponseWriter, r *http.Request, err error) {
	encode(w, prepare(w, r, err))
}

// prepare notes the problem for the logs and sets the headers it needs.
func prepare(w http.ResponseWriter, r *http.Request, err error) *api.Problem {
	p := Note(r.Context(), err)
	if p.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", Challenge(r, p))
	}
	w.Header().Set("Cache-Control", "no-store")
	return p
}

// Challenge is the WWW-Authenticate header of a 401, as RFC 6750 section 3 has
// it: with an error only if the caller sent a token.
func Challenge(r *http.Request, p *api.Problem) string {
	if r.Header.Get("Authorization") == "" {
		return `Bearer realm="sallyport"`
	}
	return `Bearer realm="sallyport", error="invalid_token", error_description="` +
		strings.NewReplacer(`"`, "'", `\`, "/").Replace(p.Detail) + `"`
}

func encode(w http.ResponseWriter, p *api.Problem) {
	w.Header().Set("Content-Type", ContentType)
	w.WriteHeader(p.Status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.Encode(p)
}

// wantsHTML reports whether the caller is a browser that shows pages: it names
// text/html and not JSON before it. The API answers in JSON always.
func wantsHTML(r *http.Request) bool {
	if strings.HasPrefix(r.URL.Path, "/api/") {
		return false
	}
	before, _, found := strings.Cut(r.Header.Get("Accept"), "text/html")
	return found && !strings.Contains(before, "json")
}
