package audittest

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
)

// Partitions makes the log's partitions, which are for many thousand entries each, as
// narrow as a test needs them. The log must be empty.
func Partitions(t testing.TB, adminURL string, width int) {
	t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, adminURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, fmt.Sprintf(`
		DO $$
		DECLARE p record;
		BEGIN
			FOR p IN SELECT name FROM audit.partitions() LOOP
				EXECUTE format('DROP TABLE audit.%%I', p.name);
			END LOOP;
		END $$;
		CREATE OR REPLACE FUNCTION audit.partition_width() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT %d::bigint';
		SELECT audit.extend()`, width))
	if err != nil {
		t.Fatalf("making narrow partitions: %v", err)
	}
}
