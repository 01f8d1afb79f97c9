package policy

import "sallyport/api"

// Place is what matching goes by of one host.
type Place struct {
	Labels map[string]string
	Logins []string
}

// Effect is what another policy changes: in the document, and for people and
// hosts that are known. People and hosts are named by their places in the lists
// that were compared.
type Effect struct {
	// Assurance is what proves decisions on the policy itself, if that changes.
	Assurance *AssuranceChange
	Roles     []RoleChange // operators first
	Agents    []AgentChange
	// Deployments are in the order of the new document, those that it dropped behind.
	Deployments []DeploymentChange
	Rules       []RuleChange // in the order of the new document, those that it dropped behind
	// Reach has every person, host and login whose outcome differs, once each, the
	// widest changes of a kind first, at most as many as were wanted; More counts
	// those left out.
	Reach []Passage
	More  int
}

// AssuranceChange is another assurance of decisions on the policy itself.
type AssuranceChange struct{ Was, Now Assurance }

// RoleChange is a role that other groups or other people have.
type RoleChange struct {
	Role         api.Role
	Was, Now     []string // groups
	Gains, Loses []int    // people
}

// RuleChange is a rule that is new, that is gone, or that says something else.
type RuleChange struct {
	Name        string
	Was, Now    *Rule // nil: the version does not have it
	Differences []Difference
}

// Change is what becomes of those whose outcome differs.
type Change string

// The kinds of changes.
const (
	Gains   Change = "gains"   // could not ask, and can
	Changes Change = "changes" // can still ask, on other terms
	Loses   Change = "loses"   // could ask, and cannot
)

// Passage is one change of outcome: it befalls each of the people on each of the
// hosts, for the login.
type Passage struct {
	Change   Change
	Login    string
	Was, Now *Rule // that decides; nil: none
	People   []int
	Hosts    []int
}

// EffectOf compares two policies: for each person, by their groups, on each host
// and for each of its logins, which rule decides, and on what terms. Rules that
// differ in nothing but name and description decide alike. At most limit
// passages are returned.
//
// It reads the rules once for each login and set of labels that tells hosts
// apart, and people once for each group, so that it answers for ten thousand
// people and a hundred thousand hosts while somebody waits.
func EffectOf(was, now *Policy, people [][]string, hosts []Place, limit int) Effect {
	e := Effect{Roles: roleChanges(was, now, people), Rules: ruleChanges(was, now), Agents: agentChanges(was, now),
		Deployments: deploymentChanges(was, now, hosts)}
	if was.Assurance != now.Assurance {
		e.Assurance = &AssuranceChange{was.Assurance, now.Assurance}
	}
	c := newComparison(was, now, people)
	for _, d := range c.doors(hosts) {
		c.compare(d)
	}
	e.Reach, e.More = c.passages(limit)
	return e
}

func roleChanges(was, now *Policy, people [][]string) []RoleChange {
	var out []RoleChange
	for _, role := range []api.Role{api.Operator, api.Auditor} {
		c := RoleChange{Role: role, Was: was.Roles[role], Now: now.Roles[role]}
		for i, groups := range people {
			had, has := overlap(c.Was, groups), overlap(c.Now, groups)
			switch {
			case has && !had:
				c.Gains = append(c.Gains, i)
			case had && !has:
				c.Loses = append(c.Loses, i)
			}
		}
		if sorted(c.Was) != sorted(c.Now) {
			out = append(out, c)
		}
	}
	return out
}

func ruleChanges(was, now *Policy) []RuleChange {
	old := map[string]*Rule{}
	for i := range was.Rules {
		old[was.Rules[i].Name] = &was.Rules[i]
	}
	var out []RuleChange
	for i := range now.Rules {
		r := &now.Rules[i]
		before := old[r.Name]
		delete(old, r.Name)
		if d := differences(before, r); len(d) > 0 {
			out = append(out, RuleChange{Name: r.Name, Was: before, Now: r, Differences: d})
		}
	}
	for i := range was.Rules {
		if r := &was.Rules[i]; old[r.Name] != nil {
			out = append(out, RuleChange{Name: r.Name, Was: r, Differences: differences(r, nil)})
		}
	}
	return out
}
