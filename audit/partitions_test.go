package audit_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/tern/v2/migrate"

	"sallyport/audit"
	"sallyport/audit/event"
	"sallyport/audit/receipt"
	"sallyport/internal/audittest"
	"sallyport/internal/pgtest"
	"sallyport/migrations"
)

// narrow gives a running log whose partitions have a few entries each.
func narrow(t testing.TB, width int) (*audit.Log, *pgtest.DB, keys) {
	t.Helper()
	db, k := pgtest.New(t), newKeys(t, "log.example.com")
	audittest.Partitions(t, db.AdminURL, width)
	l := open(t, config(db.Pool, k))
	t.Cleanup(func() { checkAll(t, db.Pool, k) })
	run(t, l)
	return l, db, k
}

// The log runs on over the ends of its partitions.
func TestTheLogGoesOnOverPartitions(t *testing.T) {
	t.Parallel()
	l, db, k := narrow(t, 8)
	var all []event.Event
	for i := range 100 {
		all = append(all, closed(fmt.Sprintf("req-%d", i%7)))
		entries, err := l.Record(t.Context(), all[i])
		if err != nil || entries[0].Index != int64(i) {
			t.Fatalf("event %d: %v, %v", i, entries, err)
		}
	}
	if tree := checkAll(t, db.Pool, k); tree.N != 100 {
		t.Errorf("the log has %d entries", tree.N)
	}
	if n := count(t, db, "SELECT count(DISTINCT tableoid) FROM audit.entries"); n != 13 {
		t.Errorf("they are in %d partitions", n)
	}
	found, err := l.Search(t.Context(), audit.Filter{RequestID: "req-3", Limit: 200})
	if err != nil || len(found.Entries) != 14 {
		t.Errorf("found %d, %v", len(found.Entries), err)
	}
	e, err := l.Find(t.Context(), all[3].ID)
	if err != nil || e.Index != 3 {
		t.Errorf("event 3 is at %d, %v", e.Index, err)
	}
	list, err := l.Partitions(t.Context())
	if err != nil || list[0].First != 0 || list[0].Until != 8 || !slices.IsSortedFunc(list, func(a, b audit.Partition) int { return int(a.First - b.First) }) {
		t.Errorf("partitions %+v, %v", list, err)
	}
}

