package evidence

import (
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Algorithms are those that an ID token may be signed with: asymmetric ones,
// fixed here, whatever the provider or the token says.
var Algorithms = []string{
	"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
}

// idToken is what a decision needs of one.
type idToken struct {
	jwt.RegisteredClaims
	Nonce           string           `json:"nonce"`
	AuthorizedParty string           `json:"azp"`
	AuthTime        *jwt.NumericDate `json:"auth_time"`
	ACR             string           `json:"acr"`
	AMR             []string         `json:"amr"`

	all map[string]json.RawMessage
}

// UnmarshalJSON also keeps all claims: what the one with the groups is called
// differs from provider to provider.
func (t *idToken) UnmarshalJSON(text []byte) error {
	type plain idToken
	if err := json.Unmarshal(text, (*plain)(t)); err != nil {
		return err
	}
	return json.Unmarshal(text, &t.all)
}

// provider checks that the ID token is the provider's signature over the
// statement:
//
//  1. somebody who has the log's key vouches that the provider had these keys,
//     and knew Sallyport by this client id, when the decision was taken;
//  2. one of these keys signed the token, with one of Algorithms;
//  3. the token is that issuer's, for that client and no other party (OpenID
//     Connect Core 1.0 section 3.1.3.7), about the approver;
//  4. its nonce is the hash of the statement;
//  5. it was issued between the making and the taking of the decision, which are
//     at most Lifetime apart, and was good then; the clocks may differ by Leeway;
//  6. it names the groups that the approver decides for;
//  7. if the terms want that, it says that the person was authenticated recently
//     enough (auth_time) and in one of the right ways (acr). A provider that does
//     not say so does not prove it.
func provider(d Decision, p Proof, a Anchor) error {
	if p.IDToken == "" || p.Keys == nil || d.ClientID == "" || !d.AuthTime.IsZero() {
		return ErrForm
	}
	if d.Taken.Before(d.Made.Add(-Leeway)) || d.Taken.After(d.Made.Add(Lifetime)) {
		return ErrTime
	}
	keys, err := OpenKeys(p.Keys, a)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrKeys, err)
	}
	switch seen := keys.SeenAt; {
	case seen.After(d.Taken.Add(Leeway)) || d.Taken.After(seen.Add(KeysLifetime+Leeway)):
		return fmt.Errorf("%w: they were seen at another time", ErrKeys)
	case keys.Issuer != d.Issuer:
		return ErrIssuer
	case keys.ClientID != d.ClientID:
		return ErrAudience
	}
	t, err := keys.read(p.IDToken)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSignature, err)
	}
	switch {
	case t.Issuer != keys.Issuer:
		return ErrIssuer
	case !slices.Contains(t.Audience, keys.ClientID),
		t.AuthorizedParty != "" && t.AuthorizedParty != keys.ClientID,
		t.AuthorizedParty == "" && len(t.Audience) > 1:
		return ErrAudience
	case t.Subject == "" || t.Subject != d.Subject:
		return ErrPerson
	case subtle.ConstantTimeCompare([]byte(t.Nonce), []byte(Nonce(d.Statement))) != 1:
		return ErrNonce
	case t.IssuedAt == nil || t.ExpiresAt == nil,
		t.IssuedAt.Before(d.Made.Add(-Leeway)) || t.IssuedAt.After(d.Taken.Add(Leeway)),
		!d.Taken.Before(t.ExpiresAt.Add(Leeway)) || !t.ExpiresAt.After(t.IssuedAt.Time),
		t.NotBefore != nil && t.NotBefore.After(d.Taken.Add(Leeway)):
		return ErrTime
	}
	if err := t.checkGroups(keys.GroupsClaim, d.Groups); err != nil {
		return err
	}
	return t.checkAuthentication(d)
}

// Authentication is what an ID token says of how and when its person was
// authenticated, for people who look; nothing of it is verified here.
func Authentication(raw string) (at *time.Time, amr []string, acr string) {
	var t idToken
	if _, _, err := jwt.NewParser().ParseUnverified(raw, &t); err != nil {
		return nil, nil, ""
	}
	if t.AuthTime != nil && t.AuthTime.Unix() > 0 {
		utc := t.AuthTime.UTC()
		at = &utc
	}
	return at, t.AMR, t.ACR
}

func (t *idToken) checkGroups(claim string, want []string) error {
	if len(want) == 0 {
		return nil
	}
	var groups []string
	if err := json.Unmarshal(t.all[claim], &groups); err != nil {
		return ErrGroups
	}
	for _, g := range want {
		if !slices.Contains(groups, g) {
			return ErrGroups
		}
	}
	return nil
}

func (t *idToken) checkAuthentication(d Decision) error {
	if len(d.ACRValues) > 0 && !slices.Contains(d.ACRValues, t.ACR) {
		return ErrACR
	}
	if d.MaxAge <= 0 {
		return nil
	}
	// Both are the provider's times, so that its clock does not matter.
	switch {
	case t.AuthTime == nil || t.AuthTime.Unix() <= 0:
		return ErrNoAge
	case t.AuthTime.After(t.IssuedAt.Add(AgeLeeway)):
		return ErrTime
	case t.IssuedAt.Sub(t.AuthTime.Time) > d.MaxAge+AgeLeeway:
		return ErrAge
	}
	return nil
}
