package approvals

import (
	"context"
	"fmt"
	"strings"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/approvals/policy"
)

const (
	maxEffects = 100 // of rules, and of reach
	maxNames   = 10  // of people or hosts in one
	maxSummary = 12  // sentences
)

// effect says what the one policy changes about the other, for the people who have
// signed in and the hosts that there are.
func (s *Service) effect(ctx context.Context, was, now *policy.Policy) (*api.PolicyEffect, error) {
	everybody, err := s.cfg.People.Everybody(ctx)
	if err != nil {
		return nil, err
	}
	targets, err := s.cfg.Hosts.Targets(ctx)
	if err != nil {
		return nil, err
	}
	people := make([][]string, len(everybody))
	for i, p := range everybody {
		people[i] = p.Groups
	}
	hosts := make([]policy.Place, len(targets))
	for i, t := range targets {
		hosts[i] = policy.Place{Labels: t.Labels, Logins: t.Logins}
	}
	names := effectNames{everybody, targets}
	return names.show(policy.EffectOf(was, now, people, hosts, maxEffects)), nil
}

// effectNames knows people and hosts by their places in the lists compared.
type effectNames struct {
	people  []identity.Person
	targets []Target
}

func (n effectNames) person(i int) string { return n.people[i].DisplayName() }
func (n effectNames) host(i int) string   { return n.targets[i].Name }

func sample(places []int, name func(int) string) api.Sample {
	out := api.Sample{Count: len(places), Names: []string{}}
	for _, i := range places[:min(len(places), maxNames)] {
		out.Names = append(out.Names, name(i))
	}
	return out
}

func (n effectNames) show(e policy.Effect) *api.PolicyEffect {
	out := &api.PolicyEffect{Summary: []string{}, Roles: []api.RoleEffect{}, Rules: []api.RuleEffect{},
		Deployments: []api.DeploymentEffect{}, Reach: []api.AccessEffect{}, More: e.More, People: len(n.people), Hosts: len(n.targets)}
	if a := e.Assurance; a != nil {
		out.Summary = append(out.Summary, fmt.Sprintf("what proves decisions on the policy itself goes from assurance %s to %s", a.Was, a.Now))
	}
	for _, r := range e.Roles {
		said := api.RoleEffect{Role: r.Role, Was: notNil(r.Was), Now: notNil(r.Now),
			Gains: sample(r.Gains, n.person), Loses: sample(r.Loses, n.person)}
		said.Effect = fmt.Sprintf("the role %s goes from %s to %s", r.Role, groupsOr(r.Was), groupsOr(r.Now))
		if len(r.Gains) > 0 {
			said.Effect += fmt.Sprintf(": %s", verb(said.Gains, "gains", "gain", "it"))
		}
		if len(r.Loses) > 0 {
			said.Effect += fmt.Sprintf("; %s", verb(said.Loses, "loses", "lose", "it"))
		}
		out.Roles = append(out.Roles, said)
		out.Summary = append(out.Summary, said.Effect)
	}
	for _, c := range e.Agents {
		out.Summary = append(out.Summary, agentSentence(c))
	}
	for i, c := range e.Deployments {
		said := n.deployment(c)
		if i < maxEffects {
			out.Deployments = append(out.Deployments, said)
		} else {
			out.More++
		}
		out.Summary = append(out.Summary, said.Effect)
	}
	for _, p := range e.Reach {
		said := n.access(p)
		out.Reach = append(out.Reach, said)
		if p.Change == policy.Gains {
			out.Summary = append(out.Summary, said.Effect)
		}
	}
	for i, r := range e.Rules {
		said := ruleEffect(r)
		if i < maxEffects {
			out.Rules = append(out.Rules, said)
		} else {
			out.More++
		}
		out.Summary = append(out.Summary, ruleSentence(said))
	}
	for _, a := range out.Reach {
		if a.Change == string(policy.Loses) {
			out.Summary = append(out.Summary, a.Effect)
		}
	}
	if len(out.Summary) == 0 {
		out.Summary = append(out.Summary, "nothing changes for anybody")
	}
	if more := len(out.Summary) - maxSummary; more > 1 {
		out.Summary = append(out.Summary[:maxSummary], fmt.Sprintf("and %d more changes, listed below", more))
	}
	return out
}

