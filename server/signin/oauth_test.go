package signin_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/oauth2"
)

const (
	redirect = "http://127.0.0.1:4711/callback"
	verifier = "verifier-verifier-verifier-verifier-verifier"
)

type tokens struct {
	Access    string `json:"access_token"`
	Type      string `json:"token_type"`
	ExpiresIn int    `json:"expires_in"`
	Refresh   string `json:"refresh_token"`
	Error     string `json:"error"`
}

// authorization is what sally sends a browser to /oauth/authorize with; pairs change it.
func authorization(pairs ...string) url.Values {
	v := url.Values{"client_id": {"sally"}, "response_type": {"code"}, "redirect_uri": {redirect}, "state": {"sally-state"},
		"code_challenge": {oauth2.S256ChallengeFromVerifier(verifier)}, "code_challenge_method": {"S256"}}
	for i := 0; i < len(pairs); i += 2 {
		if v.Set(pairs[i], pairs[i+1]); pairs[i+1] == "" {
			v.Del(pairs[i])
		}
	}
	return v
}

// code presses the button and returns what sally is sent.
func (b *browser) code() string {
	b.k.t.Helper()
	page := b.get("/oauth/authorize?" + authorization().Encode())
	if page.StatusCode != http.StatusOK || !strings.Contains(page.body, "Erin Engineer") {
		b.k.t.Fatalf("the page: %s: %s", page.Status, page.body)
	}
	to := b.post("/oauth/authorize", page.fields()).forwarded()
	q := to.Query()
	if !strings.HasPrefix(to.String(), redirect+"?") || q.Get("state") != "sally-state" || q.Get("iss") != b.k.URL || q.Get("code") == "" {
		b.k.t.Fatalf("sally is sent %s", to)
	}
	return q.Get("code")
}

// login makes a sally act for who is signed in in the browser.
func (b *browser) login() tokens {
	b.k.t.Helper()
	got, a := b.k.token(url.Values{"grant_type": {"authorization_code"}, "code": {b.code()}, "code_verifier": {verifier}, "redirect_uri": {redirect}})
	if a.StatusCode != http.StatusOK || got.Type != "Bearer" || got.ExpiresIn != 600 {
		b.k.t.Fatalf("%s: %s", a.Status, a.body)
	}
	return got
}

// token calls the token endpoint as sally does.
func (k *kit) token(form url.Values) (got tokens, a answer) {
	k.t.Helper()
	if !form.Has("client_id") {
		form.Set("client_id", "sally")
	}
	a = k.browser().post("/oauth/token", form, "Sec-Fetch-Site", "", "Accept", "application/json")
	must(k.t, json.Unmarshal([]byte(a.body), &got))
	if a.Header.Get("Cache-Control") != "no-store" || !strings.HasPrefix(a.Header.Get("Content-Type"), "application/json") {
		k.t.Errorf("headers of the token endpoint: %v", a.Header)
	}
	return got, a
}

func (k *kit) refresh(token string) (tokens, answer) {
	k.t.Helper()
	return k.token(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}})
}

func TestSallyActsForThePerson(t *testing.T) {
	k := newKit(t)
	b := k.browser()
	person := b.signIn()
	k.clock.Advance(time.Minute)
	got := b.login()
	sally := k.browser()
	sally.token = got.Access
	c, ok := sally.whoami()
	if !ok || c.ID != person.ID || c.Via != "cli" || !c.AuthTime.Equal(person.AuthTime) || c.Source != "127.0.0.1" {
		t.Errorf("sally is %+v, the person %+v", c, person)
	}
	// The token is what it should be, and verifies with the published key.
	var set struct {
		Keys []struct{ Kid, X, Alg string }
	}
	must(t, json.Unmarshal([]byte(k.browser().get("/oauth/jwks").body), &set))
	parsed, err := jwt.Parse(got.Access, func(tok *jwt.Token) (any, error) {
		if tok.Header["kid"] != set.Keys[0].Kid || tok.Header["typ"] != "at+jwt" || tok.Header["alg"] != set.Keys[0].Alg {
			t.Errorf("header %v, keys %v", tok.Header, set.Keys)
		}
		x, err := base64.RawURLEncoding.DecodeString(set.Keys[0].X)
		return ed25519.PublicKey(x), err
	}, jwt.WithTimeFunc(k.clock.Now))
	must(t, err)
	claims := parsed.Claims.(jwt.MapClaims)
	if claims["iss"] != k.URL || claims["sub"] != person.ID || claims["client_id"] != "sally" ||
		int64(claims["auth_time"].(float64)) != person.AuthTime.Unix() {
		t.Errorf("claims %v", claims)
	}
	// It expires; the refresh token gives another one.
	k.clock.Advance(10*time.Minute + 31*time.Second)
	if a := sally.get("/whoami", "Accept", "application/json"); a.StatusCode != http.StatusUnauthorized || !strings.Contains(a.body, "token-expired") {
		t.Errorf("expired: %s: %s", a.Status, a.body)
	}
	next, _ := k.refresh(got.Refresh)
	sally.token = next.Access
	if _, ok := sally.whoami(); !ok {
		t.Error("the refreshed token does not work")
	}
}

