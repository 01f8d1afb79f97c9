package approvals

import (
	"testing"

	"sallyport/approvals/policy"
)

func TestAgentSentences(t *testing.T) {
	t.Parallel()
	web := &policy.Agent{Name: "web", Issuer: "https://issuer.example.com"}
	for want, c := range map[string]policy.AgentChange{
		"jobs become deploy agents, by the entry web: issuer https://issuer.example.com, github.ref main or dev": {Name: "web", Now: web,
			Differences: []policy.Difference{{Key: "issuer", Now: "https://issuer.example.com"}, {Key: "github.ref", Now: "main or dev"}}},
		"jobs are deploy agents no more by the entry web of https://issuer.example.com": {Name: "web", Was: web},
		"other jobs are deploy agents by the entry web, or in another way: github.ref goes from main to dev, github.actor_id must be 1, " +
			"github.environment, which was production, does not matter any more": {Name: "web", Was: web, Now: web, Differences: []policy.Difference{
			{Key: "github.ref", Was: "main", Now: "dev"}, {Key: "github.actor_id", Now: "1"}, {Key: "github.environment", Was: "production"}}},
	} {
		if got := agentSentence(c); got != want {
			t.Errorf("got  %q\nwant %q", got, want)
		}
		e := effectNames{}.show(policy.Effect{Agents: []policy.AgentChange{c}})
		if len(e.Summary) != 1 || e.Summary[0] != want {
			t.Errorf("the summary is %q", e.Summary)
		}
	}
}
