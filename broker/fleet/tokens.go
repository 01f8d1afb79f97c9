package fleet

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/api/hostapi"
	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/audit/event"
	"sallyport/broker/hosts"
	"sallyport/internal/ids"
)

const (
	// MaxTokenLife is how long a join token is good, at most.
	MaxTokenLife     = 24 * time.Hour
	minTokenLife     = time.Minute
	defaultTokenLife = time.Hour
	// MaxTokens is how many join tokens may wait to be used.
	MaxTokens = 1000
	// tokensShown is for how long tokens are listed after they were made.
	tokensShown = 7 * 24 * time.Hour

	tokenPrefix = "sjt_" // what scanners of repositories look for
)

// token is a row of join_tokens.
type token struct {
	api.JoinToken
	used, withdrawn *time.Time
	usedBy          string
}

func (t token) good(now time.Time) bool {
	return t.used == nil && t.withdrawn == nil && now.Before(t.ExpiresAt)
}

func (t token) api(now time.Time) api.JoinToken {
	out := t.JoinToken
	switch {
	case t.used != nil:
		out.State, out.HostID = "used", t.usedBy
	case t.withdrawn != nil:
		out.State = "withdrawn"
	case !now.Before(t.ExpiresAt):
		out.State = "expired"
	default:
		out.State = "waiting"
	}
	return out
}

const tokenColumns = `id, name, coalesce(host_id, ''), address, labels, logins, made_by, made_by_name, made_at, expires_at, used_at, coalesce(used_by, ''), withdrawn_at`

func scanToken(row pgx.CollectableRow) (t token, err error) {
	err = row.Scan(&t.ID, &t.Name, &t.HostID, &t.Address, &t.Labels, &t.Logins, &t.MadeBy.ID, &t.MadeBy.Name, &t.MadeAt, &t.ExpiresAt,
		&t.used, &t.usedBy, &t.withdrawn)
	t.MadeAt, t.ExpiresAt = t.MadeAt.UTC(), t.ExpiresAt.UTC()
	return t, err
}

// MakeToken lets one host enrol. Operators only. The rules:
//
//  1. The token is bound to a name. Of a host that is registered under it, the token is
//     for that host and gives it neither address nor labels nor logins; of any other, it
//     has those of the host to be. Without an address it has what the host proposes.
//  2. It is good once, and for at most a day.
//  3. Only its hash is kept; the answer is the only place where it stands.
func (s *Service) MakeToken(ctx context.Context, c identity.Caller, in api.JoinTokenInput) (api.JoinToken, error) {
	if err := s.onlyOperators(ctx, c, "hosts.join"); err != nil {
		return api.JoinToken{}, err
	}
	life := defaultTokenLife
	if in.Expires != "" {
		var err error
		if life, err = time.ParseDuration(in.Expires); err != nil || life < minTokenLife || life > MaxTokenLife {
			return api.JoinToken{}, ErrTokenLife
		}
	}
	if in.Address != "" {
		var err error
		if in.Address, err = hosts.Address(in.Address); err != nil {
			return api.JoinToken{}, err
		}
	}
	secret := make([]byte, 32)
	rand.Read(secret) // never fails
	now := s.cfg.Clock.Now()
	t := token{JoinToken: api.JoinToken{ID: ids.New(ids.JoinToken), Name: in.Name, Address: in.Address, Labels: in.Labels, Logins: in.Logins,
		MadeBy: api.Person{ID: c.ID, Name: c.DisplayName()}, MadeAt: now, ExpiresAt: now.Add(life)}}
	known, err := s.cfg.Hosts.Get(ctx, in.Name)
	switch {
	case err == nil && known.Name != in.Name, err == nil && (in.Address != "" || len(in.Labels) > 0 || len(in.Logins) > 0):
		return api.JoinToken{}, ErrTokenOfHost
	case err == nil:
		t.HostID, t.Labels, t.Logins = known.ID, known.Labels, known.Logins
	case !errors.Is(err, approvals.ErrUnknownHost):
		return api.JoinToken{}, err
	default:
		if t.Labels == nil {
			t.Labels = map[string]string{}
		}
		if err := hosts.CheckDescription(api.HostInput{Name: t.Name, Address: t.Address, Labels: t.Labels, Logins: t.Logins}); err != nil {
			return api.JoinToken{}, err
		}
	}
	text := tokenPrefix + base64.RawURLEncoding.EncodeToString(secret)
	err = s.change(ctx, func(tx pgx.Tx) error {
		if err := oneByOne(ctx, tx); err != nil {
			return err
		}
		var waiting int
		if err := tx.QueryRow(ctx, `
			SELECT count(*) FROM join_tokens
			WHERE made_at > $1 AND expires_at > $2 AND used_at IS NULL AND withdrawn_at IS NULL`,
			now.Add(-MaxTokenLife), now).Scan(&waiting); err != nil {
			return fmt.Errorf("counting join tokens: %w", err)
		}
		if waiting >= MaxTokens {
			return ErrTooManyTokens
		}
		_, err := tx.Exec(ctx, `
			INSERT INTO join_tokens (id, secret_hash, name, host_id, address, labels, logins, made_by, made_by_name, made_at, expires_at)
			VALUES ($1, $2, $3, nullif($4, ''), $5, $6, $7, $8, $9, $10, $11)`,
			t.ID, hostapi.TokenHash(text), t.Name, t.HostID, t.Address, t.Labels, t.Logins, t.MadeBy.ID, t.MadeBy.Name, t.MadeAt, t.ExpiresAt)
		if err != nil {
			return fmt.Errorf("writing down a join token: %w", err)
		}
		return s.cfg.Log.Stage(ctx, tx, c.Event(now, event.Subject{HostID: t.HostID},
			event.JoinTokenMade{TokenID: t.ID, Name: t.Name, Address: t.Address, Labels: t.Labels, Logins: t.Logins, ExpiresAt: t.ExpiresAt}))
	})
	if err != nil {
		return api.JoinToken{}, err
	}
	out := t.api(now)
	out.Token = text
	return out, nil
}

