package hosts_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/crypto/ssh"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/audit"
	"sallyport/audit/event"
	"sallyport/broker/certs"
	"sallyport/broker/hosts"
	"sallyport/internal/audittest"
	"sallyport/internal/clock"
	"sallyport/internal/ids"
	"sallyport/internal/pgtest"
	"sallyport/internal/refusal"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// kit is a registry on a database of its own, with a log that sequences.
type kit struct {
	*hosts.Registry
	t   *testing.T
	db  *pgtest.DB
	log *audit.Log
}

func newKit(t *testing.T) *kit {
	t.Helper()
	db := pgtest.New(t)
	now := clock.NewManual(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	log := audittest.Open(t, db.Pool, now)
	registry, err := hosts.New(hosts.Config{Pool: db.Pool, Log: log, Clock: now})
	if err != nil {
		t.Fatal(err)
	}
	return &kit{Registry: registry, t: t, db: db, log: log}
}

// List is the registry's, of every host.
func (k *kit) List(ctx context.Context, f hosts.Filter) (api.Page[api.Host], error) {
	return k.Registry.List(ctx, f, func(h []api.Host) ([]api.Host, error) { return h, nil })
}

// events are those of the type, oldest first, once that many are sequenced.
func (k *kit) events(kind string, n int) []event.Event {
	k.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		entries, err := k.log.Entries(k.t.Context(), audit.Filter{Type: kind, Limit: 200})
		if err != nil {
			k.t.Fatal(err)
		}
		if len(entries) >= n || time.Now().After(deadline) {
			if len(entries) != n {
				k.t.Fatalf("%d events %s, want %d", len(entries), kind, n)
			}
			var list []event.Event
			for _, e := range slices.Backward(entries) {
				decoded, err := e.Event()
				if err != nil {
					k.t.Fatal(err)
				}
				list = append(list, decoded)
			}
			return list
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func person(roles ...api.Role) identity.Caller {
	return identity.Caller{Person: identity.Person{ID: ids.New(ids.Person), Name: "Otto"}, Source: "192.0.2.1", Roles: roles,
		Policy: event.PolicyRef{Version: 1, Hash: "ab12"}}
}

var operator = person(api.Operator)

func input(name string) api.HostInput {
	return api.HostInput{Name: name, Address: "10.0.3.7", Logins: []string{"root", "dba"},
		Labels: map[string]string{"class": "database", "env": "prod"}}
}

func hostKey(t *testing.T) string {
	t.Helper()
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return certs.Line(key)
}

func (k *kit) register(in api.HostInput) api.Host {
	k.t.Helper()
	h, err := k.Register(k.t.Context(), operator, in)
	if err != nil {
		k.t.Fatal(err)
	}
	return h
}

func TestHostsLife(t *testing.T) {
	t.Parallel()
	k, ctx := newKit(t), t.Context()
	in := input("db-1")
	key := hostKey(t)
	in.HostKey = key + " root@db-1\n" // as the file has it
	h := k.register(in)
	if !ids.Valid(ids.Host, h.ID) || h.Address != "10.0.3.7:22" || h.HostKey != key || !slices.Equal(h.Logins, []string{"dba", "root"}) {
		t.Errorf("registered as %+v", h)
	}
	e := k.events("host.registered", 1)[0]
	parsed, _ := certs.ParseKey(key)
	data := e.Data.(event.HostRegistered)
	if e.Subject.HostID != h.ID || e.Actor.ID != operator.ID || e.Source != operator.Source || data.HostKey != ssh.FingerprintSHA256(parsed) {
		t.Errorf("event %+v", e)
	}
	for _, ref := range []string{h.ID, "db-1"} {
		got, err := k.Get(ctx, ref)
		if err != nil || got.ID != h.ID || got.Labels["env"] != "prod" || !got.CreatedAt.Equal(h.CreatedAt) {
			t.Errorf("Get(%s) = %+v, %v", ref, got, err)
		}
		target, err := k.Target(ctx, ref)
		if err != nil || target.ID != h.ID || target.Name != "db-1" || !slices.Equal(target.Logins, h.Logins) {
			t.Errorf("Target(%s) = %+v, %v", ref, target, err)
		}
	}

	if same, err := k.Change(ctx, operator, "db-1", in); err != nil || same.ID != h.ID {
		t.Errorf("%+v, %v", same, err)
	}
	changed := in
	changed.Name, changed.Logins, changed.HostKey = "db-one", []string{"dba"}, ""
	h2, err := k.Change(ctx, operator, h.ID, changed)
	if err != nil || h2.ID != h.ID || h2.Name != "db-one" || h2.HostKey != "" {
		t.Errorf("changed to %+v, %v", h2, err)
	}
	k.events("host.changed", 1) // the change that changed nothing is none
	if _, err := k.Get(ctx, "db-1"); !errors.Is(err, approvals.ErrUnknownHost) {
		t.Errorf("by the old name: %v", err)
	}

	if err := k.Remove(ctx, operator, "db-one"); err != nil {
		t.Fatal(err)
	}
	k.events("host.removed", 1)
	for _, ref := range []string{h.ID, "db-one"} {
		if _, err := k.Get(ctx, ref); !errors.Is(err, approvals.ErrUnknownHost) {
			t.Errorf("removed, %s is still found: %v", ref, err)
		}
		if err := k.Remove(ctx, operator, ref); !errors.Is(err, approvals.ErrUnknownHost) {
			t.Errorf("removed twice: %v", err)
		}
		if _, err := k.Change(ctx, operator, ref, in); !errors.Is(err, approvals.ErrUnknownHost) {
			t.Errorf("changed after its removal: %v", err)
		}
	}
	// The name is free, and the new host is another one.
	if again := k.register(input("db-one")); again.ID == h.ID {
		t.Error("a new host has the id of a removed one")
	}
	// The history stays.
	var n int
	if err := k.db.Pool.QueryRow(ctx, "SELECT count(*) FROM hosts").Scan(&n); err != nil || n != 2 {
		t.Errorf("%d rows, %v", n, err)
	}
}

func TestHostsOperatorsOnly(t *testing.T) {
	t.Parallel()
	k, ctx := newKit(t), t.Context()
	h := k.register(input("db-1"))
	for i, c := range []identity.Caller{person(), person(api.Auditor)} {
		_, err1 := k.Register(ctx, c, input("db-2"))
		_, err2 := k.Change(ctx, c, "db-1", input("db-3"))
		err3 := k.Remove(ctx, c, h.ID)
		for _, err := range []error{err1, err2, err3} {
			if !errors.Is(err, hosts.ErrNotOperator) || refusal.As(err).Kind != refusal.Denied || refusal.As(err).Hint == "" {
				t.Errorf("error %v, want ErrNotOperator", err)
			}
		}
		events := k.events("access.refused", 3*(i+1))
		last := events[len(events)-1]
		if last.Actor.ID != c.ID || last.Subject.HostID != h.ID || last.Data.(event.AccessRefused).Action != "hosts.remove" {
			t.Errorf("event %+v", last)
		}
	}
	page, err := k.List(ctx, hosts.Filter{})
	if err != nil || len(page.Items) != 1 || page.Items[0].Name != "db-1" {
		t.Errorf("%+v, %v", page, err)
	}

	// Who hangs up is refused and recorded all the same.
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := k.Register(gone, person(), input("db-2")); !errors.Is(err, hosts.ErrNotOperator) {
		t.Errorf("error %v, want ErrNotOperator", err)
	}
	k.events("access.refused", 7)
}

func TestHostsInput(t *testing.T) {
	t.Parallel()
	k, ctx := newKit(t), t.Context()
	many := map[string]string{}
	for i := range 65 {
		many[fmt.Sprint("l", i)] = ""
	}
	var logins []string
	for i := range 65 {
		logins = append(logins, fmt.Sprint("l", i))
	}
	for _, c := range []struct {
		name  string
		spoil func(*api.HostInput)
		want  *refusal.Error
		field string
	}{
		{"no name", func(in *api.HostInput) { in.Name = "" }, hosts.ErrName, "name"},
		{"capitals", func(in *api.HostInput) { in.Name = "DB-1" }, hosts.ErrName, "name"},
		{"space", func(in *api.HostInput) { in.Name = "db 1" }, hosts.ErrName, "name"},
		{"line", func(in *api.HostInput) { in.Name = "db-1\n" }, hosts.ErrName, "name"},
		{"option", func(in *api.HostInput) { in.Name = "-oProxyCommand=id" }, hosts.ErrName, "name"},
		{"long", func(in *api.HostInput) { in.Name = strings.Repeat("a", 64) }, hosts.ErrName, "name"},
		{"an id", func(in *api.HostInput) { in.Name = ids.New(ids.Host) }, hosts.ErrName, "name"},
		{"another's address", func(in *api.HostInput) { in.Name = "10.0.3.8" }, hosts.ErrName, "name"},
		{"an address as one number", func(in *api.HostInput) { in.Name = "167773960" }, hosts.ErrName, "name"},
		{"an address in hexadecimal", func(in *api.HostInput) { in.Name = "0x0a.0x308" }, hosts.ErrName, "name"},
		{"another letter", func(in *api.HostInput) { in.Name = "d\u044c-1" }, hosts.ErrName, "name"},
		{"no address", func(in *api.HostInput) { in.Address = "" }, hosts.ErrAddress, "address"},
		{"option as address", func(in *api.HostInput) { in.Address = "-oProxyCommand=id" }, hosts.ErrAddress, "address"},
		{"user in address", func(in *api.HostInput) { in.Address = "root@10.0.0.1" }, hosts.ErrAddress, "address"},
		{"port 0", func(in *api.HostInput) { in.Address = "10.0.0.1:0" }, hosts.ErrAddress, "address"},
		{"port too high", func(in *api.HostInput) { in.Address = "10.0.0.1:65536" }, hosts.ErrAddress, "address"},
		{"port not plain", func(in *api.HostInput) { in.Address = "10.0.0.1:022" }, hosts.ErrAddress, "address"},
		{"named port", func(in *api.HostInput) { in.Address = "10.0.0.1:ssh" }, hosts.ErrAddress, "address"},
		{"no port", func(in *api.HostInput) { in.Address = "10.0.0.1:" }, hosts.ErrAddress, "address"},
		{"unspecified", func(in *api.HostInput) { in.Address = "0.0.0.0" }, hosts.ErrAddress, "address"},
		{"zone", func(in *api.HostInput) { in.Address = "fe80::1%eth0" }, hosts.ErrAddress, "address"},
		{"two hosts", func(in *api.HostInput) { in.Address = "a b" }, hosts.ErrAddress, "address"},
		{"label's name", func(in *api.HostInput) { in.Labels = map[string]string{"a b": "c"} }, hosts.ErrLabels, "labels"},
		{"label's value", func(in *api.HostInput) { in.Labels = map[string]string{"a": "b c"} }, hosts.ErrLabels, "labels"},
		{"long label", func(in *api.HostInput) { in.Labels = map[string]string{"a": strings.Repeat("b", 64)} }, hosts.ErrLabels, "labels"},
		{"many labels", func(in *api.HostInput) { in.Labels = many }, hosts.ErrLabels, "labels"},
		{"no logins", func(in *api.HostInput) { in.Logins = nil }, hosts.ErrLogins, "logins"},
		{"many logins", func(in *api.HostInput) { in.Logins = logins }, hosts.ErrLogins, "logins"},
		{"login twice", func(in *api.HostInput) { in.Logins = []string{"dba", "dba"} }, hosts.ErrLogins, "logins"},
		{"empty login", func(in *api.HostInput) { in.Logins = []string{""} }, hosts.ErrLogins, "logins"},
		{"wildcard login", func(in *api.HostInput) { in.Logins = []string{"*"} }, hosts.ErrLogins, "logins"},
		{"shell in login", func(in *api.HostInput) { in.Logins = []string{"$(id)"} }, hosts.ErrLogins, "logins"},
		{"garbage key", func(in *api.HostInput) { in.HostKey = "ssh-ed25519 AAAA" }, certs.ErrKeyUnreadable, "host_key"},
		{"key with options", func(in *api.HostInput) { in.HostKey = "restrict " + hostKey(t) }, certs.ErrKeyUnreadable, "host_key"},
		{"two keys", func(in *api.HostInput) { in.HostKey = hostKey(t) + "\n" + hostKey(t) }, certs.ErrKeyUnreadable, "host_key"},
	} {
		in := input("db-1")
		c.spoil(&in)
		_, err := k.Register(ctx, operator, in)
		if r := refusal.As(err); r == nil || !errors.Is(err, c.want) || r.Field != c.field || r.Hint == "" {
			t.Errorf("%s: error %v (%+v), want %v", c.name, err, r, c.want)
		}
	}
	named := 0
	for given, want := range map[string]string{
		"10.0.3.7:2222": "10.0.3.7:2222", "db-1.example.com": "db-1.example.com:22", "::1": "[::1]:22",
		"[2001:db8::7]": "[2001:db8::7]:22", "[2001:DB8::7]:2222": "[2001:db8::7]:2222", "::ffff:10.0.0.1": "10.0.0.1:22",
	} {
		named++
		in := input(fmt.Sprintf("named-%d", named))
		in.Address = given
		if h := k.register(in); h.Address != want {
			t.Errorf("address %s became %s, want %s", given, h.Address, want)
		}
	}
}

func TestHostsNamesAreUnique(t *testing.T) {
	t.Parallel()
	k, ctx := newKit(t), t.Context()
	const callers = 8
	errs := make([]error, callers)
	var all sync.WaitGroup
	for i := range callers {
		all.Go(func() { _, errs[i] = k.Register(ctx, operator, input("db-1")) })
	}
	all.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else if !errors.Is(err, hosts.ErrNameTaken) {
			t.Error(err)
		}
	}
	if won != 1 {
		t.Errorf("%d hosts have one name", won)
	}
	k.register(input("db-2"))
	if _, err := k.Change(ctx, operator, "db-2", input("db-1")); !errors.Is(err, hosts.ErrNameTaken) {
		t.Errorf("error %v, want ErrNameTaken", err)
	}
	k.events("host.registered", 2)
}

func TestHostsList(t *testing.T) {
	t.Parallel()
	k, ctx := newKit(t), t.Context()
	for i := range 7 {
		in := input(fmt.Sprintf("web-%d", i))
		in.Labels = map[string]string{"class": "web", "n": fmt.Sprint(i)}
		k.register(in)
	}
	k.register(input("db-1"))
	names := func(f hosts.Filter) string {
		t.Helper()
		var all []string
		for pages := 0; ; pages++ {
			page, err := k.List(ctx, f)
			if err != nil {
				t.Fatal(err)
			}
			if f.Limit > 0 && len(page.Items) > f.Limit || pages > 10 {
				t.Fatalf("%d items on page %d", len(page.Items), pages)
			}
			for _, h := range page.Items {
				all = append(all, h.Name)
			}
			if f.Cursor = page.Next; page.Next == "" {
				return strings.Join(all, " ")
			}
		}
	}
	for _, c := range []struct {
		f    hosts.Filter
		want string
	}{
		{hosts.Filter{}, "db-1 web-0 web-1 web-2 web-3 web-4 web-5 web-6"},
		{hosts.Filter{Limit: 3}, "db-1 web-0 web-1 web-2 web-3 web-4 web-5 web-6"},
		{hosts.Filter{Limit: 1, Selector: "class=web,n notin (1,2,3)"}, "web-0 web-4 web-5 web-6"},
		{hosts.Filter{Selector: "!n"}, "db-1"},
		{hosts.Filter{Search: "B-1"}, "db-1 web-1"},
		{hosts.Filter{Search: "%"}, ""},
		{hosts.Filter{Search: "\x00"}, ""},
		{hosts.Filter{Selector: "class=gone"}, ""},
	} {
		if got := names(c.f); got != c.want {
			t.Errorf("%+v: %s, want %s", c.f, got, c.want)
		}
	}
	for _, bad := range []hosts.Filter{{Limit: -1}, {Limit: 201}, {Cursor: "%%"}, {Cursor: "AAAA"}} {
		if _, err := k.List(ctx, bad); !errors.Is(err, hosts.ErrPage) {
			t.Errorf("%+v: error %v, want ErrPage", bad, err)
		}
	}
	if _, err := k.List(ctx, hosts.Filter{Selector: "=="}); !errors.Is(err, hosts.ErrSelector) {
		t.Errorf("error %v, want ErrSelector", err)
	}
	for _, ref := range []string{"", "nobody", "host-000000000000", "db-1'--", "\x00"} {
		if _, err := k.Get(ctx, ref); !errors.Is(err, approvals.ErrUnknownHost) {
			t.Errorf("Get(%q): error %v, want ErrUnknownHost", ref, err)
		}
	}
}

// What the broker would never write, the database refuses: a login that says
// more, an id that changes, a row that goes, a removed host that comes back.
func TestHostsDatabaseHolds(t *testing.T) {
	t.Parallel()
	k, ctx := newKit(t), t.Context()
	h := k.register(input("db-1"))
	gone := k.register(input("db-2"))
	if err := k.Remove(ctx, operator, "db-2"); err != nil {
		t.Fatal(err)
	}
	for _, attack := range []string{
		"UPDATE hosts SET logins = '{dba,*}' WHERE id = '" + h.ID + "'",
		"UPDATE hosts SET logins = '{}' WHERE id = '" + h.ID + "'",
		"UPDATE hosts SET logins = '{dba,NULL}' WHERE id = '" + h.ID + "'",
		"UPDATE hosts SET logins = ARRAY[E'dba\nroot'] WHERE id = '" + h.ID + "'",
		"UPDATE hosts SET id = 'host-000000000000' WHERE id = '" + h.ID + "'",
		"UPDATE hosts SET created_at = now()",
		"UPDATE hosts SET removed_at = NULL WHERE id = '" + gone.ID + "'",
		"UPDATE hosts SET logins = '{root}' WHERE id = '" + gone.ID + "'",
		"DELETE FROM hosts",
		"TRUNCATE hosts CASCADE",
	} {
		if _, err := k.db.Pool.Exec(ctx, attack); err == nil {
			t.Errorf("the database allows: %s", attack)
		}
	}
	auditor, err := pgx.Connect(ctx, k.db.AdminURL)
	if err != nil {
		t.Fatal(err)
	}
	defer auditor.Close(ctx)
	if _, err := auditor.Exec(ctx, "SET ROLE sallyport_audit"); err != nil {
		t.Fatal(err)
	}
	if _, err := auditor.Exec(ctx, "SELECT id, removed_at FROM hosts"); err != nil {
		t.Errorf("an auditor cannot read: %v", err)
	}
	if _, err := auditor.Exec(ctx, "UPDATE hosts SET name = 'x'"); err == nil {
		t.Error("an auditor can change a host")
	}
}
