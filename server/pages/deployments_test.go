package pages

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/approvals/evidence"
	"sallyport/broker/rollout"
)

var _ Deployments = (*rollout.Service)(nil)

// rolling is a house with deployments.
func rolling(t *testing.T) (*house, visit) {
	h, v := open(t)
	h.roll()
	return h, v
}

// of is the first deployment of the service.
func (h *house) of(service string) *api.DeploymentAccount {
	for _, a := range h.deployed {
		if a.Service == service {
			return a
		}
	}
	return nil
}

func (h *house) at(service string) string { return "/deployments/" + h.of(service).ID }

// The list has what is under way first, what waits for somebody before the rest, and
// narrows by service and state.
func TestTheListOfDeployments(t *testing.T) {
	t.Parallel()
	h, v := rolling(t)
	page := v.page("operator", "/deployments")
	contains(t, page, "Under way", "5 deployments", "Batch 2 is open: 3 of 6 hosts reported", "Held: batch 1 failed: a host has drifted", "cursor=dep-older", ">Awaiting approval<")
	if held, active := strings.Index(page, h.at("mail")), strings.Index(page, h.at("redis")); held > active {
		t.Error("what goes on by itself stands before what does not")
	}
	page = v.page("operator", "/deployments?service=mail&state=held")
	contains(t, page, h.at("mail"), `<option value="held" selected>Held</option>`)
	if strings.Contains(page, h.at("redis")) {
		t.Error("the filter is not heeded")
	}
	page = v.page("operator", "/deployments?cursor=dep-older")
	if contains(t, page, "Newest"); strings.Contains(page, "Under way") {
		t.Error("what is under way stands on a later page, too")
	}
	if w := v.get("operator", "/deployments?state=strange"); w.Code != http.StatusUnprocessableEntity {
		t.Errorf("a state that there is not: %d", w.Code)
	}
}

// The navigation leads to deployments for those who may see some.
func TestOnlyThoseWhoMaySeeDeploymentsAreLedThere(t *testing.T) {
	t.Parallel()
	h, v := rolling(t)
	for who, sees := range map[string]bool{"operator": true, "auditor": true, "approver": true, "engineer": false} {
		if got := strings.Contains(v.page(who, "/hosts"), `href="/deployments"`); got != sees {
			t.Errorf("%s is led to deployments: %v", who, got)
		}
		want := http.StatusOK
		if !sees {
			want = http.StatusNotFound
		}
		if w := v.get(who, h.at("redis")); w.Code != want {
			t.Errorf("%s gets %d, want %d", who, w.Code, want)
		}
	}
}

// The page says where it stands, host by host, what started it and what agents did; by
// marks and words, not by colours alone.
func TestADeploymentsPage(t *testing.T) {
	t.Parallel()
	h, v := rolling(t)
	page := v.page("auditor", h.at("redis"))
	contains(t, page, "Batch 2 is open: 3 of 6 hosts reported", "It closes at the latest", "1 of 3 batches passed", "1 of at most 1 failed host",
		`title="redis-02.eu-west: reported ok"><span aria-hidden="true">◐`, `title="redis-04.eu-west: failed"><span aria-hidden="true">✗`,
		`title="redis-05.eu-west: open"><span aria-hidden="true">○`, `title="redis-08.eu-west: waiting"><span aria-hidden="true">·`, `title="redis-01.eu-west: sealed and verified"><span aria-hidden="true">✓`,
		"60 waiting", "sum(rate(errors_total{job=&#34;redis&#34;}[5m])) is &lt; 0.01", "0.0034 is &lt; 0.01", "10 of 10 in a row",
		`href="https://github.com/acme/redis/actions/runs/22259804324"`, "repo:acme/redis:environment:production", strings.Repeat("714a629c", 5),
		"certificate 2050 for 1 session", "session of deploy from 192.0.2.9", "open now", "4 certificates, 4 sessions (1 open now)",
		"/usr/local/bin/deploy-redis sha256:", "/receipt", "/log?text="+h.of("redis").ID)
	if strings.Contains(page, "/control") || strings.Contains(page, "/decide") {
		t.Error("an auditor is offered to do something")
	}
	contains(t, v.page("operator", h.at("redis")), "/control", `value="stop"`, `value="abort"`)
	contains(t, v.page("operator", h.at("api")), "Batch 2 is sealed and soaks", "soak ends", `data-start="`)
	page = v.page("operator", h.at("mail"))
	contains(t, page, "Held: nothing is opened until somebody acts", "Batch 1 failed: a host has drifted.", "Abort the deployment or roll it back.",
		"Nothing is deployed in the freeze", "1 host is not proved to be sealed:", "a stray key &lt;i&gt;", "There is no way back")
	if strings.Contains(page, `value="rollback"`) {
		t.Error("a rollback is offered that cannot be")
	}
	page = v.page("operator", "/deployments/"+h.deployed[6].ID)
	contains(t, page, "The rollback failed", `title="redis-05.eu-west: unknown: has not shown in time that it is sealed"`, "(quarantined)")
	if strings.Contains(page, "/control") {
		t.Error("something can be done to what is over")
	}
	contains(t, v.page("operator", "/deployments/"+h.deployed[5].ID), "Complete, but 1 host is no longer known to be sealed", "People on its hosts", "/requests/req-4f8k2m9qhx1z", "without a certificate that is known",
		`title="redis-15.eu-west: to show that it is sealed"`)
	contains(t, v.page("operator", "/deployments/"+h.deployed[7].ID), "it was denied: not before the audit", "Nothing was opened.")
}

