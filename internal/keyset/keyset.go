// Package keyset reads the public keys that others sign tokens with: JSON Web Key
// sets (RFC 7517). It takes strong keys for asymmetric signatures and nothing else,
// and finds the one key that a token names, for the one algorithm that it names.
package keyset

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/go-jose/go-jose/v4"
)

// Limits on a set.
const (
	MaxBytes = 256 << 10
	MaxKeys  = 100
	minRSA   = 2048 // bits
	maxRSA   = 8192 // a larger one makes every check slow
)

// ErrUnknown is wrapped when a set has no key of that id.
var ErrUnknown = errors.New("no key of this id")

// Set is a set of keys, by their ids.
type Set struct{ byID map[string][]jose.JSONWebKey }

// Parse reads a JWK set. Keys that cannot verify a token's signature are left out, as
// the RFC wants it: those of another kind, for another use, weak, or without an id by
// which a token could name them. A private or symmetric key is an error, and so is a
// set with no key left: whoever publishes that has made a mistake that matters.
func Parse(text []byte) (Set, error) {
	if len(text) > MaxBytes {
		return Set{}, fmt.Errorf("the key set has more than %d bytes", MaxBytes)
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return Set{}, errors.New("that is not a JWK set")
	}
	if len(set.Keys) > MaxKeys {
		return Set{}, fmt.Errorf("the key set has %d keys, more than %d", len(set.Keys), MaxKeys)
	}
	out := Set{byID: map[string][]jose.JSONWebKey{}}
	for _, raw := range set.Keys {
		var kind struct {
			Type    string           `json:"kty"`
			Private *json.RawMessage `json:"d"`
		}
		if err := json.Unmarshal(raw, &kind); err != nil {
			return Set{}, errors.New("that is not a JWK set")
		}
		if kind.Private != nil || kind.Type == "oct" {
			return Set{}, errors.New("the key set has a secret key, which everybody can read now: replace it")
		}
		var key jose.JSONWebKey
		if err := json.Unmarshal(raw, &key); err != nil || !usable(key) {
			continue
		}
		out.byID[key.KeyID] = append(out.byID[key.KeyID], key)
	}
	if len(out.byID) == 0 {
		return Set{}, errors.New("the key set has no key that tokens could be checked with")
	}
	return out, nil
}

// uses are for signatures; SPIFFE bundles have their own (SPIFFE JWT-SVID, section 6.1).
var uses = []string{"", "sig", "jwt-svid"}

func usable(key jose.JSONWebKey) bool {
	if key.KeyID == "" || !slices.Contains(uses, key.Use) || !key.Valid() {
		return false
	}
	switch public := key.Key.(type) {
	case *rsa.PublicKey:
		return public.N.BitLen() >= minRSA && public.N.BitLen() <= maxRSA
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return true
	}
	return false
}

// Len is how many ids the set has.
func (s Set) Len() int { return len(s.byID) }

// Find is the key of the id, for the algorithm. An id that several keys share names
// none of them: whose signature it is could not be said.
func (s Set) Find(id, algorithm string) (any, error) {
	keys := s.byID[id]
	switch {
	case len(keys) == 0:
		return nil, fmt.Errorf("%w: %q", ErrUnknown, id)
	case len(keys) > 1:
		return nil, fmt.Errorf("%d keys have the id %q", len(keys), id)
	case keys[0].Algorithm != "" && keys[0].Algorithm != algorithm:
		return nil, fmt.Errorf("the key %q is for %s, not for %q", id, keys[0].Algorithm, algorithm)
	case !slices.Contains(algorithms(keys[0].Key), algorithm):
		return nil, fmt.Errorf("the key %q is of another kind than %q needs", id, algorithm)
	}
	return keys[0].Key, nil
}

// Algorithms are those of RFC 7518 section 3.1 and RFC 8037 that a token may be signed
// with: asymmetric ones, fixed here, whatever an issuer or a token says.
var Algorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

// algorithms are those that a key is good for. An elliptic curve has one.
func algorithms(key any) []string {
	switch key := key.(type) {
	case *rsa.PublicKey:
		return []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
	case *ecdsa.PublicKey:
		switch key.Curve.Params().BitSize {
		case 256:
			return []string{"ES256"}
		case 384:
			return []string{"ES384"}
		case 521:
			return []string{"ES512"}
		}
	case ed25519.PublicKey:
		return []string{"EdDSA"}
	}
	return nil
}
