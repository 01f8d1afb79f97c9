package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// Whoever approves a policy is told of all that deploy agents may do otherwise.
func TestEffectTellsOfDeployments(t *testing.T) {
	t.Parallel()
	was := complete(t)
	source := string(was.Text)
	hosts := []Place{{Labels: map[string]string{"class": "database", "env": "prod"}}, {Labels: map[string]string{"class": "app", "env": "prod"}},
		{Labels: map[string]string{"class": "database", "env": "prod"}}}
	if changes := EffectOf(was, was, nil, hosts, 10).Deployments; len(changes) != 0 {
		t.Errorf("the same policy: %+v", changes)
	}
	for _, c := range []struct {
		old, new string
		hosts    string
		want     []string // the differences begin so
	}{
		{"description: A canary for", "description: The canary for", "", nil},
		{"name: one at first", "name: first one", "", nil},
		{"service: redis", "service: valkey", "[0 2]", []string{"service: redis > valkey"}},
		{"environment: prod\n", "environment: live\n", "[0 2]", []string{"environment: prod > live"}},
		{"agents: [github-redis]", "agents: [github-redis, other]", "[0 2]", []string{"agents: github-redis > github-redis, other"}},
		{"where: class=database, env=prod", "where: env=prod", "[0 1 2]", []string{"where: class=database,env=prod > env=prod"}},
		{"login: deploy\n", "login: root\n", "[0 2]", []string{"login: deploy > root"}},
		{"    command: /usr/local/bin/deploy-redis {digest}", "    command: sh", "[0 2]", []string{"command: /usr/local/bin/deploy-redis {digest} > sh"}},
		{"--back {digest}", "--back", "[0 2]", []string{"rollback_command: "}},
		{"lifetime: 3m", "lifetime: 4m", "[0 2]", []string{"certificate.lifetime: 3m > 4m"}},
		{"[192.0.2.0/24], uses", "[0.0.0.0/0], uses", "[0 2]", []string{"certificate.source_address: 192.0.2.0/24 > 0.0.0.0/0"}},
		{"uses: 2", "uses: 3", "[0 2]", []string{"certificate.uses: 2 > 3"}},
		{"lease: 5m", "lease: 6m", "[0 2]", []string{"lease: 5m > 6m"}},
		{"soak: 48h", "soak: 1h", "[0 2]", []string{"plan.canary: 1 host and 48h of soak > 1 host and 1h of soak"}},
		{"{hosts: 10%, soak: 24h}", "{hosts: 10%}", "[0 2]", []string{"plan.batches: 10% and 24h of soak, then 30% and 24h of soak > 10%, then 30% and 24h of soak"}},
		{"open_for: 20m", "open_for: 21m", "[0 2]", []string{"plan.open_for: 20m > 21m"}},
		{"verify_within: 5m", "verify_within: 6m", "[0 2]", []string{"plan.verify_within: 5m > 6m"}},
		{"failures: 5%", "failures: 2", "[0 2]", []string{"plan.failures: 5% > 2 hosts"}},
		{"on_failure: rollback", "on_failure: hold", "[0 2]", []string{"plan.on_failure: rollback > hold"}},
		{"      - {name: every-sealed, posture: {ports: [443, 6379]}}\n", "", "[0 2]", []string{"gate every-sealed: posture sealed but for 443 6379, every 30s, 1 times in a row, failing at most 0 times, within 15m > "}},
		{"every-reported, reported: {ok: 90%}", "every-reported, reported: {ok: 1}", "[0 2]", []string{"gate every-reported: reported ok by 90% > reported ok by 1 host"}},
		{"canary-reported, reported: {ok: 90%}", "canary-reported, reported: {ok: 80%}", "[0 2]", []string{"canary gate canary-reported: reported ok by 90% > "}},
		{"batch-errors, prometheus: {url: \"http://prometheus.example.com\", query: 'sum(rate(errors", "batch-errors, prometheus: {url: \"http://prometheus.example.com\", query: 'sum(rate(none", "[0 2]",
			[]string{"batch 2 gate batch-errors: prometheus sum(rate(errors"}},
		{"every-people, approval: {slots: [{groups: [leads], count: 1}]}", "every-people, approval: {slots: [{groups: [interns], count: 1}]}", "[0 2]", []string{"gate every-people: approval of 1 from leads"}},
		{"[sat, sun], from: \"00:00\"", "[sun], from: \"00:00\"", "[0 2]", []string{"freeze weekend: sun, sat 00:00-24:00 in America/New_York > sun 00:00-24:00 in America/New_York"}},
		{"until: \"2027-01-04T06:00\"", "until: \"2027-01-03T06:00\"", "[0 2]", []string{"freeze new-year: from 2026-12-20T23:00:00Z until 2027-01-04T11:00:00Z > "}},
		{"    approvals:\n      - slots: [{groups: [leads], count: 1}]\n    override", "    override", "[0 2]", []string{"approvals: 1 from leads > "}},
		{"override:\n      - slots: [{groups: [directors], count: 2}]", "override:\n      - slots: [{groups: [directors], count: 1}]", "[0 2]", []string{"override: 2 from directors > 1 from directors"}},
		{"assurance: \"provider\"\n    max_age: 1h\n    acr_values: [mfa]", "assurance: session", "[0 2]", []string{"assurance: provider > session", "max_age: 1h > ", "acr_values: mfa > "}},
		{"control: [oncall]", "control: [everybody]", "[0 2]", []string{"control: oncall > everybody"}},
		{"- name: redis-prod", "- name: cache-prod", "[0 2]", []string{"service:  > redis"}}, // and the other is gone
	} {
		if !strings.Contains(source, c.old) {
			t.Fatalf("the document has no %q", c.old)
		}
		now, err := Parse([]byte(strings.Replace(source, c.old, c.new, 1)))
		if err != nil {
			t.Fatalf("%q: %v", c.new, err)
		}
		changes := EffectOf(was, now, nil, hosts, 10).Deployments
		var got []string
		for _, d := range changes {
			if fmt.Sprint(d.Hosts) != c.hosts {
				t.Errorf("%q: on hosts %v", c.new, d.Hosts)
			}
			for _, f := range d.Differences {
				got = append(got, fmt.Sprintf("%s: %s > %s", f.Key, f.Was, f.Now))
			}
		}
		if len(got) < len(c.want) || len(changes) < 2 && len(got) != len(c.want) || !slices.EqualFunc(got[:len(c.want)], c.want, strings.HasPrefix) {
			t.Errorf("%q: %q, not %q", c.new, got, c.want)
		}
	}
}
