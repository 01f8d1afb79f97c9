package evidence_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"sallyport/approvals/evidence"
)

func TestTheProvidersSignatureProves(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*scene){
		"as it is":            func(*scene) {},
		"no kid":              func(s *scene) { s.header = nil },
		"several keys":        func(s *scene) { s.keys.Keys = append([]evidence.Key{other(t, "zero")}, s.keys.Keys...) },
		"two keys of one kid": func(s *scene) { s.keys.Keys = append([]evidence.Key{other(t, "one")}, s.keys.Keys...) },
		"for us among others": func(s *scene) { s.claims["aud"], s.claims["azp"] = []string{"x", client}, client },
		"recent enough": func(s *scene) {
			s.decision.MaxAge = 15 * time.Minute
			s.claims["auth_time"] = made.Add(-14 * time.Minute).Unix()
		},
		"authenticated just now": func(s *scene) {
			s.decision.MaxAge = time.Minute
			s.claims["auth_time"] = s.claims["iat"]
		},
		"strong enough": func(s *scene) {
			s.decision.ACRValues = []string{"phr", "phrh"}
			s.claims["acr"] = "phrh"
		},
		"a denial in no group's name": func(s *scene) { s.decision.Groups = nil; delete(s.claims, "groups") },
		"keys seen an hour ago":       func(s *scene) { s.keys.SeenAt = made.Add(-time.Hour) },
		"clocks apart":                func(s *scene) { s.claims["iat"] = made.Add(4 * time.Minute).Unix() },
	} {
		s := newScene(t)
		change(s)
		if err := s.verify(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Every way to make up a proof, or to take one from elsewhere.
func TestWhatProvesNothing(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*scene)
		want   error
	}{
		// The token of something else.
		"statement altered by one byte": {func(s *scene) {
			s.decision.Statement = bytes.Replace(s.decision.Statement, []byte("/1"), []byte("/2"), 1)
		}, evidence.ErrNonce},
		"another verdict": {func(s *scene) {
			s.decision.Statement = bytes.Replace(s.decision.Statement, []byte("approve"), []byte("deny"), 1)
		}, evidence.ErrNonce},
		"no nonce":                     {func(s *scene) { delete(s.claims, "nonce") }, evidence.ErrNonce},
		"nonce of a sign-in":           {func(s *scene) { s.claims["nonce"] = rand.Text() }, evidence.ErrNonce},
		"nonce in hex":                 {func(s *scene) { s.claims["nonce"] = "5f" }, evidence.ErrNonce},
		"nonce is no text":             {func(s *scene) { s.claims["nonce"] = 7 }, evidence.ErrSignature},
		"another client's":             {func(s *scene) { s.claims["aud"] = "another-app" }, evidence.ErrAudience},
		"another client's and ours":    {func(s *scene) { s.claims["aud"] = []string{client, "another-app"} }, evidence.ErrAudience},
		"another party's":              {func(s *scene) { s.claims["azp"] = "another-app" }, evidence.ErrAudience},
		"no audience":                  {func(s *scene) { delete(s.claims, "aud") }, evidence.ErrAudience},
		"statement for another client": {func(s *scene) { s.decision.ClientID = "another-app"; s.claims["aud"] = "another-app" }, evidence.ErrAudience},
		"another person's":             {func(s *scene) { s.claims["sub"] = "eve" }, evidence.ErrPerson},
		"nobody's":                     {func(s *scene) { delete(s.claims, "sub"); s.decision.Subject = "" }, evidence.ErrPerson},
		"another issuer's":             {func(s *scene) { s.claims["iss"] = "https://evil.test" }, evidence.ErrIssuer},
		"approver of another issuer":   {func(s *scene) { s.decision.Issuer = "https://evil.test" }, evidence.ErrIssuer},

		// Its signature.
		"another key":             {func(s *scene) { s.sign = newEC(t, elliptic.P256()) }, evidence.ErrSignature},
		"a kid that is not there": {func(s *scene) { s.header["kid"] = "two" }, evidence.ErrSignature},
		"no keys":                 {func(s *scene) { s.keys.Keys = nil }, evidence.ErrSignature},
		"alg none":                {func(s *scene) { s.method, s.sign = jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType }, evidence.ErrSignature},
		"HS256 with the public key": {func(s *scene) {
			der, err := x509.MarshalPKIXPublicKey(s.key.Public())
			must(t, err)
			s.method, s.sign = jwt.SigningMethodHS256, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
		}, evidence.ErrSignature},
		"HS256 with nothing": {func(s *scene) { s.method, s.sign = jwt.SigningMethodHS256, []byte{} }, evidence.ErrSignature},
		"payload exchanged": {func(s *scene) {
			parts := strings.Split(s.proof().IDToken, ".")
			claims, err := base64.RawURLEncoding.DecodeString(parts[1])
			must(t, err)
			parts[1] = base64.RawURLEncoding.EncodeToString(bytes.Replace(claims, []byte(`"ann"`), []byte(`"eve"`), 1))
			s.token, s.decision.Subject = strings.Join(parts, "."), "eve"
		}, evidence.ErrSignature},
		"signature cut off":   {func(s *scene) { s.token = s.proof().IDToken; s.token = s.token[:strings.LastIndex(s.token, ".")+1] }, evidence.ErrSignature},
		"critical extension":  {func(s *scene) { s.header["crit"] = []string{"b64"}; s.header["b64"] = false }, evidence.ErrSignature},
		"key for another alg": {func(s *scene) { s.keys.Keys[0].Algorithm = "ES384" }, evidence.ErrSignature},
		"garbage for a token": {func(s *scene) { s.token = "a.b.c" }, evidence.ErrSignature},
		"key in the token": {func(s *scene) {
			s.sign = newEC(t, elliptic.P256())
			s.header["jwk"] = publicKey(t, "one", s.sign.(*ecdsa.PrivateKey).Public())
		}, evidence.ErrSignature},
		"weak RSA key": {func(s *scene) {
			weak := rsaKey(t, 1024)
			s.method, s.sign, s.keys.Keys = jwt.SigningMethodRS256, weak, []evidence.Key{publicKey(t, "one", weak.Public())}
		}, evidence.ErrSignature},

		// The keys.
		"keys that nobody vouches for": {func(s *scene) {
			mine, err := s.keys.Note(newLogKey(t).vouch)
			must(t, err)
			s.note = mine
		}, evidence.ErrKeys},
		"keys put into a note": {func(s *scene) {
			honest := s.proof().Keys
			evil := newEC(t, elliptic.P256())
			from, to := s.keys.Keys[0].X, publicKey(t, "one", evil.Public()).X
			s.note, s.sign = bytes.Replace(honest, []byte(from), []byte(to), 1), evil
		}, evidence.ErrKeys},
		"keys without a note": {func(s *scene) {
			text, err := json.Marshal(s.keys)
			must(t, err)
			s.note = text
		}, evidence.ErrKeys},
		"note about something else": {func(s *scene) {
			text, err := json.Marshal(s.keys)
			must(t, err)
			s.note, err = s.log.vouch("policy/1", string(text))
			must(t, err)
		}, evidence.ErrKeys},
		"keys of long ago":        {func(s *scene) { s.keys.SeenAt = made.Add(-2 * time.Hour) }, evidence.ErrKeys},
		"keys of later":           {func(s *scene) { s.keys.SeenAt = made.Add(time.Hour) }, evidence.ErrKeys},
		"another provider's keys": {func(s *scene) { s.keys.Issuer = "https://evil.test"; s.claims["iss"] = "https://evil.test" }, evidence.ErrIssuer},
		"keys for another client": {func(s *scene) { s.keys.ClientID = "another-app"; s.claims["aud"] = "another-app" }, evidence.ErrAudience},
		"groups of another claim": {func(s *scene) { s.keys.GroupsClaim = "nickname"; s.claims["nickname"] = "approvers" }, evidence.ErrGroups},

		// The times.
		"issued before it was said": {func(s *scene) { s.claims["iat"] = made.Add(-time.Hour).Unix() }, evidence.ErrTime},
		"issued after it was taken": {func(s *scene) {
			s.claims["iat"] = made.Add(time.Hour).Unix()
			s.claims["exp"] = made.Add(2 * time.Hour).Unix()
		}, evidence.ErrTime},
		"not issued at any time":       {func(s *scene) { delete(s.claims, "iat") }, evidence.ErrTime},
		"never expires":                {func(s *scene) { delete(s.claims, "exp") }, evidence.ErrTime},
		"expired":                      {func(s *scene) { s.claims["exp"] = made.Add(-6 * time.Minute).Unix() }, evidence.ErrTime},
		"not valid yet":                {func(s *scene) { s.claims["nbf"] = made.Add(time.Hour).Unix() }, evidence.ErrTime},
		"taken long after it was said": {func(s *scene) { s.decision.Taken = made.Add(11 * time.Minute) }, evidence.ErrTime},
		"taken before it was said":     {func(s *scene) { s.decision.Taken = made.Add(-6 * time.Minute) }, evidence.ErrTime},

		// The person's groups and authentication.
		"no longer in the group":     {func(s *scene) { s.claims["groups"] = []string{"staff"} }, evidence.ErrGroups},
		"groups missing":             {func(s *scene) { delete(s.claims, "groups") }, evidence.ErrGroups},
		"groups are a text":          {func(s *scene) { s.claims["groups"] = "approvers" }, evidence.ErrGroups},
		"in one of two groups":       {func(s *scene) { s.decision.Groups = []string{"approvers", "security"} }, evidence.ErrGroups},
		"max age, but no auth_time":  {func(s *scene) { s.decision.MaxAge = time.Hour }, evidence.ErrNoAge},
		"max age and auth_time 0":    {func(s *scene) { s.decision.MaxAge = time.Hour; s.claims["auth_time"] = 0 }, evidence.ErrNoAge},
		"max age and auth_time null": {func(s *scene) { s.decision.MaxAge = time.Hour; s.claims["auth_time"] = nil }, evidence.ErrNoAge},
		"authenticated too long ago": {func(s *scene) {
			s.decision.MaxAge = 5 * time.Minute
			s.claims["auth_time"] = made.Add(-7 * time.Minute).Unix()
		}, evidence.ErrAge},
		"authenticated in the future": {func(s *scene) {
			s.decision.MaxAge = 5 * time.Minute
			s.claims["auth_time"] = made.Add(time.Hour).Unix()
		}, evidence.ErrTime},
		"acr missing":         {func(s *scene) { s.decision.ACRValues = []string{"phr"} }, evidence.ErrACR},
		"acr of another kind": {func(s *scene) { s.decision.ACRValues = []string{"phr"}; s.claims["acr"] = "pwd" }, evidence.ErrACR},

		// The form.
		"no token":            {func(s *scene) { s.decision.ClientID = "" }, evidence.ErrForm},
		"a session's besides": {func(s *scene) { s.decision.AuthTime = made }, evidence.ErrForm},
	} {
		s := newScene(t)
		must(t, s.verify())
		c.change(s)
		if err := s.verify(); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want: %v", name, err, c.want)
		}
	}
}

