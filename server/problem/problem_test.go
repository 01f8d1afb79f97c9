package problem_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"sallyport/api"
	"sallyport/internal/refusal"
	"sallyport/server/problem"
)

func TestEveryKindHasItsStatus(t *testing.T) {
	t.Parallel()
	for kind, status := range map[refusal.Kind]int{
		refusal.Invalid: 422, refusal.Unauthenticated: 401, refusal.Denied: 403, refusal.NotFound: 404,
		refusal.Conflict: 409, refusal.Gone: 410, refusal.TooLarge: 413, refusal.TooMany: 429, refusal.Unavailable: 503,
	} {
		p := problem.From(fmt.Errorf("doing it: %w", refusal.New(kind, "some-code", "it is so", "do this").On("host")))
		if p.Status != status {
			t.Errorf("kind %d: status %d, want %d", kind, p.Status, status)
		}
		if p.Code != "some-code" || p.Type != "urn:sallyport:problem:some-code" || p.Title != "Some code" ||
			p.Detail != "it is so" || p.Hint != "do this" || p.Errors[0].Location != "host" {
			t.Errorf("kind %d: problem %+v", kind, p)
		}
	}
}

func TestWhatSallyportStandsOn(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		err    error
		status int
		code   string
	}{
		"database refuses connections": {&pgconn.ConnectError{}, 503, "database-unavailable"},
		"database shuts down":          {&pgconn.PgError{Code: "57P01"}, 503, "database-unavailable"},
		"too many connections":         {&pgconn.PgError{Code: "53300"}, 503, "database-unavailable"},
		"connection breaks":            {fmt.Errorf("reading: %w", io.ErrUnexpectedEOF), 503, "database-unavailable"},
		"NUL in text":                  {&pgconn.PgError{Code: "22021"}, 422, "unstorable-text"},
		"constraint of ours":           {&pgconn.PgError{Code: "23505"}, 500, "internal"},
		"took too long":                {context.DeadlineExceeded, 503, "timed-out"},
		"body too large":               {&http.MaxBytesError{Limit: 1}, 413, "body-too-large"},
		"anything else":                {errors.New("broken"), 500, "internal"},
	} {
		p := problem.From(c.err)
		if p.Status != c.status || p.Code != c.code || p.Hint == "" {
			t.Errorf("%s: %+v, want %d %s and a hint", name, p, c.status, c.code)
		}
	}
}

func TestP11_CauseStaysInTheLog(t *testing.T) {
	t.Parallel()
	const secret = "postgres://u:hunter2@db"
	for name, err := range map[string]error{
		"internal": errors.New("dialing " + secret),
		"refusal":  problem.ErrDatabase.Because(errors.New("dialing " + secret)),
	} {
		var log bytes.Buffer
		r := httptest.NewRequest(http.MethodGet, "/x", nil)
		call := &problem.Call{ID: "call-000000000000", Logger: slog.New(slog.NewTextHandler(&log, nil)).With("call", "call-000000000000")}
		w := httptest.NewRecorder()
		problem.Write(w, r.WithContext(problem.With(r.Context(), call)), err)
		if strings.Contains(w.Body.String(), "hunter2") {
			t.Errorf("%s: the caller sees the cause: %s", name, w.Body)
		}
		var p api.Problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if p.Instance != "urn:sallyport:call-000000000000" || p.Status != w.Code || call.Code != p.Code {
			t.Errorf("%s: problem %+v, status %d, call %q", name, p, w.Code, call.Code)
		}
		if !strings.Contains(log.String(), "call-000000000000") || !strings.Contains(log.String(), "dialing") {
			t.Errorf("%s: the log lacks the cause or the id: %s", name, &log)
		}
	}
}

func TestWriteGoesByAccept(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ path, accept, want string }{
		{"/requests/x", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/html"},
		{"/requests/x", "*/*", problem.ContentType},
		{"/requests/x", "", problem.ContentType},
		{"/requests/x", "application/json, text/html", problem.ContentType},
		{"/api/v1/me", "text/html", problem.ContentType},
	} {
		r := httptest.NewRequest(http.MethodGet, c.path, nil)
		r.Header.Set("Accept", c.accept)
		w := httptest.NewRecorder()
		problem.Write(w, r, refusal.New(refusal.Denied, "no-way", "<b>no</b>", "leave"))
		if got := w.Header().Get("Content-Type"); !strings.HasPrefix(got, c.want) || w.Code != 403 {
			t.Errorf("%s accepting %q: %d %s, want 403 %s", c.path, c.accept, w.Code, got, c.want)
		}
		if c.want == "text/html" && strings.Contains(w.Body.String(), "<b>no</b>") {
			t.Errorf("detail is not escaped: %s", w.Body)
		}
	}
}

func TestChallenge(t *testing.T) {
	t.Parallel()
	for authorization, want := range map[string]string{
		"":           `Bearer realm="sallyport"`,
		"Bearer bad": `Bearer realm="sallyport", error="invalid_token", error_description="nobody is signed in"`,
	} {
		r := httptest.NewRequest(http.MethodGet, "/api/v1/me", nil)
		if authorization != "" {
			r.Header.Set("Authorization", authorization)
		}
		w := httptest.NewRecorder()
		problem.Write(w, r, problem.ErrSignInNeeded)
		if got := w.Header().Get("WWW-Authenticate"); w.Code != 401 || got != want {
			t.Errorf("with %q: %d %q, want 401 %q", authorization, w.Code, got, want)
		}
	}
}
