// Package oidctest is an OIDC provider that lies on demand: it injects the faults
// that a real one never shows, so that tests can see them refused. Everything
// that it is not told to break it does as the specification says, and it checks
// what the client sends: redirect URI, secret, PKCE verifier, single use of codes.
//
// The way that works is tested with a real provider elsewhere.
package oidctest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"sallyport/internal/clock"
)

// Fault is one way to be wrong.
type Fault int

// The faults.
const (
	None          Fault = iota
	WrongNonce          // the ID token is for another sign-in
	NoNonce             // or for none
	WrongAudience       // made for another client
	WrongParty          // made for several clients, and another one is the authorized party
	WrongIssuer         // names another provider
	UnknownKey          // signed with a key that is not published, under the kid of one that is
	AlgNone             // not signed
	HS256               // "signed" with the public key as an HMAC secret
	Expired             // an hour ago
	NotYetValid         // nbf in an hour
	IssuedLater         // iat in an hour
	NoSubject           // of nobody
	NoIDToken           // the token endpoint forgets it
	KeysDown            // the JWKS cannot be fetched
	TokenDown           // the token endpoint answers 503
	Refuse              // the authorization endpoint answers access_denied
	OtherIss            // the answer to the browser names another issuer (RFC 9207)
	NoAuthTime          // the ID token does not say when the person was authenticated
	IgnoreMaxAge        // max_age and prompt=login are ignored
)

// Client is what the broker is registered as.
const (
	ClientID     = "sallyport"
	ClientSecret = "oidctest-client-secret"
)

// Provider is a running provider. Its one person signs in without being asked.
type Provider struct {
	URL string

	clock clock.Clock
	other *ecdsa.PrivateKey

	mu         sync.Mutex
	key        *ecdsa.PrivateKey // guarded by mu
	kid        string            // of key, guarded by mu
	signedIn   time.Time         // when the person was authenticated last; zero: always a minute ago. guarded by mu
	asked      url.Values        // the last authorization request, guarded by mu
	fault      Fault             // guarded by mu
	down       bool              // guarded by mu
	endSession bool              // guarded by mu
	claims     map[string]any    // of the person, guarded by mu
	codes      map[string]url.Values
	issued     []string // guarded by mu
}

// New starts a provider that stops at the end of the test. Its person has the
// subject "erin" and the group "engineers".
func New(t testing.TB, c clock.Clock) *Provider {
	t.Helper()
	p := &Provider{clock: c, key: newKey(t), kid: "key-1", other: newKey(t), codes: map[string]url.Values{}, claims: map[string]any{
		"sub": "erin", "name": "Erin Engineer", "email": "erin@example.com", "groups": []string{"engineers"},
	}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", p.discovery)
	mux.HandleFunc("GET /keys", p.keys)
	mux.HandleFunc("GET /auth", p.auth)
	mux.HandleFunc("POST /token", p.token)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		down := p.down
		p.mu.Unlock()
		if down {
			panic(http.ErrAbortHandler) // the connection breaks, as with a process that is gone
		}
		mux.ServeHTTP(w, r)
	}))
	srv.Config.ErrorLog = nil
	t.Cleanup(srv.Close)
	p.URL = srv.URL
	return p
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// Break makes the provider wrong from now on; None mends it.
func (p *Provider) Break(f Fault) { p.locked(func() { p.fault = f }) }

// Down makes the provider unreachable, or reachable again.
func (p *Provider) Down(down bool) { p.locked(func() { p.down = down }) }

// OfferEndSession makes discovery advertise an end_session_endpoint.
func (p *Provider) OfferEndSession() { p.locked(func() { p.endSession = true }) }

// Rotate gives the provider another key, under another kid, and lets it publish
// the old one no more.
func (p *Provider) Rotate(t testing.TB) {
	key := newKey(t)
	p.locked(func() { p.key, p.kid = key, p.kid+"+" })
}

// SignedIn says when the person was authenticated last. If a client's max_age is
// less than that is ago, or with prompt=login, they are authenticated anew.
func (p *Provider) SignedIn(at time.Time) { p.locked(func() { p.signedIn = at }) }

// Asked is the last authorization request.
func (p *Provider) Asked() url.Values {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.asked)
}

// Sign signs any claims with the provider's key, as nobody else could.
func (p *Provider) Sign(claims map[string]any) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sign(jwt.SigningMethodES256, p.key, claims)
}

// Claim sets a claim of the person; nil removes it.
func (p *Provider) Claim(name string, value any) {
	p.locked(func() {
		if p.claims[name] = value; value == nil {
			delete(p.claims, name)
		}
	})
}

// Issued are all codes and tokens that the provider has ever given out: what
// must be found nowhere.
func (p *Provider) Issued() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.issued...)
}

func (p *Provider) locked(fn func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fn()
}

func (p *Provider) discovery(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	meta := map[string]any{
		"issuer": p.URL, "authorization_endpoint": p.URL + "/auth", "token_endpoint": p.URL + "/token",
		"jwks_uri": p.URL + "/keys", "response_types_supported": []string{"code"},
		"subject_types_supported": []string{"public"},
		// It even says that it uses what must never be accepted.
		"id_token_signing_alg_values_supported": []string{"ES256", "HS256", "none"},
		"scopes_supported":                      []string{"openid", "profile", "email", "groups"},
	}
	if p.endSession {
		meta["end_session_endpoint"] = p.URL + "/logout"
	}
	answer(w, http.StatusOK, meta)
}

