package evidence

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"sallyport/audit/vouch"
)

// KeysLifetime is how long a note about a provider's keys is good for decisions.
// At each decision the broker asks the provider for its keys; it makes another
// note when they are others, or when the last one is so old.
const KeysLifetime = time.Hour

// keysKind is the kind of notes about keys.
const keysKind = "provider-keys/1"

const (
	maxKeys     = 50
	maxKeysText = 40 << 10 // it must fit into an event
)

// Keys are the keys that an identity provider published at some time, and what
// Sallyport was to it: all that a verifier needs to know of a provider.
type Keys struct {
	Issuer      string    `json:"issuer"`
	ClientID    string    `json:"client_id"`
	GroupsClaim string    `json:"groups_claim"` // of the ID token, lists a person's groups
	Keys        []Key     `json:"keys"`
	SeenAt      time.Time `json:"seen_at"`
}

// Key is a public key, a JSON Web Key (RFC 7517 and 7518), without what else a
// provider may tell about it.
type Key struct {
	Type      string `json:"kty"`
	ID        string `json:"kid,omitempty"`
	Algorithm string `json:"alg,omitempty"`
	Modulus   string `json:"n,omitempty"`
	Exponent  string `json:"e,omitempty"`
	Curve     string `json:"crv,omitempty"`
	X         string `json:"x,omitempty"`
	Y         string `json:"y,omitempty"`
}

// ReadKeys takes the keys that can sign ID tokens from a JWK set (RFC 7517
// section 5). Those of a kind that is not known, and those for something else,
// are left out, as the RFC wants it.
func ReadKeys(jwks []byte) ([]Key, error) {
	var set struct {
		Keys []struct {
			Key
			Use string `json:"use"`
		} `json:"keys"`
	}
	if err := json.Unmarshal(jwks, &set); err != nil {
		return nil, errors.New("the provider's keys are not a JWK set")
	}
	var keys []Key
	for _, k := range set.Keys {
		if _, err := k.public(); err == nil && (k.Use == "" || k.Use == "sig") {
			keys = append(keys, k.Key)
		}
	}
	if len(keys) == 0 || len(keys) > maxKeys {
		return nil, fmt.Errorf("the provider has %d keys that can be used, not 1 to %d", len(keys), maxKeys)
	}
	return keys, nil
}

// Same reports whether k differs from other in nothing but when it was seen.
func (k Keys) Same(other Keys) bool {
	return k.Issuer == other.Issuer && k.ClientID == other.ClientID && k.GroupsClaim == other.GroupsClaim &&
		slices.Equal(k.Keys, other.Keys)
}

// Note has vouch sign a note about the keys.
func (k Keys) Note(vouch func(kind, text string) ([]byte, error)) ([]byte, error) {
	k.SeenAt = k.SeenAt.UTC()
	text, err := json.Marshal(k)
	if err != nil {
		return nil, err
	}
	if len(text) > maxKeysText {
		return nil, fmt.Errorf("the provider's keys take %d bytes, more than %d", len(text), maxKeysText)
	}
	return vouch(keysKind, string(text))
}

// OpenKeys reads a note about keys, if the anchor vouches for it.
func OpenKeys(note []byte, a Anchor) (Keys, error) {
	text, err := vouch.Open(keysKind, note, a.LogKey)
	if err != nil {
		return Keys{}, err
	}
	var k Keys
	dec := json.NewDecoder(bytes.NewReader([]byte(text)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&k); err != nil {
		return Keys{}, fmt.Errorf("reading a note about keys: %w", err)
	}
	return k, nil
}

// read returns the claims of a token that one of the keys signed.
func (k Keys) read(raw string) (*idToken, error) {
	var t idToken
	_, err := jwt.NewParser(jwt.WithValidMethods(Algorithms), jwt.WithStrictDecoding(), jwt.WithoutClaimsValidation()).
		ParseWithClaims(raw, &t, func(token *jwt.Token) (any, error) {
			if _, there := token.Header["crit"]; there { // RFC 7515 section 4.1.11
				return nil, errors.New("it has extensions that must be understood")
			}
			return k.candidates(token)
		})
	if err != nil {
		return nil, err
	}
	return &t, nil
}

// candidates are the keys that may have signed the token: those that it names,
// for the algorithm that it names.
func (k Keys) candidates(t *jwt.Token) (any, error) {
	id, named := t.Header["kid"].(string)
	var set jwt.VerificationKeySet
	for _, key := range k.Keys {
		if named && key.ID != id || key.Algorithm != "" && key.Algorithm != t.Method.Alg() {
			continue
		}
		public, err := key.public()
		if err != nil {
			return nil, err
		}
		// A key of one kind is never tried with an algorithm of another.
		if fits(public, t.Method) {
			set.Keys = append(set.Keys, public)
		}
	}
	if len(set.Keys) == 0 {
		return nil, errors.New("the provider has no such key")
	}
	return set, nil
}

func fits(key any, m jwt.SigningMethod) bool {
	switch key := key.(type) {
	case *rsa.PublicKey:
		_, pkcs := m.(*jwt.SigningMethodRSA)
		_, pss := m.(*jwt.SigningMethodRSAPSS)
		return pkcs || pss
	case *ecdsa.PublicKey:
		ec, ok := m.(*jwt.SigningMethodECDSA)
		return ok && ec.CurveBits == key.Curve.Params().BitSize
	case ed25519.PublicKey:
		_, ok := m.(*jwt.SigningMethodEd25519)
		return ok
	}
	return false
}

// minRSA is how many bits an RSA key must have.
const minRSA = 2048

// public is the key itself, if it is one of a kind that is known (RFC 7518
// sections 6.2 and 6.3, RFC 8037).
func (k Key) public() (any, error) {
	switch k.Type {
	case "RSA":
		n, e := integer(k.Modulus), integer(k.Exponent)
		if n.BitLen() < minRSA || n.BitLen() > 16<<10 || !e.IsInt64() || e.Int64() < 3 || e.Int64() > 1<<31-1 {
			return nil, fmt.Errorf("key %q is no RSA key of at least %d bits", k.ID, minRSA)
		}
		return &rsa.PublicKey{N: n, E: int(e.Int64())}, nil
	case "EC":
		curve, ok := map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}[k.Curve]
		if !ok {
			return nil, fmt.Errorf("key %q has the unknown curve %q", k.ID, k.Curve)
		}
		x, y := octets(k.X), octets(k.Y)
		return ecdsa.ParseUncompressedPublicKey(curve, slices.Concat([]byte{4}, x, y))
	case "OKP":
		x := octets(k.X)
		if k.Curve != "Ed25519" || len(x) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("key %q is no Ed25519 key", k.ID)
		}
		return ed25519.PublicKey(x), nil
	}
	return nil, fmt.Errorf("key %q is of the unknown kind %q", k.ID, k.Type)
}

func octets(text string) []byte {
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return nil // no key has this length
	}
	return b
}

func integer(text string) *big.Int { return new(big.Int).SetBytes(octets(text)) }
