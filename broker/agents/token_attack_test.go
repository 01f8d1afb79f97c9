package agents_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"

	"sallyport/approvals/policy"
	"sallyport/broker/agents"
	"sallyport/broker/agents/jwks"
	"sallyport/internal/agenttest"
)

func b64(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

// forged shows a token that is made of the parts, as a new job.
func (k *kit) forged(token string) error {
	k.t.Helper()
	_, err := k.redeem(k.job(), token)
	return err
}

// payload are claims that the policy trusts, for a job without a bound key.
func (k *kit) payload(p policy.AgentProvider) string {
	k.t.Helper()
	text, err := json.Marshal(k.issuers[p].Claims(url))
	must(k.t, err)
	return string(text)
}

func TestAlgNone(t *testing.T) {
	t.Parallel()
	k := newKit(t, policy.GitLab)
	for _, alg := range []string{"none", "None", "NONE", "nOnE", ""} {
		head := fmt.Sprintf(`{"alg":%q,"typ":"JWT","kid":"key-1"}`, alg)
		for _, signature := range []string{"", b64("x")} {
			k.refused(k.forged(b64(head)+"."+b64(k.payload(policy.GitLab))+"."+signature), agents.ErrToken, "not signed with one of")
		}
	}
}

// The issuer's public key is public: as an HMAC secret it would let anybody sign.
func TestHS256WithThePublicKey(t *testing.T) {
	t.Parallel()
	k := newKit(t, policy.GitLab)
	key := k.issuers[policy.GitLab].Keys()[0]
	der, err := x509.MarshalPKIXPublicKey(key.Private.Public())
	must(t, err)
	for _, secret := range [][]byte{der, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), k.issuers[policy.GitLab].KeySet()} {
		signed := b64(`{"alg":"HS256","typ":"JWT","kid":"key-1"}`) + "." + b64(k.payload(policy.GitLab))
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(signed))
		k.refused(k.forged(signed+"."+b64(string(mac.Sum(nil)))), agents.ErrToken, "not signed with one of")
	}
}

func TestKidConfusion(t *testing.T) {
	t.Parallel()
	k := newKit(t, policy.GitLab)
	i := k.issuers[policy.GitLab]
	trusted, evil := i.Keys()[0], agenttest.NewKey(t, "key-1")
	head := func(alg, kid string) map[string]any { return map[string]any{"alg": alg, "typ": "JWT", "kid": kid} }
	k.refused(k.forged(agenttest.Sign(t, evil, head("ES256", "key-1"), k.payload(policy.GitLab))), jwks.ErrUnknownKey) // another kind of key
	k.refused(k.forged(agenttest.Sign(t, agenttest.Key{ID: "key-1", Algorithm: "RS512", Private: trusted.Private}, head("RS512", "key-1"),
		k.payload(policy.GitLab))), jwks.ErrUnknownKey) // the key is for RS256
	for _, kid := range []string{"../../etc/passwd", "key-2", "' OR 1=1 --", "https://evil.example.com/key"} {
		k.refused(k.forged(agenttest.Sign(t, trusted, head("RS256", kid), k.payload(policy.GitLab))), jwks.ErrUnknownKey)
	}
	k.refused(k.forged(agenttest.Sign(t, trusted, map[string]any{"alg": "RS256"}, k.payload(policy.GitLab))), agents.ErrToken, "id of a key")
	k.refused(k.forged(agenttest.Sign(t, trusted, map[string]any{"alg": "RS256", "kid": 1}, k.payload(policy.GitLab))), agents.ErrToken)

	// Two keys of one id: whose signature it is could not be said.
	k.clock.Advance(jwks.Pause + jwks.RefreshAfter)
	i.Publish(trusted, evil)
	k.refused(k.forged(agenttest.Sign(t, trusted, head("RS256", "key-1"), k.payload(policy.GitLab))), jwks.ErrUnknownKey)
}

// A token that brings its key along, or says where it is.
func TestTokenBringsItsKey(t *testing.T) {
	t.Parallel()
	k := newKit(t, policy.GitLab)
	asked := make(chan string, 10)
	k.issuers[policy.GitLab].Fault(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasPrefix(r.URL.Path, "/evil") {
			asked <- r.URL.Path
		}
		return false
	})
	trusted := k.issuers[policy.GitLab].Keys()[0]
	evil := k.issuers[policy.GitLab].URL + "/evil"
	for name, value := range map[string]any{"jku": evil, "x5u": evil, "jwk": map[string]any{"kty": "oct", "k": "eA"}, "x5c": []string{"MIIB"},
		"crit": []string{"exp"}, "b64": false, "zip": "DEF", "enc": "A128GCM", "cty": "JWT"} {
		head := map[string]any{"alg": "RS256", "kid": "key-1", name: value}
		k.refused(k.forged(agenttest.Sign(t, trusted, head, k.payload(policy.GitLab))), agents.ErrToken, name)
	}
	for _, typ := range []any{"at+jwt", "logout+jwt", 1} {
		k.refused(k.forged(agenttest.Sign(t, trusted, map[string]any{"alg": "RS256", "kid": "key-1", "typ": typ}, k.payload(policy.GitLab))), agents.ErrToken, "type")
	}
	if len(asked) > 0 {
		t.Errorf("the broker asked for %s", <-asked)
	}
}

