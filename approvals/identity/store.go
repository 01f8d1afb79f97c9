package identity

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"sallyport/audit"
	"sallyport/audit/event"
	"sallyport/internal/clock"
	"sallyport/internal/together"
)

// Config is what a Store needs; all of it must be set.
type Config struct {
	Pool  *pgxpool.Pool
	Log   *audit.Log
	Clock clock.Clock
}

// Store keeps people and their sign-ins in PostgreSQL. It is safe for concurrent
// use, also by several processes on one database.
type Store struct {
	cfg     Config
	signIns *together.Questions[string, SignedIn]
}

// New returns a store.
func New(cfg Config) (*Store, error) {
	if cfg.Pool == nil || cfg.Log == nil || cfg.Clock == nil {
		return nil, errors.New("identity: Pool, Log and Clock must be set")
	}
	s := &Store{cfg: cfg}
	s.signIns = together.New(s.readSignIns)
	return s, nil
}

// commit runs fn in a transaction and commits it with the events that fn
// returns, also when fn refuses: what a refusal changed (a code burnt, a family
// ended) must stay. Only an error of the transaction itself rolls back.
func (s *Store) commit(ctx context.Context, fn func(pgx.Tx) ([]event.Event, error, error)) error {
	var refused error
	err := pgx.BeginFunc(ctx, s.cfg.Pool, func(tx pgx.Tx) error {
		events, refusal, err := fn(tx)
		if err != nil {
			return err
		}
		refused = refusal
		if len(events) == 0 {
			return nil
		}
		return s.cfg.Log.Stage(ctx, tx, events...)
	})
	if err != nil {
		return err
	}
	s.cfg.Log.Kick()
	return refused
}

// newSecret is 256 bits that nobody can guess, safe in URLs.
func newSecret() string {
	var b [32]byte
	rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// hash is how a secret is stored and found again. The secrets have 256 bits of
// randomness (user codes live for minutes), so that no salt is needed.
func hash(secret string) []byte {
	h := sha256.Sum256([]byte(secret))
	return h[:]
}

// Sweep deletes up to a hundred rows of each kind that are worth nothing any
// more. Whoever starts a sign-in calls it.
func (s *Store) Sweep(ctx context.Context) error {
	now := s.cfg.Clock.Now()
	// Refresh tokens go with their sign-in: as long as it lives, the old ones are
	// what reuse is recognised by.
	for _, sweep := range []struct {
		sql    string
		before time.Time
	}{
		{`DELETE FROM sessions WHERE token IN (
			SELECT token FROM sessions WHERE expiry < $1 ORDER BY expiry LIMIT 100 FOR UPDATE SKIP LOCKED)`, now},
		{`DELETE FROM authorization_codes WHERE code_hash IN (
			SELECT code_hash FROM authorization_codes WHERE expires_at < $1 ORDER BY expires_at LIMIT 100 FOR UPDATE SKIP LOCKED)`, now.Add(-codeMemory)},
		{`DELETE FROM device_authorizations WHERE device_hash IN (
			SELECT device_hash FROM device_authorizations WHERE expires_at < $1 ORDER BY expires_at LIMIT 100 FOR UPDATE SKIP LOCKED)`, now.Add(-codeMemory)},
		{`DELETE FROM sign_ins WHERE id IN (
			SELECT id FROM sign_ins WHERE expires_at < $1 ORDER BY expires_at LIMIT 100 FOR UPDATE SKIP LOCKED)`, now},
	} {
		if _, err := s.cfg.Pool.Exec(ctx, sweep.sql, sweep.before); err != nil {
			return fmt.Errorf("deleting what is over: %w", err)
		}
	}
	return nil
}

// codeMemory is how long codes are remembered after their end, so that late
// pollers hear "expired" and replays are recognised.
const codeMemory = time.Hour
