package approvals

import (
	"context"
	"fmt"
	"strings"

	"sallyport/approvals/policy"
)

// InForce is the version of the policy in force, for one decision of a room above,
// which must not ask twice. It refuses with ErrPolicyUnknown when that cannot be known.
func (s *Service) InForce(ctx context.Context) (*policy.Policy, error) { return s.current(ctx) }

// agentSentence says which jobs become deploy agents, or are none any more.
func agentSentence(c policy.AgentChange) string {
	var said []string
	for _, d := range c.Differences {
		switch {
		case c.Was == nil:
			said = append(said, d.Key+" "+d.Now)
		case d.Was == "":
			said = append(said, fmt.Sprintf("%s must be %s", d.Key, d.Now))
		case d.Now == "":
			said = append(said, fmt.Sprintf("%s, which was %s, does not matter any more", d.Key, d.Was))
		default:
			said = append(said, fmt.Sprintf("%s goes from %s to %s", d.Key, d.Was, d.Now))
		}
	}
	switch {
	case c.Was == nil:
		return fmt.Sprintf("jobs become deploy agents, by the entry %s: %s", c.Name, strings.Join(said, ", "))
	case c.Now == nil:
		return fmt.Sprintf("jobs are deploy agents no more by the entry %s of %s", c.Name, c.Was.Issuer)
	}
	return fmt.Sprintf("other jobs are deploy agents by the entry %s, or in another way: %s", c.Name, strings.Join(said, ", "))
}
