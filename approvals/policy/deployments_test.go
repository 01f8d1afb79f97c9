package policy_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sallyport/approvals/policy"
)

func TestDeploymentsAreRead(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/complete.yaml")
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	d := p.DeploymentFor("github-redis", "redis", "prod")
	if d == nil || d != p.Deployment("redis-prod") {
		t.Fatal("the entry is not found")
	}
	if p.DeploymentFor("github-other", "redis", "prod") != nil || p.DeploymentFor("github-redis", "redis", "dev") != nil {
		t.Error("an agent or an environment that is not listed finds the entry")
	}
	if d.Plan.Canary.Soak != 48*time.Hour || d.Uses != 2 || d.CertificateLifetime != 3*time.Minute || d.Plan.OnFailure != policy.RollbackOnFailure {
		t.Errorf("read %+v", d)
	}
	if got := d.Plan.Failures.Of(30); got != 1 {
		t.Errorf("5%% of 30 hosts are %d", got)
	}
	names := func(b policy.Batch) (list []string) {
		for _, g := range b.Gates {
			list = append(list, g.Name)
		}
		return list
	}
	if got := names(d.Plan.Batch(0)); len(got) != 10 || got[0] != "every-reported" || got[9] != "canary-people" {
		t.Errorf("gates of the canary: %q", got)
	}
	if len(names(d.Plan.Batch(1))) != 5 || len(names(d.Plan.Batch(2))) != 10 || len(names(d.Plan.Batch(7))) != 10 {
		t.Error("gates of the batches are others")
	}
}

// A freeze ends and begins by the clock on the wall, and summer time comes and goes.
func TestFreezes(t *testing.T) {
	t.Parallel()
	p := parseDeployment(t, "freezes", `[{name: weekend, zone: Europe/Berlin, times: [{days: [sat, sun], from: "00:00", to: "24:00"}]},
      {name: spring, zone: Europe/Berlin, from: "2026-03-28T18:00", until: "2026-03-30T06:00"}]`)
	for at, want := range map[string]string{
		"2026-03-06T22:59:59Z": "", "2026-03-06T23:00:00Z": "weekend", "2026-03-08T22:59:59Z": "weekend", "2026-03-08T23:00:00Z": "",
		"2026-03-30T03:59:59Z": "spring", "2026-03-30T04:00:00Z": "", // an hour earlier by UTC than a week before
	} {
		parsed, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if f := p.FrozenAt(parsed); f != nil {
			got = f.Name
		}
		if got != want {
			t.Errorf("at %s the freeze is %q, not %q", at, got, want)
		}
	}
}

const oneDeployment = `
sallyport: 1
rules: [{name: web, who: [engineers], where: class=web, logins: [web], duration: {max: 1h}, automatic: true}]
deployments:
  - name: api
    service: api
    environment: prod
    agents: [github]
    where: class=api
    login: deploy
    command: /bin/deploy
    certificate: {source_address: [192.0.2.0/24]}
    plan: {batches: [{hosts: 1}]}
`

