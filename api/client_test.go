package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// against returns a client of a broker that answers like h, and does not pause.
func against(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return client(t, server.URL)
}

func client(t *testing.T, url string) *Client {
	t.Helper()
	c, err := NewClient(ClientConfig{URL: url, Token: StaticToken("secret"), UserAgent: "test/1"})
	if err != nil {
		t.Fatal(err)
	}
	c.pause = func(ctx context.Context, _ time.Duration) error { return ctx.Err() }
	return c
}

func asJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

// Every call goes where DESIGN.md says, with what was given and nothing else.
func TestCalls(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	at := time.Date(2026, 1, 31, 15, 0, 0, 0, time.FixedZone("CET", 3600))
	for want, call := range map[string]func(c *Client) error{
		"GET /api/v1/me ":    func(c *Client) error { _, err := c.Me(ctx); return err },
		"GET /api/v1/hosts ": func(c *Client) error { _, err := c.Hosts(ctx, HostFilter{}); return err },
		"GET /api/v1/hosts?cursor=x&limit=5&search=db&selector=env%3Dprod&state=drifted%2Csilent ": func(c *Client) error {
			_, err := c.Hosts(ctx, HostFilter{"env=prod", "db", []HostState{HostDrifted, HostSilent}, "x", 5})
			return err
		},
		"GET /api/v1/hosts/a%2Fb%3Fc ": func(c *Client) error { _, err := c.Host(ctx, "a/b?c"); return err },
		`POST /api/v1/hosts {"name":"n","address":"a","logins":["l"]}`: func(c *Client) error {
			_, err := c.AddHost(ctx, HostInput{Name: "n", Address: "a", Logins: []string{"l"}})
			return err
		},
		`PUT /api/v1/hosts/h {"name":"n","address":"a","logins":null}`: func(c *Client) error {
			_, err := c.ChangeHost(ctx, "h", HostInput{Name: "n", Address: "a"})
			return err
		},
		"DELETE /api/v1/hosts/h ":           func(c *Client) error { return c.RemoveHost(ctx, "h") },
		"POST /api/v1/hosts/h/certificate ": func(c *Client) error { _, err := c.CertifyHost(ctx, "h"); return err },
		`POST /api/v1/requests?dry_run=true {"host":"h","login":"l"}`: func(c *Client) error {
			_, err := c.Preview(ctx, RequestInput{Host: "h", Login: "l"})
			return err
		},
		`POST /api/v1/requests {"host":"h","login":"l"}`: func(c *Client) error {
			_, err := c.Ask(ctx, RequestInput{Host: "h", Login: "l"})
			return err
		},
		"GET /api/v1/requests/r ":                          func(c *Client) error { _, err := c.Request(ctx, "r"); return err },
		"GET /api/v1/requests/r?state=requested&wait=30s ": func(c *Client) error { _, err := c.Wait(ctx, "r", Requested, 30*time.Second); return err },
		"GET /api/v1/requests?host=h&limit=2&scope=mine&state=approved%2Cactive ": func(c *Client) error {
			_, err := c.Requests(ctx, RequestFilter{Scope: "mine", States: []State{Approved, Active}, Host: "h", Limit: 2})
			return err
		},
		`POST /api/v1/requests/r/decisions {"verdict":"approve","terms_hash":"t"}`: func(c *Client) error {
			_, err := c.Decide(ctx, "r", DecisionInput{Verdict: Approve, TermsHash: "t"})
			return err
		},
		"POST /api/v1/requests/r/cancel ": func(c *Client) error { _, err := c.Cancel(ctx, "r"); return err },
		"POST /api/v1/requests/r/finish ": func(c *Client) error { _, err := c.Finish(ctx, "r"); return err },
		`POST /api/v1/requests/r/certificates {"public_key":"k","proof":"p"}`: func(c *Client) error {
			_, err := c.Certify(ctx, "r", CertificateInput{PublicKey: "k", Proof: "p"})
			return err
		},
		"GET /api/v1/audit/events?before=9&from=2026-01-31T14%3A00%3A00Z&type=request. ": func(c *Client) error {
			_, err := c.Events(ctx, EventFilter{Type: "request.", From: at, Before: "9"})
			return err
		},
		"GET /api/v1/audit/events/7 ":         func(c *Client) error { _, err := c.Event(ctx, 7); return err },
		"GET /api/v1/audit/events/7/receipt ": func(c *Client) error { _, err := c.Receipt(ctx, 7); return err },
		"GET /log/checkpoint ":                func(c *Client) error { _, err := c.Checkpoint(ctx); return err },
		"GET /log/vkey ":                      func(c *Client) error { _, err := c.LogKey(ctx); return err },
		"GET /ssh/ca.pub ":                    func(c *Client) error { _, err := c.UserCA(ctx); return err },
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			c := against(t, func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				if got := fmt.Sprintf("%s %s %s", r.Method, r.RequestURI, body); got != want {
					t.Errorf("called %s", got)
				}
				if r.Header.Get("Authorization") != "Bearer secret" || r.UserAgent() != "test/1" {
					t.Errorf("headers %v", r.Header)
				}
				asJSON(w, 200, map[string]any{})
			})
			if err := call(c); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestProblems(t *testing.T) {
	t.Parallel()
	c := against(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(403)
		io.WriteString(w, `{"status":200,"code":"own-request","detail":"nobody decides on their own request","hint":"ask another"}`)
	})
	_, err := c.Decide(t.Context(), "r", DecisionInput{Verdict: Approve})
	p, ok := errors.AsType[*Problem](err)
	if !ok || p.Code != "own-request" || p.Hint != "ask another" || p.Status != 403 || p.ExitCode() != ExitDenied {
		t.Fatalf("%#v", err)
	}
	for status, exit := range map[int]int{400: ExitUsage, 401: ExitFailed, 404: ExitFailed, 409: ExitFailed, 413: ExitUsage, 422: ExitUsage, 500: ExitFailed} {
		if got := (&Problem{Status: status}).ExitCode(); got != exit {
			t.Errorf("status %d exits %d", status, got)
		}
	}
	// A proxy on the way, which knows nothing of problems.
	c = against(t, func(w http.ResponseWriter, r *http.Request) { http.Error(w, "<html>nope", http.StatusTeapot) })
	_, err = c.Me(t.Context())
	if p, ok := errors.AsType[*Problem](err); !ok || p.Status != http.StatusTeapot || strings.Contains(p.Error(), "html") {
		t.Fatalf("%#v", err)
	}
}

