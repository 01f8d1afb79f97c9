package signin

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"
	"unicode"

	"github.com/coreos/go-oidc/v3/oidc"

	"sallyport/approvals/identity"
)

const (
	// clockSkew is how far ahead the provider's clock may be.
	clockSkew = 5 * time.Minute
	// maxText bounds what is taken over of a name or an address, maxGroups how many
	// groups, maxGroup how long each: they stand in every sign-in's event.
	maxText    = 255
	maxGroups  = 200
	maxGroup   = 200
	maxMethods = 10
)

// claimsOf takes from a verified ID token what Sallyport wants to know.
//
//  1. azp, if there, must be us (OpenID Connect Core 1.0 section 3.1.3.7).
//  2. iat must not be in the future.
//  3. sub must be there and storable; it identifies, so it is not changed.
//  4. Groups that are missing or unreadable are none, with a warning: fewer rights
//     rather than no sign-in.
func (s *Service) claimsOf(ctx context.Context, token *oidc.IDToken) (identity.Claims, error) {
	var c struct {
		Name              string   `json:"name"`
		PreferredUsername string   `json:"preferred_username"`
		Email             string   `json:"email"`
		AuthTime          float64  `json:"auth_time"` // seconds; a JSON number, not always whole
		AuthorizedParty   string   `json:"azp"`
		AMR               []string `json:"amr"`
		ACR               string   `json:"acr"`
	}
	var all map[string]json.RawMessage
	now := s.cfg.Clock.Now()
	switch err := errors.Join(token.Claims(&c), token.Claims(&all)); {
	case err != nil:
		return identity.Claims{}, ErrBadIDToken.Because(errors.New("a claim has the wrong type"))
	case c.AuthorizedParty != "" && c.AuthorizedParty != s.cfg.ClientID:
		return identity.Claims{}, ErrBadIDToken.Because(errors.New("made for another party"))
	case token.IssuedAt.After(now.Add(clockSkew)):
		return identity.Claims{}, ErrBadIDToken.Because(errors.New("issued in the future"))
	case token.Subject == "" || len(token.Subject) > maxText || strings.ContainsFunc(token.Subject, unicode.IsControl):
		return identity.Claims{}, ErrBadIDToken.Because(errors.New("no usable sub"))
	}
	// Some providers do not tell when they authenticated the person: then it is now
	// that they vouch for them. Nobody was authenticated in the future.
	authTime := now
	if at := time.Unix(int64(c.AuthTime), 0).UTC(); c.AuthTime > 0 && at.Before(now) {
		authTime = at
	}
	if c.Name == "" {
		c.Name = c.PreferredUsername
	}
	for i := range c.AMR {
		c.AMR[i] = text(c.AMR[i])
	}
	groups, err := groupsOf(all[s.cfg.GroupsClaim])
	if err != nil {
		s.cfg.Logger.WarnContext(ctx, "somebody signs in without groups", "claim", s.cfg.GroupsClaim, "reason", err)
	}
	return identity.Claims{
		Issuer: token.Issuer, Subject: token.Subject, Name: text(c.Name), Email: text(c.Email), Groups: groups,
		AuthTime: authTime, AMR: c.AMR[:min(len(c.AMR), maxMethods)], ACR: text(c.ACR),
	}, nil
}

// groupsOf reads the groups claim: a list of strings. Anything else is none.
func groupsOf(raw json.RawMessage) ([]string, error) {
	var groups []string
	switch {
	case raw == nil:
		return nil, errors.New("the claim is missing")
	case json.Unmarshal(raw, &groups) != nil || groups == nil:
		return nil, errors.New("the claim is not a list of strings")
	case len(groups) > maxGroups:
		return nil, errors.New("the claim lists too many groups")
	}
	for _, g := range groups {
		if g == "" || len(g) > maxGroup || strings.ContainsFunc(g, unicode.IsControl) {
			return nil, errors.New("the claim lists a group with an unusable name")
		}
	}
	return groups, nil
}

// text makes a name or address storable and short, without what is not seen or
// turns the text beside it around: approvers go by it. The joiners stay, which
// names in some scripts are spelled with.
func text(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.In(r, unicode.Cc, unicode.Cf) && r != '\u200c' && r != '\u200d' {
			return -1
		}
		return r
	}, s)
	// Bytes, not runes, are cut; what is left of half a rune goes too.
	return strings.ToValidUTF8(s[:min(len(s), maxText)], "")
}
