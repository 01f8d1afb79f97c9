package rest

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/danielgtaylor/huma/v2"

	"sallyport/broker/agents"
	"sallyport/internal/agenttest"
	"sallyport/internal/clock"
)

type echo struct {
	Body struct {
		Service string `json:"service"`
	}
}

// echoing is an API with a call of agents that tells what it was given.
func echoing(t *testing.T) (a *API, got *agentCall) {
	t.Helper()
	a, got = newDescribed(t), new(agentCall)
	registerAgent(a, huma.Operation{OperationID: "echo", Method: http.MethodPost, Path: "/deployments/{id}/echo"},
		func(ctx context.Context, call agents.Call, token string, in *struct {
			echo
			ID   string `path:"id"`
			Wait string `query:"wait"`
		}) (*echo, error) {
			*got = agentCall{call, token}
			return &in.echo, nil
		})
	return a, got
}

// The room gets the call exactly as it was signed, and the call's input beside it.
func TestAgentCallsAreHandedOverAsTheyWereSigned(t *testing.T) {
	t.Parallel()
	a, got := echoing(t)
	const sent = `{ "service" : "web" }`
	job := agenttest.NewJob(t, a.URL, clock.System)
	for _, token := range []string{"", "a.b.c"} {
		call := job.First(t, "POST", "/api/v1/deployments/d%2D1/echo?wait=3s", []byte(sent), token)
		r := httptest.NewRequest("POST", "/deployments/d%2D1/echo?wait=3s", strings.NewReader(sent))
		r.URL.Path, r.URL.RawPath = "/deployments/d-1/echo", "/deployments/d%2D1/echo"
		r.Header = agenttest.Headers(call, token)
		r.Header.Set("Content-Type", "application/json")
		r.RemoteAddr = "192.0.2.7:1234"
		w := httptest.NewRecorder()
		a.ServeHTTP(w, r)
		if w.Code != 200 || !strings.Contains(w.Body.String(), `"service":"web"`) {
			t.Fatalf("%d: %s", w.Code, w.Body)
		}
		// Here the prefix has been taken off already; a broker keeps it.
		want := call
		want.URL = strings.Replace(call.URL, "/api/v1", "", 1)
		if got.token != token || got.URL != want.URL || !bytes.Equal(got.Body, []byte(sent)) || got.Time != want.Time || got.Nonce != want.Nonce ||
			got.Key != want.Key || got.Signature != want.Signature || got.Source != "192.0.2.7" || got.Method != "POST" {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}

func TestBodiesOfAgentsThatCannotBeRead(t *testing.T) {
	t.Parallel()
	a, _ := echoing(t)
	for code, body := range map[string]*http.Request{
		"body-too-large":  httptest.NewRequest("POST", "/deployments/d/echo", strings.NewReader(`{"service":"`+strings.Repeat("x", MaxBody)+`"}`)),
		"unreadable-body": httptest.NewRequest("POST", "/deployments/d/echo", iotest.ErrReader(errors.New("cut off"))),
		"malformed-json":  httptest.NewRequest("POST", "/deployments/d/echo", strings.NewReader(`{`)),
	} {
		body.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		a.ServeHTTP(w, body)
		if !strings.Contains(w.Body.String(), `"code":"`+code+`"`) {
			t.Errorf("%s: %d %s", code, w.Code, w.Body)
		}
	}
}
