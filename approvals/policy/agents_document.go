package policy

// The part of the document that says who is a deploy agent. The tags are those of
// document, and two more: claim is where a token has what the key is about, with ">"
// between an object and what is in it, and identity marks claims that name the workload
// for good: ids that are never given to another one.
//
// Names can be given up and taken by somebody else, and a branch or an environment is
// only worth something within its repository. So each provider's ids must be there.

type agent struct {
	Name         string              `yaml:"name" need:"true" form:"rule name" doc:"Unique in the list."`
	Description  string              `yaml:"description" doc:"For people who read the policy."`
	Issuer       string              `yaml:"issuer" need:"true" form:"issuer" doc:"Exactly what tokens say in iss: an https URL."`
	Audience     string              `yaml:"audience" form:"audience" doc:"What tokens must say in aud, and nothing else; the broker's URL if silent."`
	Binding      string              `yaml:"binding" form:"binding" doc:"How a token is bound to the job's key: audience (the issuer signs the key's hash, after # in aud) or proof (the key signs the token's hash). If silent, audience for github, buildkite and spiffe, where jobs can choose it, and proof for the others."`
	Lifetime     string              `yaml:"lifetime" form:"duration" doc:"How long a run may go on making calls after its token was taken; 1h if silent, at most 6h."`
	MaxTokenLife string              `yaml:"max_token_life" form:"duration" doc:"Tokens that are good for longer, from iat to exp, are refused; 1h if silent, at most 24h."`
	Addresses    []string            `yaml:"addresses" form:"cidrs" doc:"CIDR blocks, beside public addresses, where the issuer may be asked for its keys; none if silent."`
	Keys         string              `yaml:"keys" doc:"The issuer's JWK set, as JSON, where the broker cannot reach it; if silent, the issuer is asked."`
	GitHub       *githubClaims       `yaml:"github" doc:"Jobs of GitHub Actions."`
	GitLab       *gitlabClaims       `yaml:"gitlab" doc:"Jobs of GitLab CI, by ID tokens."`
	Buildkite    *buildkiteClaims    `yaml:"buildkite" doc:"Jobs of Buildkite. They must ask for the claims organization_id and pipeline_id."`
	CircleCI     *circleciClaims     `yaml:"circleci" doc:"Jobs of CircleCI. Those that were started again with SSH are refused."`
	Kubernetes   *kubernetesClaims   `yaml:"kubernetes" doc:"Pods of Kubernetes, by projected service account tokens."`
	SPIFFE       *spiffeClaims       `yaml:"spiffe" doc:"Workloads with JWT-SVIDs."`
	Tests        []agentTest         `yaml:"tests" form:"agent tests" doc:"What must become of tokens. They run whenever the policy is read."`
	Generic      map[string][]string `yaml:"generic" form:"claims" doc:"Any other issuer: claims at the token's top, by name; sub and at least one more."`
}

type agentTest struct {
	Name    string         `yaml:"name" need:"true" doc:"What the case shows."`
	Claims  map[string]any `yaml:"claims" need:"true" form:"token claims" doc:"What a token of the issuer says, besides iss, aud and its times."`
	Trusted *bool          `yaml:"trusted" need:"true" doc:"Whether the entry trusts it, as far as its claims go."`
	Unmet   []string       `yaml:"unmet" form:"claim names" doc:"With trusted: false: the claims that are to blame, all of them."`
}

type githubClaims struct {
	RepositoryID      []string `yaml:"repository_id" claim:"repository_id" identity:"true" need:"true" form:"ids" doc:"Ids of repositories, which names can change hands without."`
	RepositoryOwnerID []string `yaml:"repository_owner_id" claim:"repository_owner_id" identity:"true" need:"true" form:"ids" doc:"Ids of the organizations or people that own them."`
	EventName         []string `yaml:"event_name" claim:"event_name" need:"true" form:"github events" doc:"What may start the workflow. Events by which strangers start one are not to be had."`
	Ref               []string `yaml:"ref" claim:"ref" need:"true" form:"values" doc:"Branches or tags, in full, such as refs/heads/main."`
	Environment       []string `yaml:"environment" claim:"environment" form:"values" doc:"Environments. They prove nothing unless GitHub protects them: one that does not exist is created by the job that names it."`
	WorkflowRef       []string `yaml:"workflow_ref" claim:"workflow_ref" form:"values" doc:"Workflow files, such as acme/web/.github/workflows/deploy.yml@refs/heads/main."`
	JobWorkflowRef    []string `yaml:"job_workflow_ref" claim:"job_workflow_ref" form:"values" doc:"Reusable workflow files that the job is from."`
	RunnerEnvironment []string `yaml:"runner_environment" claim:"runner_environment" form:"runners of github" doc:"github-hosted or self-hosted."`
	ActorID           []string `yaml:"actor_id" claim:"actor_id" form:"ids" doc:"Ids of the people who may start the workflow."`
}

