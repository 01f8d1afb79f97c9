package approvals

import (
	"fmt"
	"strings"

	"sallyport/api"
	"sallyport/approvals/policy"
)

// maxSaid is how many bytes of a value a sentence has, such as a query: the differences
// have all of it.
const maxSaid = 200

// deployment says what deploy agents can do on hosts, and no longer, by an entry that
// changes.
func (n effectNames) deployment(c policy.DeploymentChange) api.DeploymentEffect {
	out := api.DeploymentEffect{Entry: c.Name, Change: "changed", Hosts: sample(c.Hosts, n.host), Differences: []api.RuleDifference{}}
	var said []string
	for _, d := range c.Differences {
		out.Differences = append(out.Differences, api.RuleDifference(d))
		if c.Was == nil {
			if d.Now != "" {
				said = append(said, d.Key+" "+clipped(d.Now))
			}
			continue
		}
		said = append(said, fmt.Sprintf("%s goes from %s to %s", d.Key, clipped(nothing(d.Was)), clipped(nothing(d.Now))))
	}
	on := "no host known now"
	if len(c.Hosts) > 0 {
		on = counted(out.Hosts, "host", "hosts")
	}
	switch {
	case c.Was == nil:
		out.Change = "added"
		out.Effect = fmt.Sprintf("deploy agents can deploy %s in %s, by the entry %s, to %s: %s", c.Now.Service, c.Now.Environment, c.Name, on, strings.Join(said, ", "))
	case c.Now == nil:
		out.Change = "removed"
		out.Effect = fmt.Sprintf("deploy agents cannot deploy %s in %s any more, which the entry %s let them do to %s", c.Was.Service, c.Was.Environment, c.Name, on)
	default:
		out.Effect = fmt.Sprintf("%s in %s is deployed on other terms, by the entry %s, to %s: %s", c.Now.Service, c.Now.Environment, c.Name, on, strings.Join(said, ", "))
	}
	return out
}

func clipped(s string) string {
	if len(s) <= maxSaid {
		return s
	}
	return strings.ToValidUTF8(s[:maxSaid], "") + "…"
}
