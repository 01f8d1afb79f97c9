package agents

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/golang-jwt/jwt/v5"

	"sallyport/approvals/claims"
	"sallyport/approvals/policy"
	"sallyport/broker/agents/jwks"
	"sallyport/internal/keyset"
)

// MaxToken is how many bytes a token may have.
const MaxToken = 16 << 10

// maxKeyID is how long the id of a key may be, in bytes.
const maxKeyID = 256

// token is a JWT in its compact form (RFC 7515 section 7.1), read but not verified.
type token struct {
	text             string
	algorithm, keyID string
	claims           claims.Claims
	signed           string // what the signature is over
	signature        []byte
}

// id names the token for good: by what its issuer calls it, or else by what was signed.
// The signature is no part of that, since some can be altered and still hold (ECDSA).
func (t token) id() string {
	if t.claims.ID != "" {
		return "jti:" + t.claims.ID
	}
	sum := sha256.Sum256([]byte(t.signed))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// hash is that of the token as it was shown.
func (t token) hash() string {
	sum := sha256.Sum256([]byte(t.text))
	return hex.EncodeToString(sum[:])
}

// headers that a token may have. Those that name a key by where it is, or that carry
// one (jku, x5u, jwk, x5c), and extensions (crit) are not among them: who could sign
// a token would be the token's to say.
var headers = []string{"alg", "kid", "typ", "x5t", "x5t#S256"}

// types of tokens, by RFC 7519 section 5.1: JWT, or none. Access tokens and the like
// are not identities.
var types = []string{"JWT", "JOSE"}

// readToken reads a token: its form, and not whether it is true.
func readToken(text string) (token, error) {
	if len(text) > MaxToken {
		return token{}, fmt.Errorf("it has more than %d bytes", MaxToken)
	}
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return token{}, errors.New("it is not a JWT in three parts")
	}
	var raw [3][]byte
	for i, part := range parts {
		var err error
		if raw[i], err = base64.RawURLEncoding.Strict().DecodeString(part); err != nil || strings.ContainsAny(part, "\r\n") {
			return token{}, errors.New("it is not base64url without padding")
		}
	}
	header, err := claims.Object(raw[0])
	if err != nil {
		return token{}, errors.New("its header cannot be read")
	}
	for name := range header {
		if !slices.Contains(headers, name) {
			return token{}, fmt.Errorf("its header has %q, which tokens of workloads have no need of", name)
		}
	}
	t := token{text: text, signed: parts[0] + "." + parts[1], signature: raw[2]}
	t.algorithm, _ = header["alg"].(string)
	t.keyID, _ = header["kid"].(string)
	if kind, there := header["typ"]; there {
		if said, _ := kind.(string); !slices.ContainsFunc(types, func(k string) bool { return strings.EqualFold(k, said) }) {
			return token{}, errors.New("it is of another type than JWT")
		}
	}
	switch {
	case !slices.Contains(keyset.Algorithms, t.algorithm):
		return token{}, fmt.Errorf("it is not signed with one of %s", strings.Join(keyset.Algorithms, ", "))
	case t.keyID == "" || len(t.keyID) > maxKeyID:
		return token{}, errors.New("it does not say by the id of a key what it was signed with")
	}
	if t.claims, err = claims.Parse(raw[1]); err != nil {
		return token{}, err
	}
	return t, nil
}

// verify checks the signature, if the policy names the issuer. Nobody is asked for keys
// whom it does not name.
func (s *Service) verify(ctx context.Context, p *policy.Policy, t token) error {
	i := slices.IndexFunc(p.Agents, func(a policy.Agent) bool { return a.Issuer == t.claims.Issuer })
	if i < 0 {
		return ErrUntrusted.With("the policy trusts no tokens of this issuer")
	}
	entry := &p.Agents[i] // all entries for an issuer have the same keys
	key, err := s.key(ctx, entry, t)
	if err != nil {
		return err
	}
	// The key fits the algorithm, which is one of ours: keyset sees to both.
	if err := jwt.GetSigningMethod(t.algorithm).Verify(t.signed, t.signature, key); err != nil {
		return ErrToken.With("the issuer has not signed this token").Because(err)
	}
	return nil
}

func (s *Service) key(ctx context.Context, entry *policy.Agent, t token) (any, error) {
	if entry.Keys == nil {
		return s.cfg.Keys.Find(ctx, jwks.Issuer{URL: entry.Issuer, Addresses: entry.Addresses}, t.keyID, t.algorithm)
	}
	key, err := entry.Keys.Find(t.keyID, t.algorithm)
	if err != nil {
		return nil, jwks.ErrUnknownKey.Because(err)
	}
	return key, nil
}
