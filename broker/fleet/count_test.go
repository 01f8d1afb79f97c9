package fleet_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/api/hostapi"
	"sallyport/broker"
	"sallyport/broker/hosts"
	"sallyport/internal/refusal"
)

// Hosts are counted by state, and listed by it; a count is given out for some seconds.
func TestHostsByState(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	drifted := h.enrolled("db-1")
	h.enrolled("db-2")
	h.enrolled("web-1")
	drifted.looks(hostapi.Check{ID: "keys", Result: hostapi.Fail, Findings: []string{"/root/.ssh/authorized_keys"}})
	_, err := h.hosts.Quarantine(t.Context(), h.operator, "web-1", "odd packets")
	must(t, err)
	_, _, err = h.machine().enrol("")
	must(t, err)

	want := map[api.HostState]int{api.HostDrifted: 1, api.HostUnknown: 1, api.HostQuarantined: 1, api.HostPending: 1}
	count, err := h.Count(t.Context())
	must(t, err)
	if !maps.Equal(count, want) {
		t.Errorf("%v, want %v", count, want)
	}
	names := func(c string, states ...api.HostState) (all []string) {
		t.Helper()
		who := h.operator
		if c == "engineer" {
			who = h.engineer
		}
		cursor := ""
		for {
			page, err := h.broker.ListHosts(t.Context(), who, broker.HostFilter{States: states, Filter: hosts.Filter{Limit: 1, Cursor: cursor}})
			must(t, err)
			for _, host := range page.Items {
				if len(states) > 0 && !slices.Contains(states, host.State) {
					t.Errorf("%s is %s", host.Name, host.State)
				}
				all = append(all, host.Name)
			}
			if cursor = page.Next; cursor == "" {
				return all
			}
		}
	}
	for _, c := range []struct {
		states []api.HostState
		want   []string
	}{
		{nil, []string{"db-1", "db-2", "web-1"}},
		{[]api.HostState{api.HostDrifted}, []string{"db-1"}},
		{[]api.HostState{api.HostQuarantined, api.HostDrifted}, []string{"db-1", "web-1"}},
		{[]api.HostState{api.HostSealed}, nil},
	} {
		for _, who := range []string{"operator", "engineer"} {
			if got := names(who, c.states...); !slices.Equal(got, c.want) {
				t.Errorf("%s sees %q in %q, want %q", who, got, c.states, c.want)
			}
		}
	}
	for _, bad := range []api.HostState{api.HostPending, "broken", ""} {
		if _, err := h.broker.ListHosts(t.Context(), h.operator, broker.HostFilter{States: []api.HostState{bad}}); refusal.As(err) != broker.ErrHostState {
			t.Errorf("%q: %v", bad, err)
		}
	}

	_, err = h.hosts.Release(t.Context(), h.operator, "web-1", "it was us")
	must(t, err)
	if count, err = h.Count(t.Context()); err != nil || !maps.Equal(count, want) {
		t.Errorf("%v, %v: counted again at once", count, err)
	}
	h.clock.Advance(10 * time.Second)
	if count, err = h.Count(t.Context()); err != nil || count[api.HostQuarantined] != 0 || count[api.HostUnknown] != 2 {
		t.Errorf("%v, %v: never counted again", count, err)
	}
}

// BenchmarkManyHosts is what it costs to count 20,000 enrolled hosts by state, and to list
// the few of them that are in a rare one.
//
//	go test -run '^$' -bench ManyHosts ./broker/fleet
func BenchmarkManyHosts(b *testing.B) {
	h := newHouse(b)
	root, err := pgx.Connect(b.Context(), h.db.AdminURL)
	must(b, err)
	defer root.Close(b.Context())
	checks := `[{"id":"keys","result":"pass"},{"id":"sudo","result":"pass"},{"id":"sshd","result":"pass"},{"id":"listeners","result":"pass"}]`
	for _, sql := range []string{
		`INSERT INTO hosts (id, name, address, labels, logins, host_key, created_at, changed_at)
			SELECT 'host-' || lpad(i::text, 12, '0'), 'sim-' || i, '192.0.2.1:22', '{"class": "database"}', '{dba}', 'key ' || i, now(), now() FROM generate_series(1, 20000) AS i`,
		`INSERT INTO enrolled_hosts (host_id, host_key, facts, enrolled_at, let_in_by, let_in_by_name, proposed, seen_at)
			SELECT id, host_key, '{}', '2026-03-01', (SELECT id FROM people LIMIT 1), 'x', '', '2026-03-01 12:00:00' FROM hosts`,
		`INSERT INTO host_postures (host_id, number, boot_id, taken_at, received_at, checks, text, signature)
			SELECT id, 1, 'boot', '2026-03-01 12:00:00', '2026-03-01 12:00:00', '` + checks + `', 'text', 'signature' FROM hosts`,
		`UPDATE host_postures SET number = 2, checks = '[{"id":"keys","result":"fail","findings":["/root/.ssh/authorized_keys"]}]' WHERE host_id LIKE '%999'`,
		`INSERT INTO host_probes (host_id, at, result, login, findings) SELECT id, '2026-03-01 12:00:00', 'pass', 'root', '{}' FROM hosts`,
		`INSERT INTO host_sessions (id, host_id, host_session, serial, login, client, started_at, reported_at)
			SELECT 'ses-' || right(id, 12), id, lpad(right(id, 12), 32, '0'), 0, 'dba', '192.0.2.1', now(), now() FROM hosts WHERE id LIKE '%5'`,
		`ANALYZE`,
	} {
		_, err := root.Exec(b.Context(), sql)
		must(b, err)
	}
	b.Run("count", func(b *testing.B) {
		for b.Loop() {
			count, err := h.broker.States(b.Context())
			must(b, err)
			if count[api.HostDrifted] != 20 || count[api.HostOpen] != 2000 || count[api.HostSealed] != 17980 {
				b.Fatal(count)
			}
		}
	})
	b.Run("count again", func(b *testing.B) {
		for b.Loop() {
			_, err := h.Count(b.Context())
			must(b, err)
		}
	})
	for _, states := range [][]api.HostState{nil, {api.HostSealed}, {api.HostDrifted}} {
		b.Run(fmt.Sprintf("list %v", states), func(b *testing.B) {
			for b.Loop() {
				_, err := h.broker.ListHosts(b.Context(), h.operator, broker.HostFilter{States: states})
				must(b, err)
			}
		})
	}
}
