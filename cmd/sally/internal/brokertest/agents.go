package brokertest

import (
	"encoding/json"
	"net/http"

	"sallyport/api"
)

// explainAgent answers as a broker that trusts the token good.good.good, and of another
// wants another branch. Who is signed in hears which.
func (b *Broker) explainAgent(w http.ResponseWriter, r *http.Request) {
	b.Lock()
	defer b.Unlock()
	signedIn := r.Header.Get("Authorization") != ""
	if signedIn {
		if _, ok := b.caller(w, r); !ok {
			return
		}
	}
	var in api.AgentExplainInput
	if json.NewDecoder(r.Body).Decode(&in) != nil {
		refuse(w, 400, "malformed-json", "the body is not JSON", "")
		return
	}
	e := api.AgentExplanation{Issuer: "https://issuer.example.com", Subject: "repo:acme/web", Verified: true}
	switch in.Token {
	case "good.good.good":
		e.Admitted, e.Entry = true, "web-production"
		e.Entries = []api.AgentVerdict{{Entry: "web-production", Number: 1, Fits: true, Unmet: []api.AgentUnmet{}}}
	case "bad.bad.bad":
		e.Code, e.Detail, e.Hint = "agent-not-trusted", "no entry of the policy trusts this token", "look at the claims"
		unmet := api.AgentUnmet{Claim: "ref", Got: "refs/heads/dev", Detail: "the entry does not list it"}
		if signedIn {
			unmet.Want = []string{"refs/heads/main"}
		}
		e.Entries = []api.AgentVerdict{{Entry: "web-production", Number: 1, Unmet: []api.AgentUnmet{unmet, {Claim: "exp", Detail: "the token does not say it"}}}}
	default:
		refuse(w, 422, "agent-token-unreadable", "the token cannot be read", "send one OIDC token")
		return
	}
	answer(w, 200, e)
}
