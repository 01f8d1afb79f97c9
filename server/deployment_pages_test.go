package server

import (
	"net/http"
	"regexp"
	"strings"
	"testing"

	"sallyport/api"
	"sallyport/approvals/policy"
	"sallyport/internal/agenttest"
	"sallyport/internal/clock"
	"sallyport/internal/pgtest"
)

// page is a page for somebody, which must be answered with the status.
func (k *kit) page(t *testing.T, who, path string, want int) string {
	t.Helper()
	a := k.do(t, who, "GET", path, "", "Accept", "text/html")
	if a.StatusCode != want {
		t.Fatalf("GET %s as %s: %d, want %d\n%s", path, who, a.StatusCode, want, a.body)
	}
	return string(a.body)
}

// post sends a form as a browser does.
func (k *kit) post(t *testing.T, who, path, form string, want int) string {
	t.Helper()
	a := k.do(t, who, "POST", path, form, "Accept", "text/html", "Content-Type", "application/x-www-form-urlencoded", "Sec-Fetch-Site", "same-origin")
	if a.StatusCode != want {
		t.Fatalf("POST %s as %s: %d, want %d\n%s", path, who, a.StatusCode, want, a.body)
	}
	return string(a.body)
}

// A deployment is approved, followed and stopped on its pages, by those who may.
func TestADeploymentOnItsPages(t *testing.T) {
	t.Parallel()
	i := agenttest.New(t, policy.GitLab, clock.System)
	k := newKitOn(t, pgtest.New(t), func(c *Config) {
		var err error
		if c.Policy, err = policy.Parse([]byte(testPolicy + "agents:\n" + i.Entry("web-production") + `
deployments:
  - name: api-prod
    service: api
    environment: prod
    agents: [web-production]
    where: class=database
    login: dba
    command: /usr/local/bin/deploy {digest}
    certificate: {source_address: [192.0.2.0/24]}
    plan: {canary: {hosts: 1, soak: 48h}, batches: [{hosts: 1}], on_failure: hold}
    approvals: [{slots: [{groups: [approvers]}]}]
    gates: [{name: errors, prometheus: {url: "https://prometheus.example.com", query: up, is: "== 1"}}]
`)); err != nil {
			t.Fatal(err)
		}
		c.IssuerRoots = agenttest.Roots(i)
	})
	k.host(t, "db-1", "database", "dba")
	k.host(t, "db-2", "database", "dba")
	p := &pipeline{k, i, agenttest.NewJob(t, k.cfg.URL, clock.System)}
	contains := func(page string, want ...string) {
		t.Helper()
		for _, s := range want {
			if !strings.Contains(page, s) {
				t.Errorf("the page lacks %q", s)
			}
		}
	}
	contains(k.page(t, "operator", "/deployments", 200), "No deployments here")
	if strings.Contains(k.page(t, "approver", "/", 200), `href="/deployments"`) {
		t.Error("somebody is led to deployments before there is one")
	}

	var d api.Deployment
	p.send(t, "POST", "/api/v1/deployments", api.DeploymentInput{Service: "api", Environment: "prod", Digest: "sha256:" + strings.Repeat("ab", 32)}, p.job.Token(t, i), 200, &d)
	path := "/deployments/" + d.ID
	contains(k.page(t, "approver", "/", 200), "Deployments that wait for me", path, `href="/deployments"`)
	contains(k.page(t, "approver", "/approvals", 200), path)
	page := k.page(t, "approver", path, 200)
	contains(page, "It waits for approval", "Your decision: may it start?", "up is == 1, by https://prometheus.example.com", "project_path:acme/web", `/acme/web/-/jobs/302"`)
	k.page(t, "engineer", path, 404)
	terms := regexp.MustCompile(`name="terms_hash" value="([0-9a-f]+)"`).FindStringSubmatch(page)[1]
	contains(k.post(t, "operator", path+"/decide", "about=start&verdict=approve&terms_hash="+terms, 403), "You are in no group whose approval is waited for.")
	k.post(t, "approver", path+"/decide", "about=start&verdict=approve&reason=go&terms_hash="+terms, http.StatusSeeOther)
	contains(k.page(t, "approver", path, 200), "Canary is next: the pipeline may open it now", "approved the start")
	if strings.Contains(k.page(t, "approver", "/", 200), "Deployments that wait for me") {
		t.Error("what was approved waits still")
	}

	p.send(t, "POST", "/api"+"/v1"+path+"/batches/1", api.BatchInput{Epoch: d.Epoch}, "", 200, &d)
	var cert api.AgentCertificate
	p.send(t, "POST", "/api/v1"+path+"/certificates", api.AgentCertificateInput{Epoch: d.Epoch, Batch: 1, Host: d.Batches[0].Hosts[0].Name}, "", 200, &cert)
	page = k.page(t, "auditor", path, 200)
	contains(page, "Canary is open: 0 of 1 host reported", "1 certificate, 0 sessions", "opened a deployment of api in prod", "approved the deployment (go)", "/receipt")
	contains(k.page(t, "operator", "/hosts/"+d.Batches[0].Hosts[0].Name, 200), "Last deployment", path, "Canary: open")

	contains(k.post(t, "operator", path+"/control", "action=stop&reason=", 422), "Say why, in your own words.")
	k.post(t, "approver", path+"/control", "action=stop&reason=no", 403)
	k.post(t, "operator", path+"/control", "action=stop&reason=errors", http.StatusSeeOther)
	contains(k.page(t, "operator", path, 200), "Held", "Errors.", `value="resume"`)
	k.post(t, "operator", path+"/control", "action=abort&reason=enough", http.StatusSeeOther)
	list := k.page(t, "operator", "/deployments?service=api", 200)
	contains(list, path, `<option selected>api</option>`)
}
