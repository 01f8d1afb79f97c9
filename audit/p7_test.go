package audit_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"sallyport/audit"
	"sallyport/internal/pgtest"
)

const insufficientPrivilege = "42501"

// rewrites are statements that would change the log, or make it possible.
var rewrites = []string{
	"UPDATE audit.entries SET leaf = 'x'",
	"UPDATE audit.entries SET type = 'x' WHERE index = 0",
	"UPDATE audit.entries SET type = 'x' WHERE false",
	"DELETE FROM audit.entries",
	"DELETE FROM audit.entries WHERE index = 2",
	"TRUNCATE audit.entries",
	"TRUNCATE audit.entries, audit.hashes, audit.head, audit.pending CASCADE",
	`INSERT INTO audit.entries SELECT * FROM audit.entries WHERE index = 0
		ON CONFLICT (index) DO UPDATE SET type = 'x'`,
	`MERGE INTO audit.entries AS e USING audit.entries AS o ON o.index = e.index
		WHEN MATCHED THEN DELETE`,
	"UPDATE audit.entries_0 SET type = 'x' WHERE index = 0",
	"DELETE FROM audit.entries_0",
	"DELETE FROM audit.entries_0 WHERE false",
	"TRUNCATE audit.entries_0",
	"DELETE FROM audit.entries_65536",
	"TRUNCATE audit.entries_65536",
	"UPDATE audit.event_ids SET index = 0",
	"DELETE FROM audit.event_ids",
	"TRUNCATE audit.event_ids",
	"UPDATE audit.hashes SET hash = hash",
	"DELETE FROM audit.hashes",
	"TRUNCATE audit.hashes",
	"UPDATE audit.pending SET leaf = leaf",
	"DELETE FROM audit.pending",
	"TRUNCATE audit.pending",
	"DELETE FROM audit.head",
	"TRUNCATE audit.head",
	"UPDATE audit.head SET size = size - 1",
	"UPDATE audit.head SET size = 0",
	"UPDATE audit.head SET size = size",
	"UPDATE audit.head SET size = size + 1",
	"UPDATE audit.head SET checkpoint = 'x'",
	"UPDATE audit.head SET root = sha256('x')",
	"INSERT INTO audit.head (size, root, checkpoint) VALUES (0, sha256(''), '') ON CONFLICT (one_row) DO UPDATE SET size = 0",
}

// refused runs the statement in a transaction of its own, which must fail for
// lack of privilege.
func refused(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	_, err := conn.Exec(t.Context(), sql)
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) || pgErr.Code != insufficientPrivilege {
		t.Errorf("%s\n\tshould be refused, but: %v", sql, err)
	}
}

// withPending gives a log of three entries and one event that waits.
func withPending(t *testing.T) (*audit.Log, *pgtest.DB, keys) {
	t.Helper()
	db, k := pgtest.New(t), newKeys(t, "log.example.com")
	l := open(t, config(db.Pool, k))
	stop := run(t, l)
	record(t, l, 3)
	stop()
	if err := stage(t.Context(), db.Pool, l, closed("req-waits")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if tree := checkAll(t, db.Pool, k); tree.N != 3 {
			t.Errorf("the log has %d entries, want 3", tree.N)
		}
		var waiting int
		if err := db.Pool.QueryRow(context.Background(), "SELECT count(*) FROM audit.pending").Scan(&waiting); err != nil || waiting != 1 {
			t.Errorf("%d events wait (%v), want 1", waiting, err)
		}
	})
	return l, db, k
}

