package server

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strings"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"

	"sallyport/api/hostapi"
	"sallyport/internal/clock"
	"sallyport/internal/ids"
	"sallyport/server/problem"
	"sallyport/server/signin"
	"sallyport/web"
)

// logged gives each call an id, and writes a line about it and counts it when it
// is over. Of the URL only the path is logged: queries carry codes (P11).
func logged(logger *slog.Logger, clk clock.Clock, m *metrics) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			id := ids.New("call")
			call := &problem.Call{ID: id, Logger: logger.With("call", id)}
			began := clk.Now()
			ww := middleware.NewWrapResponseWriter(w, r.ProtoMajor)
			ww.Header().Set("X-Request-Id", id)
			r = r.WithContext(problem.With(r.Context(), call))
			defer func() {
				took, status := clk.Now().Sub(began), ww.Status()
				if status == 0 {
					status = http.StatusOK
				}
				m.observe(r.Method, route(r), status, call.Code, took)
				call.Logger.LogAttrs(r.Context(), levelOf(r.URL.Path), "http",
					slog.String("method", r.Method), slog.String("path", r.URL.Path), slog.Int("status", status),
					slog.String("code", call.Code), slog.String("person", call.Person), slog.String("host", call.Host),
					slog.String("source", sourceOf(r)), slog.Int("bytes", ww.BytesWritten()), slog.Float64("took_ms", float64(took.Microseconds())/1000))
			}()
			next.ServeHTTP(ww, r)
		})
	}
}

// levelOf keeps what machines ask every few seconds out of the usual log.
func levelOf(path string) slog.Level {
	switch {
	case strings.HasPrefix(path, hostapi.RecordingsPath+"/"), path == hostapi.RevocationsPath, path == hostapi.KRLPath, path == hostapi.KRLSignaturePath,
		path == "/healthz", path == "/readyz", path == "/metrics", strings.HasPrefix(path, web.StaticPath):
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

// route is the pattern that the call matched: a label without ids.
func route(r *http.Request) string {
	if p := chi.RouteContext(r.Context()).RoutePattern(); p != "" && p != "/*" {
		return p
	}
	return "none"
}

// sourceOf is the caller's IP address.
func sourceOf(r *http.Request) string {
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	return host
}

// recovered answers a panic with a problem, and keeps the process.
func recovered(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if err, ok := p.(error); ok && (errors.Is(err, http.ErrAbortHandler) || r.Context().Err() != nil) {
				panic(http.ErrAbortHandler) // the caller went away, or shall
			}
			problem.CallOf(r.Context()).Logger.ErrorContext(r.Context(), "panic", "stack", string(debug.Stack()))
			problem.Write(w, r, fmt.Errorf("panic: %v", p))
		}()
		next.ServeHTTP(w, r)
	})
}

// named notes who calls, for the access log.
func named(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, ok := signin.Caller(r.Context()); ok {
			problem.CallOf(r.Context()).Person = c.ID
		}
		next.ServeHTTP(w, r)
	})
}

// guarded sets the headers that every answer has. Pages have the same; static
// files and the API set what differs.
func guarded(https bool) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			web.Secure(w.Header())
			if https {
				w.Header().Set("Strict-Transport-Security", "max-age=31536000")
			}
			next.ServeHTTP(w, r)
		})
	}
}
