package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// AgentChange is a trust entry that is new, that is gone, or that trusts other jobs or
// in another way.
type AgentChange struct {
	Name        string
	Was, Now    *Agent // nil: the version does not have it
	Differences []Difference
}

// agentChanges are in the order of the new document, those that it dropped behind.
func agentChanges(was, now *Policy) []AgentChange {
	var out []AgentChange
	for i := range now.Agents {
		a := &now.Agents[i]
		if before := was.Agent(a.Name); before == nil || before.Hash() != a.Hash() {
			out = append(out, AgentChange{a.Name, before, a, agentDifferences(before, a)})
		}
	}
	for i := range was.Agents {
		if a := &was.Agents[i]; now.Agent(a.Name) == nil {
			out = append(out, AgentChange{a.Name, a, nil, agentDifferences(a, nil)})
		}
	}
	return out
}

// agentDifferences compares two versions of an entry, either of which may be nil.
func agentDifferences(was, now *Agent) []Difference { return differ(was.facts(), now.facts()) }

// differ compares facts, of which each side may have some that the other has not.
func differ(before, after []Fact) []Difference {
	var out []Difference
	for _, f := range after {
		if was := valueOf(before, f.Key); was != f.Value {
			out = append(out, Difference{f.Key, was, f.Value})
		}
	}
	for _, f := range before {
		if !slices.ContainsFunc(after, func(g Fact) bool { return g.Key == f.Key }) {
			out = append(out, Difference{Key: f.Key, Was: f.Value})
		}
	}
	return out
}

func valueOf(facts []Fact, key string) string {
	if i := slices.IndexFunc(facts, func(f Fact) bool { return f.Key == key }); i >= 0 {
		return facts[i].Value
	}
	return ""
}

// facts are all that the entry trusts, in words; none of no entry.
func (a *Agent) facts() []Fact {
	if a == nil {
		return nil
	}
	out := []Fact{
		{"issuer", a.Issuer},
		{"provider", string(a.Provider)},
	}
	for _, d := range a.Claims {
		out = append(out, Fact{string(a.Provider) + "." + d.Key, strings.Join(sortedList(d.Values), " or ")})
	}
	keys := ""
	if a.KeysText != "" {
		sum := sha256.Sum256([]byte(a.KeysText))
		keys = fmt.Sprintf("%d in the policy (%s)", a.Keys.Len(), hex.EncodeToString(sum[:8]))
	}
	for _, f := range []Fact{
		{"audience", a.Audience}, {"binding", string(a.Binding)}, {"lifetime", length(a.Lifetime)}, {"max_token_life", length(a.MaxTokenLife)},
		{"addresses", strings.Trim(fmt.Sprint(a.Addresses), "[]")}, {"keys", keys},
	} {
		if f.Value != "" {
			out = append(out, f)
		}
	}
	return out
}

func sortedList(list []string) []string { return slices.Sorted(slices.Values(list)) }