// JSON with a name twice means something else to every reader.
func TestDuplicateKeysInAToken(t *testing.T) {
	t.Parallel()
	k := newKit(t, policy.GitLab)
	key := k.issuers[policy.GitLab].Keys()[0]
	head := map[string]any{"alg": "RS256", "typ": "JWT", "kid": "key-1"}
	good := k.payload(policy.GitLab)
	for what, payload := range map[string]string{
		"a claim twice":       strings.Replace(good, `{`, `{"project_id":"666",`, 1),
		"escaped":             strings.Replace(good, `{`, `{"project_i\u0064":"666",`, 1),
		"within":              strings.Replace(good, `{`, `{"x":{"a":1,"a":2},`, 1),
		"something behind":    good + `{}`,
		"not an object":       `[` + good + `]`,
		"not UTF-8":           strings.Replace(good, `{`, "{\"x\":\"\xff\",", 1),
		"half a character":    strings.Replace(good, `{`, `{"x":"\ud800",`, 1),
		"NUL":                 strings.Replace(good, `"20"`, `"20\u0000"`, 1),
		"very deep":           strings.Replace(good, `{`, `{"x":`+strings.Repeat("[", 50)+strings.Repeat("]", 50)+`,`, 1),
		"an issuer of a list": strings.Replace(good, `"iss":"`, `"iss":["x"],"was":"`, 1),
		"an audience of ints": strings.Replace(good, `"aud":"`, `"aud":[1],"was":"`, 1),
	} {
		if err := k.forged(agenttest.Sign(t, key, head, payload)); !strings.Contains(errText(err), "cannot be read") {
			t.Errorf("%s: %v", what, err)
		}
	}
	// Names that differ in the case of letters are different names.
	must(t, k.forged(agenttest.Sign(t, key, head, strings.Replace(good, `{`, `{"Project_id":"666",`, 1))))
	// A header with a name twice.
	text := agenttest.Sign(t, key, head, good)
	_, rest, _ := strings.Cut(text, ".")
	k.refused(k.forged(b64(`{"alg":"RS256","alg":"none","kid":"key-1"}`)+"."+rest), agents.ErrToken, "header")
}

func TestFormlessTokens(t *testing.T) {
	t.Parallel()
	k := newKit(t, policy.GitLab)
	j := k.job()
	good := j.Token(t, k.issuers[policy.GitLab])
	parts := strings.Split(good, ".")
	for what, text := range map[string]string{
		"nothing": "", "dots": "..", "two parts": parts[0] + "." + parts[1], "four parts": good + ".x", "padding": good + "=", "a line": good[:40] + "\n" + good[40:],
		"other base64": strings.ReplaceAll(good, "_", "/") + "/", "JSON": `{"payload":"` + parts[1] + `"}`, "huge": good + strings.Repeat("A", agents.MaxToken),
		"no signature": parts[0] + "." + parts[1] + ".", "a cut signature": good[:len(good)-10],
	} {
		if err := k.forged(text); err == nil {
			t.Errorf("%s: it is taken", what)
		}
	}
	// Bits that base64 leaves over make another text of the same token.
	for _, last := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_" {
		if other := good[:len(good)-1] + string(last); other != good && k.forged(other) == nil {
			t.Errorf("a token that ends in %c is taken, too", last)
		}
		k.clock.Advance(time.Second)
	}
}

// An ECDSA signature has a twin that holds as well. It makes another text, not another
// token, also where the issuer gives tokens no id.
func TestMalleableSignatureIsTheSameToken(t *testing.T) {
	t.Parallel()
	k := newKit(t, policy.SPIFFE)
	j := k.job()
	token := j.Token(t, k.issuers[policy.SPIFFE])
	if _, err := k.redeem(j, token); err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(token, ".")
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	must(t, err)
	s := new(big.Int).Sub(elliptic.P256().Params().N, new(big.Int).SetBytes(signature[32:]))
	s.FillBytes(signature[32:])
	twin := parts[0] + "." + parts[1] + "." + base64.RawURLEncoding.EncodeToString(signature)
	digest := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if !ecdsa.Verify(k.issuers[policy.SPIFFE].Keys()[0].Private.Public().(*ecdsa.PublicKey), digest[:],
		new(big.Int).SetBytes(signature[:32]), s) {
		t.Fatal("the twin does not hold")
	}
	_, err = k.redeem(j, twin)
	k.refused(err, agents.ErrTokenRedeemed)
}

