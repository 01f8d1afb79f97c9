package policy

import "slices"

// Approvers are the groups that some rule's stages name, each once, in the order
// of the document.
func (p *Policy) Approvers() []string {
	var out []string
	for _, r := range p.Rules {
		for _, stage := range r.Stages {
			for _, slot := range stage.Slots {
				for _, g := range slot.Groups {
					if !slices.Contains(out, g) {
						out = append(out, g)
					}
				}
			}
		}
	}
	return out
}