func parseDeployment(t testing.TB, key, value string) *policy.Deployment {
	t.Helper()
	p, err := policy.Parse([]byte(oneDeployment + "    " + key + ": " + value + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	return &p.Deployments[0]
}

func TestDeploymentsRefused(t *testing.T) {
	t.Parallel()
	gate := func(g string) [2]string { return [2]string{"plan: {", "gates: [" + g + "]\n    plan: {"} }
	for name, c := range map[string]struct {
		change [2]string
		path   string
	}{
		"every host":                {[2]string{"where: class=api", `where: "*"`}, "where"},
		"from anywhere":             {[2]string{"source_address: [192.0.2.0/24]", "source_address: []"}, "source_address"},
		"six minutes":               {[2]string{"certificate: {", "certificate: {lifetime: 6m, "}, "lifetime"},
		"no uses":                   {[2]string{"certificate: {", "certificate: {uses: -1, "}, "uses"},
		"no agents":                 {[2]string{"[github]", "[]"}, "agents"},
		"agent twice":               {[2]string{"[github]", "[github, github]"}, "agents[1]"},
		"agent pattern":             {[2]string{"[github]", `["git*"]`}, "agents[0]"},
		"two lines":                 {[2]string{"command: /bin/deploy", `command: "/bin/deploy\nid"`}, "command"},
		"other braces":              {[2]string{"command: /bin/deploy", `command: "/bin/deploy {host}"`}, "command"},
		"no batches":                {[2]string{"[{hosts: 1}]", "[]"}, "batches"},
		"no hosts":                  {[2]string{"{hosts: 1}", "{hosts: 0}"}, "hosts"},
		"no size":                   {[2]string{"{hosts: 1}", "{soak: 1h}"}, "hosts"},
		"101 percent":               {[2]string{"{hosts: 1}", "{hosts: 101%}"}, "hosts"},
		"half a percent":            {[2]string{"{hosts: 1}", "{hosts: 0.5%}"}, "hosts"},
		"long soak":                 {[2]string{"{hosts: 1}", "{hosts: 1, soak: 721h}"}, "soak"},
		"unknown on_failure":        {[2]string{"plan: {", "plan: {on_failure: ignore, "}, "on_failure"},
		"two kinds of gate":         {gate(`{name: a, reported: {ok: 1}, posture: {ports: []}}`), "gates[0]"},
		"no kind of gate":           {gate(`{name: a}`), "gates[0]"},
		"gate twice":                {gate(`{name: a, posture: {ports: []}}, {name: a, posture: {ports: []}}`), "gates[1].name"},
		"http without reach":        {gate(`{name: a, http: {url: "http://example.com/"}}`), "url"},
		"password in a URL":         {gate(`{name: a, http: {url: "https://me:secret@example.com/"}}`), "url"},
		"file URL":                  {gate(`{name: a, http: {url: "file:///etc/passwd"}}`), "url"},
		"query without comparison":  {gate(`{name: a, prometheus: {url: "https://example.com", query: up, is: up}}`), "is"},
		"not a number":              {gate(`{name: a, prometheus: {url: "https://example.com", query: up, is: "< NaN"}}`), "is"},
		"times that cannot be":      {gate(`{name: a, posture: {ports: []}, every: 1m, times: 10, within: 5m}`), "within"},
		"approval measured":         {gate(`{name: a, approval: {slots: [{groups: [x]}]}, every: 1m}`), "every"},
		"nobody approves":           {gate(`{name: a, approval: {slots: [{groups: []}]}}`), "groups"},
		"freeze without a time":     {[2]string{"plan: {", "freezes: [{name: x, zone: UTC}]\n    plan: {"}, "freezes[0]"},
		"freeze in the machine's":   {[2]string{"plan: {", "freezes: [{name: x, zone: Local, from: \"2026-01-01T00:00\", until: \"2026-01-02T00:00\"}]\n    plan: {"}, "zone"},
		"freeze backwards":          {[2]string{"plan: {", "freezes: [{name: x, zone: UTC, from: \"2026-01-02T00:00\", until: \"2026-01-02T00:00\"}]\n    plan: {"}, "until"},
		"case that fails":           {[2]string{"plan: {", "tests: [{name: x, hosts: 3, batches: [3]}]\n    plan: {"}, "tests[0].batches"},
		"case about time that does": {[2]string{"plan: {", "tests: [{name: x, at: \"2026-01-01T00:00:00Z\", frozen: true}]\n    plan: {"}, "tests[0].frozen"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if !strings.Contains(oneDeployment, c.change[0]) {
				t.Fatalf("the document has no %q", c.change[0])
			}
			_, err := policy.Parse([]byte(strings.Replace(oneDeployment, c.change[0], c.change[1], 1)))
			e, ok := err.(*policy.Error)
			if !ok || !strings.Contains(e.Path, c.path) || e.Line < 3 {
				t.Errorf("the error is %v at %+v, not about %s", err, e, c.path)
			}
		})
	}
	second := strings.TrimPrefix(oneDeployment[strings.Index(oneDeployment, "  - name: api"):], "")
	for _, other := range []string{second, strings.Replace(second, "name: api", "name: other", 1)} {
		if _, err := policy.Parse([]byte(oneDeployment + other)); err == nil {
			t.Error("two entries for one service and environment are read")
		}
	}
}

// Whatever the plan, every host is in exactly one batch, and none is empty.
func TestSplit(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		plan  string
		hosts int
		want  []int
	}{
		{"{canary: {hosts: 1}, batches: [{hosts: 3}, {hosts: 6}]}", 10, []int{1, 3, 6}},
		{"{canary: {hosts: 1}, batches: [{hosts: 10%}, {hosts: 50%}]}", 7, []int{1, 1, 3, 2}},
		{"{canary: {hosts: 5}, batches: [{hosts: 1}]}", 3, []int{3}},
		{"{batches: [{hosts: 100%}]}", 1000, []int{1000}},
		{"{batches: [{hosts: 1%}]}", 3, []int{1, 1, 1}},
		{"{batches: [{hosts: 2}]}", 0, nil},
	} {
		text := strings.Replace(oneDeployment, "plan: {batches: [{hosts: 1}]}", "plan: "+c.plan, 1)
		p, err := policy.Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Deployments[0].Plan.Split(c.hosts); !slices.Equal(got, c.want) {
			t.Errorf("%s of %d hosts: %v, not %v", c.plan, c.hosts, got, c.want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		share := rapid.Custom(func(t *rapid.T) policy.Batch {
			if rapid.Bool().Draw(t, "percent") {
				return policy.Batch{Hosts: policy.Share{Percent: rapid.IntRange(1, 100).Draw(t, "share")}}
			}
			return policy.Batch{Hosts: policy.Share{Count: rapid.IntRange(1, 50).Draw(t, "count")}}
		})
		plan := policy.Rollout{Batches: rapid.SliceOfN(share, 1, 5).Draw(t, "batches")}
		if rapid.Bool().Draw(t, "canary") {
			c := share.Draw(t, "canary batch")
			plan.Canary = &c
		}
		total, got := rapid.IntRange(0, 500).Draw(t, "hosts"), 0
		for _, n := range plan.Split(total) {
			if n < 1 {
				t.Fatal("a batch is empty")
			}
			got += n
		}
		if got != total {
			t.Fatalf("%d hosts are in batches, of %d", got, total)
		}
	})
}

func TestComparisons(t *testing.T) {
	t.Parallel()
	nan := 0.0
	nan /= nan
	for op, holds := range map[string][3]bool{ // for 1, 2 and 3
		"<": {true, false, false}, "<=": {true, true, false}, ">": {false, false, true}, ">=": {false, true, true},
		"==": {false, true, false}, "!=": {true, false, true}, "": {false, false, false},
	} {
		c := policy.Comparison{Op: op, Value: 2}
		for i, want := range holds {
			if got := c.Holds(float64(i + 1)); got != want {
				t.Errorf("%s: %v", fmt.Sprint(i+1, op, 2), got)
			}
		}
		if c.Holds(nan) {
			t.Errorf("NaN is %s 2", op)
		}
	}
}
