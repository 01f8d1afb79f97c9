package claims

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Skew is how far an issuer's clock may be from the broker's.
const Skew = 60 * time.Second

// Failure is something that an entry wants of a token and does not get.
type Failure struct {
	Claim string   // its name in the token
	Got   string   // what the token says; empty: nothing
	Want  []string // what the entry lists; empty where the rule is the same for all entries
	Why   string   // one sentence, in lower case, that names neither
	// Identity: so the token is of another workload altogether.
	Identity bool
}

func (f Failure) String() string { return f.Claim + ": " + f.Why }

// Match compares a token with an entry. Nothing is returned if the entry trusts it.
// The audience is checked by Audience, the times by Times.
func Match(entry Entry, c Claims) []Failure {
	var out []Failure
	for _, d := range entry.Demands {
		value, there := c.at(d.Path...)
		got, ok := texts(value)
		switch {
		case !there || !ok:
			out = append(out, Failure{Claim: d.Claim(), Want: d.Values, Why: "the token does not say it", Identity: d.Identity})
		case !slices.ContainsFunc(got, func(s string) bool { return slices.Contains(d.Values, s) }):
			out = append(out, Failure{Claim: d.Claim(), Got: strings.Join(got, ", "), Want: d.Values, Why: "the entry does not list it", Identity: d.Identity})
		}
	}
	for _, rule := range always[entry.Provider] {
		if why := rule.broken(entry, c); why != "" {
			value, _ := c.at(rule.path...)
			got, _ := texts(value)
			out = append(out, Failure{Claim: strings.Join(rule.path, "."), Got: strings.Join(got, ", "), Why: why})
		}
	}
	return out
}

// rule holds for every token of a provider, whatever entries say.
type rule struct {
	path   []string
	broken func(entry Entry, c Claims) string // why; empty if it holds
}

// always are those rules.
var always = map[Provider][]rule{
	GitHub: {
		// Pull requests have these, whatever they call the event.
		{[]string{"head_ref"}, func(_ Entry, c Claims) string { return absent(c, "head_ref", "the job is for a pull request") }},
		{[]string{"base_ref"}, func(_ Entry, c Claims) string { return absent(c, "base_ref", "the job is for a pull request") }},
	},
	GitLab: {
		{[]string{"ref_protected"}, func(_ Entry, c Claims) string {
			return is(c, "true", "the branch or tag is not protected", "ref_protected")
		}},
		// A job can name any environment; one that nobody has protected proves nothing.
		{[]string{"environment_protected"}, func(entry Entry, c Claims) string {
			if !slices.ContainsFunc(entry.Demands, func(d Demand) bool { return d.Key == "environment" }) {
				return ""
			}
			return is(c, "true", "the environment is not protected", "environment_protected")
		}},
		// For merge requests from forks, project_id is the fork's and this the target's. Older versions have it not.
		{[]string{"job_project_id"}, func(_ Entry, c Claims) string {
			ran, there := c.at("job_project_id")
			if project, _ := c.at("project_id"); there && ran != project {
				return "the job runs in another project than its code is from"
			}
			return ""
		}},
	},
	CircleCI: {
		// Somebody can be inside such a job.
		{[]string{"oidc.circleci.com/ssh-rerun"}, func(_ Entry, c Claims) string {
			return is(c, "false", "the job may have been started again with SSH", "oidc.circleci.com/ssh-rerun")
		}},
		{[]string{"oidc.circleci.com/org-id"}, func(_ Entry, c Claims) string {
			org, there := c.at("oidc.circleci.com/org-id")
			if there && c.Issuer[strings.LastIndex(c.Issuer, "/")+1:] != org {
				return "it is another organization than the issuer's"
			}
			return ""
		}},
	},
	Kubernetes: {
		{[]string{"sub"}, func(_ Entry, c Claims) string {
			namespace, _ := c.at("kubernetes.io", "namespace")
			account, _ := c.at("kubernetes.io", "serviceaccount", "name")
			if c.Subject != fmt.Sprintf("system:serviceaccount:%v:%v", namespace, account) {
				return "it is another service account than the one that the token is about"
			}
			return ""
		}},
		// A token that is not bound to a pod outlives it.
		{[]string{"kubernetes.io", "pod", "uid"}, func(_ Entry, c Claims) string {
			if uid, _ := c.at("kubernetes.io", "pod", "uid"); uid == nil || uid == "" {
				return "the token is not bound to a pod"
			}
			return ""
		}},
	},
}

