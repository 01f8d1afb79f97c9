package policy

import (
	"slices"

	"sallyport/api"
)

// Told are the groups whose members are told of something, each once: those that
// the rules name, in the order of the document, and operators, of proposals.
func (p *Policy) Told() []string {
	var out []string
	add := func(groups []string) {
		for _, g := range groups {
			if !slices.Contains(out, g) {
				out = append(out, g)
			}
		}
	}
	for _, r := range p.Rules {
		for _, stage := range r.Stages {
			for _, slot := range stage.Slots {
				add(slot.Groups)
			}
		}
		for _, e := range r.Escalate {
			add(e.Groups)
		}
		if r.Emergency != nil {
			add(r.Emergency.Tell)
			add(r.Emergency.ReviewBy)
		}
	}
	add(p.Roles[api.Operator])
	return out
}