// access is one change of what people can reach.
func (n effectNames) access(p policy.Passage) api.AccessEffect {
	out := api.AccessEffect{Change: string(p.Change), Login: p.Login,
		People: sample(p.People, n.person), Hosts: sample(p.Hosts, n.host)}
	if p.Was != nil {
		out.Was = p.Was.Name
	}
	if p.Now != nil {
		out.Now = p.Now.Name
	}
	on := fmt.Sprintf("%s on %s", p.Login, counted(out.Hosts, "host", "hosts"))
	switch p.Change {
	case policy.Gains:
		out.Effect = fmt.Sprintf("%s, by rule %s, %s", verb(out.People, "gains", "gain", on), out.Now, need(p.Now))
	case policy.Loses:
		out.Effect = verb(out.People, "loses", "lose", on) + ", which rule " + out.Was + " gave"
	default:
		out.Effect = verb(out.People, "gets", "get", on) + " on other terms, by rule " + out.Now
		if out.Now != out.Was {
			out.Effect += " instead of " + out.Was
		}
	}
	return out
}

// need says what an ask under the rule needs.
func need(r *policy.Rule) string {
	switch {
	case r.Automatic && r.During == nil:
		return "automatically"
	case r.Automatic:
		return "automatically at some times"
	}
	n := 0
	for _, stage := range r.Stages {
		for _, slot := range stage.Slots {
			n += slot.Count
		}
	}
	if n == 1 {
		return "with 1 approval"
	}
	return fmt.Sprintf("with %d approvals", n)
}

func ruleEffect(r policy.RuleChange) api.RuleEffect {
	out := api.RuleEffect{Rule: r.Name, Change: "changed", Differences: []api.RuleDifference{}}
	switch {
	case r.Was == nil:
		out.Change = "added"
	case r.Now == nil:
		out.Change = "removed"
	}
	for _, d := range r.Differences {
		out.Differences = append(out.Differences, api.RuleDifference(d))
	}
	return out
}

// ruleSentence is a rule's change in few words: "rule databases changes approvals
// from 1 from leads to 2 from leads".
func ruleSentence(r api.RuleEffect) string {
	if r.Change != "changed" {
		return fmt.Sprintf("rule %s is %s", r.Rule, r.Change)
	}
	said := make([]string, len(r.Differences))
	for i, d := range r.Differences {
		said[i] = fmt.Sprintf("%s from %s to %s", d.Key, nothing(d.Was), nothing(d.Now))
	}
	return fmt.Sprintf("rule %s changes %s", r.Rule, strings.Join(said, "; "))
}

func nothing(s string) string {
	if s == "" {
		return "nothing"
	}
	return s
}

func groupsOr(groups []string) string {
	if len(groups) == 0 {
		return "nobody"
	}
	return strings.Join(groups, " and ")
}

// verb joins people, a verb in their number and what it is about: "3 people gain
// root (Ann, Bob, Cy)".
func verb(people api.Sample, one, many, what string) string {
	does := many
	if people.Count == 1 {
		does = one
	}
	return fmt.Sprintf("%s %s %s", counted(people, "person", "people"), does, what)
}

// counted is a number with a noun and names: "3 hosts (db-1, db-2, db-3)".
func counted(s api.Sample, one, many string) string {
	if s.Count == 1 {
		return fmt.Sprintf("1 %s (%s)", one, s.Names[0])
	}
	const few = 3
	shown := strings.Join(s.Names[:min(few, len(s.Names))], ", ")
	if s.Count > few {
		shown += ", …"
	}
	return fmt.Sprintf("%d %s (%s)", s.Count, many, shown)
}