func TestP7_TheBrokersRoleCannotRewrite(t *testing.T) {
	t.Parallel()
	_, db, _ := withPending(t)
	conn := connect(t, db.URL)
	for _, sql := range append([]string{
		"INSERT INTO audit.pending (event_id, type, time, leaf, leaf_hash, data) VALUES (gen_random_uuid(), 'x', now(), 'x', sha256('\\x0078'), '{}')",
		"INSERT INTO audit.entries SELECT 3, gen_random_uuid(), type, time, actor_id, person_id, request_id, host_id, leaf, leaf_hash, data FROM audit.entries WHERE index = 0",
		"INSERT INTO audit.hashes VALUES (4, sha256(''))",
		"COPY audit.entries FROM PROGRAM 'true'",
		"SELECT FROM audit.head FOR UPDATE",
		"SET session_replication_role = replica",
		"SET ROLE sallyport_owner",
		"ALTER TABLE audit.entries DISABLE TRIGGER ALL",
		"DROP TRIGGER append_only ON audit.entries",
		"DROP TABLE audit.entries",
		"DROP TABLE audit.entries_0",
		"ALTER TABLE audit.entries DETACH PARTITION audit.entries_0",
		"ALTER TABLE audit.entries DETACH PARTITION audit.entries_65536 CONCURRENTLY",
		"CREATE TABLE audit.entries_9 PARTITION OF audit.entries FOR VALUES FROM (900000000) TO (900000001)",
		"INSERT INTO audit.event_ids SELECT gen_random_uuid(), 0",
		"SELECT audit.remove(1, gen_random_uuid())",
		"CREATE OR REPLACE FUNCTION audit.refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END'",
		"CREATE FUNCTION audit.sha256(bytea) RETURNS bytea LANGUAGE sql AS 'SELECT $1'",
		"CREATE TRIGGER t BEFORE INSERT ON audit.entries FOR EACH ROW EXECUTE FUNCTION audit.refuse()",
		"CREATE RULE r AS ON INSERT TO audit.entries DO INSTEAD NOTHING",
	}, rewrites...) {
		refused(t, conn, sql)
	}
}

func TestP7_TheOwnerCannotRewrite(t *testing.T) {
	t.Parallel()
	_, db, _ := withPending(t)
	for _, mode := range []string{"origin", "replica", "local"} {
		t.Run("session_replication_role="+mode, func(t *testing.T) {
			conn := connect(t, db.AdminURL)
			execute(t, conn, "SET session_replication_role = "+mode)
			execute(t, conn, "SET ROLE sallyport_owner")
			for _, sql := range rewrites {
				refused(t, conn, sql)
			}
		})
	}
}

// What the functions are for, misused.
func TestP7_TheFunctionsOnlyAppend(t *testing.T) {
	t.Parallel()
	_, db, _ := withPending(t)
	conn := connect(t, db.URL)
	const waiting = "ARRAY(SELECT event_id FROM audit.pending)"
	const hash = "ARRAY[sha256(''), sha256('')]" // the fourth leaf would add three
	for _, sql := range []string{
		"SELECT audit.append(2, " + waiting + ", " + hash + ", sha256(''), '')",
		"SELECT audit.append(4, " + waiting + ", " + hash + ", sha256(''), '')",
		"SELECT audit.append(3, " + waiting + ", " + hash + ", sha256(''), '')",
		"SELECT audit.append(3, " + waiting + ", '{}', sha256(''), '')",
		"SELECT audit.append(3, " + waiting + " || gen_random_uuid(), " + hash + ", sha256(''), '')",
		"SELECT audit.append(3, " + waiting + " || " + waiting + ", " + hash + ", sha256(''), '')",
		"SELECT audit.append(3, ARRAY(SELECT event_id FROM audit.entries), " + hash + ", sha256(''), '')",
		"SELECT audit.append(3, '{}', '{}', sha256(''), '')",
		"SELECT audit.append(3, NULL, NULL, sha256(''), '')",
		"SELECT audit.append(NULL, " + waiting + ", " + hash + ", sha256(''), '')",
		"SELECT audit.enqueue(ARRAY['no JSON'::bytea])",
		"SELECT audit.enqueue(ARRAY['{}'::bytea])",
		"SELECT audit.enqueue(ARRAY['\\xff'::bytea])",
		"SELECT audit.enqueue(ARRAY[NULL::bytea])",
		`SELECT audit.enqueue(ARRAY[convert_to('{"id":"' || gen_random_uuid() || '","type":"x","time":"2026-01-01T00:00:00Z","data":"' || repeat('x', 65536) || '"}', 'UTF8')])`,
		`SELECT audit.enqueue(ARRAY[convert_to('{"id":"' || event_id || '","type":"x","time":"2026-01-01T00:00:00Z"}', 'UTF8')]) FROM audit.entries`,
		`SELECT audit.enqueue(ARRAY[convert_to('{"id":"' || event_id || '","type":"x","time":"2026-01-01T00:00:00Z"}', 'UTF8')]) FROM audit.pending`,
	} {
		if _, err := conn.Exec(t.Context(), sql); err == nil {
			t.Errorf("%s\n\twas done", sql)
		}
	}
	// Objects of the caller's own do not change what the functions do.
	execute(t, conn, "CREATE TEMP TABLE head AS SELECT 7::bigint AS size, ''::bytea AS root, ''::text AS checkpoint")
	execute(t, conn, "CREATE FUNCTION pg_temp.sha256(bytea) RETURNS bytea LANGUAGE sql AS 'SELECT NULL::bytea'")
	execute(t, conn, "SET search_path = pg_temp, audit, pg_catalog")
	execute(t, conn, "SELECT audit.start(sha256(''), 'other')")
	var size int64
	if err := conn.QueryRow(t.Context(), "SELECT size FROM audit.lock_head()").Scan(&size); err != nil || size != 3 {
		t.Errorf("the head is at %d, %v", size, err)
	}
}