// An event is in the log once, whatever its index: also when it comes again after its
// partition was left behind, or with other contents, or from a superuser.
func TestAnEventIsInOnePartitionOnly(t *testing.T) {
	t.Parallel()
	l, db, _ := narrow(t, 8)
	first := closed("req-first")
	if _, err := l.Record(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	record(t, l, 20)
	if entries, err := l.Record(t.Context(), first); err != nil || entries[0].Index != 0 {
		t.Errorf("again: %v, %v", entries, err)
	}
	forged := closed("req-other")
	forged.ID = first.ID
	if _, err := l.Record(t.Context(), forged); err == nil {
		t.Error("the same id with other contents was taken")
	}
	_, err := connect(t, db.AdminURL).Exec(t.Context(), `INSERT INTO audit.entries
		SELECT 30, event_id, type, time, actor_id, person_id, request_id, host_id, leaf, leaf_hash, data FROM audit.entries WHERE index = 0`)
	if err == nil || !strings.Contains(err.Error(), "event_ids_pkey") {
		t.Errorf("a superuser's copy: %v", err)
	}
}

// Looking for events by their ids does not grow with the partitions: only the table of
// ids is asked.
func TestEventsAreNotLookedForInEveryPartition(t *testing.T) {
	t.Parallel()
	l, db, _ := narrow(t, 8)
	entries := record(t, l, 20)
	again := closed("req-again")
	for range 2 {
		if _, err := l.Record(t.Context(), again); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.Find(t.Context(), entries[0].ID); err != nil {
		t.Fatal(err)
	}
	db.Pool.Reset() // connections tell what they did at their end at the latest
	stat := func(column, tables string) int {
		return count(t, db, "SELECT coalesce(sum("+column+"), 0)::bigint FROM pg_stat_user_tables WHERE relname LIKE '"+tables+"'")
	}
	eventually(t, "the database says how tables were read", func() bool { return stat("idx_scan", "event_ids") >= 20 })
	if n := stat("seq_tup_read", `entries\_%`); n > 0 {
		t.Errorf("%d entries were read one after the other", n)
	}
}

// P7: new partitions refuse what the first one does, also as replicas.
func TestP7_EveryPartitionIsAppendOnly(t *testing.T) {
	t.Parallel()
	l, db, _ := narrow(t, 8)
	record(t, l, 20)
	list, err := l.Partitions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, mode := range []string{"origin", "replica"} {
		conn := connect(t, db.AdminURL)
		execute(t, conn, "SET session_replication_role = "+mode+"; SET ROLE sallyport_owner")
		for _, p := range list {
			for _, sql := range []string{"UPDATE audit.%s SET type = 'x'", "DELETE FROM audit.%s", "TRUNCATE audit.%s"} {
				refused(t, conn, fmt.Sprintf(sql, p.Name))
			}
		}
		execute(t, conn, "RESET ROLE; SET session_replication_role = origin")
	}
	// Each row too, for logical replication fires no statement's trigger.
	rows := count(t, db, `SELECT count(*) FROM pg_trigger AS g JOIN pg_inherits AS i ON i.inhrelid = g.tgrelid
		WHERE i.inhparent = 'audit.entries'::regclass AND g.tgname = 'append_only_row' AND g.tgenabled = 'A'`)
	if rows != len(list) {
		t.Errorf("%d of %d partitions have a trigger for rows that fires always", rows, len(list))
	}
}

// P9: without a partition for the next entries nothing is taken, which says why; and
// as soon as there is one, all that waited has its place.
func TestP9_NoPartitionNoEntry(t *testing.T) {
	t.Parallel()
	l, db, _ := narrow(t, 8)
	admin := connect(t, db.AdminURL)
	execute(t, admin, "REVOKE EXECUTE ON FUNCTION audit.extend() FROM sallyport_app")
	execute(t, admin, `DO $$ DECLARE p record; BEGIN
		FOR p IN SELECT name FROM audit.partitions() WHERE first > 0 LOOP EXECUTE 'DROP TABLE audit.' || p.name; END LOOP; END $$`)
	record(t, l, 8)
	late := closed("req-late")
	if err := stage(t.Context(), db.Pool, l, late); err != nil {
		t.Fatal(err)
	}
	l.Kick()
	eventually(t, "the log says that it has no partition", func() bool { return errors.Is(l.Healthy(t.Context()), audit.ErrNoPartition) })
	execute(t, admin, "GRANT EXECUTE ON FUNCTION audit.extend() TO sallyport_app")
	entries, err := l.Wait(t.Context(), late.ID)
	if err != nil || entries[0].Index != 8 {
		t.Errorf("afterwards: %v, %v", entries, err)
	}
}

// The broker's role can have the next partitions made, and no others: there is room
// for four times the width, however often it asks, and from wherever.
func TestExtendMakesTheNextPartitionsOnly(t *testing.T) {
	t.Parallel()
	l, db, _ := narrow(t, 8)
	record(t, l, 3)
	execute(t, connect(t, db.AdminURL), "SELECT audit.extend()")
	want := count(t, db, "SELECT count(*) FROM audit.partitions()")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 10 {
				if _, err := db.Pool.Exec(t.Context(), "SELECT audit.extend()"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := count(t, db, "SELECT count(*) FROM audit.partitions()"); n != want {
		t.Errorf("there are %d partitions instead of %d", n, want)
	}
	gaps := count(t, db, `SELECT count(*) FROM (SELECT first <> lag(until) OVER (ORDER BY first) AS gap FROM audit.partitions()) AS p WHERE gap`)
	if gaps > 0 {
		t.Errorf("there are %d gaps between partitions", gaps)
	}
}

// How wide the next partition is follows what came in 90 days.
func TestPartitionWidth(t *testing.T) {
	t.Parallel()
	db, k := pgtest.New(t), newKeys(t, "log.example.com")
	open(t, config(db.Pool, k))
	admin := connect(t, db.AdminURL)
	width := func() (n int64) {
		t.Helper()
		if err := admin.QueryRow(t.Context(), "SELECT audit.partition_width()").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := width(); n != 65536 {
		t.Errorf("a new log's partitions are for %d entries", n)
	}
	execute(t, admin, `ALTER TABLE audit.head DISABLE TRIGGER forward_only; ALTER TABLE audit.entries DISABLE TRIGGER remember_ids;
		INSERT INTO audit.entries (index, event_id, type, time, leaf, leaf_hash, data)
		SELECT i, gen_random_uuid(), 't', now() - age * interval '1 day', 'x', sha256('\x0078'), '{}' FROM (VALUES (0, 1000), (30000, 89), (30001, 1)) AS v (i, age);
		UPDATE audit.head SET size = 30002`)
	for size, want := range map[int64]int64{30_002: 65_536, 130_000: 131_072, 1_000_000: 1_048_576, 99_000_000: 4_194_304} {
		execute(t, admin, "UPDATE audit.head SET size = $1", size)
		if n := width(); n != want {
			t.Errorf("with %d entries in 90 days the next partition is for %d, want %d", size-30_000, n, want)
		}
	}
}

// before is a database with the schema of the version before partitions.
func before(t *testing.T) (old *pgtest.DB, up func()) {
	t.Helper()
	ctx := t.Context()
	db := pgtest.New(t)
	name := db.Name + "_before"
	execute(t, connect(t, db.AdminURL), "CREATE DATABASE "+name)
	t.Cleanup(func() {
		conn, err := pgx.Connect(context.Background(), db.AdminURL)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close(context.Background())
		if _, err := conn.Exec(context.Background(), "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Error(err)
		}
	})
	old = &pgtest.DB{Name: name, URL: strings.Replace(db.URL, db.Name, name, 1), AdminURL: strings.Replace(db.AdminURL, db.Name, name, 1)}
	files, err := fs.Glob(os.DirFS("../migrations"), "*_room_for_partitions.sql")
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	n, err := strconv.Atoi(files[0][:3])
	if err != nil {
		t.Fatal(err)
	}
	m, err := migrate.NewMigrator(ctx, connect(t, old.AdminURL), "public.schema_version")
	if err == nil {
		err = m.LoadMigrations(os.DirFS("../migrations"))
	}
	if err == nil {
		err = m.MigrateTo(ctx, int32(n-1))
	}
	if err != nil {
		t.Fatal(err)
	}
	if old.Pool, err = pgxpool.New(ctx, old.URL); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(old.Pool.Close)
	return old, func() {
		if err := migrations.Up(ctx, old.AdminURL, nil); err != nil {
			t.Error(err)
		}
	}
}

// A log becomes partitioned while brokers write it. Its entries stay where they are,
// and so do their indexes: nothing is copied, nothing is refused.
func TestPartitioningALogInUse(t *testing.T) {
	t.Parallel()
	db, up := before(t)
	k := newKeys(t, "log.example.com")
	l, lane := lane(t, db, k)
	run(t, l)
	first := record(t, l, 3000)
	files := func(table string) string {
		t.Helper()
		var s string
		if err := db.Pool.QueryRow(t.Context(), `
			SELECT string_agg(c.relfilenode::text, ' ' ORDER BY c.relfilenode) FROM pg_class AS c
			WHERE c.oid = $1::regclass OR c.oid IN (SELECT indexrelid FROM pg_index WHERE indrelid = $1::regclass)`, table).Scan(&s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	was := files("audit.entries")

	var stop atomic.Bool
	var n atomic.Int64
	var wg sync.WaitGroup
	write := func(record func(context.Context, int) error) {
		wg.Go(func() {
			for i := 0; !stop.Load(); i++ {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				if err := record(ctx, i); err != nil {
					t.Error(err)
				}
				cancel()
				n.Add(1)
			}
		})
	}
	for range 8 {
		write(func(ctx context.Context, _ int) error { _, err := l.Record(ctx, closed("req-meanwhile")); return err })
	}
	write(func(ctx context.Context, i int) error {
		if i > 1000 {
			_, err := l.Record(ctx, closed("req-meanwhile"))
			return err
		}
		_, err := lane.Append(ctx, closed(fmt.Sprintf("num-%d", i)), i)
		return err
	})
	wg.Go(func() { // as the version before looks for an event
		for !stop.Load() {
			var index int64
			if err := db.Pool.QueryRow(t.Context(), "SELECT index FROM audit.entries WHERE event_id = ANY ($1)",
				[]uuid.UUID{first[7].ID}).Scan(&index); err != nil || index != 7 {
				t.Errorf("event 7 is at %d, %v", index, err)
			}
		}
	})
	eventually(t, "events are recorded", func() bool { return n.Load() > 50 })
	up()
	during := n.Load()
	eventually(t, "events are recorded afterwards", func() bool { return n.Load() > during+50 })
	stop.Store(true)
	wg.Wait()

	if tree := checkAll(t, db.Pool, k); tree.N != 3000+n.Load() {
		t.Errorf("the log has %d entries, and %d were recorded", tree.N, 3000+n.Load())
	}
	before := strings.Fields(was)
	for _, now := range strings.Fields(files("audit.entries_0")) { // later migrations need fewer indexes
		if !slices.Contains(before, now) {
			t.Errorf("the entries' files were %s, and %s is new", was, now)
		}
	}
	if e, err := l.Find(t.Context(), first[2].ID); err != nil || e.Index != 2 {
		t.Errorf("event 2 is at %d, %v", e.Index, err)
	}
	proof, err := l.Receipt(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	if index, err := receipt.Verify(first[2].Leaf, proof, k.verifier); err != nil || index != 2 {
		t.Errorf("the receipt of event 2 is for %d, %v", index, err)
	}
	found, err := l.Search(t.Context(), audit.Filter{RequestID: "req-meanwhile", Limit: 200})
	if err != nil || len(found.Entries) < 50 {
		t.Errorf("%d entries are found, %v", len(found.Entries), err)
	}
	if entries, err := l.Record(t.Context(), closed("req-after")); err != nil || entries[0].Index != 3000+n.Load() {
		t.Errorf("afterwards: %v, %v", entries, err)
	}
	if room := count(t, db, "SELECT max(until) FROM audit.partitions()"); int64(room) < 3000+n.Load()+4*65536 {
		t.Errorf("there is room until %d", room)
	}
}
