package signin

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"sallyport/approvals/identity"
	"sallyport/internal/clock"
	"sallyport/internal/refusal"
	"sallyport/internal/remember"
)

var (
	// ErrBadToken says that an access token is not one of ours, or not for this broker.
	ErrBadToken = refusal.New(refusal.Unauthenticated, "bad-token",
		"the access token is not valid here", "sign in: sally login")
	// ErrTokenExpired says that an access token is over its time.
	ErrTokenExpired = refusal.New(refusal.Unauthenticated, "token-expired",
		"the access token has expired", "use the refresh token, or sign in: sally login")
)

const (
	// accessLifetime is how long an access token is good, if its sign-in is.
	accessLifetime = 10 * time.Minute
	// leeway is how far replicas' clocks may be apart.
	leeway = 30 * time.Second
	// tokenType marks access tokens, so that no other JWT that the key may sign
	// one day is taken for one (RFC 9068 section 2.1, RFC 8725 section 3.11).
	tokenType = "at+jwt"
	// clientID is the one client, sally. It is public: it has no secret.
	clientID = "sally"
)

// accessClaims are those of RFC 9068. SignIn is the id of the sign-in that the
// token speaks for.
type accessClaims struct {
	jwt.RegisteredClaims
	ClientID string           `json:"client_id"`
	SignIn   string           `json:"sid"`
	AuthTime *jwt.NumericDate `json:"auth_time"`
}

// accessTokens signs and verifies access tokens.
type accessTokens struct {
	url    string // issuer and audience
	key    ed25519.PrivateKey
	kid    string
	clock  clock.Clock
	parser *jwt.Parser
	// verified are claims of tokens whose signature held: a token is shown many times.
	verified remember.Memory[accessClaims]
}

func newAccessTokens(url string, key ed25519.PrivateKey, c clock.Clock) *accessTokens {
	// RFC 7638 with RFC 8037 section 2: the required members, in this order.
	thumb := sha256.Sum256([]byte(`{"crv":"Ed25519","kty":"OKP","x":"` + publicX(key) + `"}`))
	return &accessTokens{
		url: url, key: key, clock: c, verified: remember.Memory[accessClaims]{Size: 8192}, kid: base64.RawURLEncoding.EncodeToString(thumb[:]),
		parser: jwt.NewParser(
			// The algorithm is ours to say, never the token's.
			jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}),
			jwt.WithIssuer(url), jwt.WithAudience(url),
			jwt.WithExpirationRequired(), jwt.WithIssuedAt(),
			jwt.WithLeeway(leeway), jwt.WithTimeFunc(c.Now), jwt.WithStrictDecoding()),
	}
}

// publicX is the public key as JWKs have it.
func publicX(key ed25519.PrivateKey) string {
	return base64.RawURLEncoding.EncodeToString(key.Public().(ed25519.PublicKey))
}

// sign makes an access token for a sign-in.
func (a *accessTokens) sign(in identity.SignedIn) (string, time.Duration, error) {
	now := a.clock.Now()
	expires := now.Add(accessLifetime)
	if in.Expires.Before(expires) {
		expires = in.Expires
	}
	t := jwt.NewWithClaims(jwt.SigningMethodEdDSA, accessClaims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer: a.url, Audience: jwt.ClaimStrings{a.url}, Subject: in.Person.ID, ID: uuid.NewString(),
			IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(expires),
		},
		ClientID: clientID, SignIn: in.ID, AuthTime: jwt.NewNumericDate(in.AuthTime),
	})
	t.Header["typ"], t.Header["kid"] = tokenType, a.kid
	signed, err := t.SignedString(a.key)
	return signed, expires.Sub(now), err
}

// verify checks a token for itself; whether its sign-in lives is not in it.
func (a *accessTokens) verify(token string) (accessClaims, error) {
	shown := remember.Of([]byte(token))
	if claims, ok := a.verified.Get(shown); ok {
		if a.clock.Now().After(claims.ExpiresAt.Add(leeway)) {
			return accessClaims{}, ErrTokenExpired
		}
		return claims, nil
	}
	var claims accessClaims
	_, err := a.parser.ParseWithClaims(token, &claims, func(t *jwt.Token) (any, error) {
		if t.Header["typ"] != tokenType || t.Header["kid"] != a.kid {
			return nil, errors.New("another type or key")
		}
		return a.key.Public(), nil
	})
	// The library's errors may quote the token's contents: they go nowhere.
	switch {
	case err == nil && claims.ClientID == clientID:
		a.verified.Put(shown, claims)
		return claims, nil
	case errors.Is(err, jwt.ErrTokenExpired):
		return accessClaims{}, ErrTokenExpired
	}
	return accessClaims{}, ErrBadToken
}

// jwks publishes the key that access tokens verify with (RFC 7517, RFC 8037).
func (s *Service) jwks(w http.ResponseWriter, r *http.Request) {
	type jwk struct {
		Type      string `json:"kty"`
		Curve     string `json:"crv"`
		X         string `json:"x"`
		ID        string `json:"kid"`
		Use       string `json:"use"`
		Algorithm string `json:"alg"`
	}
	w.Header().Set("Content-Type", "application/jwk-set+json")
	json.NewEncoder(w).Encode(map[string][]jwk{"keys": {{
		"OKP", "Ed25519", publicX(s.tokens.key), s.tokens.kid, "sig", jwt.SigningMethodEdDSA.Alg(),
	}}})
}