// A head lock must not outlive a sequencer that hangs.
func TestP8_AStoppedSequencerIsDisconnected(t *testing.T) {
	t.Parallel()
	_, db, _ := withPending(t)
	conn := connect(t, db.URL)
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(t.Context())
	var timeout string
	execute(t, conn, "SELECT FROM audit.lock_head()")
	if err := tx.QueryRow(t.Context(), "SHOW idle_in_transaction_session_timeout").Scan(&timeout); err != nil || timeout != "10s" {
		t.Errorf("idle_in_transaction_session_timeout is %q, %v", timeout, err)
	}
}

func TestP7_AuditorsReadOnly(t *testing.T) {
	t.Parallel()
	_, db, _ := withPending(t)
	conn := connect(t, db.AdminURL)
	execute(t, conn, "SET ROLE sallyport_audit")
	for _, table := range []string{"pending", "entries", "hashes", "head"} {
		execute(t, conn, "SELECT * FROM audit."+table)
	}
	for _, sql := range append([]string{
		"SELECT FROM audit.lock_head()",
		"SELECT audit.start('', '')",
		"SELECT audit.enqueue('{}')",
		"SELECT audit.append(3, '{}', '{}', '', '')",
	}, rewrites...) {
		refused(t, conn, sql)
	}
}

// A superuser can do anything, so what he does must show.
func TestP7_ASuperusersEditsShow(t *testing.T) {
	t.Parallel()
	for name, edits := range map[string][]string{
		"leaf":        {"ALTER TABLE audit.entries DROP CONSTRAINT hash_of_leaf", "UPDATE audit.entries SET leaf = replace(encode(leaf, 'escape'), 'expired', 'decided')::bytea WHERE index = 1"},
		"leaf, hash":  {"UPDATE audit.entries SET leaf = l, leaf_hash = sha256('\\x00'::bytea || l), data = encode(l, 'escape')::jsonb FROM (SELECT replace(encode(leaf, 'escape'), 'expired', 'decided')::bytea AS l FROM audit.entries WHERE index = 1) AS new WHERE index = 1"},
		"copy":        {"UPDATE audit.entries SET data = jsonb_set(data, '{data,state}', '\"denied\"') WHERE index = 1"},
		"column":      {"UPDATE audit.entries SET request_id = 'req-other' WHERE index = 1"},
		"type":        {"UPDATE audit.entries SET type = 'request.created' WHERE index = 1"},
		"time":        {"UPDATE audit.entries SET time = time + interval '1 day' WHERE index = 1"},
		"event id":    {"UPDATE audit.entries SET event_id = gen_random_uuid() WHERE index = 1"},
		"order":       {"UPDATE audit.entries SET index = 99 WHERE index = 1", "UPDATE audit.entries SET index = 1 WHERE index = 2", "UPDATE audit.entries SET index = 2 WHERE index = 99"},
		"gap":         {"DELETE FROM audit.entries WHERE index = 1"},
		"tail":        {"DELETE FROM audit.entries WHERE index = 4"},
		"tree hash":   {"UPDATE audit.hashes SET hash = sha256('x') WHERE index = 1"},
		"no hash":     {"DELETE FROM audit.hashes WHERE index = 0"},
		"more hashes": {"INSERT INTO audit.hashes SELECT max(index) + 1, sha256('x') FROM audit.hashes"},
		"head":        {"DELETE FROM audit.head"},
		"root":        {"UPDATE audit.head SET root = sha256('x')"},
		"size":        {"UPDATE audit.head SET size = 4"},
		"checkpoint":  {"UPDATE audit.head SET checkpoint = replace(checkpoint, E'\\n5\\n', E'\\n4\\n')"},
		"shorter":     {"DELETE FROM audit.entries WHERE index = 4", "DELETE FROM audit.hashes WHERE index > 6", "UPDATE audit.head SET size = 4, root = (SELECT hash FROM audit.hashes WHERE index = 6)"},
		"waits again": {"INSERT INTO audit.pending (event_id, type, time, leaf, leaf_hash, data) SELECT event_id, type, time, leaf, leaf_hash, data FROM audit.entries WHERE index = 0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, k := pgtest.New(t), newKeys(t, "log.example.com")
			l := open(t, config(db.Pool, k))
			stop := run(t, l)
			record(t, l, 5)
			stop()
			checkAll(t, db.Pool, k)
			conn := connect(t, db.AdminURL)
			for _, table := range []string{"entries", "hashes", "head", "pending"} {
				execute(t, conn, "ALTER TABLE audit."+table+" DISABLE TRIGGER USER")
			}
			for _, sql := range edits {
				if tag, err := conn.Exec(t.Context(), sql); err != nil || tag.RowsAffected() == 0 && !strings.HasPrefix(sql, "ALTER") {
					t.Fatalf("%s: %v %v", sql, tag, err)
				}
			}
			if tree, err := audit.CheckAll(t.Context(), db.Pool, k.verifier); err == nil {
				t.Errorf("not noticed: %+v", tree)
			}
		})
	}
}