func TestIssuerThatThePolicyDoesNotName(t *testing.T) {
	t.Parallel()
	k := newKit(t, policy.GitLab)
	stranger := agenttest.New(t, policy.GitLab, k.clock)
	k.refused(k.forged(stranger.Token(t, stranger.Claims(url))), agents.ErrUntrusted, "issuer")
	for _, iss := range []string{k.issuers[policy.GitLab].URL + "/", strings.ToUpper(k.issuers[policy.GitLab].URL), k.issuers[policy.GitLab].URL + "#x"} {
		claims := stranger.Claims(url)
		claims["iss"] = iss
		k.refused(k.forged(stranger.Token(t, claims)), agents.ErrUntrusted, "issuer")
	}
	if stranger.Asked.Load() != 0 {
		t.Error("the broker asked an issuer that the policy does not name")
	}
	// One that signs in the name of another.
	claims := stranger.Claims(url)
	claims["iss"] = k.issuers[policy.GitLab].URL
	other := agenttest.NewKey(t, "key-1")
	stranger.Publish(other)
	k.refused(k.forged(stranger.Token(t, claims)), jwks.ErrUnknownKey)
}

func TestKeyRotatedMidway(t *testing.T) {
	t.Parallel()
	k := newKit(t, policy.SPIFFE)
	i := k.issuers[policy.SPIFFE]
	j, _ := k.admitted(policy.SPIFFE)
	before := k.job()
	signedBefore := before.Token(t, i)
	k.clock.Advance(jwks.Pause)
	i.Publish(agenttest.NewKey(t, "key-2"), i.Keys()[0])
	// A token by the new key is taken at once, one by the old as long as that is published.
	k.admitted(policy.SPIFFE)
	if _, err := k.redeem(before, signedBefore); err != nil {
		t.Error(err)
	}
	if i.Asked.Load() != 2 {
		t.Errorf("asked %d times", i.Asked.Load())
	}
	// The run that is under way goes on by its own key.
	if _, err := k.Authenticate(t.Context(), j.Call(t, "POST", opening, nil)); err != nil {
		t.Error(err)
	}
}

func TestRemovedKeyStillCached(t *testing.T) {
	t.Parallel()
	k := newKit(t, policy.SPIFFE)
	i := k.issuers[policy.SPIFFE]
	k.admitted(policy.SPIFFE)
	stolen := i.Keys()[0]
	i.Publish(agenttest.NewKey(t, "key-2"))
	by := func() error {
		j := k.job()
		text, err := json.Marshal(i.Claims(j.Audience(url)))
		must(t, err)
		_, err = k.redeem(j, agenttest.Sign(t, stolen, map[string]any{"alg": "ES256", "kid": "key-1"}, string(text)))
		return err
	}
	// With the set that is asked for again, it is gone.
	k.clock.Advance(jwks.RefreshAfter + time.Second)
	k.refused(by(), jwks.ErrUnknownKey)

	// If the issuer does not answer, it is not believed for longer than a set may be old.
	k = newKit(t, policy.SPIFFE)
	i = k.issuers[policy.SPIFFE]
	stolen = i.Keys()[0]
	k.admitted(policy.SPIFFE)
	i.Fault(func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(503); return true })
	k.clock.Advance(jwks.MaxAge)
	must(t, by())
	k.clock.Advance(time.Second)
	k.refused(by(), jwks.ErrIssuerDown)
	if n := len(k.leaves("agent.refused")); n != 0 {
		t.Errorf("an issuer that is down is recorded as %d attempts", n)
	}
}

// Where the broker cannot reach the issuer, the policy has the keys.
func TestKeysInThePolicy(t *testing.T) {
	t.Parallel()
	k := newKit(t, policy.Generic)
	i := k.issuers[policy.Generic]
	entry := strings.Replace(i.Entry("air-gapped", "keys: '"+string(i.KeySet())+"'"), "    addresses: [127.0.0.0/8]\n", "", 1)
	k.inForce(noAgents + entry)
	j := k.job()
	if _, err := k.redeem(j, j.Token(t, i)); err != nil {
		t.Error(err)
	}
	i.Publish(agenttest.NewKey(t, "key-1"))
	j = k.job()
	_, err := k.redeem(j, j.Token(t, i))
	k.refused(err, jwks.ErrUnknownKey)
	if i.Asked.Load() != 0 {
		t.Error("the issuer was asked")
	}
}