func TestRefreshReuseEndsEverything(t *testing.T) {
	k := newKit(t)
	b := k.browser()
	b.signIn()
	first := b.login()
	second, _ := k.refresh(first.Refresh)
	got, a := k.refresh(first.Refresh)
	if a.StatusCode != http.StatusBadRequest || got.Error != "invalid_grant" {
		t.Errorf("reuse: %s: %s", a.Status, a.body)
	}
	if got, _ := k.refresh(second.Refresh); got.Error != "invalid_grant" {
		t.Errorf("the newest after reuse: %+v", got)
	}
	sally := k.browser()
	sally.token = second.Access
	if _, ok := sally.whoami(); ok {
		t.Error("the access token of an ended family works")
	}
	if n := len(k.events("token.reused")); n != 1 {
		t.Errorf("%d events", n)
	}
}

func TestTokenEndpointRefusals(t *testing.T) {
	k := newKit(t)
	b := k.browser()
	b.signIn()
	redeem := func(pairs ...string) url.Values {
		v := url.Values{"grant_type": {"authorization_code"}, "code": {b.code()}, "code_verifier": {verifier}, "redirect_uri": {redirect}}
		for i := 0; i < len(pairs); i += 2 {
			v.Set(pairs[i], pairs[i+1])
		}
		return v
	}
	twice := redeem()
	twice.Add("code", "another")
	used := redeem()
	if _, a := k.token(used); a.StatusCode != http.StatusOK {
		t.Fatalf("the honest one: %s", a.body)
	}
	for name, c := range map[string]struct {
		form   url.Values
		status int
		want   string
	}{
		"replay":           {used, 400, "invalid_grant"},
		"another verifier": {redeem("code_verifier", strings.Repeat("x", 43)), 400, "invalid_grant"},
		"no verifier":      {redeem("code_verifier", ""), 400, "invalid_grant"},
		"another redirect": {redeem("redirect_uri", "http://127.0.0.1:1/callback"), 400, "invalid_grant"},
		"unknown code":     {redeem("code", "unknown"), 400, "invalid_grant"},
		"another client":   {redeem("client_id", "mallory"), 401, "invalid_client"},
		"code twice":       {twice, 400, "invalid_request"},
		"password":         {url.Values{"grant_type": {"password"}}, 400, "unsupported_grant_type"},
		"nothing":          {url.Values{}, 400, "unsupported_grant_type"},
		"unknown refresh":  {url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"x"}}, 400, "invalid_grant"},
		"unknown device":   {url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "device_code": {"x"}}, 400, "invalid_grant"},
	} {
		if got, a := k.token(c.form); a.StatusCode != c.status || got.Error != c.want || got.Access != "" {
			t.Errorf("%s: %s %s, want %d %s", name, a.Status, a.body, c.status, c.want)
		}
	}
	for _, path := range []string{"/oauth/token", "/oauth/device_authorization", "/oauth/revoke"} {
		a := k.browser().post(path, url.Values{"client_id": {"sally"}}, "Content-Type", "application/json")
		if a.StatusCode != http.StatusBadRequest || !strings.Contains(a.body, `"invalid_request"`) {
			t.Errorf("%s with JSON: %s %s", path, a.Status, a.body)
		}
	}
}

