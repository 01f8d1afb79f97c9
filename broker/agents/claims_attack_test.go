package agents_test

import (
	"maps"
	"strings"
	"testing"
	"time"

	"sallyport/approvals/policy"
	"sallyport/broker/agents"
	"sallyport/internal/agenttest"
)

// try shows a token of the provider whose claims were changed, as a new job.
func (k *kit) try(p policy.AgentProvider, change func(claims map[string]any)) error {
	k.t.Helper()
	j, i := k.job(), k.issuers[p]
	audience := url
	if k.policy.Load().Agent(string(p)).Binding == policy.BindAudience {
		audience = j.Audience(url)
	}
	claims := i.Claims(audience)
	change(claims)
	_, err := k.redeem(j, i.Token(k.t, claims))
	return err
}

// set changes claims, or deletes those that become nil.
func set(values map[string]any) func(map[string]any) {
	return func(claims map[string]any) {
		for name, value := range values {
			if claims[name] = value; value == nil {
				delete(claims, name)
			}
		}
	}
}

func attack(t *testing.T, p policy.AgentProvider, values map[string]any, says ...string) {
	t.Helper()
	k := newKit(t, p)
	must(t, k.try(p, func(map[string]any) {}))
	k.refused(k.try(p, set(values)), agents.ErrUntrusted, says...)
	if events := k.leaves("agent.refused"); len(events) != 1 || !strings.Contains(events[0], `"verified":true`) {
		t.Errorf("events: %s", events)
	}
	if k.runs() != 1 {
		t.Errorf("%d runs", k.runs())
	}
}

func TestForkPullRequestToken(t *testing.T) {
	t.Parallel()
	attack(t, policy.GitHub, map[string]any{"event_name": "pull_request", "ref": "refs/pull/7/merge", "head_ref": "main", "base_ref": "main",
		"sub": "repo:acme/web:pull_request", "environment": nil, "ref_protected": "false"}, "event_name")
}

// The event's name is a lie that no issuer tells; the refs say the same again.
func TestPullRequestByAnotherName(t *testing.T) {
	t.Parallel()
	attack(t, policy.GitHub, map[string]any{"head_ref": "evil", "base_ref": "main"}, "head_ref", "pull request")
}

// It runs on the default branch, with what a stranger sent.
func TestPullRequestTargetToken(t *testing.T) {
	t.Parallel()
	attack(t, policy.GitHub, map[string]any{"event_name": "pull_request_target"}, "event_name")
}

func TestForkRunsTheSameWorkflow(t *testing.T) {
	t.Parallel()
	attack(t, policy.GitHub, map[string]any{"repository": "mallory/web", "repository_owner": "mallory", "repository_id": "90210", "repository_owner_id": "666",
		"sub": "repo:mallory/web:environment:production"})
}

// The organization gave its name up, and somebody else took it: all names are right.
func TestRenamedRepositoryWithRecycledName(t *testing.T) {
	t.Parallel()
	attack(t, policy.GitHub, map[string]any{"repository_id": "90210", "repository_owner_id": "666"})
	attack(t, policy.GitHub, map[string]any{"repository_id": "90210"})
	attack(t, policy.GitLab, map[string]any{"project_id": "666", "job_project_id": "666"})
	attack(t, policy.Buildkite, map[string]any{"pipeline_id": "0184990a-477b-4fa8-9968-496074483666"})
	attack(t, policy.Kubernetes, map[string]any{"kubernetes.io": map[string]any{"namespace": "deploy", "pod": map[string]any{"name": "p", "uid": "u"},
		"serviceaccount": map[string]any{"name": "web", "uid": "00000000-d103-4cce-80ea-03acbbeacf7d"}}})
}

// A job on any branch may name an environment; one that is not there is created, and
// asks nobody.
func TestEnvironmentWithoutProtection(t *testing.T) {
	t.Parallel()
	attack(t, policy.GitHub, map[string]any{"ref": "refs/heads/mallory", "ref_protected": "false"}, "ref")
	attack(t, policy.GitLab, map[string]any{"environment_protected": "false"}, "environment_protected")
	attack(t, policy.GitLab, map[string]any{"environment_protected": nil}, "environment_protected")
	attack(t, policy.GitLab, map[string]any{"ref_protected": "false"}, "ref_protected")
}

