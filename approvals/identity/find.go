package identity

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"sallyport/internal/ids"
	"sallyport/internal/refusal"
)

// ErrSeveralPeople says that an address is not enough to know whom it means: the
// provider may give one address to several identities, and to others later.
var ErrSeveralPeople = refusal.New(refusal.Conflict, "several-people",
	"several people have this address", "give the person's id, such as per-4f8k2m9qhx1z").On("person")

// Find is for people who look for somebody: by id, or by the address that the
// provider gave at the last sign-in, in any case. It returns ErrUnknownPerson or
// ErrSeveralPeople. It never tells who somebody is: only (issuer, subject) does.
func (s *Store) Find(ctx context.Context, idOrEmail string) (Person, error) {
	if ids.Valid(ids.Person, idOrEmail) {
		return s.Person(ctx, idOrEmail)
	}
	found, err := s.people(ctx, `SELECT `+personColumns+` FROM people WHERE lower(email) = lower($1) AND email <> '' LIMIT 2`, idOrEmail)
	switch {
	case err != nil:
		return Person{}, err
	case len(found) == 0:
		return Person{}, ErrUnknownPerson
	case len(found) > 1:
		return Person{}, ErrSeveralPeople
	}
	return found[0], nil
}

// MembersAfter is Members from somebody on: those who come, by name, after the
// person with the id, or all if it is empty.
func (s *Store) MembersAfter(ctx context.Context, groups []string, id string, limit int) ([]Person, error) {
	return s.people(ctx, `SELECT `+personColumns+` FROM people
		WHERE groups && $1::text[] AND removed_at IS NULL
		AND ($2 = '' OR (name, email, id) > (SELECT name, email, id FROM people WHERE id = $2))
		ORDER BY name, email, id LIMIT $3`, groups, id, limit)
}

// CountMembers counts all of Members.
func (s *Store) CountMembers(ctx context.Context, groups []string) (int, error) {
	rows, err := s.cfg.Pool.Query(ctx, `SELECT count(*) FROM people WHERE groups && $1::text[] AND removed_at IS NULL`, groups)
	if err != nil {
		return 0, fmt.Errorf("counting people: %w", err)
	}
	n, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[int])
	if err != nil {
		return 0, fmt.Errorf("counting people: %w", err)
	}
	return n, nil
}