// Tokens lists the join tokens of the last week, latest first. Operators only.
func (s *Service) Tokens(ctx context.Context, c identity.Caller) ([]api.JoinToken, error) {
	if err := s.onlyOperators(ctx, c, "hosts.join"); err != nil {
		return nil, err
	}
	now := s.cfg.Clock.Now()
	rows, err := s.cfg.Pool.Query(ctx, `SELECT `+tokenColumns+` FROM join_tokens WHERE made_at > $1 ORDER BY made_at DESC, id LIMIT $2`,
		now.Add(-tokensShown), MaxTokens)
	if err != nil {
		return nil, fmt.Errorf("listing join tokens: %w", err)
	}
	list, err := pgx.CollectRows(rows, scanToken)
	if err != nil {
		return nil, fmt.Errorf("listing join tokens: %w", err)
	}
	out := make([]api.JoinToken, len(list))
	for i, t := range list {
		out[i] = t.api(now)
	}
	return out, nil
}

// WithdrawToken makes a join token good for nothing. Operators only.
func (s *Service) WithdrawToken(ctx context.Context, c identity.Caller, id string) error {
	if err := s.onlyOperators(ctx, c, "hosts.join"); err != nil {
		return err
	}
	if !ids.Valid(ids.JoinToken, id) {
		return ErrUnknownToken
	}
	return s.change(ctx, func(tx pgx.Tx) error {
		t, err := findToken(ctx, tx, "id", id)
		if err != nil {
			return err
		}
		now := s.cfg.Clock.Now()
		if t == nil {
			return ErrUnknownToken
		}
		if !t.good(now) {
			return ErrTokenOver
		}
		if _, err := tx.Exec(ctx, `UPDATE join_tokens SET withdrawn_at = $2 WHERE id = $1`, id, now); err != nil {
			return fmt.Errorf("withdrawing a join token: %w", err)
		}
		return s.cfg.Log.Stage(ctx, tx, c.Event(now, event.Subject{HostID: t.HostID},
			event.JoinTokenWithdrawn{TokenID: id, Name: t.Name}))
	})
}

// findToken locks the join token with that id or secret_hash; nil if there is none.
func findToken(ctx context.Context, tx pgx.Tx, column, value string) (*token, error) {
	rows, err := tx.Query(ctx, `SELECT `+tokenColumns+` FROM join_tokens WHERE `+column+` = $1 FOR UPDATE`, value)
	if err != nil {
		return nil, fmt.Errorf("finding a join token: %w", err)
	}
	t, err := pgx.CollectExactlyOneRow(rows, scanToken)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("finding a join token: %w", err)
	}
	return &t, nil
}
