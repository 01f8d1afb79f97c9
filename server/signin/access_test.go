package signin_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/jackc/pgx/v5"
)

// forge signs claims with a key and a header of the attacker's choice.
func forge(t *testing.T, method jwt.SigningMethod, key any, header, claims map[string]any) string {
	t.Helper()
	tok := jwt.NewWithClaims(method, jwt.MapClaims(claims))
	for k, v := range header {
		tok.Header[k] = v
	}
	s, err := tok.SignedString(key)
	must(t, err)
	return s
}

func TestForgedAccessTokensAreRefused(t *testing.T) {
	k := newKit(t)
	b := k.browser()
	person := b.signIn()
	good := b.login()
	parsed, _, err := jwt.NewParser().ParseUnverified(good.Access, jwt.MapClaims{})
	must(t, err)
	headers, claims := parsed.Header, parsed.Claims.(jwt.MapClaims)
	now := k.clock.Now()
	var webID string
	must(t, k.db.Pool.QueryRow(t.Context(), `SELECT id FROM sign_ins WHERE via = 'web'`).Scan(&webID))

	public := k.key.Public().(ed25519.PublicKey)
	der, err := x509.MarshalPKIXPublicKey(public)
	must(t, err)
	_, otherKey, _ := ed25519.GenerateKey(rand.Reader)
	changed := func(m map[string]any, pairs ...any) map[string]any {
		c := map[string]any{}
		for name, v := range m {
			c[name] = v
		}
		for i := 0; i < len(pairs); i += 2 {
			if c[pairs[i].(string)] = pairs[i+1]; pairs[i+1] == nil {
				delete(c, pairs[i].(string))
			}
		}
		return c
	}
	ours := func(pairs ...any) string {
		return forge(t, jwt.SigningMethodEdDSA, k.key, headers, changed(claims, pairs...))
	}
	none := changed(headers, "alg", "none")
	hs := changed(headers, "alg", "HS256")
	parts := strings.Split(good.Access, ".")

	check := func(name, token string, want int) {
		t.Helper()
		sally := k.browser()
		sally.token = token
		a := sally.get("/whoami", "Accept", "application/json")
		if a.StatusCode != want {
			t.Errorf("%s: %s, want %d: %s", name, a.Status, want, a.body)
		}
		if want == http.StatusUnauthorized && (!strings.Contains(a.body, `"hint"`) || !strings.Contains(a.Header.Get("WWW-Authenticate"), "invalid_token")) {
			t.Errorf("%s: refused with %v %s", name, a.Header, a.body)
		}
	}
	check("the real one", good.Access, http.StatusOK)
	check("the same claims signed again", ours(), http.StatusOK)
	check("29 s late", ours("exp", now.Add(-29*time.Second).Unix()), http.StatusOK)
	for name, token := range map[string]string{
		"no signature":          forge(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, none, claims),
		"None":                  forge(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, changed(none, "alg", "None"), claims),
		"cut signature":         parts[0] + "." + parts[1] + ".",
		"two parts":             parts[0] + "." + parts[1],
		"HS256, raw key":        forge(t, jwt.SigningMethodHS256, []byte(public), hs, claims),
		"HS256, DER":            forge(t, jwt.SigningMethodHS256, der, hs, claims),
		"HS256, PEM":            forge(t, jwt.SigningMethodHS256, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), hs, claims),
		"HS256 said to be ours": forge(t, jwt.SigningMethodHS256, []byte(public), headers, claims),
		"another key":           forge(t, jwt.SigningMethodEdDSA, otherKey, headers, claims),
		"another kid":           forge(t, jwt.SigningMethodEdDSA, k.key, changed(headers, "kid", "x"), claims),
		"type JWT":              forge(t, jwt.SigningMethodEdDSA, k.key, changed(headers, "typ", "JWT"), claims),
		"no type":               forge(t, jwt.SigningMethodEdDSA, k.key, changed(headers, "typ", nil), claims),
		"another issuer":        ours("iss", "https://other.example.com"),
		"another audience":      ours("aud", "https://other.example.com"),
		"no audience":           ours("aud", nil),
		"another client":        ours("client_id", "mallory"),
		"expired":               ours("exp", now.Add(-31*time.Second).Unix()),
		"no expiry":             ours("exp", nil),
		"not yet valid":         ours("nbf", now.Add(time.Minute).Unix()),
		"issued in the future":  ours("iat", now.Add(time.Minute).Unix()),
		"another person":        ours("sub", "per-000000000000"),
		"no person":             ours("sub", nil),
		"no sign-in":            ours("sid", nil),
		"unknown sign-in":       ours("sid", "fam-000000000000"),
		"a browser's sign-in":   ours("sid", webID),
		"sid of another type":   ours("sid", 7),
		"a refresh token":       good.Refresh,
		"nothing":               "",
		"noise":                 strings.Repeat("A", 20_000),
	} {
		if token == "" {
			token = "-"
		}
		check(name, token, http.StatusUnauthorized)
	}
	for _, header := range []string{"Basic c2FsbHk6", "Bearer", "bearer ", good.Access} {
		if a := k.browser().get("/whoami", "Authorization", header); a.StatusCode != http.StatusUnauthorized {
			t.Errorf("Authorization %.20s: %s", header, a.Status)
		}
	}
	// A bad token is not made good by a good cookie.
	b.token = "noise"
	if _, ok := b.whoami(); ok {
		t.Error("the cookie was taken although the token is bad")
	}
	b.token = ""
	k.refusedWith("bad-token")

	// A sign-in that has ended takes its tokens with it at once.
	if a := k.browser().post("/oauth/revoke", url.Values{"client_id": {"sally"}, "token": {good.Refresh}}); a.StatusCode != http.StatusOK {
		t.Errorf("revoking: %s", a.Status)
	}
	check("revoked", good.Access, http.StatusUnauthorized)
	// And so does a person who is gone.
	other := b.login()
	check("another login", other.Access, http.StatusOK)
	conn, err := pgx.Connect(t.Context(), k.db.AdminURL)
	must(t, err)
	defer conn.Close(t.Context())
	_, err = conn.Exec(t.Context(), `DELETE FROM people WHERE id = $1`, person.ID)
	must(t, err)
	check("deleted person", other.Access, http.StatusUnauthorized)
	if _, ok := b.whoami(); ok {
		t.Error("a deleted person's cookie works")
	}
}
