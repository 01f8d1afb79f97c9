package migrations

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"sallyport/internal/refusal"
)

// ErrOutdated says that the database's schema is older than this program.
var ErrOutdated = refusal.New(refusal.Unavailable, "schema-outdated",
	"the database has not been migrated to this version",
	"run sallyportd migrate as the database's administrator, then start again")

// Check refuses a database whose schema is missing or older than this program. A
// newer one is fine: the old version goes on serving while the new one comes.
func Check(ctx context.Context, pool *pgxpool.Pool) error {
	want, err := fs.Glob(files, "*.sql")
	if err != nil {
		return err
	}
	have, err := Version(ctx, pool)
	var pg *pgconn.PgError
	switch {
	case errors.As(err, &pg) && (pg.Code == "42P01" || pg.Code == "42501"), errors.Is(err, pgx.ErrNoRows):
		// No such table, or none that our role may read: nothing was migrated, or
		// not to the end.
		return ErrOutdated.With("the database has no schema yet").Because(err)
	case err != nil:
		return err
	case have < len(want):
		return ErrOutdated.With("the database's schema is version %d, this program needs %d", have, len(want))
	}
	return nil
}

// Version is the number of the newest migration that the database has.
func Version(ctx context.Context, db interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}) (int, error) {
	var have int
	if err := db.QueryRow(ctx, "SELECT version FROM "+versionTable).Scan(&have); err != nil {
		return 0, fmt.Errorf("reading the schema's version: %w", err)
	}
	return have, nil
}
