package policy

import (
	"slices"

	"k8s.io/apimachinery/pkg/labels"
)

// Ask is what the matching of rules goes by.
type Ask struct {
	Groups []string          // of who asks
	Labels map[string]string // of the host
	Login  string
}

// Condition is one of those that a rule makes, all of which an ask must meet.
type Condition string

// The conditions of a rule, by its keys.
const (
	Who    Condition = "who"    // the asker is a member of one of its groups
	Where  Condition = "where"  // its selector matches the host's labels
	Logins Condition = "logins" // the login is in its list
)

// unmet are the conditions of the rule that the ask does not meet; if there are
// none, the rule fits.
func (r *Rule) unmet(a Ask) []Condition {
	var out []Condition
	if !overlap(r.Groups, a.Groups) {
		out = append(out, Who)
	}
	if !r.Where.Matches(labels.Set(a.Labels)) {
		out = append(out, Where)
	}
	if !slices.Contains(r.Logins, a.Login) {
		out = append(out, Logins)
	}
	return out
}

// Match returns the rule that decides on an ask, or ErrNoRule: of the rules whose
// conditions are all met, the first in the document.
func (p *Policy) Match(groups []string, hostLabels map[string]string, login string) (*Rule, error) {
	for i := range p.index[login].candidates(hostLabels) {
		if r := &p.Rules[i]; overlap(r.Groups, groups) && r.Where.Matches(labels.Set(hostLabels)) {
			return r, nil
		}
	}
	return nil, ErrNoRule
}

// LoginRule is a login that may be asked for, and the rule that would decide.
type LoginRule struct {
	Login string
	Rule  *Rule
}

// Logins are those of a host's logins that members of the groups may ask for.
func (p *Policy) Logins(groups []string, hostLabels map[string]string, hostLogins []string) []LoginRule {
	var out []LoginRule
	for _, login := range hostLogins {
		if r, err := p.Match(groups, hostLabels, login); err == nil {
			out = append(out, LoginRule{Login: login, Rule: r})
		}
	}
	return out
}
