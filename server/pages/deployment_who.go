package pages

import (
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
)

// claim is one claim of the token of who started it.
type claim struct{ Name, Value string }

// Claims are those of its token that say most, in order.
func (v deploymentView) Claims() (list []claim) {
	first := []string{"repository", "project_path", "organization_slug", "pipeline_slug", "workflow", "ref", "ref_path", "build_branch", "sha", "build_commit",
		"run_id", "run_attempt", "pipeline_id", "job_id", "build_number", "environment", "actor", "user_login"}
	names := make([]string, 0, len(v.Deployment.Claims))
	for name := range v.Deployment.Claims {
		names = append(names, name)
	}
	rank := func(name string) int {
		if i := slices.Index(first, name); i >= 0 {
			return i
		}
		return len(first)
	}
	slices.SortFunc(names, func(a, b string) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	for _, name := range names {
		list = append(list, claim{name, v.Deployment.Claims[name]})
	}
	return list
}

// Commit is the commit that was built, if the token says so.
func (v deploymentView) Commit() string {
	for _, name := range []string{"sha", "build_commit"} {
		if s := v.Deployment.Claims[name]; s != "" {
			return s
		}
	}
	return ""
}

// Repository is what was built, if the token says so.
func (v deploymentView) Repository() string {
	for _, name := range []string{"repository", "project_path", "pipeline_slug"} {
		if s := v.Deployment.Claims[name]; s != "" {
			return s
		}
	}
	return ""
}

// Of addresses of runs. The claims are the provider's, but some of them are names that
// people choose: nothing of them gets into an address but what these let in.
var (
	repositoryForm = regexp.MustCompile(`^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)+$`)
	slugForm       = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*$`)
	digits         = regexp.MustCompile(`^[0-9]+$`)
)

// Run is the address of the job's page at its provider; empty, if the token does not say.
func (d deploymentPage) Run() string {
	claims := d.Deployment.Claims
	named := func(repository string) bool {
		return repositoryForm.MatchString(repository) && path.Clean(repository) == repository
	}
	repository, run := claims["repository"], claims["run_id"]
	issuer, err := url.Parse(d.Account.Issuer)
	if err != nil || issuer.Scheme != "https" || issuer.Host == "" {
		return ""
	}
	switch {
	case issuer.Host == "token.actions.githubusercontent.com" && named(repository) && digits.MatchString(run):
		return "https://github.com/" + repository + "/actions/runs/" + run
	case named(claims["project_path"]) && digits.MatchString(claims["job_id"]):
		return "https://" + issuer.Host + strings.TrimRight(issuer.EscapedPath(), "/") + "/" + claims["project_path"] + "/-/jobs/" + claims["job_id"]
	case issuer.Host == "agent.buildkite.com" && slugForm.MatchString(claims["organization_slug"]) && slugForm.MatchString(claims["pipeline_slug"]) && digits.MatchString(claims["build_number"]):
		return "https://buildkite.com/" + claims["organization_slug"] + "/" + claims["pipeline_slug"] + "/builds/" + claims["build_number"]
	}
	return ""
}
