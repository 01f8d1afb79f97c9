package identity

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/internal/refusal"
)

var (
	// ErrRemoved says that an operator has removed the person.
	ErrRemoved = refusal.New(refusal.Denied, "person-removed",
		"an operator has removed you from Sallyport", "ask an operator: only one can let you in again")
	// ErrRemovedAlready says that there is nothing to remove.
	ErrRemovedAlready = refusal.New(refusal.Conflict, "removed-already",
		"this person has been removed already", "to let them in again, restore them")
	// ErrNotRemoved says that there is nothing to restore.
	ErrNotRemoved = refusal.New(refusal.Conflict, "not-removed",
		"this person has not been removed", "list who has been: sally people list --removed")
)

// Removal says that a person is let in no more.
type Removal struct {
	At  time.Time
	By  string // id of the operator
	Why string
}

// row is what can read one row: a pool or a transaction.
type row interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Present returns ErrRemoved if the person has been removed, as db sees it now.
func (s *Store) Present(ctx context.Context, db row, id string) error {
	return present(db.QueryRow(ctx, `SELECT removed_at IS NULL FROM people WHERE id = $1`, id))
}

// HoldPresent is Present, and also keeps the person from being removed until tx
// ends. Where requests are locked too, it comes before that.
func (s *Store) HoldPresent(ctx context.Context, tx pgx.Tx, id string) error {
	return present(tx.QueryRow(ctx, `SELECT removed_at IS NULL FROM people WHERE id = $1 FOR SHARE`, id))
}

func present(r pgx.Row) error {
	var there bool
	switch err := r.Scan(&there); {
	case errors.Is(err, pgx.ErrNoRows):
		return ErrUnknownPerson
	case err != nil:
		return fmt.Errorf("looking whether a person has been removed: %w", err)
	case !there:
		return ErrRemoved
	}
	return nil
}

// Remove lets a person in no more, and ends all their sign-ins, of which it
// returns the number. What else ends with it is for the caller to end in the same
// transaction.
func (s *Store) Remove(ctx context.Context, tx pgx.Tx, id string, r Removal) (signIns int, err error) {
	tag, err := tx.Exec(ctx, `
		UPDATE people SET removed_at = $2, removed_by = $3, removed_why = $4
		WHERE id = $1 AND removed_at IS NULL`, id, r.At, r.By, r.Why)
	if err != nil {
		return 0, fmt.Errorf("removing a person: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return 0, ErrRemovedAlready
	}
	return s.endAll(ctx, tx, id, r.At)
}

// Restore lets a removed person sign in again. Whatever sign-in was opened while
// they were being removed stays ended.
func (s *Store) Restore(ctx context.Context, tx pgx.Tx, id string, at time.Time) error {
	tag, err := tx.Exec(ctx, `
		UPDATE people SET removed_at = NULL, removed_by = NULL, removed_why = ''
		WHERE id = $1 AND removed_at IS NOT NULL`, id)
	if err != nil {
		return fmt.Errorf("restoring a person: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return ErrNotRemoved
	}
	_, err = s.endAll(ctx, tx, id, at)
	return err
}

func (s *Store) endAll(ctx context.Context, tx pgx.Tx, id string, at time.Time) (int, error) {
	tag, err := tx.Exec(ctx, `
		UPDATE sign_ins SET ended_at = $2 WHERE person_id = $1 AND ended_at IS NULL AND expires_at > $2`, id, at)
	if err != nil {
		return 0, fmt.Errorf("ending a person's sign-ins: %w", err)
	}
	return int(tag.RowsAffected()), nil
}

// PeopleFilter narrows Known. Zero fields do not filter.
type PeopleFilter struct {
	Search  string // part of the name, the address or the subject, or an id, in any case
	Removed bool   // only those who have been removed
	After   string // id of the last one of the page before
	Limit   int
}

// Known lists people by name, whoever they are.
func (s *Store) Known(ctx context.Context, f PeopleFilter) ([]Person, error) {
	return s.people(ctx, `
		SELECT `+personColumns+`
		FROM people
		WHERE ($1 = '' OR strpos(lower(name), lower($1)) > 0 OR strpos(lower(email), lower($1)) > 0
				OR strpos(lower(subject), lower($1)) > 0 OR id = $1)
			AND (NOT $2 OR removed_at IS NOT NULL)
			AND ($3 = '' OR (lower(name), id) > (SELECT lower(name), id FROM people WHERE id = $3))
		ORDER BY lower(name), id
		LIMIT $4`, f.Search, f.Removed, f.After, f.Limit)
}
