package server

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"sallyport/api"
	"sallyport/approvals/policy"
	"sallyport/internal/agenttest"
	"sallyport/internal/clock"
	"sallyport/internal/pgtest"
)

// trusting is a broker that trusts the issuer's tokens.
func trusting(t *testing.T, i *agenttest.Issuer) *kit {
	t.Helper()
	return newKitOn(t, pgtest.New(t), func(c *Config) {
		var err error
		if c.Policy, err = policy.Parse([]byte(testPolicy + "agents:\n" + i.Entry("web-production"))); err != nil {
			t.Fatal(err)
		}
		c.IssuerRoots = agenttest.Roots(i)
	})
}

const explainPath = "/api/v1/deployments/explain"

func explaining(token string) string { return fmt.Sprintf(`{"token":%q}`, token) }

func TestExplainNeedsNoSignInAndTellsOperatorsMore(t *testing.T) {
	t.Parallel()
	i := agenttest.New(t, policy.GitLab, clock.System)
	k := trusting(t, i)
	good := i.Token(t, i.Claims(k.cfg.URL))
	for _, who := range []string{"", "engineer", "operator"} {
		e := get[api.AgentExplanation](t, k.do(t, who, "POST", explainPath, explaining(good)), 200)
		if !e.Admitted || e.Entry != "web-production" || e.Policy.Version != 1 {
			t.Errorf("%s: %+v", who, e)
		}
	}
	claims := i.Claims(k.cfg.URL)
	claims["ref_path"] = "refs/heads/dev"
	bad := i.Token(t, claims)
	for who, lists := range map[string]bool{"": false, "engineer": false, "auditor": false, "operator": true} {
		e := get[api.AgentExplanation](t, k.do(t, who, "POST", explainPath, explaining(bad)), 200)
		if e.Admitted || len(e.Entries) != 1 || len(e.Entries[0].Unmet) != 1 || (len(e.Entries[0].Unmet[0].Want) > 0) != lists {
			t.Errorf("%q: %+v", who, e)
		}
	}
	if p := problemOf(t, k.do(t, "", "POST", explainPath, explaining("x")), 422); p.Code != "agent-token-unreadable" {
		t.Errorf("code %q", p.Code)
	}
	problemOf(t, k.do(t, "", "POST", explainPath, `{}`), 422)
	problemOf(t, k.do(t, "", "POST", explainPath, explaining(strings.Repeat("x", 70_000))), 413)
	if strings.Contains(k.logged.String(), good) || strings.Contains(k.logged.String(), strings.Split(good, ".")[2]) {
		t.Error("the token is in the process's log")
	}
}

// An agent, whatever it shows, is no person: it can do nothing that people do.
func TestP5_AnAgentIsNeverAPerson(t *testing.T) {
	t.Parallel()
	i := agenttest.New(t, policy.GitLab, clock.System)
	k := trusting(t, i)
	host := k.host(t, "db-1", "database", "dba")
	request := k.ask(t, host.Name, "dba")
	job := agenttest.NewJob(t, k.cfg.URL, clock.System)
	token := job.Token(t, i)
	for _, c := range []struct{ method, path, body string }{
		{"GET", "/api/v1/me", ""},
		{"GET", "/api/v1/hosts", ""},
		{"GET", "/api/v1/requests/" + request.ID, ""},
		{"POST", "/api/v1/requests", `{"host":"db-1","login":"dba","reason":"because"}`},
		{"POST", "/api/v1/requests/" + request.ID + "/decisions", `{"verdict":"approve"}`},
		{"POST", "/api/v1/requests/" + request.ID + "/certificates", `{"public_key":"ssh-ed25519 AAAA","proof":"x"}`},
		{"POST", "/api/v1/requests/" + request.ID + "/review", `{}`},
		{"POST", "/api/v1/policy/proposals", `{}`},
		{"GET", "/api/v1/audit/events", ""},
		{"GET", "/api/v1/deployments", ""},
		{"POST", "/api/v1/deployments/dep-000000000000/decisions", `{"about":"start","verdict":"approve"}`},
		{"POST", "/api/v1/deployments/dep-000000000000/control", `{"action":"resume","reason":"because"}`},
		{"POST", "/api/v1/revocations", `{"agent":"run-000000000000","reason":"because"}`},
	} {
		call := job.First(t, c.method, c.path, []byte(c.body), token)
		for what, headers := range map[string]http.Header{
			"signed, with its token": agenttest.Headers(call, token),
			"signed":                 agenttest.Headers(job.Call(t, c.method, c.path, []byte(c.body)), ""),
			"with its token alone":   {"Authorization": {"Bearer " + token}},
		} {
			var pairs []string
			for name, values := range headers {
				pairs = append(pairs, name, values[0])
			}
			if p := problemOf(t, k.do(t, "", c.method, c.path, c.body, pairs...), 401); p.Code != "sign-in-needed" && p.Code != "bad-token" {
				t.Errorf("%s %s %s: %s", what, c.method, c.path, p.Code)
			}
		}
	}
	if r := get[api.Request](t, k.do(t, "engineer", "GET", "/api/v1/requests/"+request.ID, ""), 200); r.State != api.Requested {
		t.Errorf("the request is %s", r.State)
	}
}

// A person's own sign-in does not count in a call that an agent has signed.
func TestAgentsHeadersTakeASignInAway(t *testing.T) {
	t.Parallel()
	i := agenttest.New(t, policy.GitLab, clock.System)
	k := trusting(t, i)
	job := agenttest.NewJob(t, k.cfg.URL, clock.System)
	headers := agenttest.Headers(job.Call(t, "GET", "/api/v1/me", nil), "")
	p := problemOf(t, k.do(t, "", "GET", "/api/v1/me", "", api.AgentKeyHeader, headers.Get(api.AgentKeyHeader), "Authorization", "Bearer nonsense"), 401)
	if p.Code != "sign-in-needed" {
		t.Errorf("code %q: the token was looked at", p.Code)
	}
}
