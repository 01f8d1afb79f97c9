package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"sallyport/audit"
	"sallyport/internal/clock"
	"sallyport/migrations"
)

func migrateCommand() *cobra.Command {
	url := os.Getenv("SALLYPORT_ADMIN_URL")
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Bring the database to this version's schema",
		Long: `Bring the database to this version's schema. It is safe to run twice, from two
places at once, and while the version before still serves.

Run it as an administrator who may create roles, never with the login that serve
uses. It makes the role sallyport_app; give the broker a login in it, once:

  CREATE ROLE sallyport LOGIN PASSWORD '…' IN ROLE sallyport_app`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if url == "" {
				return usageError{errors.New("--admin-url is not set; neither is $SALLYPORT_ADMIN_URL")}
			}
			applied := 0
			err := migrations.Up(cmd.Context(), url, func(name string) {
				applied++
				fmt.Fprintln(cmd.OutOrStdout(), "applying", name)
			})
			if err != nil {
				return err
			}
			if err := recordMigration(cmd.Context(), url); err != nil {
				return err
			}
			if applied == 0 {
				fmt.Fprintln(cmd.OutOrStdout(), "nothing to do: the schema is up to date")
				return nil
			}
			fmt.Fprintf(cmd.OutOrStdout(), "done: %d migrations applied\n", applied)
			return nil
		},
	}
	cmd.Flags().Var((*secretValue)(&url), "admin-url",
		"PostgreSQL as administrator, such as postgres://postgres@db/sallyport. Required. [$SALLYPORT_ADMIN_URL]")
	return cmd
}

// recordMigration puts into the log what was done to the schema, if it is not there.
func recordMigration(ctx context.Context, adminURL string) error {
	conn, err := pgx.Connect(ctx, adminURL)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return audit.Migrated(ctx, conn, clock.System.Now())
}

// secretValue is a flag whose value from the environment --help must not show (P11).
type secretValue string

func (v *secretValue) String() string     { return "" }
func (v *secretValue) Set(s string) error { *v = secretValue(s); return nil }
func (*secretValue) Type() string         { return "url" }
