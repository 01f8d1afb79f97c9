package approvals_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/audit"
	"sallyport/internal/ids"
	"sallyport/internal/refusal"
)

// host registers one more host of the tests.
func (h *house) host(name string, labels map[string]string, logins ...string) approvals.Target {
	t := approvals.Target{ID: ids.New(ids.Host), Name: name, Labels: labels, Logins: logins}
	h.hosts[name] = t
	return t
}

// several is an ask for all hosts with the labels.
func several(login string, selector map[string]string) api.RequestInput {
	in := input(login, "")
	in.Selector = selector
	return in
}

var databases = map[string]string{"class": "database"}

func names(r []api.RequestHost) string {
	var out []string
	for _, h := range r {
		out = append(out, h.Name)
	}
	return strings.Join(out, " ")
}

// The set is made of the hosts that fit, and of nothing that the caller may not
// know of; then it is frozen.
func TestP4_SeveralHostsAreFrozen(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin, ann := h.person("erin", "engineers"), h.person("ann", "approvers")
	h.host("db-0", databases, "root")                           // has not the login
	h.host("vault", map[string]string{"class": "vault"}, "dba") // has not the label
	preview, err := h.Preview(t.Context(), erin, several("dba", databases))
	must(t, err)
	if names(preview.Hosts) != "db-1 db-2" || preview.Host.Name != "db-1" || preview.Rule != "databases" {
		t.Errorf("preview %+v", preview)
	}
	r, err := h.Request(t.Context(), erin, several("dba", databases))
	must(t, err)
	if names(r.Hosts) != "db-1 db-2" || r.Host != "db-1" || !maps.Equal(r.Selector, databases) || r.Where() != "dba@db-1 and db-2" {
		t.Errorf("asked for %+v", r)
	}

	// One host gets the label, one loses it, one gets another name: what was asked for stays.
	h.host("db-3", databases, "dba")
	moved := h.hosts["db-2"]
	moved.Labels, moved.Name = map[string]string{"class": "web"}, "web-2"
	h.hosts["db-2"] = moved
	r = h.approve(ann, r.ID)
	g, err := h.grant(erin, r.ID)
	must(t, err)
	must(t, g.Check(h.clock.Now()))
	if hosts := g.Terms.Hosts(); len(hosts) != 2 || hosts[1].ID != moved.ID || hosts[1].Name != "db-2" || names(r.Hosts) != "db-1 db-2" {
		t.Errorf("the grant is for %+v", hosts)
	}
	for _, change := range []string{
		`UPDATE requests SET more_host_ids = '{}' WHERE id = $1`,
		`UPDATE requests SET more_host_ids = array_append(more_host_ids, 'host-000000000000') WHERE id = $1`,
		`UPDATE requests SET more_host_ids = array_reverse(more_host_ids) WHERE id = $1`,
	} {
		if err := h.exec(change, r.ID); err == nil {
			t.Errorf("the database allows: %s", change)
		}
	}
	if _, err := h.admin().Exec(t.Context(), `UPDATE requests SET more_host_ids = '{}' WHERE id = $1`, r.ID); err == nil ||
		!strings.Contains(err.Error(), "never change") {
		t.Errorf("the owner may change the hosts: %v", err)
	}
}

// One host that fits is a request for several that happens to be for one.
func TestOneOfSeveral(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	r, err := h.Request(t.Context(), h.person("erin", "engineers"), several("web", map[string]string{"class": "web"}))
	must(t, err)
	if names(r.Hosts) != "web-1" || r.Host != "web-1" || r.Selector["class"] != "web" || r.State != api.Approved {
		t.Errorf("%+v", r)
	}
}

// Whoever may ask for none of the hosts hears the same as if there were none.
func TestSeveralHostsAreBlind(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin, sam := h.person("erin", "engineers"), h.person("sam", "strangers")
	var want *refusal.Error
	for _, try := range []func() error{
		func() error { _, err := h.Request(t.Context(), erin, input("dba", "no-such-host")); return err },
		func() error {
			_, err := h.Request(t.Context(), erin, several("dba", map[string]string{"class": "none"}))
			return err
		},
		func() error {
			_, err := h.Request(t.Context(), erin, several("dba", map[string]string{"class": "other"}))
			return err
		},
		func() error { _, err := h.Request(t.Context(), erin, several("nobody", databases)); return err },
		func() error { _, err := h.Request(t.Context(), sam, several("dba", databases)); return err },
		func() error { _, err := h.Preview(t.Context(), sam, several("dba", databases)); return err },
	} {
		err := try()
		refused(t, err, approvals.ErrUnknownHost)
		got := refusal.As(err)
		if want == nil {
			want = got
		} else if got.Detail != want.Detail || got.Hint != want.Hint || got.Field != want.Field {
			t.Errorf("said %q (%s), and of no host at all %q (%s)", got.Detail, got.Hint, want.Detail, want.Hint)
		}
	}
	list := h.all("request.refused")
	if len(list) != 5 || list[0].Data["host"] != "class=database" {
		t.Errorf("%d events, the last about %v", len(list), list[0].Data["host"])
	}
}

