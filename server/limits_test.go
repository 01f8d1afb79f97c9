package server

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"sallyport/internal/clock"
)

// TestSignInIsLimitedByCaller goes past the burst at one address of the sign-in:
// that caller is refused at all of them, others and other calls are not.
func TestSignInIsLimitedByCaller(t *testing.T) {
	t.Parallel()
	h := limitSignIn(clock.NewManual(time.Now()))(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	call := func(path, source string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodPost, path, nil)
		r.RemoteAddr = source
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	const attacker = "198.51.100.1:0"
	for i := range signInBurst {
		if w := call("/oauth/token", attacker); w.Code != http.StatusOK {
			t.Fatalf("attempt %d of %d: %d", i+1, signInBurst, w.Code)
		}
	}
	for _, path := range []string{"/oauth/token", "/signin", "/signin/callback", "/device", "/oauth/authorize", "/oauth/device_authorization", "/oauth/revoke"} {
		if w := call(path, attacker); w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") == "" {
			t.Errorf("%s after the burst: %d", path, w.Code)
		}
	}
	for _, c := range [][2]string{{"/oauth/token", "198.51.100.2:0"}, {"/api/v1/me", attacker}, {"/healthz", attacker}} {
		if w := call(c[0], c[1]); w.Code != http.StatusOK {
			t.Errorf("%s from %s: %d", c[0], c[1], w.Code)
		}
	}
}
