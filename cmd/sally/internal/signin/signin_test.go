package signin

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"
)

// wire is an authorization server without a network, for tests in a bubble.
type wire func(r *http.Request) (status int, body string)

func (f wire) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body == nil {
		r.Body = http.NoBody
	}
	status, body := f(r)
	return &http.Response{StatusCode: status, Status: http.StatusText(status), Request: r,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body))}, nil
}

// RFC 8628, section 3.5: slow_down adds 5 seconds to every pause that follows.
func TestDeviceSlowsDown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var polls []time.Duration
		start := time.Now()
		s := &Server{meta: metadata{Token: "https://b/token", Device: "https://b/device"}, http: &http.Client{
			Transport: wire(func(r *http.Request) (int, string) {
				if r.URL.Path == "/device" {
					return 200, `{"device_code":"d","user_code":"U","verification_uri":"https://b/device","expires_in":600,"interval":7}`
				}
				polls = append(polls, time.Since(start))
				switch len(polls) {
				case 1, 3:
					return 400, `{"error":"authorization_pending"}`
				case 2:
					return 400, `{"error":"slow_down"}`
				}
				return 200, `{"access_token":"a","refresh_token":"r","token_type":"Bearer","expires_in":600}`
			})}}
		token, err := s.Device(t.Context(), func(*oauth2.DeviceAuthResponse) {})
		if err != nil || token.RefreshToken != "r" {
			t.Fatal(token, err)
		}
		for i, want := range []time.Duration{7, 14, 26, 38} {
			if polls[i] != want*time.Second {
				t.Errorf("poll %d after %s, want %s", i+1, polls[i], want*time.Second)
			}
		}
	})
}

func TestDeviceCodeExpires(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &Server{meta: metadata{Token: "https://b/token", Device: "https://b/device"}, http: &http.Client{
			Transport: wire(func(r *http.Request) (int, string) {
				if r.URL.Path == "/device" {
					return 200, `{"device_code":"d","user_code":"U","verification_uri":"https://b/device","expires_in":60}`
				}
				return 400, `{"error":"authorization_pending"}`
			})}}
		if _, err := s.Device(t.Context(), func(*oauth2.DeviceAuthResponse) {}); !errors.Is(err, errTooLate) {
			t.Fatal(err)
		}
	})
}

func TestDiscoverRefusesStrangers(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		change func(m map[string]string)
		want   error
	}{
		"another issuer":        {func(m map[string]string) { m["issuer"] = "https://evil.example" }, errOtherIssuer},
		"slash at the end":      {func(m map[string]string) { m["issuer"] += "/" }, errOtherIssuer},
		"token endpoint away":   {func(m map[string]string) { m["token_endpoint"] = "https://evil.example/token" }, errElsewhere},
		"revocation away":       {func(m map[string]string) { m["revocation_endpoint"] = "http://evil.example/" }, errElsewhere},
		"prefix of the address": {func(m map[string]string) { m["token_endpoint"] = m["issuer"] + ".evil.example/token" }, errElsewhere},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var broker string
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				m := map[string]string{"issuer": broker, "authorization_endpoint": broker + "/a", "token_endpoint": broker + "/t"}
				tc.change(m)
				json.NewEncoder(w).Encode(m)
			}))
			defer server.Close()
			broker = server.URL
			if _, err := Discover(t.Context(), server.Client(), broker); !errors.Is(err, tc.want) {
				t.Fatal(err)
			}
		})
	}
	for name, h := range map[string]http.HandlerFunc{
		"no such page": http.NotFound,
		"a web page":   func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(h)
			defer server.Close()
			if _, err := Discover(t.Context(), server.Client(), server.URL); !errors.Is(err, errNoServer) {
				t.Fatal(err)
			}
		})
	}
}

// What another page in the same browser sends to our port neither signs anybody
// in nor ends the sign-in that we wait for.
func TestLoopbackTakesOnlyItsOwnAnswer(t *testing.T) {
	t.Parallel()
	var exchanged url.Values
	s := &Server{meta: metadata{Issuer: "https://b", Authorization: "https://b/authorize", Token: "https://b/token"},
		http: &http.Client{Transport: wire(func(r *http.Request) (int, string) {
			body, _ := io.ReadAll(r.Body)
			exchanged, _ = url.ParseQuery(string(body))
			return 200, `{"access_token":"a","refresh_token":"r","token_type":"Bearer","expires_in":600}`
		})}}
	visit := func(to string, q url.Values) (int, string) {
		resp, err := http.Get(to + "?" + q.Encode())
		if err != nil {
			t.Error(err)
			return 0, ""
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(body)
	}
	var challenge string
	token, err := s.Loopback(t.Context(), false, func(page string) {
		u, _ := url.Parse(page)
		q := u.Query()
		challenge = q.Get("code_challenge")
		back := q.Get("redirect_uri")
		if !strings.HasPrefix(back, "http://127.0.0.1:") {
			t.Errorf("redirect to %s", back)
		}
		for _, forged := range []url.Values{
			{"code": {"evil"}},
			{"code": {"evil"}, "state": {""}},
			{"code": {"evil"}, "state": {q.Get("state") + "x"}},
			{"error": {"access_denied"}, "state": {"guess"}},
		} {
			if status, _ := visit(back, forged); status != 400 {
				t.Errorf("%v: status %d", forged, status)
			}
		}
		go func() {
			status, text := visit(back, url.Values{"code": {"good"}, "state": {q.Get("state")}, "iss": {"https://b"}})
			if status != 200 || !strings.Contains(text, "You can close this page") {
				t.Error(status, text)
			}
		}()
	})
	if err != nil || token.AccessToken != "a" {
		t.Fatal(token, err)
	}
	if exchanged.Get("code") != "good" || oauth2.S256ChallengeFromVerifier(exchanged.Get("code_verifier")) != challenge {
		t.Errorf("exchanged %v", exchanged)
	}
}

// RFC 9207: an answer that another server gave is not ours, whatever else fits.
func TestLoopbackRefusesAnotherIssuer(t *testing.T) {
	t.Parallel()
	s := &Server{meta: metadata{Issuer: "https://b", Authorization: "https://b/authorize", Token: "https://b/token"},
		http: &http.Client{Transport: wire(func(r *http.Request) (int, string) {
			t.Error("the code was exchanged")
			return 500, ""
		})}}
	_, err := s.Loopback(t.Context(), false, func(page string) {
		u, _ := url.Parse(page)
		q := u.Query()
		go http.Get(q.Get("redirect_uri") + "?" + url.Values{"code": {"c"}, "state": {q.Get("state")}, "iss": {"https://evil.example"}}.Encode())
	})
	if !errors.Is(err, errNotGiven) {
		t.Fatal(err)
	}
}

func TestLoopbackEndsWithItsContext(t *testing.T) {
	t.Parallel()
	s := &Server{meta: metadata{Authorization: "https://b/authorize"}, http: http.DefaultClient}
	cause := errors.New("nobody signed in")
	ctx, cancel := context.WithCancelCause(t.Context())
	_, err := s.Loopback(ctx, false, func(string) { cancel(cause) })
	if !errors.Is(err, cause) {
		t.Fatal(err)
	}
}