// The pipeline runs in the trusted project, with a fork's code: what project_id says
// has changed over the years, so both must be the same.
func TestMergeRequestFromAForkInTheTargetsPipeline(t *testing.T) {
	t.Parallel()
	attack(t, policy.GitLab, map[string]any{"job_project_id": "666"}, "job_project_id")
	attack(t, policy.GitLab, map[string]any{"project_id": "666"})
	attack(t, policy.GitLab, map[string]any{"pipeline_source": "merge_request_event"}, "pipeline_source")
}

// Versions that do not know job_project_id are let in by what they say.
func TestGitLabBeforeJobProject(t *testing.T) {
	t.Parallel()
	k := newKit(t, policy.GitLab)
	must(t, k.try(policy.GitLab, set(map[string]any{"job_project_id": nil})))
}

func TestJobStartedAgainWithSSH(t *testing.T) {
	t.Parallel()
	for _, value := range []any{true, nil, "maybe", "", 0} {
		attack(t, policy.CircleCI, map[string]any{"oidc.circleci.com/ssh-rerun": value}, "ssh-rerun")
	}
}

func TestForkOfACircleProject(t *testing.T) {
	t.Parallel()
	attack(t, policy.CircleCI, map[string]any{"oidc.circleci.com/vcs-origin": "github.com/mallory/web"}, "vcs-origin")
	attack(t, policy.CircleCI, map[string]any{"oidc.circleci.com/context-ids": []string{}}, "context-ids")
	attack(t, policy.CircleCI, map[string]any{"oidc.circleci.com/org-id": "00000000-0123-4567-89ab-cdef01234567"}, "org-id")
}

func TestServiceAccountTokenWithoutAPod(t *testing.T) {
	t.Parallel()
	account := map[string]any{"name": "web", "uid": "e6a8680e-d103-4cce-80ea-03acbbeacf7d"}
	attack(t, policy.Kubernetes, map[string]any{"kubernetes.io": map[string]any{"namespace": "deploy", "serviceaccount": account}}, "pod")
	attack(t, policy.Kubernetes, map[string]any{"sub": "system:serviceaccount:deploy:other"}, "sub")
}

func TestAnotherSPIFFEID(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"spiffe://example.org/deploy/web/x", "spiffe://example.org/deploy", "spiffe://example.com/deploy/web",
		"SPIFFE://example.org/deploy/web", "spiffe://example.org/deploy/web/", "spiffe://example.org/deploy/../deploy/web"} {
		attack(t, policy.SPIFFE, map[string]any{"sub": id})
	}
}