func TestAuthorizeSendsCodesOnlyToLoopback(t *testing.T) {
	k := newKit(t)
	b := k.browser()
	b.signIn()
	for _, uri := range []string{
		"", "https://evil.example.com/callback", "http://evil.example.com:4711/callback",
		"http://localhost:4711/callback", "http://127.0.0.2:4711/callback", "http://[::1]:4711/callback",
		"http://127.0.0.1/callback", "http://127.0.0.1:/callback", "http://127.0.0.1:0/callback", "http://127.0.0.1:65536/callback",
		"http://127.0.0.1:04711/callback", "http://127.0.0.1:4711/other", "http://127.0.0.1:4711/callback/", "http://127.0.0.1:4711/callback?x=1",
		"http://127.0.0.1:4711/callback#x", "http://127.0.0.1:4711@evil.example.com/callback", "http://x@127.0.0.1:4711/callback",
		"http://127.0.0.1:4711.evil.example.com/callback", "https://127.0.0.1:4711/callback", "HTTP://127.0.0.1:4711/callback",
		"javascript://127.0.0.1:4711/callback", "sally://callback", "http://127.0.0.1:4711/callback\n", "http://127.0.0.1:4711/../callback",
		"http://127.1:4711/callback", "http://2130706433:4711/callback",
	} {
		for name, a := range map[string]answer{
			"page":   b.still().get("/oauth/authorize?" + authorization("redirect_uri", uri).Encode()),
			"button": b.still().post("/oauth/authorize", authorization("redirect_uri", uri)),
		} {
			if a.StatusCode != http.StatusUnprocessableEntity || a.Header.Get("Location") != "" || a.Header.Get("Refresh") != "" {
				t.Errorf("%s %q: %s to %q%q", name, uri, a.Status, a.Header.Get("Location"), a.Header.Get("Refresh"))
			}
		}
	}
	if a := b.still().get("/oauth/authorize?" + authorization("client_id", "mallory").Encode()); a.StatusCode != http.StatusUnprocessableEntity {
		t.Errorf("another client: %s", a.Status)
	}
	if a := b.still().get("/oauth/authorize?" + authorization().Encode() + "&redirect_uri=https%3A%2F%2Fevil.example.com"); a.StatusCode != http.StatusUnprocessableEntity {
		t.Errorf("two redirect URIs: %s", a.Status)
	}
	k.refusedWith("bad-authorization")
	// What is wrong otherwise, sally is told.
	for want, v := range map[string]url.Values{
		"unsupported_response_type": authorization("response_type", "token"),
		"invalid_request":           authorization("code_challenge", ""),
	} {
		for _, v := range []url.Values{v, func() url.Values { v.Set("code_challenge_method", "plain"); return v }()} {
			u, err := b.still().get("/oauth/authorize?" + v.Encode()).Location()
			if err != nil || u.Query().Get("error") != want || u.Query().Get("state") != "sally-state" || u.Host != "127.0.0.1:4711" {
				t.Errorf("%v: sent to %v (%v)", v, u, err)
			}
			if to := b.post("/oauth/authorize", v).forwarded(); to.Query().Get("error") != want || to.Query().Has("code") {
				t.Errorf("%v: the button sent to %v", v, to)
			}
		}
	}
}

func TestNobodyIsAuthorizedWithoutSigningIn(t *testing.T) {
	k := newKit(t)
	b := k.browser()
	target := "/oauth/authorize?" + authorization().Encode()
	u, err := b.still().get(target).Location()
	if err != nil || u.Path != "/signin" || u.Query().Get("next") != target {
		t.Errorf("sent to %v, %v", u, err)
	}
	// The whole way leads back to the page.
	if a := b.get(target); a.StatusCode != http.StatusOK || a.Request.URL.Path != "/oauth/authorize" {
		t.Errorf("%s at %s", a.Status, a.Request.URL)
	}
	stranger := k.browser()
	if a := stranger.post("/oauth/authorize", authorization()); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("the button without a sign-in: %s", a.Status)
	}
	// A stolen access token cannot make itself a family of its own.
	stranger.token = b.login().Access
	if a := stranger.post("/oauth/authorize", authorization()); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("the button with a bearer token: %s", a.Status)
	}
	// In the second half of a sign-in the provider is asked again first.
	for range 5 {
		k.clock.Advance(55 * time.Minute)
		b.whoami()
	}
	if u, err := b.still().get(target).Location(); err != nil || u.Path != "/signin" {
		t.Errorf("an old sign-in: sent to %v, %v", u, err)
	}
}

func TestMetadata(t *testing.T) {
	k := newKit(t)
	a := k.browser().get("/.well-known/oauth-authorization-server")
	var m map[string]any
	must(t, json.Unmarshal([]byte(a.body), &m))
	if m["issuer"] != k.URL {
		t.Errorf("issuer %v", m["issuer"])
	}
	for _, name := range []string{"authorization_endpoint", "token_endpoint", "device_authorization_endpoint", "revocation_endpoint", "jwks_uri"} {
		u, _ := m[name].(string)
		if !strings.HasPrefix(u, k.URL+"/") {
			t.Errorf("%s is %q", name, u)
			continue
		}
		// Each is there: it answers something else than 404.
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			if a := k.browser().still().do(method, u, nil); a.StatusCode == http.StatusNotFound {
				t.Errorf("%s %s: %s", method, u, a.Status)
			}
		}
	}
}
