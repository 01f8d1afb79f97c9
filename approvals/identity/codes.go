package identity

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/audit/event"
	"sallyport/internal/refusal"
)

// codeLifetime is how long an authorization code may take from the browser to
// sally; RFC 6749 section 4.1.2 allows ten minutes, a loopback needs seconds.
const codeLifetime = time.Minute

// Authorize gives out a code by which the sally that listens at redirectURI, and
// knows the verifier of the PKCE challenge (S256), may act for whom the
// browser's sign-in acts.
func (s *Store) Authorize(ctx context.Context, browser SignedIn, redirectURI, challenge string) (string, error) {
	code := newSecret()
	_, err := s.cfg.Pool.Exec(ctx, `
		INSERT INTO authorization_codes (code_hash, sign_in, redirect_uri, challenge, expires_at)
		VALUES ($1, $2, $3, $4, $5)`,
		hash(code), browser.ID, redirectURI, challenge, s.cfg.Clock.Now().Add(codeLifetime))
	if err != nil {
		return "", fmt.Errorf("authorizing: %w", err)
	}
	return code, nil
}

// RedeemCode exchanges a code for tokens:
//
//  1. an unknown or late code, or one of a browser that has signed out since, is ErrInvalidGrant;
//  2. a code is good for one attempt: with another redirect URI or verifier than
//     it was made for it is refused, and burnt;
//  3. a second attempt is ErrCodeReused and ends what came of the first (RFC 6749
//     section 4.1.2).
func (s *Store) RedeemCode(ctx context.Context, code, verifier, redirectURI, source string) (Tokens, error) {
	var t Tokens
	err := s.commit(ctx, func(tx pgx.Tx) ([]event.Event, error, error) {
		now := s.cfg.Clock.Now()
		var c struct {
			signIn, redirectURI, challenge string
			expires                        time.Time
			used                           bool
			family                         *string
		}
		err := tx.QueryRow(ctx, `
			SELECT sign_in, redirect_uri, challenge, expires_at, used_at IS NOT NULL, family
			FROM authorization_codes WHERE code_hash = $1 FOR UPDATE`, hash(code)).
			Scan(&c.signIn, &c.redirectURI, &c.challenge, &c.expires, &c.used, &c.family)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil, ErrInvalidGrant, nil
		}
		if err != nil {
			return nil, nil, err
		}
		browser, err := lockSignIn(ctx, tx, c.signIn, now)
		signedOut := errors.Is(err, pgx.ErrNoRows)
		if err != nil && !signedOut {
			return nil, nil, err
		}

		var refused *refusal.Error
		switch {
		case c.used:
			if c.family != nil {
				if _, err := end(ctx, tx, *c.family, now); err != nil {
					return nil, nil, err
				}
			}
			refused = ErrCodeReused
		case signedOut || !now.Before(c.expires):
			return nil, ErrInvalidGrant, nil
		case c.redirectURI != redirectURI:
			refused = ErrWrongRedirect
		case !fits(verifier, c.challenge):
			refused = ErrWrongVerifier
		}
		if refused != nil {
			_, err := tx.Exec(ctx, `UPDATE authorization_codes SET used_at = coalesce(used_at, $2) WHERE code_hash = $1`, hash(code), now)
			return []event.Event{s.signInFailed(browser.Person, ViaCLI, source, refused)}, refused, err
		}

		tokens, ev, err := s.newFamily(ctx, tx, browser, ViaCLI, source)
		if err != nil {
			return nil, nil, err
		}
		t = tokens
		_, err = tx.Exec(ctx, `UPDATE authorization_codes SET used_at = $2, family = $3 WHERE code_hash = $1`,
			hash(code), now, tokens.SignedIn.ID)
		return []event.Event{ev}, nil, err
	})
	if err != nil {
		return Tokens{}, fmt.Errorf("redeeming a code: %w", err)
	}
	return t, nil
}

// fits is RFC 7636 section 4.6, method S256.
func fits(verifier, challenge string) bool {
	h := sha256.Sum256([]byte(verifier))
	return subtle.ConstantTimeCompare([]byte(base64.RawURLEncoding.EncodeToString(h[:])), []byte(challenge)) == 1
}