func TestSeveralHostsInput(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin := h.person("erin", "engineers")
	many := map[string]string{}
	for i := range 17 {
		many[fmt.Sprint("l", i)] = ""
	}
	both := several("dba", databases)
	both.Host = "db-1"
	for name, tt := range map[string]struct {
		in   api.RequestInput
		want *refusal.Error
	}{
		"neither":              {several("dba", nil), approvals.ErrBadHost},
		"an empty selector":    {several("dba", map[string]string{}), approvals.ErrBadHost},
		"both":                 {both, approvals.ErrHostAndSelector},
		"no label":             {several("dba", map[string]string{"": "database"}), approvals.ErrBadSelector},
		"a label that is none": {several("dba", map[string]string{"cl ass": "database"}), approvals.ErrBadSelector},
		"a value that is none": {several("dba", map[string]string{"class": "data\u200bbase"}), approvals.ErrBadSelector},
		"an expression":        {several("dba", map[string]string{"class": "!web"}), approvals.ErrBadSelector},
		"many labels":          {several("dba", many), approvals.ErrBadSelector},
	} {
		if _, err := h.Preview(t.Context(), erin, tt.in); refusal.As(err) == nil || refusal.As(err).Code != tt.want.Code {
			t.Errorf("%s: %v, want %s", name, err, tt.want.Code)
		}
	}
}

func TestAtMostFiftyHosts(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin := h.person("erin", "engineers")
	fleet := map[string]string{"class": "web", "fleet": "a"}
	for i := range approvals.MaxHosts {
		h.host(fmt.Sprintf("web-%03d.%s", i, strings.Repeat("long", 13)), fleet, "web")
	}
	in := several("web", fleet)
	in.Reason = strings.Repeat("\\", 2000) // what takes most room in the event
	r, err := h.Request(t.Context(), erin, in)
	must(t, err)
	if len(r.Hosts) != 50 || !slices.IsSortedFunc(r.Hosts, func(a, b api.RequestHost) int { return strings.Compare(a.Name, b.Name) }) {
		t.Errorf("%d hosts: %s", len(r.Hosts), names(r.Hosts))
	}
	h.host("web-one-more", fleet, "web")
	_, err = h.Request(t.Context(), erin, in)
	refused(t, err, approvals.ErrTooManyHosts)
	if !strings.Contains(err.Error(), "51 hosts") {
		t.Error(err)
	}
}

const twoRules = `
sallyport: 1
assurance: session
rules:
  - {name: production, who: [engineers], where: "class=database,env=prod", logins: [dba], duration: {max: 1h}, approvals: [{slots: [{groups: [approvers]}]}]}
  - {name: elsewhere, who: [engineers], where: class=database, logins: [dba], duration: {max: 1h}, automatic: true, extend: {times: 2, by: 30m, automatic: true}}
`

// What one rule does not decide on is not asked for together: the refusal says how
// to ask apart.
func TestSeveralRules(t *testing.T) {
	t.Parallel()
	h := newHouseUnder(t, twoRules)
	erin := h.person("erin", "engineers")
	for _, name := range []string{"prod-1", "prod-2", "prod-3", "prod-4"} {
		h.host(name, map[string]string{"class": "database", "env": "prod", "team": "a"}, "dba")
	}
	h.host("test-1", map[string]string{"class": "database", "env": "test", "team": "a"}, "dba")
	delete(h.hosts, "db-1")
	delete(h.hosts, "db-2")
	_, err := h.Request(t.Context(), erin, several("dba", databases))
	refused(t, err, approvals.ErrSeveralRules)
	for _, want := range []string{`"production" for prod-1, prod-2 and 2 more`, `"elsewhere" for test-1`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %s", err, want)
		}
	}
	if hint := refusal.As(err).Hint; !strings.Contains(hint, "env=prod (production), or env=test (elsewhere)") {
		t.Errorf("hint %q", hint)
	}
	r, err := h.Request(t.Context(), erin, several("dba", map[string]string{"class": "database", "env": "prod"}))
	must(t, err)
	if len(r.Hosts) != 4 || r.State != api.Requested || r.Rule != "production" {
		t.Errorf("%+v", r)
	}
	// A host on which nobody lets the caller ask makes no difference, and is not heard of.
	h.host("prod-9", map[string]string{"class": "secret", "env": "prod"}, "dba")
	_, err = h.Preview(t.Context(), erin, several("dba", map[string]string{"env": "prod"}))
	must(t, err)
	// Where no label tells them apart, nothing is made up.
	h.host("test-2", map[string]string{"class": "database"}, "dba")
	_, err = h.Preview(t.Context(), erin, several("dba", databases))
	if hint := refusal.As(err).Hint; !strings.Contains(hint, "env=prod (production)") || strings.Contains(hint, "elsewhere") {
		t.Errorf("hint %q", hint)
	}
}