// Whatever the policy lists must be there, as text, exactly.
func TestMissingClaim(t *testing.T) {
	t.Parallel()
	k := newKit(t, agenttest.Providers()...)
	for _, p := range agenttest.Providers() {
		for _, d := range k.policy.Load().Agent(string(p)).Claims {
			for what, value := range map[string]any{"missing": nil, "empty": "", "an object": map[string]any{"a": d.Values[0]}, "an empty list": []any{},
				"a list of lists": []any{[]any{d.Values[0]}}, "longer": d.Values[0] + "-attacker", "shorter": d.Values[0][:len(d.Values[0])-1],
				"a pattern": "*", "other letters": strings.ToUpper(d.Values[0]), "spaced": " " + d.Values[0], "true": true, "a path": "x/" + d.Values[0]} {
				if what == "other letters" && value == d.Values[0] {
					continue
				}
				err := k.try(p, func(claims map[string]any) {
					within := claims
					for _, name := range d.Path[:len(d.Path)-1] {
						inner := maps.Clone(within[name].(map[string]any))
						within[name] = inner
						within = inner
					}
					set(map[string]any{d.Path[len(d.Path)-1]: value})(within)
				})
				if !strings.Contains(errText(err), "trust") && !strings.Contains(errText(err), "cannot be read") {
					t.Errorf("%s: %s is %s: %v", p, d.Claim(), what, err)
				}
				k.clock.Advance(time.Second) // so that there are not too many at once
			}
		}
	}
	if k.runs() != 0 {
		t.Errorf("%d runs", k.runs())
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestWrongAudience(t *testing.T) {
	t.Parallel()
	for _, aud := range []any{"https://other.example.com", url + "/", strings.ToUpper(url), url + "/api", "", []string{}} {
		attack(t, policy.GitLab, map[string]any{"aud": aud}, "aud")
	}
	// The audience that binds nothing, where the issuer is to bind the key.
	attack(t, policy.GitHub, map[string]any{"aud": url}, "aud")
}

// Any of the others could show it here.
func TestSeveralAudiences(t *testing.T) {
	t.Parallel()
	attack(t, policy.GitLab, map[string]any{"aud": []string{url, "https://other.example.com"}}, "aud", "several")
	attack(t, policy.Kubernetes, map[string]any{"aud": []string{url, url}}, "aud", "several")
}

func TestClockSkew(t *testing.T) {
	t.Parallel()
	at := func(d time.Duration) int64 { return start.Add(d).Unix() }
	k := newKit(t, policy.GitLab)
	for name, c := range map[string]struct {
		claims map[string]any
		says   string // empty: it is taken
	}{
		"the issuer is a minute ahead":       {map[string]any{"iat": at(time.Minute), "nbf": at(time.Minute), "exp": at(10 * time.Minute)}, ""},
		"issued in the future":               {map[string]any{"iat": at(62 * time.Second), "nbf": at(0), "exp": at(10 * time.Minute)}, "iat"},
		"not good yet":                       {map[string]any{"nbf": at(62 * time.Second)}, "nbf"},
		"expired within the skew":            {map[string]any{"iat": at(-10 * time.Minute), "nbf": at(-10 * time.Minute), "exp": at(-59 * time.Second)}, ""},
		"expired":                            {map[string]any{"iat": at(-10 * time.Minute), "nbf": at(-10 * time.Minute), "exp": at(-61 * time.Second)}, "exp"},
		"good for too long":                  {map[string]any{"exp": at(time.Hour + time.Second)}, "exp"},
		"good for centuries":                 {map[string]any{"exp": 253402300798}, "exp"},
		"ends before it begins":              {map[string]any{"iat": at(30 * time.Second), "exp": at(20 * time.Second)}, "exp"},
		"without an end":                     {map[string]any{"exp": nil}, "exp"},
		"without a beginning":                {map[string]any{"iat": nil}, "iat"},
		"with fractions":                     {map[string]any{"iat": float64(at(0)) + 0.5}, ""},
		"the end is a text":                  {map[string]any{"exp": "1900000000"}, "read"},
		"the end is nothing":                 {map[string]any{"exp": 0}, "read"},
		"the end is beyond all numbers":      {map[string]any{"exp": 1e300}, "read"},
		"not good before a time beyond them": {map[string]any{"nbf": -1e300}, "read"},
	} {
		err := k.try(policy.GitLab, set(c.claims))
		if c.says == "" && err != nil || c.says != "" && !strings.Contains(errText(err), c.says) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
}

// The first entry that fits decides, and others for the issuer do not matter.
func TestEntriesAreTriedInOrder(t *testing.T) {
	t.Parallel()
	k := newKit(t, policy.GitHub)
	i := k.issuers[policy.GitHub]
	staging := strings.ReplaceAll(i.Entry("staging"), "[production]", "[staging]")
	k.inForce(noAgents + staging + i.Entry("production") + i.Entry("second"))
	j := k.job()
	run, err := k.redeem(j, j.Token(t, i))
	if err != nil || run.Entry != "production" {
		t.Errorf("%q, %v", run.Entry, err)
	}
}

// Who is told which claim fails, and who is not: anybody can get a token of GitHub.
func TestStrangersLearnNothingOfThePolicy(t *testing.T) {
	t.Parallel()
	k := newKit(t, policy.GitHub)
	err := k.try(policy.GitHub, set(map[string]any{"repository_id": "90210", "ref": "refs/heads/x"}))
	k.refused(err, agents.ErrUntrusted)
	for _, secret := range []string{"github", "ref", "74061", "production"} {
		if strings.Contains(errText(err), secret) {
			t.Errorf("a stranger hears %q", err)
		}
	}
	err = k.try(policy.GitHub, set(map[string]any{"ref": "refs/heads/x"}))
	k.refused(err, agents.ErrUntrusted, "ref", `"github"`)
	if strings.Contains(errText(err), "refs/heads/main") {
		t.Errorf("the right repository hears what is listed: %v", err)
	}
}
