package identity

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/audit/event"
	"sallyport/internal/ids"
	"sallyport/internal/refusal"
	"sallyport/internal/together"
)

// ErrSignedOut says that a sign-in has ended, or never was.
var ErrSignedOut = refusal.New(refusal.Unauthenticated, "signed-out",
	"this sign-in has ended", "sign in again")

// How a sign-in came to be.
const (
	ViaWeb    = "web"    // in a browser, at the provider
	ViaCLI    = "cli"    // sally, by loopback redirect
	ViaDevice = "device" // sally, by a code typed into a browser elsewhere
)

// SignedIn is one sign-in that has not ended: one browser, or one sally, that
// acts for a person. All tokens of a sally's sign-in are a family with its ID.
type SignedIn struct {
	ID       string
	Person   Person
	Via      string
	AuthTime time.Time // when the provider authenticated the person
	AMR      []string  // and how, in its words
	ACR      string
	Created  time.Time
	Expires  time.Time // absolute
	seen     time.Time
}

// Open starts a browser's sign-in of a person whom the provider has just vouched
// for with the claims.
func (s *Store) Open(ctx context.Context, p Person, c Claims, lifetime time.Duration) (SignedIn, error) {
	now := s.cfg.Clock.Now()
	in := SignedIn{ID: ids.New(ids.TokenFamily), Person: p, Via: ViaWeb, AuthTime: c.AuthTime.UTC(), AMR: c.AMR, ACR: c.ACR,
		Created: now, Expires: now.Add(lifetime), seen: now}
	if _, err := s.cfg.Pool.Exec(ctx, insertSignIn, in.args()...); err != nil {
		return SignedIn{}, fmt.Errorf("opening a sign-in: %w", err)
	}
	return in, nil
}

const insertSignIn = `
	INSERT INTO sign_ins (id, person_id, via, auth_time, amr, acr, created_at, expires_at, seen_at)
	VALUES ($1, $2, $3, $4, coalesce($5, '{}'::text[]), $6, $7, $8, $9)`

func (in SignedIn) args() []any {
	return []any{in.ID, in.Person.ID, in.Via, in.AuthTime, in.AMR, in.ACR, in.Created, in.Expires, in.seen}
}

// Resume returns a sign-in that is used now, with its person as they are known
// now, or ErrSignedOut:
//
//  1. it exists and has not been ended, nor has its person been removed,
//  2. its absolute end has not come,
//  3. it was used within idle, if idle is not 0.
func (s *Store) Resume(ctx context.Context, id string, idle time.Duration) (SignedIn, error) {
	if !ids.Valid(ids.TokenFamily, id) {
		return SignedIn{}, ErrSignedOut
	}
	now := s.cfg.Clock.Now()
	in, there, err := s.signIns.Ask(ctx, id)
	if err != nil {
		return SignedIn{}, fmt.Errorf("reading a sign-in: %w", err)
	}
	if !there || !now.Before(in.Expires) || idle > 0 && !now.Before(in.seen.Add(idle)) {
		return SignedIn{}, ErrSignedOut
	}
	in.AMR, in.Person.Groups = slices.Clone(in.AMR), slices.Clone(in.Person.Groups)
	// Written now and then only: reading pages shall not write rows.
	if idle > 0 && now.Sub(in.seen) >= idle/20 {
		if _, err := s.cfg.Pool.Exec(ctx, `UPDATE sign_ins SET seen_at = $2 WHERE id = $1 AND seen_at < $2`, id, now); err != nil {
			return SignedIn{}, fmt.Errorf("keeping a sign-in: %w", err)
		}
	}
	return in, nil
}

// readSignIns reads those of the sign-ins that have not been ended, nor their people
// removed. Each call asks for one: those that come together are read together.
func (s *Store) readSignIns(ctx context.Context, wanted []string) (map[string]SignedIn, error) {
	found := make(map[string]SignedIn, len(wanted))
	var batch pgx.Batch
	batch.Queue(together.PlanOnce)
	batch.Queue(`
		SELECT `+signedInColumns+`
		FROM unnest($1::text[]) AS u (id) JOIN sign_ins s ON s.id = u.id JOIN people p ON p.id = s.person_id
		WHERE s.ended_at IS NULL AND p.removed_at IS NULL`, wanted).Query(func(rows pgx.Rows) error {
		list, err := pgx.CollectRows(rows, scanSignedIn)
		for _, in := range list {
			found[in.ID] = in
		}
		return err
	})
	return found, s.cfg.Pool.SendBatch(ctx, &batch).Close()
}

// signedInColumns are what scanSignedIn reads, of sign_ins s and people p.
const signedInColumns = `s.id, s.via, s.auth_time, s.amr, s.acr, s.created_at, s.expires_at, s.seen_at,
	p.id, p.issuer, p.subject, p.name, p.email, p.groups, p.signed_in_at`

func scanSignedIn(row pgx.CollectableRow) (SignedIn, error) {
	var in SignedIn
	p := &in.Person
	err := row.Scan(&in.ID, &in.Via, &in.AuthTime, &in.AMR, &in.ACR, &in.Created, &in.Expires, &in.seen,
		&p.ID, &p.Issuer, &p.Subject, &p.Name, &p.Email, &p.Groups, &p.SignedInAt)
	for _, t := range []*time.Time{&in.AuthTime, &in.Created, &in.Expires, &in.seen, &p.SignedInAt} {
		*t = t.UTC()
	}
	return in, err
}

// SignOut ends a sign-in for good, with everything that it was shown as. One
// that has ended already stays as it is.
func (s *Store) SignOut(ctx context.Context, in SignedIn, source string) error {
	err := s.commit(ctx, func(tx pgx.Tx) ([]event.Event, error, error) {
		now := s.cfg.Clock.Now()
		ended, err := end(ctx, tx, in.ID, now)
		if err != nil || !ended {
			return nil, nil, err
		}
		return []event.Event{event.New(now, Caller{Person: in.Person}.Actor(), source,
			event.Subject{PersonID: in.Person.ID}, event.PersonSignedOut{Via: in.Via})}, nil, nil
	})
	if err != nil {
		return fmt.Errorf("signing out: %w", err)
	}
	return nil
}

// end marks a sign-in as ended and reports whether it was not so before.
func end(ctx context.Context, tx pgx.Tx, id string, now time.Time) (bool, error) {
	tag, err := tx.Exec(ctx, `UPDATE sign_ins SET ended_at = $2 WHERE id = $1 AND ended_at IS NULL`, id, now)
	return tag.RowsAffected() == 1, err
}

// SignInFailed records a refused sign-in. p is whose it was, zero if unknown.
func (s *Store) SignInFailed(ctx context.Context, p Person, via, source string, why *refusal.Error) error {
	err := s.commit(ctx, func(tx pgx.Tx) ([]event.Event, error, error) {
		return []event.Event{s.signInFailed(p, via, source, why)}, nil, nil
	})
	if err != nil {
		return fmt.Errorf("recording a failed sign-in: %w", err)
	}
	return nil
}

func (s *Store) signInFailed(p Person, via, source string, why *refusal.Error) event.Event {
	actor := event.Actor{Kind: event.Person}
	if p.ID != "" {
		actor = Caller{Person: p}.Actor()
	}
	return event.New(s.cfg.Clock.Now(), actor, source, event.Subject{PersonID: p.ID},
		event.SignInFailed{Via: via, Code: why.Code, Reason: why.Detail})
}
