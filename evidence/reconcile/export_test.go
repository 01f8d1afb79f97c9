package reconcile

// Remembered is how many things are.
func (g *Engine) Remembered() int {
	return len(g.deployments) + len(g.ending) + len(g.open) + len(g.runs) + len(g.requests) + len(g.emergencies) + len(g.live) + len(g.notes) + len(g.lent) + len(g.intents.open) + len(g.policies.proposals)
}