// A provider may have keys of any kind that OpenID Connect knows, except symmetric ones.
func TestEveryAlgorithm(t *testing.T) {
	t.Parallel()
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	rs := rsaKey(t, 2048)
	for _, alg := range evidence.Algorithms {
		var key crypto.Signer
		switch method := jwt.GetSigningMethod(alg).(type) {
		case *jwt.SigningMethodECDSA:
			key = newEC(t, map[int]elliptic.Curve{256: elliptic.P256(), 384: elliptic.P384(), 521: elliptic.P521()}[method.CurveBits])
		case *jwt.SigningMethodEd25519:
			key = ed
		default:
			key = rs
		}
		s := newScene(t)
		s.method, s.sign = jwt.GetSigningMethod(alg), key
		s.keys.Keys = append(s.keys.Keys, publicKey(t, "two", key.Public()))
		s.header["kid"] = "two"
		if err := s.verify(); err != nil {
			t.Errorf("%s: %v", alg, err)
		}
		s.keys.Keys[1] = s.keys.Keys[0]
		s.keys.Keys[1].ID = "two" // of another kind, or at least another key
		if err := s.verify(); !errors.Is(err, evidence.ErrSignature) {
			t.Errorf("%s with another key: %v", alg, err)
		}
	}
}

func TestTheBrokersWord(t *testing.T) {
	t.Parallel()
	honest := evidence.Decision{AuthTime: made.Add(-time.Hour), Made: made, Taken: made}
	verify := func(d evidence.Decision, p evidence.Proof) error {
		return evidence.Verify(evidence.Session, d, p, evidence.Anchor{})
	}
	must(t, verify(honest, evidence.Proof{}))
	for name, change := range map[string]func(*evidence.Decision, *evidence.Proof){
		"taken later":          func(d *evidence.Decision, _ *evidence.Proof) { d.Taken = made.Add(time.Second) },
		"no sign-in":           func(d *evidence.Decision, _ *evidence.Proof) { d.AuthTime = time.Time{} },
		"signed in afterwards": func(d *evidence.Decision, _ *evidence.Proof) { d.AuthTime = made.Add(time.Second) },
		"a client besides":     func(d *evidence.Decision, _ *evidence.Proof) { d.ClientID = client },
		"a token besides":      func(_ *evidence.Decision, p *evidence.Proof) { p.IDToken = "a.b.c" },
		"keys besides":         func(_ *evidence.Decision, p *evidence.Proof) { p.Keys = []byte{} },
	} {
		d, p := honest, evidence.Proof{}
		change(&d, &p)
		if verify(d, p) == nil {
			t.Errorf("%s proves it", name)
		}
	}
}

