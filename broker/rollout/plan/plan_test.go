package plan_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sallyport/approvals/policy"
	"sallyport/broker/rollout/plan"
)

const document = `
sallyport: 1
rules: [{name: web, who: [engineers], where: class=web, logins: [web], duration: {max: 1h}, automatic: true}]
deployments:
  - name: redis
    service: redis
    environment: prod
    agents: [github]
    where: class=redis
    login: deploy
    command: /bin/deploy {digest}
    certificate: {source_address: [192.0.2.0/24]}
    plan: {canary: {hosts: 1, soak: 48h}, batches: [{hosts: 10%, soak: 24h}, {hosts: 30%, soak: 24h}], failures: 5%}
    gates: [{name: reported, reported: {ok: 90%}}, {name: errors, prometheus: {url: "https://example.com", query: up, is: "<= 0.01"}}]
    freezes:
      - {name: weekend, zone: Europe/Berlin, times: [{days: [sat, sun], from: "00:00", to: "24:00"}]}
      - {name: year, zone: Europe/Berlin, from: "2026-12-20T18:00", until: "2027-01-04T06:00"}
`

const digest = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

var now = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

func opening(t testing.TB, hosts int) plan.Opening {
	t.Helper()
	p, err := policy.Parse([]byte(document))
	if err != nil {
		t.Fatal(err)
	}
	o := plan.Opening{ID: "dep-4f8k2m9qhx1z", Entry: &p.Deployments[0], Policy: p, Digest: digest, Now: now, Agent: plan.Agent{Claims: map[string]string{}}}
	for i := range hosts {
		o.Hosts = append(o.Hosts, plan.Host{ID: fmt.Sprintf("host-%012d", hosts-i), Name: fmt.Sprintf("redis-%04d", hosts-i)})
	}
	return o
}

func sizes(t *plan.Terms) (list []int) {
	for _, b := range t.Batches {
		list = append(list, len(b.Hosts))
	}
	return list
}

// The article's rollout: a canary for two days, a part a day later, and so on.
func TestMake(t *testing.T) {
	t.Parallel()
	terms, err := plan.Make(opening(t, 30))
	if err != nil {
		t.Fatal(err)
	}
	if got := sizes(terms); !slices.Equal(got, []int{1, 3, 9, 9, 8}) {
		t.Errorf("batches of %v", got)
	}
	first := terms.Batches[0]
	if !first.Canary || terms.Batches[1].Canary || first.SoakTime() != 48*time.Hour || first.Hosts[0].Name != "redis-0001" || terms.Failures != 1 {
		t.Errorf("the canary is %+v, %d may fail", first, terms.Failures)
	}
	if g := terms.Gate(3, "reported"); g == nil || g.OK != 9 { // 90% of 9, rounded up
		t.Errorf("the gate wants %+v", g)
	}
	if got := terms.CommandFor(false); got != "/bin/deploy "+digest {
		t.Errorf("the command is %q", got)
	}
	text, err := terms.Encode()
	if err != nil {
		t.Fatal(err)
	}
	read, err := plan.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := read.Encode(); err != nil || !bytes.Equal(again, text) {
		t.Error("the terms are read as others")
	}
	for _, wrong := range [][2]string{
		{`"number":2`, `"number":3`}, {`"format":"sallyport.deployment/1"`, `"format":"sallyport.deployment/2"`}, {digest, "latest"},
		{`"uses":1`, `"uses":0`}, {"host-000000000002", "host-000000000001"}, {`"lease":"10m"`, `"lease":"soon"`}, {`"login"`, `"Login"`},
		{"Europe/Berlin", "Europe/Nowhere"}, {`"source_address":["192.0.2.0/24"]`, `"source_address":[]`},
	} {
		if !strings.Contains(string(text), wrong[0]) {
			t.Fatalf("the terms have no %s", wrong[0])
		}
		if _, err := plan.Parse([]byte(strings.Replace(string(text), wrong[0], wrong[1], 1))); err == nil {
			t.Errorf("terms with %s are read", wrong[1])
		}
	}
}

