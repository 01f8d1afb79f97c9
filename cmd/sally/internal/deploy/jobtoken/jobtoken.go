// Package jobtoken gets the OIDC token that a pipeline gives to a job, wherever that can
// be worked out from the job's environment. Tokens are secrets until they are taken: they
// are passed on in memory, and no error here quotes one.
package jobtoken

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"

	"sallyport/internal/refusal"
)

// Refusals.
var (
	ErrNone = refusal.New(refusal.Unauthenticated, "no-job-token",
		"there is no OIDC token of a job here", "give one: --token-file FILE")
	errBad = refusal.New(refusal.Unauthenticated, "bad-job-token",
		"the pipeline gave no token", "see that the job may have one; docs/deploy-pipelines.md says how")
)

// Binding is how a token is bound to the job's key.
type Binding string

// The bindings, as in the policy.
const (
	ByAudience Binding = "audience" // the issuer signs the key's hash
	ByProof    Binding = "proof"    // the key signs the token's hash
)

// Source is where a job's token comes from.
type Source struct {
	Name    string  // for people: GitHub Actions
	Binding Binding // if the policy's entry does not say otherwise
	// Chosen: the audience can be chosen here. Otherwise it is as the pipeline has it.
	Chosen bool
	Get    func(ctx context.Context, audience string) (string, error)
}

// Job is what a job's environment offers.
type Job struct {
	Getenv func(string) string
	HTTP   *http.Client
	// Run runs a program and returns what it writes to its standard output.
	Run func(ctx context.Context, program string, args ...string) ([]byte, error)
	// Exists reports whether a file is there.
	Exists func(file string) bool
}

// The places where tokens are looked for that a pipeline's configuration names.
const (
	// Variable holds the token, at GitLab by `id_tokens:`.
	Variable = "SALLYPORT_ID_TOKEN"
	// Projected is where a pod's projected token is mounted.
	Projected = "/var/run/secrets/sallyport/token"
)

// Find works out where the job's token comes from.
func (j Job) Find() (Source, error) {
	switch {
	case j.Getenv(Variable) != "":
		return Given(j.Getenv(Variable), "$"+Variable), nil
	case j.Getenv("ACTIONS_ID_TOKEN_REQUEST_URL") != "":
		return Source{Name: "GitHub Actions", Binding: ByAudience, Chosen: true, Get: j.github}, nil
	case j.Getenv("GITHUB_ACTIONS") == "true":
		return Source{}, ErrNone.With("GitHub gives this job no token").
			Hinting("let the job have one: permissions: {id-token: write, contents: read}")
	case j.Getenv("GITLAB_CI") == "true":
		return Source{}, ErrNone.With("GitLab gives this job no token").
			Hinting("name one in the job: id_tokens: {%s: {aud: the broker's URL}}", Variable)
	case j.Getenv("BUILDKITE") == "true":
		return Source{Name: "Buildkite", Binding: ByAudience, Chosen: true, Get: func(ctx context.Context, audience string) (string, error) {
			return j.program(ctx, "buildkite-agent", "oidc", "request-token", "--audience", audience, "--claim", "organization_id,pipeline_id")
		}}, nil
	case j.Getenv("CIRCLECI") == "true":
		return Source{Name: "CircleCI", Binding: ByProof, Chosen: true, Get: func(ctx context.Context, audience string) (string, error) {
			claims, err := json.Marshal(map[string]string{"aud": audience})
			if err != nil {
				return "", err
			}
			return j.program(ctx, "circleci", "run", "oidc", "get", "--claims", string(claims))
		}}, nil
	case j.Getenv("KUBERNETES_SERVICE_HOST") != "" && j.Exists(Projected):
		return File(Projected), nil
	}
	return Source{}, ErrNone
}

// Given is a token that somebody has got.
func Given(token, where string) Source {
	return Source{Name: where, Binding: ByProof, Get: func(context.Context, string) (string, error) {
		return check(token, where)
	}}
}

// File is a token in a file.
func File(name string) Source {
	return Source{Name: name, Binding: ByProof, Get: func(context.Context, string) (string, error) {
		text, err := os.ReadFile(name)
		if err != nil {
			return "", ErrNone.With("the token cannot be read: %s", err)
		}
		return check(string(text), name)
	}}
}

// github asks the runner's own service
// (https://docs.github.com/actions/reference/security/oidc#methods-for-requesting-the-oidc-token).
func (j Job) github(ctx context.Context, audience string) (string, error) {
	target, err := url.Parse(j.Getenv("ACTIONS_ID_TOKEN_REQUEST_URL"))
	if err != nil {
		return "", errBad.With("ACTIONS_ID_TOKEN_REQUEST_URL is no URL")
	}
	query := target.Query()
	query.Set("audience", audience)
	target.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return "", errBad.Because(err)
	}
	req.Header.Set("Authorization", "Bearer "+j.Getenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN"))
	req.Header.Set("Accept", "application/json")
	resp, err := j.HTTP.Do(req)
	if err != nil {
		return "", errBad.With("GitHub's token service does not answer").Because(err)
	}
	defer resp.Body.Close()
	var answer struct {
		Value string `json:"value"`
	}
	if resp.StatusCode != http.StatusOK {
		return "", errBad.With("GitHub's token service answered %s", resp.Status)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&answer); err != nil {
		return "", errBad.With("GitHub's token service gave no JSON")
	}
	return check(answer.Value, "GitHub's token service")
}

func (j Job) program(ctx context.Context, name string, args ...string) (string, error) {
	out, err := j.Run(ctx, name, args...)
	if err != nil {
		return "", errBad.With("%s gave no token", name).Because(err)
	}
	return check(string(out), name)
}

// token is a JWT in its compact form (RFC 7519).
var token = regexp.MustCompile(`^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$`)

func check(text, where string) (string, error) {
	if text = strings.TrimSpace(text); !token.MatchString(text) || len(text) > 16<<10 {
		return "", errBad.With("what %s gives is no token", where)
	}
	return text, nil
}