func TestAnUnknownAssuranceProvesNothing(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	for _, assurance := range []string{"", "passkey", "Provider", "session "} {
		if err := evidence.Verify(assurance, s.decision, s.proof(), s.log.anchor); !errors.Is(err, evidence.ErrAssurance) {
			t.Errorf("%q: %v", assurance, err)
		}
	}
}

func TestReadKeys(t *testing.T) {
	t.Parallel()
	good := publicKey(t, "one", newEC(t, elliptic.P384()).Public())
	text := func(keys ...map[string]any) []byte {
		b, err := json.Marshal(map[string]any{"keys": keys})
		must(t, err)
		return b
	}
	whole := func(k evidence.Key, more ...any) map[string]any {
		b, err := json.Marshal(k)
		must(t, err)
		m := map[string]any{"x5c": []string{"MII"}, "key_ops": []string{"verify"}}
		must(t, json.Unmarshal(b, &m))
		for i := 0; i < len(more); i += 2 {
			m[more[i].(string)] = more[i+1]
		}
		return m
	}
	keys, err := evidence.ReadKeys(text(whole(good, "use", "sig"), whole(good, "use", "enc"), map[string]any{"kty": "oct", "k": "c2VjcmV0"},
		map[string]any{"kty": "EC", "crv": "secp256k1"}, map[string]any{"kty": "RSA", "n": "AQAB", "e": "AQAB"}, whole(good, "x", "AAAA")))
	must(t, err)
	if len(keys) != 1 || keys[0] != good {
		t.Errorf("read %+v, want only %+v", keys, good)
	}
	for name, jwks := range map[string][]byte{"nothing": nil, "no keys": text(), "no set": []byte(`[]`), "only secrets": text(map[string]any{"kty": "oct", "k": "c2VjcmV0"})} {
		if keys, err := evidence.ReadKeys(jwks); err == nil {
			t.Errorf("%s: read %+v", name, keys)
		}
	}
	many := make([]map[string]any, 51)
	for i := range many {
		many[i] = whole(good)
	}
	if _, err := evidence.ReadKeys(text(many...)); err == nil {
		t.Error("51 keys are read")
	}
}

