package pages

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/broker"
	"sallyport/broker/hosts"
)

// Explain allows what the house's hosts have rules for.
func (h *house) Explain(_ context.Context, c identity.Caller, in api.ExplainInput) (api.Explanation, error) {
	if in.Person != "" && !reads(c) {
		return api.Explanation{}, identity.ErrUnknownPerson
	}
	e := api.Explanation{Person: c.API(), Host: in.Host, Login: in.Login, Code: "no-rule", Detail: "no rule of the policy lets you ask for " + in.Login,
		Hint: "ask for another login", Rules: []api.RuleVerdict{}}
	host, err := h.find(in.Host)
	if err != nil {
		e.Detail = "there is no such host, or no rule lets you ask for it"
		return e, nil
	}
	for i, rule := range host.Rules {
		v := api.RuleVerdict{Rule: rule.Rule, Number: i + 1, Fits: rule.Login == in.Login, Decides: rule.Login == in.Login}
		if v.Fits {
			e.Allowed, e.Detail, e.Rule, e.Automatic, e.Approvers = true, "", &host.Rules[i], rule.Automatic, rule.Approvers
		} else {
			v.Unmet = []api.UnmetCondition{{Condition: "logins", Detail: "it is for the logins " + rule.Login}, {Condition: "who", Detail: hostile}}
		}
		e.Rules = append(e.Rules, v)
	}
	return e, nil
}

func (h *house) HostReach(_ context.Context, c identity.Caller, name, login, _ string, _ int) (api.HostReach, error) {
	if !reads(c) {
		return api.HostReach{}, approvals.ErrNotReader
	}
	host, err := h.find(name)
	if err != nil {
		return api.HostReach{}, err
	}
	out := api.HostReach{HostID: host.ID, Host: host.Name, Login: login, Policy: api.PolicyRef{Version: 3}}
	for _, rule := range host.Rules {
		if rule.Login == login {
			out.Rules = append(out.Rules, api.ReachRule{Rule: rule.Rule, Groups: []string{"engineers", hostile}, Automatic: rule.Automatic, Approvers: rule.Approvers})
			out.Count = 1
			out.People.Items = append(out.People.Items, api.ReachPerson{Person: h.person("engineer"), Rule: rule.Rule, Emergency: true})
		}
	}
	return out, nil
}

func (h *house) PersonReach(_ context.Context, c identity.Caller, who string, f hosts.Filter) (api.PersonReach, error) {
	if who != "" && !reads(c) {
		return api.PersonReach{}, identity.ErrUnknownPerson
	}
	list, err := h.ListHosts(context.Background(), c, broker.HostFilter{Filter: f})
	out := api.PersonReach{Person: c.API(), Policy: api.PolicyRef{Version: 3}}
	for _, host := range list.Items {
		reach := api.ReachHost{HostID: host.ID, Host: host.Name, Labels: host.Labels}
		for _, rule := range host.Rules {
			reach.Logins = append(reach.Logins, api.ReachLogin{Login: rule.Login, Rule: rule.Rule, MaxDuration: rule.MaxDuration, Automatic: rule.Automatic})
		}
		out.Hosts.Items = append(out.Hosts.Items, reach)
	}
	return out, err
}

func TestWhyPage(t *testing.T) {
	t.Parallel()
	h, v := open(t)
	h.hosts[0].Logins = append(h.hosts[0].Logins, "postgres")
	contains(t, v.page("engineer", "/hosts/db-1"), `href="/why?host=db-1&amp;login=postgres"`)
	contains(t, v.page("engineer", "/why"), `name="login"`, "Nothing is asked")
	contains(t, v.page("engineer", "/why?host=db-1&login=postgres"), "cannot ask for", "No rule of the policy lets you ask for postgres.", "it is for the logins dba", "Ask for another login.")
	contains(t, v.page("engineer", "/why?host=db-1&login=dba"), "can ask for", "Who could approve it", "1 person", "approvers", "fits, and decides")
	contains(t, v.page("engineer", "/why?host=web-1&login=web"), "approved at once, with nobody asked")
	for as, others := range map[string]bool{"engineer": false, "operator": true, "auditor": true} {
		if got := strings.Contains(v.page(as, "/why"), `name="person"`); got != others {
			t.Errorf("%s is offered other people: %v", as, got)
		}
	}
	if w := v.get("engineer", "/why?host=db-1&login=dba&person=per-1"); w.Code != http.StatusNotFound {
		t.Errorf("about others: status %d", w.Code)
	}
}

func TestReachPages(t *testing.T) {
	t.Parallel()
	_, v := open(t)
	contains(t, v.page("engineer", "/hosts"), `href="/reach"`, `href="/why"`)
	contains(t, v.page("engineer", "/reach"), "db-1", "by databases", "automatic")
	if strings.Contains(v.page("engineer", "/hosts/db-1"), "/reach?login=") || strings.Contains(v.page("engineer", "/reach"), `name="person"`) {
		t.Error("an engineer is offered what only operators and auditors may see")
	}
	for _, as := range []string{"operator", "auditor"} {
		contains(t, v.page(as, "/hosts/db-1"), `href="/hosts/db-1/reach?login=dba"`)
		contains(t, v.page(as, "/hosts/db-1/reach?login=dba"), "members of engineers or", "Erin Engineer", "1 person", "in an emergency at once", "version 3")
		contains(t, v.page(as, "/hosts/db-1/reach?login=nobody"), "Nobody")
		contains(t, v.page(as, "/reach?person=engineer%40example.com"), "db-1")
	}
	for path, want := range map[string]int{"/hosts/db-1/reach?login=dba": http.StatusForbidden, "/reach?person=per-1": http.StatusNotFound, "/reach?labels=((": http.StatusUnprocessableEntity} {
		if w := v.get("engineer", path); w.Code != want {
			t.Errorf("GET %s: status %d, want %d", path, w.Code, want)
		}
	}
}
