package policy

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"sallyport/approvals/claims"
)

// agentTests runs a trust entry's own cases, by the code that decides on tokens. The
// first that fails is an *Error at its place.
func (p *reader) agentTests(path string, list []agentTest, entry *Agent) error {
	if len(list) > MaxAgentTests {
		return p.fault(path+".tests", "%d cases are more than %d", len(list), MaxAgentTests)
	}
	for i, c := range list {
		if err := p.agentTest(fmt.Sprintf("%s.tests[%d]", path, i), c, entry); err != nil {
			return err
		}
	}
	return nil
}

func (p *reader) agentTest(path string, c agentTest, entry *Agent) error {
	switch {
	case strings.TrimSpace(c.Name) == "":
		return p.fault(path+".name", "a case needs a name")
	case c.Trusted == nil:
		return p.fault(path, "the case %q does not say whether the token is trusted", c.Name)
	case *c.Trusted && len(c.Unmet) > 0:
		return p.fault(path+".unmet", "a token that is trusted has nothing that it does not meet")
	}
	token, err := caseToken(c, entry)
	if err != nil {
		return p.fault(path+".claims", "the case %q has claims that no token has: %v", c.Name, err)
	}
	var unmet []string
	for _, f := range claims.Match(entry.Wants(), token) {
		unmet = append(unmet, f.Claim)
	}
	switch {
	case *c.Trusted && len(unmet) > 0:
		return p.fault(path+".trusted", "the case %q fails: the entry does not trust it for %s", c.Name, strings.Join(unmet, ", "))
	case !*c.Trusted && len(unmet) == 0:
		return p.fault(path+".trusted", "the case %q fails: the entry trusts it", c.Name)
	case c.Unmet != nil && !slices.Equal(sortedList(c.Unmet), sortedList(unmet)):
		return p.fault(path+".unmet", "the case %q fails: the entry does not trust it for %s", c.Name, strings.Join(unmet, ", "))
	}
	return nil
}

// caseToken is the case's token: the entry's issuer's, and what the case says.
func caseToken(c agentTest, entry *Agent) (claims.Claims, error) {
	all := map[string]any{"iss": entry.Issuer, "sub": "somebody", "aud": "sallyport"}
	maps.Copy(all, c.Claims)
	text, err := json.Marshal(all)
	if err != nil {
		return claims.Claims{}, err
	}
	return claims.Parse(text)
}