func FuzzReadKeys(f *testing.F) {
	f.Add([]byte(`{"keys":[{"kty":"EC","crv":"P-256","x":"","y":""},{"kty":"OKP","crv":"Ed25519","x":"AA"},{"kty":"RSA","n":"AQAB","e":"AQAB"}]}`))
	f.Fuzz(func(t *testing.T, jwks []byte) {
		keys, err := evidence.ReadKeys(jwks)
		if (err == nil) != (len(keys) > 0) {
			t.Errorf("%d keys, %v", len(keys), err)
		}
	})
}

func FuzzVerify(f *testing.F) {
	s := newScene(f)
	p := s.proof()
	f.Add(p.IDToken, p.Keys)
	f.Fuzz(func(t *testing.T, token string, keys []byte) {
		err := evidence.Verify(evidence.Provider, s.decision, evidence.Proof{IDToken: token, Keys: keys}, s.log.anchor)
		if err == nil && (token != p.IDToken || !bytes.Equal(keys, p.Keys)) {
			// Signatures may be written in more ways than one, but not what they sign.
			if token[:strings.LastIndex(token, ".")] != p.IDToken[:strings.LastIndex(p.IDToken, ".")] {
				t.Errorf("proved by %s", token)
			}
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	s := newScene(b)
	p := s.proof()
	for b.Loop() {
		must(b, evidence.Verify(evidence.Provider, s.decision, p, s.log.anchor))
	}
}

func newEC(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	must(t, err)
	return key
}

func other(t testing.TB, id string) evidence.Key {
	t.Helper()
	return publicKey(t, id, newEC(t, elliptic.P256()).Public())
}

func rsaKey(t testing.TB, bits int) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	must(t, err)
	return key
}