// Addresses of runs are made of nothing that could lead elsewhere.
func TestTheAddressOfARun(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		issuer string
		claims map[string]string
		want   string
	}{
		{"https://token.actions.githubusercontent.com", map[string]string{"repository": "acme/web", "run_id": "7"}, "https://github.com/acme/web/actions/runs/7"},
		{"https://gitlab.example.com/sub", map[string]string{"project_path": "acme/team/web", "job_id": "302"}, "https://gitlab.example.com/sub/acme/team/web/-/jobs/302"},
		{"https://agent.buildkite.com", map[string]string{"organization_slug": "acme-inc", "pipeline_slug": "web", "build_number": "5"}, "https://buildkite.com/acme-inc/web/builds/5"},
		{"https://ci.example.com", map[string]string{"repository": "acme/web", "run_id": "7"}, ""},
		{"https://token.actions.githubusercontent.com", map[string]string{"repository": "acme/web", "run_id": "7/../../evil"}, ""},
		{"https://token.actions.githubusercontent.com", map[string]string{"repository": "acme/web?x", "run_id": "7"}, ""},
		{"https://gitlab.example.com", map[string]string{"project_path": "//evil.example.com", "job_id": "3"}, ""},
		{"https://gitlab.example.com", map[string]string{"project_path": "a/../b", "job_id": "3"}, ""},
		{"javascript://gitlab.example.com", map[string]string{"project_path": "a/b", "job_id": "3"}, ""},
	} {
		page := deploymentPage{deploymentView: deploymentView{Deployment: api.Deployment{Claims: x.claims}}, Account: api.DeploymentAccount{Issuer: x.issuer}}
		if got := page.Run(); got != x.want {
			t.Errorf("%s, %v: %q, want %q", x.issuer, x.claims, got, x.want)
		}
	}
}

// People whose approval is waited for find it on their pages, and decide there.
func TestDecidingOnADeployment(t *testing.T) {
	t.Parallel()
	h, v := rolling(t)
	contains(t, v.page("approver", "/"), "Deployments that wait for me", h.at("billing"), h.at("search"))
	contains(t, v.page("approver", "/approvals"), h.at("billing"), h.at("search"))
	if page := v.page("security", "/"); strings.Contains(page, h.at("mail")) {
		t.Error("going on in a freeze is shown as if it waited")
	}
	contains(t, v.page("approver", h.at("billing")), "Your decision: may it start?", "on 67 hosts, 3 batches", "0 of 1 from approvers", "1 of 1 from security", "Sam Security", "Scanned; nothing new in it.")
	page := v.page("operator", h.at("billing"))
	if contains(t, page, "You are in no group whose approval is waited for."); strings.Contains(page, "/decide") {
		t.Error("somebody who is not asked is offered to decide")
	}

	form := url.Values{"about": {"start"}, "terms_hash": {h.of("billing").TermsHash}, "verdict": {"deny"}, "reason": {" "}}
	w := v.do("approver", "POST", h.at("billing")+"/decide", form)
	if contains(t, w.Body.String(), "A denial needs a comment."); w.Code != http.StatusUnprocessableEntity || len(h.of("billing").Decisions) != 1 {
		t.Errorf("a denial without a word: %d", w.Code)
	}
	form.Set("terms_hash", "another")
	form.Set("reason", "It is <fine>.")
	form.Set("verdict", "approve")
	w = v.do("approver", "POST", h.at("billing")+"/decide", form)
	if contains(t, w.Body.String(), "These are not the terms of the deployment.", "It is &lt;fine&gt;."); w.Code != http.StatusConflict {
		t.Errorf("other terms: %d", w.Code)
	}
	form.Set("terms_hash", h.of("billing").TermsHash)
	if w = v.do("approver", "POST", h.at("billing")+"/decide", form); w.Code != http.StatusSeeOther || w.Header().Get("Location") != h.at("billing") {
		t.Errorf("approving: %d to %s", w.Code, w.Header().Get("Location"))
	}
	contains(t, v.page("approver", h.at("billing")), "Ada Approver", "It is &lt;fine&gt;.")

	v.do("approver", "POST", h.at("search")+"/decide", url.Values{"about": {"gate"}, "gate": {"dba"}, "batch": {"2"}, "verdict": {"approve"}, "terms_hash": {h.of("search").TermsHash}})
	v.do("security", "POST", h.at("mail")+"/decide", url.Values{"about": {"override"}, "verdict": {"approve"}, "hours": {"4"}, "reason": {"the fix"}, "terms_hash": {h.of("mail").TermsHash}})
	n := len(h.inputs)
	gate, override := last[api.DeploymentDecisionInput](h.inputs[:n], 1), last[api.DeploymentDecisionInput](h.inputs[:n], 0)
	if gate.Gate != "dba" || gate.Batch != 2 || gate.About != "gate" {
		t.Errorf("the gate's decision is %+v", gate)
	}
	if override.Until == nil || !override.Until.Equal(h.clock.Now().Add(4*time.Hour)) || override.Comment != "the fix" {
		t.Errorf("the override is %+v", override)
	}
	if w := v.do("security", "POST", h.at("mail")+"/decide", form, "Sec-Fetch-Site", "cross-site"); w.Code != http.StatusForbidden {
		t.Errorf("from another site: %d", w.Code)
	}
}

