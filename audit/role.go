package audit

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// checkRole refuses a database role that could rewrite the log (P7), and one
// that could not append to it. Rules, each for the role that logged in and for
// the one in effect:
//
//  1. no superuser, and none who may make itself a member of other roles;
//  2. no member of the tables' owner;
//  3. no member of a role that writes the server's files or runs its programs;
//  4. no privilege on a table of the log other than SELECT;
//  5. the log's functions are there and may be executed.
func checkRole(ctx context.Context, pool *pgxpool.Pool) error {
	rows, err := pool.Query(ctx, `
		WITH who AS (
			SELECT oid, rolname, rolsuper, rolcreaterole FROM pg_roles
			WHERE rolname IN (session_user, current_user)
		)
		SELECT format('%s is a superuser', rolname) FROM who WHERE rolsuper
		UNION ALL
		SELECT format('%s may grant itself other roles (CREATEROLE)', rolname) FROM who WHERE rolcreaterole
		UNION ALL
		SELECT format('%s is a member of %s', who.rolname, r.rolname)
		FROM who CROSS JOIN pg_roles AS r
		WHERE (r.oid IN (SELECT relowner FROM pg_class WHERE relnamespace = to_regnamespace('audit'))
			OR r.rolname IN ('pg_write_server_files', 'pg_execute_server_program'))
			AND NOT who.rolsuper AND pg_has_role(who.oid, r.oid, 'MEMBER')
		UNION ALL
		SELECT format('%s may %s on audit.%s', who.rolname, p.privilege, c.relname)
		FROM who CROSS JOIN pg_class AS c
			CROSS JOIN unnest(ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'TRIGGER']) AS p (privilege)
		WHERE c.relnamespace = to_regnamespace('audit') AND c.relkind IN ('r', 'p') AND NOT who.rolsuper
			AND (has_table_privilege(who.oid, c.oid, p.privilege)
				OR p.privilege IN ('INSERT', 'UPDATE') AND has_any_column_privilege(who.oid, c.oid, p.privilege))`)
	if err != nil {
		return fmt.Errorf("checking the database role: %w", err)
	}
	reasons, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("checking the database role: %w", err)
	}
	if len(reasons) > 0 {
		return ErrRole.With("the database role could rewrite the audit log: %s", strings.Join(reasons, ", "))
	}

	var usable int
	err = pool.QueryRow(ctx, `
		SELECT count(*) FROM pg_proc
		WHERE pronamespace = to_regnamespace('audit') AND proname IN ('start', 'enqueue', 'lock_head', 'sequence', 'digest')
			AND has_function_privilege(oid, 'EXECUTE') AND has_schema_privilege(pronamespace, 'USAGE')`).Scan(&usable)
	if err != nil {
		return fmt.Errorf("checking the database role: %w", err)
	}
	if usable != 5 {
		return ErrNotMigrated
	}
	return nil
}
