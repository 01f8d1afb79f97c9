package policy

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// The size of the house for which figures are given.
const (
	benchRules  = 5_000
	benchHosts  = 100_000
	benchPeople = 10_000
	benchGroups = 500
	benchLogins = 40
)

// city is a policy with its hosts and people, the same at each run.
type city struct {
	policy *Policy
	hosts  []benchHost
	people [][]string // groups
}

type benchHost struct {
	labels map[string]string
	logins []string
}

func newCity(b *testing.B) city {
	b.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	pick := func(prefix string, n int) string { return fmt.Sprintf("%s%d", prefix, random.IntN(n)) }
	several := func(prefix string, n, count int) []string {
		seen, out := map[string]bool{}, []string{}
		for len(out) < count {
			if s := pick(prefix, n); !seen[s] {
				seen[s] = true
				out = append(out, s)
			}
		}
		return out
	}
	envs := []string{"prod", "staging", "dev"}
	var doc strings.Builder
	doc.WriteString("sallyport: 1\nrules:\n")
	for i := range benchRules {
		fmt.Fprintf(&doc, "- {name: r%d, who: [%s], where: 'team=%s, env in (%s, dev), class!=vault', logins: [%s], duration: {max: 1h}, approvals: [{slots: [{groups: [%s]}]}]}\n",
			i, strings.Join(several("group-", benchGroups, 3), ", "), pick("team-", 200), envs[random.IntN(2)],
			strings.Join(several("login", benchLogins, 4), ", "), pick("group-", benchGroups))
	}
	p, err := Parse([]byte(doc.String()))
	if err != nil {
		b.Fatal(err)
	}
	c := city{policy: p}
	for range benchHosts {
		c.hosts = append(c.hosts, benchHost{logins: several("login", benchLogins, 5), labels: map[string]string{
			"team": pick("team-", 200), "env": envs[random.IntN(3)], "class": pick("class-", 30), "rack": pick("rack-", 1000),
		}})
	}
	for range benchPeople {
		c.people = append(c.people, several("group-", benchGroups, 2+random.IntN(15)))
	}
	return c
}

func BenchmarkDecision(b *testing.B) {
	c := newCity(b)
	b.ReportAllocs()
	granted := 0
	i := 0
	for b.Loop() {
		h := c.hosts[i*7919%len(c.hosts)]
		if _, err := c.policy.Match(c.people[i%len(c.people)], h.labels, h.logins[i%len(h.logins)]); err == nil {
			granted++
		}
		i++
	}
	b.ReportMetric(100*float64(granted)/float64(i), "%-allowed")
}

// The worst policy for an index: every rule names the asker's group and the
// login, and only the last one matches the host.
func BenchmarkDecisionLastOfAllRules(b *testing.B) {
	var doc strings.Builder
	doc.WriteString("sallyport: 1\nrules:\n")
	for i := range benchRules {
		fmt.Fprintf(&doc, "- {name: r%d, who: [everybody], where: 'team=team-%d', logins: [root], duration: {max: 1h}, automatic: true}\n", i, i)
	}
	p, err := Parse([]byte(doc.String()))
	if err != nil {
		b.Fatal(err)
	}
	labels := map[string]string{"team": fmt.Sprintf("team-%d", benchRules-1), "env": "prod"}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Match([]string{"everybody"}, labels, "root"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkExplain(b *testing.B) {
	c := newCity(b)
	i := 0
	for b.Loop() {
		h := c.hosts[i*7919%len(c.hosts)]
		c.policy.Explain(Ask{c.people[i%len(c.people)], h.labels, h.logins[0]})
		i++
	}
}

// Of all people, who can reach one login on one host?
func BenchmarkWhoCanReachHost(b *testing.B) {
	c := newCity(b)
	people, i := 0, 0
	for b.Loop() {
		h := c.hosts[i*7919%len(c.hosts)]
		door := c.policy.WhoCanReach(h.labels, h.logins[0])
		for _, groups := range c.people {
			if door.Rule(groups) != nil {
				people++
			}
		}
		i++
	}
	b.ReportMetric(float64(people)/float64(i), "people/op")
}

// Of all hosts, what can one person reach?
func BenchmarkWhatCanPersonReach(b *testing.B) {
	c := newCity(b)
	logins, i := 0, 0
	for b.Loop() {
		reach := c.policy.WhatCanBeReached(c.people[i%len(c.people)])
		for _, h := range c.hosts {
			logins += len(reach.Logins(h.labels, h.logins))
		}
		i++
	}
	b.ReportMetric(float64(logins)/float64(i), "logins/op")
}
