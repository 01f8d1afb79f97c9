package agenttest

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"

	"github.com/google/uuid"

	"sallyport/approvals/policy"
)

// shape is what tokens of a provider look like, as its documentation and tokens that
// people have published have them, and what trusts one.
type shape struct {
	path   string // of the issuer's URL
	header map[string]any
	claims string // JSON
	entry  string // what the policy lists, below the entry's own keys
	// times are the registered ones beside exp and iat that tokens have.
	nbf, jti bool
	life     int // seconds
	// list: the audience is a list of one.
	list bool
}

var shapes = map[policy.AgentProvider]shape{
	// https://docs.github.com/en/actions/reference/security/oidc
	policy.GitHub: {nbf: true, jti: true, life: 300, header: map[string]any{"typ": "JWT", "x5t": "eBZ_cn3sXYAd0ch4THBKHIgOwOE"},
		claims: `{
  "sub": "repo:acme/web:environment:production", "ref": "refs/heads/main", "sha": "9f3182061f1e2cca4702c368cbc039b7dc9d4485",
  "repository": "acme/web", "repository_owner": "acme", "repository_owner_id": "65061", "repository_id": "74061",
  "repository_visibility": "private", "run_id": "22259804324", "run_number": "42", "run_attempt": "1", "check_run_id": "90000001",
  "actor": "octo", "actor_id": "1201", "workflow": "deploy", "head_ref": "", "base_ref": "", "event_name": "push",
  "ref_protected": "true", "ref_type": "branch", "environment": "production", "environment_node_id": "EN_kwDOAJy2", "runner_environment": "github-hosted",
  "workflow_ref": "acme/web/.github/workflows/deploy.yml@refs/heads/main", "workflow_sha": "9f3182061f1e2cca4702c368cbc039b7dc9d4485",
  "job_workflow_ref": "acme/web/.github/workflows/deploy.yml@refs/heads/main", "job_workflow_sha": "9f3182061f1e2cca4702c368cbc039b7dc9d4485"}`,
		entry: `github:
  repository_id: ["74061"]
  repository_owner_id: ["65061"]
  event_name: [push, workflow_dispatch]
  ref: [refs/heads/main]
  environment: [production]
  workflow_ref: [acme/web/.github/workflows/deploy.yml@refs/heads/main]
  runner_environment: [github-hosted]`},
	// https://docs.gitlab.com/ci/secrets/id_token_authentication/
	policy.GitLab: {nbf: true, jti: true, life: 3600, header: map[string]any{"typ": "JWT"},
		claims: `{
  "sub": "project_path:acme/web:ref_type:branch:ref:main", "namespace_id": "72", "namespace_path": "acme", "project_id": "20", "project_path": "acme/web",
  "job_namespace_id": "72", "job_namespace_path": "acme", "job_project_id": "20", "job_project_path": "acme/web",
  "user_id": "1", "user_login": "sample-user", "user_email": "sample-user@example.com", "user_access_level": "maintainer",
  "user_identities": [{"provider": "github", "extern_uid": "2435223452345"}], "pipeline_id": "574", "pipeline_source": "push", "job_id": "302",
  "ref": "main", "ref_type": "branch", "ref_path": "refs/heads/main", "ref_protected": "true", "groups_direct": ["acme"],
  "environment": "production", "environment_protected": "true", "deployment_tier": "production", "environment_action": "start",
  "runner_id": 1, "runner_environment": "self-hosted", "sha": "714a629c0b401fdce83e847fc9589983fc6f46bc", "project_visibility": "private",
  "ci_config_ref_uri": "gitlab.example.com/acme/web//.gitlab-ci.yml@refs/heads/main", "ci_config_sha": "714a629c0b401fdce83e847fc9589983fc6f46bc"}`,
		entry: `gitlab:
  project_id: ["20"]
  namespace_id: ["72"]
  ref_path: [refs/heads/main]
  pipeline_source: [push, web]
  environment: [production]`},
	// https://buildkite.com/docs/agent/cli/reference/oidc
	policy.Buildkite: {nbf: true, jti: true, life: 300, header: map[string]any{},
		claims: `{
  "sub": "organization:acme-inc:pipeline:web:ref:refs/heads/main:commit:9f3182061f1e2cca4702c368cbc039b7dc9d4485:step:deploy",
  "organization_slug": "acme-inc", "pipeline_slug": "web", "build_number": 5, "build_branch": "main", "build_tag": null,
  "build_commit": "9f3182061f1e2cca4702c368cbc039b7dc9d4485", "step_key": "deploy", "job_id": "0184990a-477b-4fa8-9968-496074483cee",
  "agent_id": "0184990a-4782-42b5-afc1-16715b10b8ff", "build_source": "ui", "runner_environment": "buildkite-hosted",
  "organization_id": "0184990a-477b-4fa8-9968-496074483000", "pipeline_id": "0184990a-477b-4fa8-9968-496074483001"}`,
		entry: `buildkite:
  organization_id: [0184990a-477b-4fa8-9968-496074483000]
  pipeline_id: [0184990a-477b-4fa8-9968-496074483001]
  build_branch: [main]
  build_source: [ui, api]
  step_key: [deploy]`},
	// https://circleci.com/docs/guides/permissions-authentication/openid-connect-tokens/
	policy.CircleCI: {life: 3600, path: "/org/" + circleOrg, header: map[string]any{"typ": "JWT"},
		claims: `{
  "sub": "org/` + circleOrg + `/project/76543210-ba98-fedc-3210-edcba0987654/user/5ccce1a4-9fd4-4c5b-a4dc-5b5a1ff7a3a1/vcs-origin/github.com/acme/web/vcs-ref/refs/heads/main",
  "oidc.circleci.com/org-id": "` + circleOrg + `", "oidc.circleci.com/project-id": "76543210-ba98-fedc-3210-edcba0987654",
  "oidc.circleci.com/context-ids": ["a74579f1-2e7d-451e-b009-5c082ad2729e", "cb32986e-2f6f-4f43-b2bd-d3c2fd98e903"],
  "oidc.circleci.com/job-id": "0e4b5a8c-7a2b-4d4f-9d0e-1d7cf8f3c001", "oidc.circleci.com/pipeline-id": "0e4b5a8c-7a2b-4d4f-9d0e-1d7cf8f3c002",
  "oidc.circleci.com/pipeline-definition-id": "0e4b5a8c-7a2b-4d4f-9d0e-1d7cf8f3c003", "oidc.circleci.com/workflow-id": "0e4b5a8c-7a2b-4d4f-9d0e-1d7cf8f3c004",
  "oidc.circleci.com/ssh-rerun": false, "oidc.circleci.com/vcs-origin": "github.com/acme/web", "oidc.circleci.com/vcs-ref": "refs/heads/main"}`,
		entry: `circleci:
  project_id: [76543210-ba98-fedc-3210-edcba0987654]
  vcs_origin: [github.com/acme/web]
  vcs_ref: [refs/heads/main]
  context_ids: [cb32986e-2f6f-4f43-b2bd-d3c2fd98e903]`},
	// https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/
	policy.Kubernetes: {nbf: true, jti: true, life: 3600, list: true, header: map[string]any{},
		claims: `{
  "kubernetes.io": {"namespace": "deploy", "node": {"name": "worker-1", "uid": "517eb86e-b863-451b-bf70-86cb61439a3a"},
    "pod": {"name": "deploy-web-x7k2p", "uid": "0d8b260e-ef0e-45fb-be8e-ff44f97722e8"},
    "serviceaccount": {"name": "web", "uid": "e6a8680e-d103-4cce-80ea-03acbbeacf7d"}, "warnafter": 1717674962},
  "sub": "system:serviceaccount:deploy:web"}`,
		entry: `kubernetes:
  namespace: [deploy]
  service_account: [web]
  service_account_uid: [e6a8680e-d103-4cce-80ea-03acbbeacf7d]`},
	// https://github.com/spiffe/spiffe/blob/main/standards/JWT-SVID.md
	policy.SPIFFE: {life: 300, list: true, header: map[string]any{"typ": "JWT"},
		claims: `{"sub": "spiffe://example.org/deploy/web"}`,
		entry: `spiffe:
  id: [spiffe://example.org/deploy/web]`},
	policy.Generic: {jti: true, life: 600, header: map[string]any{"typ": "JWT"},
		claims: `{"sub": "job:deploy-web", "job": "deploy-web", "controller": "ci-1"}`,
		entry: `generic:
  sub: ["job:deploy-web"]
  controller: [ci-1]`},
}

