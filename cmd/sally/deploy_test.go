package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"sallyport/api"
	"sallyport/cmd/sally/internal/brokertest"
)

// buildkiteAgent gives tokens as Buildkite's program does.
func buildkiteAgent() {
	i := slices.Index(os.Args, "--audience")
	if strings.Join(os.Args[1:3], " ") != "oidc request-token" || i < 0 || os.Args[len(os.Args)-1] != "organization_id,pipeline_id" {
		fmt.Fprintln(os.Stderr, "usage")
		os.Exit(1)
	}
	fmt.Println(brokertest.BoundToken(os.Args[i+1]))
}

// rolloutCommand changes the broker's deployment, and what it does with it.
func rolloutCommand(ts *testscript.TestScript, neg bool, args []string) {
	r := ts.Value("broker").(*brokertest.Broker).Rollout
	set := func(f func()) { r.Lock(); defer r.Unlock(); f() }
	calls := func() string { r.Lock(); defer r.Unlock(); return strings.Join(r.Calls, "\n") + "\n" }
	switch args[0] {
	case "gate": // rollout gate wait|fail|pass [UNTIL FROM NOW]
		set(func() {
			if r.Gate = args[1]; len(args) == 3 {
				d, err := time.ParseDuration(args[2])
				ts.Check(err)
				r.SoakUntil = time.Now().Add(d)
			}
		})
	case "on-failure":
		set(func() { r.OnFailure = args[1] })
	case "blocker": // rollout blocker [CODE WHY]
		set(func() {
			if r.Blocker = (api.Blocker{}); len(args) == 3 {
				r.Blocker = api.Blocker{Code: args[1], Why: args[2]}
			}
		})
	case "steal":
		set(r.Steal)
	case "release":
		set(r.Release)
	case "close":
		set(func() { r.Close("somebody stopped it") })
	case "run-over":
		set(func() { r.RunOver = true })
	case "lose": // rollout lose: the next answer
		set(func() { r.Lost = 1 })
	case "awaited": // rollout awaited CALL: until it was let in
		eventually(ts, args[1], func() bool { return strings.Contains("\n"+calls(), "\n"+args[1]+"\n") })
	case "calls": // [!] rollout calls FILE
		if got, want := calls(), ts.ReadFile(args[1]); (got == want) == neg {
			ts.Fatalf("calls:\n%swant:\n%s", got, want)
		}
	case "github": // rollout github: gives tokens as GitHub does, to whoever has its secret
		service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			if q.Header.Get("Authorization") != "Bearer runner-secret" || q.FormValue("api-version") != "2.0" {
				w.WriteHeader(401)
				return
			}
			json.NewEncoder(w).Encode(map[string]any{"count": 1, "value": brokertest.BoundToken(q.FormValue("audience"))})
		}))
		ts.Defer(service.Close)
		ts.Setenv("GITHUB_ACTIONS", "true")
		ts.Setenv("ACTIONS_ID_TOKEN_REQUEST_URL", service.URL+"/token?api-version=2.0")
		ts.Setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "runner-secret")
	case "visit": // rollout visit HOST: one person is on it for a request, another was for none
		set(func() {
			now := time.Now().UTC()
			r.Visits = []api.DeploymentVisit{{Host: args[1], RequestID: "req-4f8k2m9qhx1z", Login: "dba", At: now.Add(-time.Minute)},
				{Host: args[1], Login: "root", At: now.Add(-time.Hour), EndedAt: &now}}
		})
	case "nothing-left": // rollout nothing-left: no key, no socket, no file of a batch
		left, err := filepath.Glob(filepath.Join(ts.Getenv("HOME"), ".local/state/sally/deploy/*"))
		ts.Check(err)
		if len(left) > 0 {
			ts.Fatalf("left: %s", left)
		}
	default:
		ts.Fatalf("unknown: rollout %s", args[0])
	}
}