func absent(c Claims, name, why string) string {
	if value, there := c.at(name); there && value != "" {
		return why
	}
	return ""
}

// is wants a truth, which issuers write as a text or as a boolean.
func is(c Claims, want, why, name string) string {
	value, there := c.at(name)
	if got, _ := texts(value); !there || len(got) != 1 || got[0] != want {
		return why
	}
	return ""
}

// Audience checks whom the token is for: exactly one audience, the one given. A token
// for several could be shown to the broker by any of the others.
func Audience(c Claims, want string) []Failure {
	if len(c.Audience) == 1 && c.Audience[0] == want {
		return nil
	}
	why := "the token is for somebody else"
	if len(c.Audience) > 1 {
		why = "the token is for several"
	}
	return []Failure{{Claim: "aud", Got: strings.Join(c.Audience, ", "), Want: []string{want}, Why: why}}
}

// Times checks when the token is good (RFC 7519 section 4.1), with Skew for the clocks:
// it must say when it was issued and when it ends, which may be at most life apart.
func Times(c Claims, life time.Duration, now time.Time) []Failure {
	fail := func(claim string, got time.Time, why string, args ...any) []Failure {
		f := Failure{Claim: claim, Why: fmt.Sprintf(why, args...)}
		if !got.IsZero() {
			f.Got = got.Format(time.RFC3339)
		}
		return []Failure{f}
	}
	switch {
	case c.Expires.IsZero():
		return fail("exp", c.Expires, "the token does not say when it ends")
	case c.IssuedAt.IsZero():
		return fail("iat", c.IssuedAt, "the token does not say when it was issued")
	case c.Expires.Sub(c.IssuedAt) > life:
		return fail("exp", c.Expires, "the token is good for longer than %s", life)
	case !c.Expires.After(c.IssuedAt):
		return fail("exp", c.Expires, "the token ends before it was issued")
	case c.IssuedAt.After(now.Add(Skew)):
		return fail("iat", c.IssuedAt, "the token was issued in the future: a clock is wrong")
	case c.NotBefore.After(now.Add(Skew)):
		return fail("nbf", c.NotBefore, "the token is not good yet")
	case !now.Before(c.Expires.Add(Skew)):
		return fail("exp", c.Expires, "the token has expired")
	}
	return nil
}

// told are claims that entries may not list and that are of use to people who read the
// log: what ran, from which commit, and who started it.
var told = map[Provider][][]string{
	GitHub:    {{"repository"}, {"sha"}, {"workflow"}, {"run_id"}, {"run_attempt"}, {"check_run_id"}, {"actor"}, {"ref_protected"}},
	GitLab:    {{"project_path"}, {"sha"}, {"pipeline_id"}, {"job_id"}, {"job_project_id"}, {"user_login"}, {"user_email"}, {"environment_protected"}, {"ref_protected"}},
	Buildkite: {{"organization_slug"}, {"pipeline_slug"}, {"build_number"}, {"build_commit"}, {"job_id"}, {"agent_id"}},
	CircleCI:  {{"oidc.circleci.com/org-id"}, {"oidc.circleci.com/job-id"}, {"oidc.circleci.com/workflow-id"}, {"oidc.circleci.com/pipeline-id"}},
	Kubernetes: {{"kubernetes.io", "pod", "name"}, {"kubernetes.io", "pod", "uid"},
		{"kubernetes.io", "node", "name"}, {"kubernetes.io", "node", "uid"}},
}

// maxTold is how many bytes of a claim are kept for the log.
const maxTold = 512

// Told are the claims that an entry went by, and those that say what ran, as text, by
// their names in the token: for the log and for people who read.
func Told(entry Entry, c Claims) map[string]string {
	out := map[string]string{}
	paths := slices.Clone(told[entry.Provider])
	for _, d := range entry.Demands {
		paths = append(paths, d.Path)
	}
	for _, path := range paths {
		value, _ := c.at(path...)
		if got, ok := texts(value); ok {
			text := strings.Join(got, ", ")
			if len(text) > maxTold {
				text = strings.ToValidUTF8(text[:maxTold], "")
			}
			out[strings.Join(path, ".")] = text
		}
	}
	return out
}