func (p *Provider) keys(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fault == KeysDown {
		http.Error(w, "down", http.StatusServiceUnavailable)
		return
	}
	b, err := p.key.PublicKey.Bytes() // 4, X, Y
	if err != nil {
		panic(err)
	}
	enc := base64.RawURLEncoding.EncodeToString
	answer(w, http.StatusOK, map[string]any{"keys": []map[string]any{{
		"kty": "EC", "crv": "P-256", "x": enc(b[1:33]), "y": enc(b[33:]), "kid": p.kid, "use": "sig", "alg": "ES256",
	}}})
}

func (p *Provider) auth(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := r.URL.Query()
	back, err := url.Parse(q.Get("redirect_uri"))
	if err != nil || q.Get("client_id") != ClientID || q.Get("response_type") != "code" {
		http.Error(w, "bad request", http.StatusBadRequest)
		return
	}
	p.asked = q
	if p.fault != IgnoreMaxAge && !p.signedIn.IsZero() {
		age, err := time.ParseDuration(q.Get("max_age") + "s")
		if q.Get("prompt") == "login" || err == nil && p.clock.Now().Sub(p.signedIn) > age {
			p.signedIn = p.clock.Now()
		}
	}
	out := url.Values{"state": {q.Get("state")}}
	if p.fault == OtherIss {
		out.Set("iss", "https://other.example.com")
	}
	if p.fault == Refuse {
		out.Set("error", "access_denied")
		out.Set("error_description", "<script>alert(1)</script>")
	} else {
		code := rand.Text()
		p.codes[code] = q
		p.issued = append(p.issued, code)
		out.Set("code", code)
	}
	back.RawQuery = out.Encode()
	http.Redirect(w, r, back.String(), http.StatusFound)
}

func (p *Provider) token(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fault == TokenDown {
		// As bad as it gets: the answer quotes what it was asked.
		r.ParseForm()
		answer(w, http.StatusServiceUnavailable, map[string]any{"error": "down", "error_description": r.PostForm.Encode()})
		return
	}
	id, secret, basic := r.BasicAuth()
	if !basic {
		id, secret = r.PostFormValue("client_id"), r.PostFormValue("client_secret")
	}
	if id != ClientID || subtle.ConstantTimeCompare([]byte(secret), []byte(ClientSecret)) != 1 {
		answer(w, http.StatusUnauthorized, map[string]any{"error": "invalid_client"})
		return
	}
	code := r.PostFormValue("code")
	q, ok := p.codes[code]
	delete(p.codes, code)
	challenge := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
	if !ok || q.Get("redirect_uri") != r.PostFormValue("redirect_uri") || q.Get("code_challenge_method") != "S256" ||
		q.Get("code_challenge") != base64.RawURLEncoding.EncodeToString(challenge[:]) {
		answer(w, http.StatusBadRequest, map[string]any{"error": "invalid_grant"})
		return
	}
	access := rand.Text()
	p.issued = append(p.issued, access)
	out := map[string]any{"access_token": access, "token_type": "Bearer", "expires_in": 300}
	if p.fault != NoIDToken {
		raw := p.idToken(q.Get("nonce"))
		p.issued = append(p.issued, raw)
		out["id_token"] = raw
	}
	answer(w, http.StatusOK, out)
}

// idToken makes the token, with its fault. p.mu is held.
func (p *Provider) idToken(nonce string) string {
	now := p.clock.Now()
	claims := jwt.MapClaims{"iss": p.URL, "aud": ClientID, "nonce": nonce,
		"iat": now.Unix(), "exp": now.Add(10 * time.Minute).Unix(), "auth_time": now.Add(-time.Minute).Unix()}
	if !p.signedIn.IsZero() {
		claims["auth_time"] = p.signedIn.Unix()
	}
	maps.Copy(claims, p.claims)
	var method jwt.SigningMethod = jwt.SigningMethodES256
	var key any = p.key
	switch p.fault {
	case WrongNonce:
		claims["nonce"] = rand.Text()
	case NoNonce:
		delete(claims, "nonce")
	case WrongAudience:
		claims["aud"] = "another-client"
	case WrongParty:
		claims["aud"], claims["azp"] = []string{ClientID, "another-client"}, "another-client"
	case WrongIssuer:
		claims["iss"] = "https://other.example.com"
	case UnknownKey:
		key = p.other
	case AlgNone:
		method, key = jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType
	case HS256:
		method, key = jwt.SigningMethodHS256, p.publicPEM()
	case Expired:
		claims["iat"], claims["exp"] = now.Add(-2*time.Hour).Unix(), now.Add(-time.Hour).Unix()
	case NotYetValid:
		claims["nbf"] = now.Add(time.Hour).Unix()
	case IssuedLater:
		claims["iat"], claims["exp"] = now.Add(time.Hour).Unix(), now.Add(2*time.Hour).Unix()
	case NoSubject:
		delete(claims, "sub")
	case NoAuthTime:
		delete(claims, "auth_time")
	}
	return p.sign(method, key, claims)
}

// sign makes a token under the published kid. p.mu is held.
func (p *Provider) sign(method jwt.SigningMethod, key any, claims jwt.MapClaims) string {
	t := jwt.NewWithClaims(method, claims)
	t.Header["kid"] = p.kid
	raw, err := t.SignedString(key)
	if err != nil {
		panic(err)
	}
	return raw
}

// publicPEM is the public key as it can be downloaded anywhere.
func (p *Provider) publicPEM() []byte {
	der, err := x509.MarshalPKIXPublicKey(&p.key.PublicKey)
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body)
}
