package identity

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/audit/event"
	"sallyport/internal/ids"
	"sallyport/internal/refusal"
)

var (
	// ErrInvalidGrant says that a code or refresh token opens nothing, without
	// saying whether it ever did (RFC 6749 section 5.2, invalid_grant).
	ErrInvalidGrant = refusal.New(refusal.Unauthenticated, "invalid-grant",
		"the code or token is not valid, or not any more", "sign in again: sally login")
	// ErrTokenReused says that a refresh token was shown a second time; its family has ended.
	ErrTokenReused = refusal.New(refusal.Unauthenticated, "token-reused",
		"this refresh token was used before, so its sign-in has ended",
		"sign in again: sally login; if no other copy of the token file should exist, tell an operator")
	// ErrCodeReused says that an authorization code was shown a second time; what
	// it had become has ended.
	ErrCodeReused = refusal.New(refusal.Unauthenticated, "code-reused",
		"this authorization code was used before, so its sign-in has ended", "sign in again: sally login")
	// ErrWrongVerifier says that whoever shows a code is not who asked for it (PKCE).
	ErrWrongVerifier = refusal.New(refusal.Unauthenticated, "wrong-verifier",
		"the code was asked for by another program", "sign in again: sally login")
	// ErrWrongRedirect says that a code is shown with another redirect URI than it was given to.
	ErrWrongRedirect = refusal.New(refusal.Unauthenticated, "wrong-redirect",
		"the code was sent to another redirect URI", "sign in again: sally login")
)

// Tokens are what a sally gets: its sign-in, and the refresh token that keeps it.
type Tokens struct {
	SignedIn SignedIn
	Refresh  string // secret; shown once, stored as a hash
}

// newFamily opens a sign-in of a sally that a browser's sign-in authorised. It
// inherits when the provider authenticated the person, and its end: nobody gets
// further from the provider by going from one to the next.
func (s *Store) newFamily(ctx context.Context, tx pgx.Tx, browser SignedIn, via, source string) (Tokens, event.Event, error) {
	now := s.cfg.Clock.Now()
	in := SignedIn{ID: ids.New(ids.TokenFamily), Person: browser.Person, Via: via,
		AuthTime: browser.AuthTime, AMR: browser.AMR, ACR: browser.ACR,
		Created: now, Expires: browser.Expires, seen: now}
	if _, err := tx.Exec(ctx, insertSignIn, in.args()...); err != nil {
		return Tokens{}, event.Event{}, err
	}
	refresh, err := newRefreshToken(ctx, tx, in.ID, now)
	if err != nil {
		return Tokens{}, event.Event{}, err
	}
	return Tokens{in, refresh}, s.signedIn(in.Person, via, source, Claims{AuthTime: in.AuthTime, AMR: in.AMR, ACR: in.ACR}), nil
}

func newRefreshToken(ctx context.Context, tx pgx.Tx, family string, now time.Time) (string, error) {
	secret := newSecret()
	_, err := tx.Exec(ctx, `INSERT INTO refresh_tokens (token_hash, family, created_at) VALUES ($1, $2, $3)`,
		hash(secret), family, now)
	return secret, err
}

// Refresh exchanges a refresh token for the next one (RFC 9700 section 4.14.2):
//
//  1. an unknown token, or one of an ended sign-in, is ErrInvalidGrant;
//  2. one that was exchanged before is ErrTokenReused, and ends the sign-in:
//     one of the two who showed it is a thief, and nobody knows which;
//  3. of several exchanges at the same instant one is the first, the others are
//     reuse: the token's row is locked.
func (s *Store) Refresh(ctx context.Context, token, source string) (Tokens, error) {
	var t Tokens
	err := s.commit(ctx, func(tx pgx.Tx) ([]event.Event, error, error) {
		now := s.cfg.Clock.Now()
		in, used, err := lockToken(ctx, tx, token, now)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return nil, ErrInvalidGrant, nil
		case err != nil:
			return nil, nil, err
		case used:
			if _, err := end(ctx, tx, in.ID, now); err != nil {
				return nil, nil, err
			}
			return []event.Event{event.New(now, Caller{Person: in.Person}.Actor(), source,
				event.Subject{PersonID: in.Person.ID}, event.TokenReused{Family: in.ID})}, ErrTokenReused, nil
		}
		if _, err := tx.Exec(ctx, `UPDATE refresh_tokens SET used_at = $2 WHERE token_hash = $1`, hash(token), now); err != nil {
			return nil, nil, err
		}
		refresh, err := newRefreshToken(ctx, tx, in.ID, now)
		t = Tokens{in, refresh}
		return nil, nil, err
	})
	if err != nil {
		return Tokens{}, fmt.Errorf("refreshing: %w", err)
	}
	return t, nil
}

// lockToken finds the living sign-in that a refresh token belongs to, tells
// whether the token was exchanged before, and locks it until tx ends.
func lockToken(ctx context.Context, tx pgx.Tx, token string, now time.Time) (in SignedIn, used bool, err error) {
	var family string
	err = tx.QueryRow(ctx, `
		SELECT family, used_at IS NOT NULL FROM refresh_tokens WHERE token_hash = $1 FOR UPDATE`,
		hash(token)).Scan(&family, &used)
	if err != nil {
		return in, used, err
	}
	in, err = lockSignIn(ctx, tx, family, now)
	return in, used, err
}

// lockSignIn reads a sign-in that lives and locks it until tx ends; pgx.ErrNoRows if it does not live.
func lockSignIn(ctx context.Context, tx pgx.Tx, id string, now time.Time) (SignedIn, error) {
	rows, err := tx.Query(ctx, `
		SELECT `+signedInColumns+`
		FROM sign_ins s JOIN people p ON p.id = s.person_id
		WHERE s.id = $1 AND s.ended_at IS NULL AND s.expires_at > $2 AND p.removed_at IS NULL
		FOR NO KEY UPDATE OF s`, id, now)
	if err != nil {
		return SignedIn{}, err
	}
	return pgx.CollectExactlyOneRow(rows, scanSignedIn)
}

// Revoke ends the sign-in that a refresh token belongs to, also when the token
// was exchanged before. An unknown token is no error (RFC 7009 section 2.2).
func (s *Store) Revoke(ctx context.Context, token, source string) error {
	var in SignedIn
	err := pgx.BeginFunc(ctx, s.cfg.Pool, func(tx pgx.Tx) (err error) {
		in, _, err = lockToken(ctx, tx, token, s.cfg.Clock.Now())
		return err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("revoking: %w", err)
	}
	return s.SignOut(ctx, in, source)
}