// last is the last but so many of its kind that the house was asked.
func last[T any](inputs []any, but int) (found T) {
	for i := len(inputs) - 1; i >= 0; i-- {
		if in, ok := inputs[i].(T); ok {
			if but == 0 {
				return in
			}
			but--
		}
	}
	return found
}

// A decision that the identity provider has to sign leads there, and back to the page.
func TestDecidingOnADeploymentLeadsToTheProvider(t *testing.T) {
	t.Parallel()
	h, v := rolling(t)
	h.of("billing").Assurance = evidence.Provider
	contains(t, v.page("approver", h.at("billing")), "You will pass by your identity provider")
	w := v.do("approver", "POST", h.at("billing")+"/decide", url.Values{"about": {"start"}, "verdict": {"approve"}, "terms_hash": {h.of("billing").TermsHash}})
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "id.example.com") || len(h.of("billing").Decisions) != 1 {
		t.Errorf("%d, %s", w.Code, w.Body)
	}
}

// Those who control it stop it with a reason; without one they are told, and what they
// wrote stays.
func TestControllingADeployment(t *testing.T) {
	t.Parallel()
	h, v := rolling(t)
	control := func(action, reason string) (int, string) {
		w := v.do("operator", "POST", h.at("redis")+"/control", url.Values{"action": {action}, "reason": {reason}})
		return w.Code, w.Body.String()
	}
	if status, page := control("stop", " "); status != http.StatusUnprocessableEntity || !strings.Contains(page, "Say why, in your own words.") {
		t.Errorf("without a reason: %d", status)
	}
	if status, _ := control("stop", "errors everywhere"); status != http.StatusSeeOther {
		t.Errorf("stopping: %d", status)
	}
	page := v.page("operator", h.at("redis"))
	contains(t, page, "Held. Batch 2 is open", "Errors everywhere.", `value="resume"`)
	if strings.Contains(page, `value="stop"`) {
		t.Error("what is stopped can be stopped")
	}
	if in := last[api.ControlInput](h.inputs, 0); in != (api.ControlInput{Action: "stop", Reason: "errors everywhere"}) {
		t.Errorf("asked for %+v", in)
	}
}

// An open page gets what is new, and nothing while nothing is.
func TestADeploymentsPageFollows(t *testing.T) {
	t.Parallel()
	h, v := rolling(t)
	page := v.page("operator", h.at("redis"))
	_, after, _ := strings.Cut(page, `id="live" data-version="`)
	since, _, _ := strings.Cut(after, `"`)
	fresh := v.page("operator", h.at("redis")+"/changes?since=older-x")
	if contains(t, fresh, `data-version="`+since+`"`); strings.Contains(fresh, "<nav") {
		t.Error("the whole page comes, or another")
	}
	lease := h.clock.Now().Add(time.Hour)
	h.of("redis").LeaseUntil = &lease
	if !strings.Contains(v.page("operator", h.at("redis")), since) {
		t.Error("an agent that renews its lease changes the page")
	}
	h.of("redis").Batches[1].Hosts[4].Result = "ok"
	contains(t, v.page("operator", h.at("redis")+"/changes?since="+since), "4 of 6 hosts reported")
}

// A host's page names its last deployment, and how the host stands in it.
func TestAHostsPageNamesItsLastDeployment(t *testing.T) {
	t.Parallel()
	h, v := rolling(t)
	contains(t, v.page("operator", "/hosts/db-1"), "Last deployment", h.at("redis"), "Batch 2: reported ok")
	if strings.Contains(v.page("engineer", "/hosts/db-1"), "Last deployment") {
		t.Error("somebody who may not see it is told")
	}
}

// All hosts of a large deployment are in the line; of the lists below it each is cut.
func TestALargeDeploymentsPage(t *testing.T) {
	t.Parallel()
	h, v := rolling(t)
	a := h.of("redis")
	a.Batches = []api.DeploymentBatch{made(1, 1, 2000, "passed", sealedHost)}
	page := v.page("operator", h.at("redis"))
	contains(t, page, "2000 sealed and verified", "1800 hosts more are not listed here.")
	if n := strings.Count(page, `class="cell cell-sealed" title`); n != 2000 {
		t.Errorf("%d cells", n)
	}
	if len(page) > 1<<20 {
		t.Errorf("the page has %d bytes", len(page))
	}
}