type gitlabClaims struct {
	ProjectID         []string `yaml:"project_id" claim:"project_id" identity:"true" need:"true" form:"ids" doc:"Ids of projects."`
	NamespaceID       []string `yaml:"namespace_id" claim:"namespace_id" identity:"true" need:"true" form:"ids" doc:"Ids of the groups or people that they belong to."`
	RefPath           []string `yaml:"ref_path" claim:"ref_path" need:"true" form:"values" doc:"Branches or tags, in full, such as refs/heads/main. They must be protected."`
	PipelineSource    []string `yaml:"pipeline_source" claim:"pipeline_source" need:"true" form:"gitlab sources" doc:"What may start the pipeline. Merge requests may not."`
	Environment       []string `yaml:"environment" claim:"environment" form:"values" doc:"Environments. They must be protected."`
	CIConfigRefURI    []string `yaml:"ci_config_ref_uri" claim:"ci_config_ref_uri" form:"values" doc:"Pipeline files, such as gitlab.com/acme/web//.gitlab-ci.yml@refs/heads/main."`
	RunnerEnvironment []string `yaml:"runner_environment" claim:"runner_environment" form:"runners of gitlab" doc:"gitlab-hosted or self-hosted."`
	UserID            []string `yaml:"user_id" claim:"user_id" form:"ids" doc:"Ids of the people who may start the pipeline."`
}

type buildkiteClaims struct {
	OrganizationID    []string `yaml:"organization_id" claim:"organization_id" identity:"true" need:"true" form:"uuids" doc:"Ids of organizations."`
	PipelineID        []string `yaml:"pipeline_id" claim:"pipeline_id" identity:"true" need:"true" form:"uuids" doc:"Ids of pipelines."`
	BuildBranch       []string `yaml:"build_branch" claim:"build_branch" need:"true" form:"values" doc:"Branches, such as main. Builds of forks must be off, or their branches be prefixed: no claim tells them apart."`
	BuildSource       []string `yaml:"build_source" claim:"build_source" need:"true" form:"buildkite sources" doc:"What may start the build."`
	StepKey           []string `yaml:"step_key" claim:"step_key" form:"values" doc:"Steps of the pipeline."`
	BuildTag          []string `yaml:"build_tag" claim:"build_tag" form:"values" doc:"Tags."`
	RunnerEnvironment []string `yaml:"runner_environment" claim:"runner_environment" form:"runners of buildkite" doc:"buildkite-hosted or self-hosted."`
}

type circleciClaims struct {
	ProjectID            []string `yaml:"project_id" claim:"oidc.circleci.com/project-id" identity:"true" need:"true" form:"uuids" doc:"Ids of projects. The issuer names the organization."`
	VCSOrigin            []string `yaml:"vcs_origin" claim:"oidc.circleci.com/vcs-origin" need:"true" form:"values" doc:"Repositories that the change may come from, such as github.com/acme/web; a fork has another."`
	VCSRef               []string `yaml:"vcs_ref" claim:"oidc.circleci.com/vcs-ref" need:"true" form:"values" doc:"Branches or tags, in full, such as refs/heads/main."`
	ContextIDs           []string `yaml:"context_ids" claim:"oidc.circleci.com/context-ids" form:"uuids" doc:"Contexts, one of which the job must use."`
	PipelineDefinitionID []string `yaml:"pipeline_definition_id" claim:"oidc.circleci.com/pipeline-definition-id" form:"uuids" doc:"Ids of pipeline definitions."`
}

type kubernetesClaims struct {
	Namespace         []string `yaml:"namespace" claim:"kubernetes.io>namespace" need:"true" form:"values" doc:"Namespaces."`
	ServiceAccount    []string `yaml:"service_account" claim:"kubernetes.io>serviceaccount>name" need:"true" form:"values" doc:"Names of service accounts."`
	ServiceAccountUID []string `yaml:"service_account_uid" claim:"kubernetes.io>serviceaccount>uid" identity:"true" need:"true" form:"uuids" doc:"Their ids: an account that was deleted and made again is another one."`
	Node              []string `yaml:"node" claim:"kubernetes.io>node>name" form:"values" doc:"Nodes that the pod may be on."`
}

type spiffeClaims struct {
	ID []string `yaml:"id" claim:"sub" identity:"true" need:"true" form:"spiffe ids" doc:"SPIFFE ids, such as spiffe://example.org/deploy/web."`
}