// A request is found by each of its hosts: in lists, as what is open there, and in
// the log.
func TestSeveralHostsAreFoundByEach(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin, ann, odo := h.person("erin", "engineers"), h.person("ann", "approvers"), h.person("odo", "operators")
	r, err := h.Request(t.Context(), erin, several("dba", databases))
	must(t, err)
	single := h.ask(erin, "dba", "db-1")
	first, second, web := h.hosts["db-1"].ID, h.hosts["db-2"].ID, h.hosts["web-1"].ID
	list := func(host string) (out []string) {
		t.Helper()
		page, err := h.List(t.Context(), odo, approvals.ListFilter{HostID: host})
		must(t, err)
		for _, r := range page.Items {
			out = append(out, r.ID)
		}
		return out
	}
	if got := list(first); len(got) != 2 {
		t.Errorf("of the first host: %v", got)
	}
	if got := list(second); !slices.Equal(got, []string{r.ID}) {
		t.Errorf("of the second host: %v", got)
	}
	if got := list(web); len(got) != 0 {
		t.Errorf("of another host: %v", got)
	}

	h.approve(ann, r.ID)
	open, err := h.OpenHosts(t.Context(), []string{second, web})
	must(t, err)
	if !maps.Equal(open, map[string]bool{second: true}) {
		t.Errorf("open: %v", open)
	}
	must(t, h.use(erin, r.ID, "SHA256:k"))
	_, err = h.Finish(t.Context(), erin, r.ID)
	must(t, err)
	open, err = h.OpenHosts(t.Context(), []string{first, second, web})
	must(t, err)
	if len(open) != 0 {
		t.Errorf("open after the end: %v", open)
	}

	h.all("grant.ended") // is in the log
	for host, want := range map[string]string{
		first:  "grant.ended grant.started request.decided request.created request.created",
		second: "grant.ended grant.started request.decided request.created",
		web:    "",
	} {
		entries, err := h.log.Entries(t.Context(), audit.Filter{HostID: host})
		must(t, err)
		var types []string
		for _, e := range entries {
			types = append(types, e.Type)
			if shown := e.API(false); shown.Request == r.ID && !slices.Equal(shown.Hosts, []string{first, second}) {
				t.Errorf("%s names %v", e.Type, shown.Hosts)
			} else if shown.Request == single.ID && shown.Hosts != nil {
				t.Errorf("an event about one host names %v", shown.Hosts)
			}
		}
		slices.Sort(types)
		sorted := strings.Fields(want)
		slices.Sort(sorted)
		if !slices.Equal(types, sorted) {
			t.Errorf("the log has of a host: %v, want %s", types, want)
		}
	}
	created := h.all("request.created")
	if got := created[1].Summary; got != "asked for dba@db-1 and 1 more for 30m" {
		t.Errorf("the log says %q", got)
	}
}

// The log is searched by hosts through two indexes, not from end to end.
func TestTheLogIsIndexedByEachHost(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	tx, err := h.db.Pool.Begin(t.Context())
	must(t, err)
	defer tx.Rollback(t.Context())
	_, err = tx.Exec(t.Context(), `SET LOCAL enable_seqscan = off`)
	must(t, err)
	rows, err := tx.Query(t.Context(), `EXPLAIN SELECT index FROM audit.entries
		WHERE (host_id = 'host-000000000000' OR data->'subject'->'host_ids' @> to_jsonb('host-000000000000'::text))`)
	must(t, err)
	plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
	must(t, err)
	if text := strings.Join(plan, "\n"); !strings.Contains(text, "entries_0_by_hosts") || !strings.Contains(text, "entries_0_host_id_index_idx") || strings.Contains(text, "Seq Scan") {
		t.Error(text)
	}
}
