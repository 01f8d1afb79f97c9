// Package migrations holds the database schema: numbered SQL files, each with a
// comment on why, applied by `sallyportd migrate` and by nothing else.
//
// They are run as an administrator who may create roles; the broker itself
// connects as a member of sallyport_app, which can neither change the schema
// nor rewrite the log (P7).
package migrations

import (
	"context"
	"embed"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/tern/v2/migrate"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

//go:embed *.sql
var files embed.FS

// versionTable is where tern keeps the number of the last migration applied.
const versionTable = "public.schema_version"

// JobsSchema is the PostgreSQL schema that belongs to River.
const JobsSchema = "jobs"

// Up brings the database to the newest schema. It takes an advisory lock, so
// that it is safe to run twice, at once, and while the old version serves.
// progress, if not nil, is told of each migration as it is applied.
func Up(ctx context.Context, adminURL string, progress func(name string)) error {
	conn, err := pgx.Connect(ctx, adminURL)
	if err != nil {
		return fmt.Errorf("connecting to the database: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))

	m, err := migrate.NewMigrator(ctx, conn, versionTable)
	if err != nil {
		return fmt.Errorf("preparing migrations: %w", err)
	}
	if err := m.LoadMigrations(files); err != nil {
		return fmt.Errorf("reading migrations: %w", err)
	}
	m.OnStart = func(_ int32, name, _, _ string) {
		if progress != nil {
			progress(name)
		}
	}
	if err := m.Migrate(ctx); err != nil {
		return fmt.Errorf("migrating: %w", err)
	}
	return jobs(ctx, adminURL)
}

// jobs applies River's own migrations in a schema of its own, lets the broker's
// role work there, and lets it see which version the whole schema has (Check).
func jobs(ctx context.Context, adminURL string) error {
	pool, err := pgxpool.New(ctx, adminURL)
	if err != nil {
		return fmt.Errorf("connecting to the database: %w", err)
	}
	defer pool.Close()
	m, err := rivermigrate.New(riverpgxv5.New(pool), &rivermigrate.Config{Schema: JobsSchema})
	if err != nil {
		return fmt.Errorf("preparing the job queue's migrations: %w", err)
	}
	if _, err := m.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return fmt.Errorf("migrating the job queue: %w", err)
	}
	_, err = pool.Exec(ctx, `
		GRANT SELECT ON `+versionTable+` TO sallyport_app;
		GRANT USAGE ON SCHEMA jobs TO sallyport_app;
		GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA jobs TO sallyport_app;
		GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA jobs TO sallyport_app;
		GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA jobs TO sallyport_app`)
	if err != nil {
		return fmt.Errorf("granting the job queue to the broker's role: %w", err)
	}
	return nil
}
