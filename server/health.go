package server

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"sallyport/internal/refusal"
	"sallyport/server/problem"
)

// checkTimeout bounds each look at the database.
const checkTimeout = 3 * time.Second

var errNotReady = refusal.New(refusal.Unavailable, "not-ready",
	"the broker cannot decide or issue anything now", "the broker's log says why; it recovers by itself when the cause is gone")

// readiness is what /readyz says. It names what works, never why something does
// not: whoever reaches the listener may read it.
type readiness struct {
	Database string `json:"database"`
	Log      string `json:"log"`
	SignIn   string `json:"sign_in"` // down only stops new sign-ins (P9)
}

// healthz says that the process lives, and nothing else: restarting it does not
// help when the database is gone.
func healthz(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("ok\n")) }

// readyz says whether the broker can do its work.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), checkTimeout)
	defer cancel()
	logger := problem.CallOf(ctx).Logger
	word := func(what string, err error) string {
		if err != nil {
			logger.WarnContext(ctx, what+" is not ready", "error", err)
			return "down"
		}
		return "ok"
	}
	state := readiness{
		Database: word("database", s.cfg.Pool.Ping(ctx)),
		SignIn:   word("sign-in", s.signin.Ready()),
	}
	if state.Database == "ok" {
		state.Log = word("log", s.log.Healthy(ctx))
	} else {
		state.Log = "unknown"
	}
	if state.Database != "ok" || state.Log != "ok" {
		problem.WriteJSON(w, r, errNotReady.With("not ready: database %s, log %s", state.Database, state.Log))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(state)
}