// GETs are tried again while the broker comes back; nothing else ever is.
func TestRetriesOnlyWhatCanBeRepeated(t *testing.T) {
	t.Parallel()
	var calls atomic.Int32
	failing := func(times int32, status int) *Client {
		calls.Store(0)
		return against(t, func(w http.ResponseWriter, r *http.Request) {
			if calls.Add(1) <= times {
				w.WriteHeader(status)
				return
			}
			asJSON(w, 200, Me{Waiting: 1})
		})
	}
	for _, status := range []int{502, 503, 504} {
		if me, err := failing(3, status).Me(t.Context()); err != nil || me.Waiting != 1 || calls.Load() != 4 {
			t.Errorf("%d: %v after %d calls", status, err, calls.Load())
		}
	}
	if _, err := failing(99, 503).Me(t.Context()); !Passing(err) || calls.Load() != 4 {
		t.Errorf("%v after %d calls", err, calls.Load())
	}
	for _, status := range []int{400, 401, 403, 429, 500} {
		if _, err := failing(99, status).Me(t.Context()); err == nil || calls.Load() != 1 {
			t.Errorf("%d: %v after %d calls", status, err, calls.Load())
		}
	}
	c := failing(1, 503)
	if _, err := c.Certify(t.Context(), "r", CertificateInput{}); err == nil || calls.Load() != 1 {
		t.Errorf("POST: %v after %d calls", err, calls.Load())
	}
	c = failing(1, 503)
	if err := c.RemoveHost(t.Context(), "h"); err == nil || calls.Load() != 1 {
		t.Errorf("DELETE: %v after %d calls", err, calls.Load())
	}
}

func TestConnectionRefused(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	c := client(t, "http://"+l.Addr().String())
	pauses := 0
	c.pause = func(context.Context, time.Duration) error { pauses++; return nil }
	if _, err := c.Me(t.Context()); !Passing(err) || pauses != getAttempts-1 {
		t.Errorf("%v after %d pauses", err, pauses)
	}
	if _, err := c.Cancel(t.Context(), "r"); !Passing(err) || pauses != getAttempts-1 {
		t.Errorf("%v after %d pauses", err, pauses)
	}
}

// The token goes to the broker and nowhere else.
func TestTokenGoesNowhereElse(t *testing.T) {
	t.Parallel()
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("somebody else was called: %v", r.Header)
	}))
	defer elsewhere.Close()
	c := against(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
	})
	if _, err := c.Me(t.Context()); err == nil {
		t.Error("a redirect was followed")
	}
	for url, want := range map[string]string{
		"https://b.example/":             "https://b.example",
		"https://b.example/sallyport//":  "https://b.example/sallyport",
		"http://127.0.0.1:8080":          "http://127.0.0.1:8080",
		"http://[::1]:8080":              "http://[::1]:8080",
		"http://localhost":               "http://localhost",
		"http://sallyport.localhost":     "http://sallyport.localhost",
		"http://b.example":               "",
		"http://127.0.0.1.evil.example":  "",
		"http://localhost.evil.example":  "",
		"https://name:secret@b.example":  "",
		"https://b.example?token=secret": "",
		"ftp://b.example":                "",
		"b.example":                      "",
		"":                               "",
	} {
		got, err := CheckURL(url)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("CheckURL(%q) = %q, %v", url, got, err)
		}
		if err != nil && strings.Contains(err.Error(), "name:secret") {
			t.Errorf("%q shows a password", err)
		}
	}
}

func TestAnswersThatNoBrokerGives(t *testing.T) {
	t.Parallel()
	for name, h := range map[string]http.HandlerFunc{
		"web page": func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "<html>") },
		"broken JSON": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, `{"person":`)
		},
	} {
		if _, err := against(t, h).Me(t.Context()); !errors.Is(err, ErrNotABroker) {
			t.Errorf("%s: %v", name, err)
		}
	}
	endless := against(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		chunk := strings.Repeat("x", 1<<20)
		for {
			if _, err := io.WriteString(w, chunk); err != nil {
				return
			}
		}
	})
	if _, err := endless.Me(t.Context()); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("endless: %v", err)
	}
}

// A name must not turn a call into one about something else.
func TestNamesThatAreNone(t *testing.T) {
	t.Parallel()
	c := against(t, func(w http.ResponseWriter, r *http.Request) { t.Errorf("called %s", r.URL) })
	for _, name := range []string{"", ".", ".."} {
		if err := c.RemoveHost(t.Context(), name); err == nil {
			t.Errorf("%q was taken for a name", name)
		}
	}
}
