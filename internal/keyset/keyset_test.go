package keyset_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"sallyport/internal/keyset"
)

func set(t testing.TB, keys ...jose.JSONWebKey) []byte {
	t.Helper()
	text, err := json.Marshal(jose.JSONWebKeySet{Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func ec(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func rsaKey(t testing.TB, bits int) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestEachKeyFitsItsAlgorithmsOnly(t *testing.T) {
	t.Parallel()
	okp, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := keyset.Parse(set(t,
		jose.JSONWebKey{KeyID: "rsa", Key: &rsaKey(t, 2048).PublicKey},
		jose.JSONWebKey{KeyID: "pinned", Algorithm: "PS384", Key: &rsaKey(t, 2048).PublicKey, Use: "sig"},
		jose.JSONWebKey{KeyID: "p256", Key: &ec(t, elliptic.P256()).PublicKey, Use: "jwt-svid"},
		jose.JSONWebKey{KeyID: "p384", Key: &ec(t, elliptic.P384()).PublicKey},
		jose.JSONWebKey{KeyID: "p521", Key: &ec(t, elliptic.P521()).PublicKey},
		jose.JSONWebKey{KeyID: "okp", Key: okp}))
	if err != nil {
		t.Fatal(err)
	}
	fits := map[string]string{"rsa": "RS256 RS384 RS512 PS256 PS384 PS512", "pinned": "PS384", "p256": "ES256", "p384": "ES384", "p521": "ES512", "okp": "EdDSA"}
	if s.Len() != len(fits) {
		t.Errorf("%d keys", s.Len())
	}
	for id, want := range fits {
		for _, alg := range append([]string{"none", "HS256", "", "ES256K"}, keyset.Algorithms...) {
			_, err := s.Find(id, alg)
			if got := err == nil; got != (alg != "" && strings.Contains(want, alg)) {
				t.Errorf("%s with %s: %v", id, alg, err)
			}
		}
	}
	if _, err := s.Find("other", "ES256"); !errors.Is(err, keyset.ErrUnknown) {
		t.Errorf("an id that is not there: %v", err)
	}
}

func TestKeysThatAreLeftOut(t *testing.T) {
	t.Parallel()
	good := jose.JSONWebKey{KeyID: "good", Key: &ec(t, elliptic.P256()).PublicKey}
	for what, key := range map[string]jose.JSONWebKey{
		"weak":           {KeyID: "k", Key: &rsaKey(t, 1024).PublicKey},
		"for encryption": {KeyID: "k", Key: &ec(t, elliptic.P256()).PublicKey, Use: "enc"},
		"nameless":       {Key: &ec(t, elliptic.P256()).PublicKey},
		"for TLS":        {KeyID: "k", Key: &ec(t, elliptic.P256()).PublicKey, Use: "x509-svid"},
	} {
		s, err := keyset.Parse(set(t, good, key))
		if err != nil || s.Len() != 1 {
			t.Errorf("%s: %d keys, %v", what, s.Len(), err)
		}
		if _, err := keyset.Parse(set(t, key)); err == nil {
			t.Errorf("%s alone is a set", what)
		}
	}
	for _, odd := range []string{`{"kty":"EC","kid":"k","crv":"P-256","x":"AA","y":"AA"}`, `{"kty":"OKP","kid":"k","crv":"Ed448","x":"AA"}`, `{"kty":"AKP","kid":"k"}`,
		`{"kid":"k"}`, `{"kty":"RSA","kid":"k","n":"AQ","e":"AQ"}`, `null`} {
		text := strings.Replace(string(set(t, good)), `{"keys":[`, `{"keys":[`+odd+`,`, 1)
		if s, err := keyset.Parse([]byte(text)); err != nil || s.Len() != 1 {
			t.Errorf("%s: %d keys, %v", odd, s.Len(), err)
		}
	}
}

// Whoever publishes a key that signs lets everybody sign.
func TestSecretKeys(t *testing.T) {
	t.Parallel()
	good := jose.JSONWebKey{KeyID: "good", Key: &ec(t, elliptic.P256()).PublicKey}
	for what, key := range map[string]jose.JSONWebKey{
		"private":   {KeyID: "k", Key: ec(t, elliptic.P256())},
		"symmetric": {KeyID: "k", Key: []byte("0123456789abcdef0123456789abcdef")},
	} {
		if _, err := keyset.Parse(set(t, good, key)); err == nil || !strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	var many []jose.JSONWebKey
	for i := range keyset.MaxKeys + 1 {
		many = append(many, jose.JSONWebKey{KeyID: fmt.Sprint(i), Key: &ec(t, elliptic.P256()).PublicKey})
	}
	if _, err := keyset.Parse(set(t, many...)); err == nil {
		t.Error("too many keys")
	}
	if s, err := keyset.Parse(set(t, many[1:]...)); err != nil || s.Len() != keyset.MaxKeys {
		t.Error(err)
	}
	if _, err := keyset.Parse([]byte(strings.Repeat(" ", keyset.MaxBytes) + "{}")); err == nil {
		t.Error("too many bytes")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(set(f, jose.JSONWebKey{KeyID: "a", Key: &ec(f, elliptic.P256()).PublicKey}))
	f.Add([]byte(`{"keys":[{"kty":"RSA","kid":"a","n":"AQAB","e":"AQAB"}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := keyset.Parse(text)
		if (err == nil) != (s.Len() > 0) {
			t.Fatalf("%d keys, %v", s.Len(), err)
		}
	})
}
