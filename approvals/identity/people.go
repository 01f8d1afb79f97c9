package identity

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/audit/event"
	"sallyport/internal/ids"
	"sallyport/internal/refusal"
)

// ErrUnknownPerson says that no person has the id.
var ErrUnknownPerson = refusal.New(refusal.NotFound, "unknown-person",
	"no such person", "people are known from their first sign-in on")

// Claims are what an ID token, already verified, says of a person.
type Claims struct {
	Issuer, Subject, Name, Email string
	Groups                       []string
	AuthTime                     time.Time
	AMR                          []string
	ACR                          string
}

// SignIn records that the provider vouched for somebody now: it makes or updates
// the person, with the event, in one transaction. via is "web", "cli" or "device".
// Whoever has been removed is refused, with ErrRemoved and the event of that.
func (s *Store) SignIn(ctx context.Context, c Claims, via, source string) (Person, error) {
	if c.Issuer == "" || c.Subject == "" {
		return Person{}, errors.New("signing in: claims without issuer or subject")
	}
	groups := slices.Compact(slices.Sorted(slices.Values(c.Groups)))
	if groups == nil {
		groups = []string{}
	}
	var p Person
	err := s.commit(ctx, func(tx pgx.Tx) ([]event.Event, error, error) {
		rows, err := tx.Query(ctx, `
			INSERT INTO people (id, issuer, subject, name, email, groups, first_signed_in_at, signed_in_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $7)
			ON CONFLICT (issuer, subject) DO UPDATE
			SET name = EXCLUDED.name, email = EXCLUDED.email, groups = EXCLUDED.groups, signed_in_at = EXCLUDED.signed_in_at
			WHERE people.removed_at IS NULL
			RETURNING `+personColumns,
			ids.New(ids.Person), c.Issuer, c.Subject, c.Name, c.Email, groups, s.cfg.Clock.Now())
		if err != nil {
			return nil, nil, err
		}
		p, err = pgx.CollectExactlyOneRow(rows, scanPerson)
		if errors.Is(err, pgx.ErrNoRows) {
			return s.refuseRemoved(ctx, tx, c, via, source)
		}
		if err != nil {
			return nil, nil, err
		}
		return []event.Event{s.signedIn(p, via, source, c)}, nil, nil
	})
	if err != nil {
		return Person{}, fmt.Errorf("signing in: %w", err)
	}
	return p, nil
}

// refuseRemoved says no to whoever is known, and has been removed.
func (s *Store) refuseRemoved(ctx context.Context, tx pgx.Tx, c Claims, via, source string) ([]event.Event, error, error) {
	rows, err := tx.Query(ctx, `SELECT `+personColumns+` FROM people WHERE issuer = $1 AND subject = $2`, c.Issuer, c.Subject)
	if err != nil {
		return nil, nil, err
	}
	p, err := pgx.CollectExactlyOneRow(rows, scanPerson)
	if err != nil {
		return nil, nil, err
	}
	return []event.Event{s.signInFailed(p, via, source, ErrRemoved)}, ErrRemoved, nil
}

// signedIn is the event that a person signs in now.
func (s *Store) signedIn(p Person, via, source string, c Claims) event.Event {
	return event.New(s.cfg.Clock.Now(), Caller{Person: p}.Actor(), source, event.Subject{PersonID: p.ID},
		event.PersonSignedIn{Via: via, Issuer: p.Issuer, Subject: p.Subject, Email: p.Email, Groups: p.Groups,
			AuthTime: c.AuthTime.UTC(), AMR: c.AMR, ACR: c.ACR})
}

// personColumns are what scanPerson reads.
const personColumns = `id, issuer, subject, name, email, groups, signed_in_at, removed_at, coalesce(removed_by, ''), removed_why`

func scanPerson(row pgx.CollectableRow) (Person, error) {
	var p Person
	var removed *time.Time
	var r Removal
	err := row.Scan(&p.ID, &p.Issuer, &p.Subject, &p.Name, &p.Email, &p.Groups, &p.SignedInAt, &removed, &r.By, &r.Why)
	p.SignedInAt = p.SignedInAt.UTC()
	if removed != nil {
		r.At = removed.UTC()
		p.Removed = &r
	}
	return p, err
}

// Person returns one person by id, or ErrUnknownPerson.
func (s *Store) Person(ctx context.Context, id string) (Person, error) {
	rows, err := s.cfg.Pool.Query(ctx, `SELECT `+personColumns+` FROM people WHERE id = $1`, id)
	if err != nil {
		return Person{}, fmt.Errorf("reading a person: %w", err)
	}
	p, err := pgx.CollectExactlyOneRow(rows, scanPerson)
	if errors.Is(err, pgx.ErrNoRows) {
		return Person{}, ErrUnknownPerson
	}
	if err != nil {
		return Person{}, fmt.Errorf("reading a person: %w", err)
	}
	return p, nil
}

// People returns several people by id, in no order; unknown ids are left out.
func (s *Store) People(ctx context.Context, ids []string) ([]Person, error) {
	return s.people(ctx, `SELECT `+personColumns+` FROM people WHERE id = ANY($1)`, ids)
}

// Members returns people who were in any of the groups at their last sign-in and
// have not been removed, by name, at most limit.
func (s *Store) Members(ctx context.Context, groups []string, limit int) ([]Person, error) {
	return s.people(ctx, `SELECT `+personColumns+` FROM people WHERE groups && $1::text[] AND removed_at IS NULL
		ORDER BY name, email, id LIMIT $2`, groups, limit)
}

func (s *Store) people(ctx context.Context, sql string, args ...any) ([]Person, error) {
	rows, err := s.cfg.Pool.Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("reading people: %w", err)
	}
	people, err := pgx.CollectRows(rows, scanPerson)
	if err != nil {
		return nil, fmt.Errorf("reading people: %w", err)
	}
	return people, nil
}