func TestP7_OpenRefusesRolesThatCouldRewriteTheLog(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		sql  string // $ROLE is a login role in sallyport_app
		want error
	}{
		"as it should be":   {"SELECT 1", nil},
		"superuser":         {"ALTER ROLE $ROLE SUPERUSER", audit.ErrRole},
		"createrole":        {"ALTER ROLE $ROLE CREATEROLE", audit.ErrRole},
		"member of owner":   {"GRANT sallyport_owner TO $ROLE", audit.ErrRole},
		"not inheriting it": {"GRANT sallyport_owner TO $ROLE; ALTER ROLE $ROLE NOINHERIT", audit.ErrRole},
		"server files":      {"GRANT pg_write_server_files TO $ROLE", audit.ErrRole},
		"server programs":   {"GRANT pg_execute_server_program TO $ROLE", audit.ErrRole},
		"writes all data":   {"GRANT pg_write_all_data TO $ROLE", audit.ErrRole},
		"insert":            {"GRANT INSERT ON audit.entries TO $ROLE", audit.ErrRole},
		"update":            {"GRANT UPDATE ON audit.head TO $ROLE", audit.ErrRole},
		"update a column":   {"GRANT UPDATE (size) ON audit.head TO $ROLE", audit.ErrRole},
		"delete":            {"GRANT DELETE ON audit.pending TO $ROLE", audit.ErrRole},
		"truncate":          {"GRANT TRUNCATE ON audit.hashes TO $ROLE", audit.ErrRole},
		"trigger":           {"GRANT TRIGGER ON audit.entries TO $ROLE", audit.ErrRole},
		"everybody":         {"GRANT DELETE ON audit.entries TO PUBLIC", audit.ErrRole},
		"no privileges":     {"REVOKE sallyport_app FROM $ROLE", audit.ErrNotMigrated},
		"not migrated":      {"DROP SCHEMA audit CASCADE", audit.ErrNotMigrated},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			role := "role_of_" + db.Name
			conn := connect(t, db.AdminURL)
			execute(t, conn, fmt.Sprintf("CREATE ROLE %s LOGIN IN ROLE sallyport_app", role))
			execute(t, conn, strings.ReplaceAll(test.sql, "$ROLE", role))
			cfg, err := pgxpool.ParseConfig(db.URL)
			if err != nil {
				t.Fatal(err)
			}
			cfg.ConnConfig.User = role
			pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer pool.Close()
			_, err = audit.Open(t.Context(), config(pool, newKeys(t, "log.example.com")))
			if !errors.Is(err, test.want) {
				t.Errorf("Open: %v, want %v", err, test.want)
			}
		})
	}
}

// A superuser who only takes on the broker's role can take it off again.
func TestP7_OpenSeesThroughSetRole(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	cfg, err := pgxpool.ParseConfig(db.AdminURL)
	if err != nil {
		t.Fatal(err)
	}
	cfg.ConnConfig.RuntimeParams["role"] = pgtest.AppUser
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if _, err := audit.Open(t.Context(), config(pool, newKeys(t, "log.example.com"))); !errors.Is(err, audit.ErrRole) {
		t.Errorf("Open: %v", err)
	}
}
