package policy

import "k8s.io/apimachinery/pkg/labels"

// RuleVerdict says of one rule whether it fits an ask, and if not, why.
type RuleVerdict struct {
	Rule *Rule
	// Unmet are the conditions that the ask does not meet; none if the rule fits.
	Unmet []Condition
	// Decides marks the one that Match returns: the first that fits.
	Decides bool
}

// Explain says of each rule, in the order of the document, whether it fits the
// ask. What decides is what Match says.
func (p *Policy) Explain(a Ask) []RuleVerdict {
	decides, _ := p.Match(a.Groups, a.Labels, a.Login)
	out := make([]RuleVerdict, len(p.Rules))
	for i := range p.Rules {
		r := &p.Rules[i]
		out[i] = RuleVerdict{Rule: r, Unmet: r.unmet(a), Decides: r == decides}
	}
	return out
}

// UnmetLabels are the parts of the rule's selector that the labels do not meet.
func (r *Rule) UnmetLabels(hostLabels map[string]string) []string {
	out := []string{}
	requirements, _ := r.Where.Requirements()
	for _, q := range requirements {
		if !q.Matches(labels.Set(hostLabels)) {
			out = append(out, q.String())
		}
	}
	return out
}

// Selector is the rule's where in words: "*" for every host.
func (r *Rule) Selector() string {
	if r.Where.Empty() {
		return "*"
	}
	return r.Where.String()
}
