package approvals

import (
	"strings"
	"testing"

	"sallyport/approvals/policy"
)

func TestDeploymentSentences(t *testing.T) {
	t.Parallel()
	web := &policy.Deployment{Name: "web-prod", Service: "web", Environment: "prod"}
	n := effectNames{targets: []Target{{Name: "web-1"}, {Name: "web-2"}}}
	query := strings.Repeat("x", 300)
	for want, c := range map[string]policy.DeploymentChange{
		"deploy agents can deploy web in prod, by the entry web-prod, to 2 hosts (web-1, web-2): agents ci, login deploy": {Name: "web-prod", Now: web, Hosts: []int{0, 1},
			Differences: []policy.Difference{{Key: "agents", Now: "ci"}, {Key: "login", Now: "deploy"}, {Key: "control"}}},
		"deploy agents cannot deploy web in prod any more, which the entry web-prod let them do to 1 host (web-2)": {Name: "web-prod", Was: web, Hosts: []int{1},
			Differences: []policy.Difference{{Key: "agents", Was: "ci"}}},
		"web in prod is deployed on other terms, by the entry web-prod, to no host known now: command goes from a to b, gate errors goes from nothing to " + query[:200] + "…, " +
			"approvals goes from 1 from leads to nothing": {Name: "web-prod", Was: web, Now: web, Differences: []policy.Difference{
			{Key: "command", Was: "a", Now: "b"}, {Key: "gate errors", Now: query}, {Key: "approvals", Was: "1 from leads"}}},
	} {
		e := n.show(policy.Effect{Deployments: []policy.DeploymentChange{c}})
		if len(e.Summary) != 1 || e.Summary[0] != want {
			t.Errorf("got  %q\nwant %q", e.Summary, want)
		}
		if d := e.Deployments; len(d) != 1 || d[0].Effect != want || len(d[0].Differences) != len(c.Differences) || d[0].Hosts.Count != len(c.Hosts) {
			t.Errorf("it is listed as %+v", d)
		}
	}
}
