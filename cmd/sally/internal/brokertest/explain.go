package brokertest

import (
	"encoding/json"
	"net/http"

	"sallyport/api"
)

// explain answers as a broker under one rule, databases, for engineers.
func (b *Broker) explain(w http.ResponseWriter, r *http.Request, who string) {
	var in api.ExplainInput
	if json.NewDecoder(r.Body).Decode(&in) != nil {
		refuse(w, 400, "malformed-json", "the body is not JSON", "")
		return
	}
	if in.Person != "" && in.Person != people[who].Email {
		refuse(w, 404, "unknown-person", "no such person", "people are known from their first sign-in on")
		return
	}
	e := api.Explanation{Person: people[who], Host: in.Host, Login: in.Login, Rules: []api.RuleVerdict{}}
	h := host(in.Host)
	switch {
	case h == nil || who != "engineer":
		e.Code, e.Detail, e.Hint = "unknown-host", "there is no such host, or no rule lets you ask for it", "list what you may ask for: sally hosts"
	case in.Login == h.Rules[0].Login:
		e.Allowed, e.Rule, e.Automatic, e.Approvers = true, &h.Rules[0], h.Rules[0].Automatic, h.Rules[0].Approvers
	default:
		e.Code, e.Detail = "no-rule", "no rule of the policy lets you ask for "+in.Login
		e.Rules = []api.RuleVerdict{{Rule: h.Rules[0].Rule, Number: 1, Unmet: []api.UnmetCondition{
			{Condition: "logins", Detail: "it is for the logins " + h.Rules[0].Login}}}}
	}
	answer(w, 200, e)
}

func (b *Broker) hostReach(w http.ResponseWriter, r *http.Request, who string) {
	h := host(r.PathValue("host"))
	if h == nil || who != "approver" {
		refuse(w, 403, "readers-only", "only operators and auditors may ask who can reach a host", "see: sally reach")
		return
	}
	rule := h.Rules[0]
	answer(w, 200, api.HostReach{HostID: h.ID, Host: h.Name, Login: r.FormValue("login"), Count: 1,
		Rules:  []api.ReachRule{{Rule: rule.Rule, Groups: []string{"engineers"}, Automatic: rule.Automatic, Approvers: rule.Approvers}},
		People: api.Page[api.ReachPerson]{Items: []api.ReachPerson{{Person: people["engineer"], Rule: rule.Rule, Automatic: rule.Automatic, Emergency: true}}}})
}

func (b *Broker) personReach(w http.ResponseWriter, r *http.Request, who string) {
	out := api.PersonReach{Person: people[who], Hosts: api.Page[api.ReachHost]{Items: []api.ReachHost{}}}
	for _, h := range hosts {
		if rule := h.Rules[0]; who == "engineer" {
			out.Hosts.Items = append(out.Hosts.Items, api.ReachHost{HostID: h.ID, Host: h.Name, Labels: h.Labels,
				Logins: []api.ReachLogin{{Login: rule.Login, Rule: rule.Rule, MaxDuration: rule.MaxDuration, Automatic: rule.Automatic}}})
		}
	}
	answer(w, 200, out)
}
