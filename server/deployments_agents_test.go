package server

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"sallyport/api"
	"sallyport/approvals/policy"
	"sallyport/internal/agenttest"
	"sallyport/internal/clock"
	"sallyport/internal/pgtest"
)

// pipeline is a job of a GitLab project that may deploy the api to two databases.
type pipeline struct {
	*kit
	issuer *agenttest.Issuer
	job    *agenttest.Job
}

func newPipeline(t *testing.T) *pipeline {
	t.Helper()
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
    plan: {batches: [{hosts: 1}]}
`)); err != nil {
			t.Fatal(err)
		}
		c.IssuerRoots = agenttest.Roots(i)
	})
	k.host(t, "db-1", "database", "dba")
	k.host(t, "db-2", "database", "dba")
	return &pipeline{k, i, agenttest.NewJob(t, k.cfg.URL, clock.System)}
}

// send makes a call as the job, with its token if it is the first, and reads the answer.
func (p *pipeline) send(t *testing.T, method, path string, in any, token string, want int, out any) {
	t.Helper()
	body := []byte{}
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			t.Fatal(err)
		}
	}
	call := p.job.Call(t, method, path, body)
	if token != "" {
		call = p.job.First(t, method, path, body, token)
	}
	var pairs []string
	for name, values := range agenttest.Headers(call, token) {
		pairs = append(pairs, name, values[0])
	}
	answer := p.do(t, "", method, path, string(body), pairs...)
	if want >= 400 {
		*out.(*api.Problem) = problemOf(t, answer, want)
		return
	}
	switch out := out.(type) {
	case *api.Deployment:
		*out = get[api.Deployment](t, answer, want)
	case *api.AgentCertificate:
		*out = get[api.AgentCertificate](t, answer, want)
	}
}

// A job deploys over HTTP: its token is taken once, its key signs every call, and a
// person sees how it stands.
func TestAJobDeploysOverHTTP(t *testing.T) {
	t.Parallel()
	k := newPipeline(t)
	token := k.job.Token(t, k.issuer)
	send := func(method, path string, in any, token string, want int, out any) {
		t.Helper()
		k.send(t, method, path, in, token, want, out)
	}
	in := api.DeploymentInput{Service: "api", Environment: "prod", Digest: "sha256:" + strings.Repeat("ab", 32)}
	var d api.Deployment
	var p api.Problem
	other := in
	other.Service = "other"
	send("POST", "/api/v1/deployments", other, token, 403, &p) // refused, and the token is not taken by it
	send("POST", "/api/v1/deployments", in, token, 200, &d)
	var again api.Deployment
	send("POST", "/api/v1/deployments", in, "", 200, &again)
	if d.State != "active" || d.Epoch != 1 || again.ID != d.ID || len(d.Batches) != 2 {
		t.Fatalf("opened %+v, and again %+v", d, again)
	}
	path := "/api/v1/deployments/" + d.ID
	send("POST", path+"/batches/2", api.BatchInput{Epoch: d.Epoch}, "", 409, &p)
	if p.Code != "batch-before" {
		t.Errorf("batch 2: %s", p.Code)
	}
	send("POST", path+"/batches/1?wait=1s", api.BatchInput{Epoch: d.Epoch}, "", 200, &d)
	var cert api.AgentCertificate
	send("POST", path+"/certificates", api.AgentCertificateInput{Epoch: d.Epoch, Batch: 1, Host: "db-1"}, "", 200, &cert)
	if !strings.Contains(cert.Certificate.Certificate, "cert-v01@openssh.com") || !strings.Contains(cert.SSHConfig, "Host db-1") {
		t.Errorf("the certificate is %+v", cert)
	}
	send("POST", path+"/certificates", api.AgentCertificateInput{Epoch: d.Epoch, Batch: 1, Host: "db-2"}, "", 403, &p)
	send("POST", path+"/batches/1/report", api.ReportInput{Epoch: d.Epoch, Results: map[string]string{"db-1": "ok"}}, "", 200, &d)
	send("GET", path+"/progress", nil, "", 200, &d)
	if s := d.Batches[0].State; s == "open" || s == "pending" {
		t.Errorf("after the report the batch is %s", s)
	}
	send("POST", path+"/finish", api.EndInput{Epoch: d.Epoch}, "", 409, &p)
	seen := get[api.Deployment](t, k.do(t, "operator", "GET", path, ""), 200)
	if seen.ID != d.ID || len(seen.Actions) == 0 {
		t.Errorf("an operator sees %+v", seen)
	}
	problemOf(t, k.do(t, "engineer", "GET", path, ""), 404)
	get[api.Deployment](t, k.do(t, "operator", "POST", path+"/control", `{"action":"abort","reason":"a test"}`), 200)
	list := get[api.Page[api.Deployment]](t, k.do(t, "auditor", "GET", "/api/v1/deployments?service=api", ""), 200)
	if len(list.Items) != 1 {
		t.Errorf("%d deployments are listed", len(list.Items))
	}
	for _, method := range []string{"GET", "POST"} {
		problemOf(t, k.do(t, "operator", method, path+map[string]string{"GET": "/progress", "POST": "/batches/1"}[method], fmt.Sprint(map[string]string{"POST": `{"epoch":"1"}`}[method])), 401)
	}
}

// Whoever steals the token of a job and shows it with a key of their own ends the job's
// run, and with it what the run has open: nobody can tell which of the two is the thief.
func TestAStolenTokenShutsTheOpenBatch(t *testing.T) {
	t.Parallel()
	k := newPipeline(t)
	token := k.job.Token(t, k.issuer)
	in := api.DeploymentInput{Service: "api", Environment: "prod", Digest: "sha256:" + strings.Repeat("ab", 32)}
	var d api.Deployment
	var p api.Problem
	k.send(t, "POST", "/api/v1/deployments", in, token, 200, &d)
	path := "/api/v1/deployments/" + d.ID
	k.send(t, "POST", path+"/batches/1", api.BatchInput{Epoch: d.Epoch}, "", 200, &d)
	thief := &pipeline{k.kit, k.issuer, agenttest.NewJob(t, k.cfg.URL, clock.System)}
	thief.send(t, "POST", "/api/v1/deployments", in, token, 403, &p)
	if p.Code != "agent-token-shared" {
		t.Errorf("the thief was refused with %s", p.Code)
	}
	k.send(t, "POST", path+"/certificates", api.AgentCertificateInput{Epoch: d.Epoch, Batch: 1, Host: "db-1"}, "", 401, &p)
	if p.Code != "agent-run-over" {
		t.Errorf("the job was refused with %s", p.Code)
	}
	seen := get[api.Deployment](t, k.do(t, "operator", "GET", path, ""), 200)
	if seen.State != "held" || seen.Holder != "" || seen.Batches[0].State == "open" {
		t.Errorf("the deployment is %s, batch 1 %s, the lease of %q", seen.State, seen.Batches[0].State, seen.Holder)
	}
}

// An operator ends a run that should not be: what it has open closes, and its deployment
// waits for another job. Nobody else can.
func TestAnOperatorRevokesARun(t *testing.T) {
	t.Parallel()
	k := newPipeline(t)
	in := api.DeploymentInput{Service: "api", Environment: "prod", Digest: "sha256:" + strings.Repeat("ab", 32)}
	var d api.Deployment
	var p api.Problem
	k.send(t, "POST", "/api/v1/deployments", in, k.job.Token(t, k.issuer), 200, &d)
	path := "/api/v1/deployments/" + d.ID
	k.send(t, "POST", path+"/batches/1", api.BatchInput{Epoch: d.Epoch}, "", 200, &d)
	body := fmt.Sprintf(`{"agent":%q,"reason":"nobody started it"}`, d.OpenedBy)
	for _, who := range []string{"engineer", "auditor"} {
		problemOf(t, k.do(t, who, "POST", "/api/v1/revocations", body), 403)
	}
	problemOf(t, k.do(t, "operator", "POST", "/api/v1/revocations", `{"agent":"run-000000000000","reason":"x"}`), 404)
	problemOf(t, k.do(t, "operator", "POST", "/api/v1/revocations", fmt.Sprintf(`{"agent":%q,"host":"db-1","reason":"x"}`, d.OpenedBy)), 422)
	if out := get[api.Revocation](t, k.do(t, "operator", "POST", "/api/v1/revocations", body), 200); len(out.Runs) != 1 || out.Runs[0] != d.OpenedBy {
		t.Errorf("revoked %+v", out)
	}
	if out := get[api.Revocation](t, k.do(t, "operator", "POST", "/api/v1/revocations", body), 200); len(out.Runs) != 0 {
		t.Errorf("revoked again: %+v", out)
	}
	k.send(t, "POST", path+"/certificates", api.AgentCertificateInput{Epoch: d.Epoch, Batch: 1, Host: "db-1"}, "", 401, &p)
	seen := get[api.Deployment](t, k.do(t, "operator", "GET", path, ""), 200)
	if seen.State != "held" || seen.Holder != "" || seen.Batches[0].State == "open" || !strings.Contains(seen.Blockers[0].Why, "nobody started it") {
		t.Errorf("the deployment is %s: %+v", seen.State, seen.Blockers)
	}
	events := get[api.Page[api.Event]](t, k.do(t, "auditor", "GET", "/api/v1/audit/events?type=agent.revoked", ""), 200)
	if len(events.Items) != 1 || events.Items[0].Actor.Kind != "person" {
		t.Errorf("the log says %+v", events.Items)
	}
}