// A deployment can be narrower than the plan, and in no way wider.
func TestNarrow(t *testing.T) {
	t.Parallel()
	o := opening(t, 30)
	o.Narrow = plan.Narrow{Hosts: []string{"redis-0003", "redis-0001", "host-000000000002", "redis-0007"}, Batch: 2, Soak: 36 * time.Hour}
	terms, err := plan.Make(o)
	if err != nil {
		t.Fatal(err)
	}
	if got := sizes(terms); !slices.Equal(got, []int{1, 1, 1, 1}) || terms.Batches[0].SoakTime() != 48*time.Hour || terms.Batches[1].SoakTime() != 36*time.Hour {
		t.Errorf("narrowed to %v", got)
	}
	for name, narrow := range map[string]plan.Narrow{
		"another host": {Hosts: []string{"web-1"}}, "a host twice": {Hosts: []string{"redis-0001", "redis-0001"}},
		"a negative batch": {Batch: -1}, "a negative soak": {Soak: -time.Second}, "a year": {Soak: 365 * 24 * time.Hour},
	} {
		o := opening(t, 30)
		o.Narrow = narrow
		if _, err := plan.Make(o); !errors.Is(err, plan.ErrNarrow) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, d := range []string{"", "latest", "sha256:AB", digest + "\n", "sha512:" + digest, digest + " && id"} {
		o := opening(t, 3)
		o.Digest = d
		if _, err := plan.Make(o); !errors.Is(err, plan.ErrDigest) {
			t.Errorf("%q: %v", d, err)
		}
	}
	if _, err := plan.Make(opening(t, 0)); !errors.Is(err, plan.ErrNoHosts) {
		t.Errorf("no hosts: %v", err)
	}
	if _, err := plan.Make(opening(t, policy.MaxDeployedHosts+1)); !errors.Is(err, plan.ErrTooManyHosts) {
		t.Errorf("too many hosts: %v", err)
	}
	rapid.Check(t, func(rt *rapid.T) {
		o := opening(t, rapid.IntRange(1, 60).Draw(rt, "hosts"))
		wide, err := plan.Make(o)
		if err != nil {
			rt.Fatal(err)
		}
		o.Narrow.Batch = rapid.IntRange(1, 60).Draw(rt, "batch")
		narrow, err := plan.Make(o)
		if err != nil {
			rt.Fatal(err)
		}
		for i, n := range sizes(narrow) {
			if n > o.Narrow.Batch || i < len(wide.Batches) && n > len(wide.Batches[i].Hosts) && i < len(wide.Batches)-1 || narrow.Batches[i].Canary != (i == 0) {
				rt.Fatalf("batch %d of %v is wider than in %v", i+1, sizes(narrow), sizes(wide))
			}
		}
		if len(narrow.Hosts()) != len(wide.Hosts()) {
			rt.Fatal("hosts were lost")
		}
	})
}

// The frozen freezes say what the policy's did.
func TestFrozenFreezes(t *testing.T) {
	t.Parallel()
	o := opening(t, 3)
	terms, err := plan.Make(o)
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(rt *rapid.T) {
		at := now.Add(time.Duration(rapid.Int64Range(0, int64(400*24*time.Hour)).Draw(rt, "at")))
		want, got := o.Entry.FrozenAt(at), terms.FrozenAt(at)
		if (want == nil) != (got == nil) || want != nil && want.Name != got.Name {
			rt.Fatalf("at %s the policy says %v, the terms %v", at, want, got)
		}
	})
	friday := time.Date(2026, 3, 6, 22, 57, 30, 0, time.UTC)
	if next := terms.NextFreeze(friday, 5*time.Minute); !next.Equal(friday.Truncate(time.Minute).Add(3 * time.Minute)) {
		t.Errorf("the next freeze begins at %s", next)
	}
	if next := terms.NextFreeze(now, 5*time.Minute); !next.IsZero() {
		t.Errorf("a freeze begins at %s", next)
	}
}
