package policy

import (
	"slices"

	"k8s.io/apimachinery/pkg/labels"
)

// Door is one login on one host, seen from inside: who can reach it? It answers
// for any number of people what Match would, after reading the rules once.
type Door struct {
	policy *Policy
	first  map[string]int // per group, the first rule that lets its members through
}

// WhoCanReach returns the door of a login on a host with the labels.
func (p *Policy) WhoCanReach(hostLabels map[string]string, login string) *Door {
	d := &Door{policy: p, first: map[string]int{}}
	for i := range p.Rules {
		r := &p.Rules[i]
		if !slices.Contains(r.Logins, login) || !r.Where.Matches(labels.Set(hostLabels)) {
			continue
		}
		for _, g := range r.Groups {
			if _, there := d.first[g]; !there {
				d.first[g] = i
			}
		}
	}
	return d
}

// Rule is the rule that decides for members of the groups, or nil: as the rules
// for each group are known, theirs is the first of those.
func (d *Door) Rule(groups []string) *Rule {
	best := len(d.policy.Rules)
	for _, g := range groups {
		if i, there := d.first[g]; there {
			best = min(best, i)
		}
	}
	if best == len(d.policy.Rules) {
		return nil
	}
	return &d.policy.Rules[best]
}

// RuleGroups is a rule with those of its groups whose members it decides for, if
// they are in no other group.
type RuleGroups struct {
	Rule   *Rule
	Groups []string
}

// Rules are those that let somebody through, in the order of the document.
func (d *Door) Rules() []RuleGroups {
	groups := map[int][]string{}
	for g, i := range d.first {
		groups[i] = append(groups[i], g)
	}
	var out []RuleGroups
	for i := range d.policy.Rules {
		if list := groups[i]; len(list) > 0 {
			slices.Sort(list)
			out = append(out, RuleGroups{Rule: &d.policy.Rules[i], Groups: list})
		}
	}
	return out
}

// Reach is the policy as members of some groups see it: what can they reach? It
// answers for any number of hosts what Policy.Logins would, after reading the
// rules once.
type Reach struct {
	policy *Policy
	index  index // of the rules that name one of the groups
}

// WhatCanBeReached returns the reach of members of the groups.
func (p *Policy) WhatCanBeReached(groups []string) *Reach {
	return &Reach{policy: p, index: newIndex(p.Rules, func(r *Rule) bool { return overlap(r.Groups, groups) })}
}

// Empty reports whether no rule names any of the groups.
func (w *Reach) Empty() bool { return len(w.index) == 0 }

// Logins are those of a host's logins that can be asked for, with the rules that
// would decide.
func (w *Reach) Logins(hostLabels map[string]string, hostLogins []string) []LoginRule {
	var out []LoginRule
	for _, login := range hostLogins {
		for i := range w.index[login].candidates(hostLabels) {
			if r := &w.policy.Rules[i]; r.Where.Matches(labels.Set(hostLabels)) {
				out = append(out, LoginRule{Login: login, Rule: r})
				break
			}
		}
	}
	return out
}
