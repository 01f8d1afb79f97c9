package audit_test

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"sallyport/audit"
	"sallyport/internal/pgtest"
)

// fill writes n events of many people, hosts and requests into an empty log, as
// only the database's administrator can: without hashes, for tests of reading.
func fill(t testing.TB, db *pgtest.DB, n int) {
	t.Helper()
	admin := connect(t, db.AdminURL)
	execute(t, admin, "ALTER TABLE audit.head DISABLE TRIGGER forward_only")
	const chunk = 200_000
	for first := 0; first < n; first += chunk {
		execute(t, admin, "UPDATE audit.head SET size = $1", first)
		execute(t, admin, "SELECT audit.extend()") // there is room for so many then
		execute(t, admin, `
			INSERT INTO audit.entries (index, event_id, type, time, actor_id, person_id, request_id, host_id, leaf, leaf_hash, data)
			SELECT i, id, doc->>'type', (doc->>'time')::timestamptz, doc->'actor'->>'id', NULL, doc->'subject'->>'request_id',
				doc->'subject'->>'host_id', leaf, sha256('\x00'::bytea || leaf), doc
			FROM (SELECT i, id, leaf, convert_from(leaf, 'UTF8')::jsonb AS doc FROM (
				SELECT i, id, convert_to(format(
					'{"id":"%s","type":"%s","version":1,"time":"%s","actor":{"kind":"person","id":"per-%s","name":"Person %s"},"source":"192.0.2.%s","subject":{"request_id":"req-%s","host_id":"host-%s"},"policy":{"version":"1","hash":"ab"},"data":{"host":"db-%s","login":"dba","serial":"%s","reason":"%s on the %s of incident %s","pre_certificate":"%s"}}',
					id, (ARRAY['certificate.issued','certificate.issued','certificate.issued','grant.started','request.created','request.decided','grant.ended','person.signed_in'])[1 + i % 8],
					to_char(timestamp '2026-01-01' + i * interval '3 seconds', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), hashint8(i) & 8191, hashint8(i) & 8191, i % 256, i / 7,
					hashint8(i * 31) & 32767, hashint8(i * 31) & 32767, i, (ARRAY['restart','failover','deploy','migration'])[1 + i % 4],
					(ARRAY['primary','replica','cache','indexer'])[1 + (i / 3) % 4], i / 1000, repeat(md5(i::text), 12)), 'UTF8') AS leaf
				FROM (SELECT i, gen_random_uuid() AS id FROM generate_series($1::bigint, $2::bigint - 1) AS i) AS numbers) AS leaves OFFSET 0) AS docs`,
			first, min(first+chunk, n))
	}
	execute(t, admin, "UPDATE audit.head SET size = $1", n)
	execute(t, admin, "ALTER TABLE audit.head ENABLE ALWAYS TRIGGER forward_only")
	execute(t, admin, "ANALYZE audit.entries")
}

// room is a database for so many events. Few fit in memory, where tests keep
// theirs; ten million take about 30 GB of TMPDIR.
func room(b *testing.B, n int) *pgtest.DB {
	if n <= 2_000_000 {
		return pgtest.New(b)
	}
	_, db := pgtest.NewCluster(b, true)
	return db
}

// BenchmarkSearch measures the first page of what an auditor may look for.
// SALLYPORT_BENCH_EVENTS sets how large the log is; 1,000,000 unless told.
func BenchmarkSearch(b *testing.B) {
	n, err := strconv.Atoi(cmp.Or(os.Getenv("SALLYPORT_BENCH_EVENTS"), "1000000"))
	if err != nil {
		b.Fatal(err)
	}
	db, k := room(b, n), newKeys(b, "log.example.com")
	l := open(b, config(db.Pool, k))
	begin := time.Now()
	fill(b, db, n)
	filled := time.Since(begin)
	begin = time.Now()
	for count(b, db, "SELECT audit.digest(64)") == 64 {
	}
	admin := connect(b, db.AdminURL)
	execute(b, admin, "VACUUM ANALYZE audit.blocks")
	fmt.Printf("%d events written in %s, summed up in %s\n", n, filled.Round(time.Second), time.Since(begin).Round(time.Second))

	middle := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(n/2) * 3 * time.Second)
	for _, s := range []struct {
		name   string
		filter audit.Filter
	}{
		{"newest", audit.Filter{}},
		{"type, common", audit.Filter{Type: "certificate.issued"}},
		{"type, none", audit.Filter{Type: "policy.activated"}},
		{"person", audit.Filter{PersonID: "per-4242"}},
		{"host", audit.Filter{HostID: "host-12345"}},
		{"request", audit.Filter{RequestID: "req-1000"}},
		{"hour long ago", audit.Filter{From: middle, To: middle.Add(time.Hour)}},
		{"text, common", audit.Filter{Text: "failover replica"}},
		{"text, one incident", audit.Filter{Text: "incident 77"}},
		{"text, unknown", audit.Filter{Text: "nowhere"}},
		{"text, one serial", audit.Filter{Text: strconv.Itoa(n / 2)}},
		{"type and text", audit.Filter{Type: "grant.started", Text: "migration primary"}},
		{"host and text", audit.Filter{HostID: "host-12345", Text: "restart"}},
		{"type, person and half of the log", audit.Filter{Type: "certificate.issued", PersonID: "per-4242", From: middle}},
		{"person, type and text", audit.Filter{PersonID: "per-4242", Type: "grant.", Text: "deploy"}},
		{"words never together", audit.Filter{Text: "certificate.issued grant.started"}},
		{"never together", audit.Filter{Type: "grant.started", Text: "restart", HostID: "host-12345"}},
	} {
		b.Run(s.name, func(b *testing.B) {
			found := 0
			var took []time.Duration
			for b.Loop() {
				begin := time.Now()
				page, err := l.Search(b.Context(), s.filter)
				if err != nil {
					b.Fatal(err)
				}
				found, took = len(page.Entries), append(took, time.Since(begin))
			}
			slices.Sort(took)
			b.ReportMetric(float64(found), "found")
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms/median")
		})
	}
}