const circleOrg = "2a3b4c5d-0123-4567-89ab-cdef01234567"

// Claims are those of a new token for the audience, issued now: with the true names and
// types, and true to the issuer's Entry. Whoever gets them may change them.
func (i *Issuer) Claims(audience string) map[string]any {
	s, now := shapes[i.Provider], i.clock.Now().Unix()
	claims := map[string]any{}
	if err := json.Unmarshal([]byte(s.claims), &claims); err != nil {
		panic(err)
	}
	claims["iss"], claims["aud"], claims["iat"], claims["exp"] = i.URL, audience, now, now+int64(s.life)
	if s.list {
		claims["aud"] = []string{audience}
	}
	if s.nbf {
		claims["nbf"] = now
	}
	if s.jti {
		claims["jti"] = uuid.NewString()
	}
	return claims
}

// Entry is the trust entry for the issuer's tokens, an item of agents: in a policy.
// More are further keys of the entry, each a line of YAML.
func (i *Issuer) Entry(name string, more ...string) string {
	lines := append([]string{"issuer: " + i.URL, "addresses: [127.0.0.0/8]"}, more...)
	lines = append(lines, strings.Split(shapes[i.Provider].entry, "\n")...)
	return fmt.Sprintf("  - name: %s\n    %s\n", name, strings.Join(lines, "\n    "))
}

// Providers are all kinds of issuers.
func Providers() []policy.AgentProvider {
	return []policy.AgentProvider{policy.GitHub, policy.GitLab, policy.Buildkite, policy.CircleCI, policy.Kubernetes, policy.SPIFFE, policy.Generic}
}

// headerOf is a token's header, for one of the issuer's keys.
func headerOf(provider policy.AgentProvider, algorithm, id string) map[string]any {
	header := maps.Clone(shapes[provider].header)
	header["alg"], header["kid"] = algorithm, id
	return header
}
