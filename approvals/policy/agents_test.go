package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseReadsAgents(t *testing.T) {
	t.Parallel()
	p := complete(t)
	names := make([]string, len(p.Agents))
	for i, a := range p.Agents {
		names[i] = fmt.Sprintf("%s %s %s", a.Name, a.Provider, a.Binding)
	}
	want := []string{"web-production github audience", "api-production gitlab proof", "mobile buildkite audience", "search circleci proof",
		"cluster kubernetes proof", "mesh spiffe audience", "old-ci generic proof"}
	if !slices.Equal(names, want) {
		t.Fatalf("agents: %q", names)
	}
	web, api, cluster := p.Agents[0], p.Agents[1], p.Agents[4]
	for _, c := range []struct {
		what      string
		got, want any
	}{
		{"lifetime", web.Lifetime, 2 * time.Hour},
		{"token life", web.MaxTokenLife, 10 * time.Minute},
		{"audience", web.Audience, "https://sallyport.example.com"},
		{"description", web.Description != "", true},
		{"claims", len(web.Claims), 9},
		{"an identity", web.Claims[0].Identity, true},
		{"no identity", web.Claims[3].Identity, false},
		{"a claim", web.Claims[3].Claim(), "ref"},
		{"keys when silent", web.Keys == nil, true},
		{"lifetime when silent", api.Lifetime, DefaultAgentLifetime},
		{"token life when silent", api.MaxTokenLife, DefaultTokenLife},
		{"audience when silent", api.Audience, ""},
		{"addresses", fmt.Sprint(api.Addresses), "[10.0.0.0/8 fd00::/8]"},
		{"a claim within another", cluster.Claims[2].Claim(), "kubernetes.io.serviceaccount.uid"},
		{"keys", cluster.Keys.Len(), 1},
		{"found", p.Agent("mesh").Name, "mesh"},
		{"not found", p.Agent("nobody") == nil, true},
	} {
		if c.got != c.want {
			t.Errorf("%s is %v, want %v", c.what, c.got, c.want)
		}
	}
}

// What an entry trusts has a hash of its own: whatever of it changes, that does.
func TestAgentHash(t *testing.T) {
	t.Parallel()
	p := complete(t)
	seen := map[string]string{}
	for i := range p.Agents {
		seen[p.Agents[i].Hash()] = p.Agents[i].Name
	}
	a := p.Agents[0]
	same := a
	same.Description = "another"
	if same.Hash() != a.Hash() {
		t.Error("a description counts")
	}
	for field := range reflect.TypeFor[Agent]().Fields() {
		if slices.Contains([]string{"Description", "Keys"}, field.Name) { // KeysText stands for the keys
			continue
		}
		changed := a
		v := reflect.ValueOf(&changed).Elem().FieldByName(field.Name)
		switch v.Kind() {
		case reflect.String:
			v.SetString(v.String() + "x")
		case reflect.Int64:
			v.SetInt(v.Int() + 1)
		case reflect.Slice:
			v.Set(reflect.MakeSlice(v.Type(), v.Len()+1, v.Len()+1))
		}
		if was, twice := seen[changed.Hash()]; twice {
			t.Errorf("with another %s it has the hash of %s", field.Name, was)
		}
	}
}

// Each case changes one place of the complete document.
func TestAgentsRefusedWithPlace(t *testing.T) {
	t.Parallel()
	source := string(complete(t).Text)
	s := decoded[schema](t, Schema(), json.Unmarshal)
	for _, c := range []struct {
		name, old, new string
		message        string
		form           bool // the schema refuses it, too
	}{
		{"unknown claim", "actor_id:", "actor_ids:", "actor_ids", true},
		{"a claim of another provider", "      build_branch: [main]", "      ref: [refs/heads/main]", "ref", true},
		{"unknown provider", "    github:", "    gitea:", "gitea", true},
		{"a claim twice", `actor_id: ["1201"]`, `ref: [refs/heads/dev]`, "ref", false},
		{"two providers", "    spiffe:\n", "    generic: {sub: [x], job: [y]}\n    spiffe:\n", "already", false},
		{"no provider", "    spiffe:\n      id: [spiffe://example.org/deploy/web]\n", "", "what its tokens claim", false},
		{"no ids", `      repository_id: ["74061"]` + "\n", "", "must say repository_id", true},
		{"no owner", `      repository_owner_id: ["65061"]` + "\n", "", "must say repository_owner_id", true},
		{"no branch", "      ref: [refs/heads/main]\n      environment", "      environment", "must say ref", true},
		{"any event", "      event_name: [push, workflow_dispatch]\n", "", "must say event_name", true},
		{"pull requests", "[push, workflow_dispatch]", "[push, pull_request]", "cannot be listed", true},
		{"pull requests on the default branch", "[push, workflow_dispatch]", "[pull_request_target]", "cannot be listed", true},
		{"what pull requests set off", "[push, workflow_dispatch]", "[workflow_run]", "cannot be listed", true},
		{"comments", "[push, workflow_dispatch]", "[issue_comment]", "cannot be listed", true},
		{"merge requests", "pipeline_source: [push, web]", "pipeline_source: [merge_request_event]", "cannot be listed", true},
		{"a pattern", "ref: [refs/heads/main]\n      environment", "ref: ['refs/heads/*']\n      environment", "pattern", true},
		{"an empty list", `actor_id: ["1201"]`, "actor_id: []", "1 to", true},
		{"an empty value", "environment: [production]\n      workflow_ref", "environment: ['']\n      workflow_ref", "looks like", true},
		{"a value twice", "node: [worker-1, worker-2]", "node: [worker-1, worker-1]", "twice", true},
		{"a value with a space behind", "step_key: [deploy]", "step_key: ['deploy ']", "looks like", true},
		{"a name as an id", `repository_id: ["74061"]`, "repository_id: [acme/web]", "looks like", true},
		{"a slug as a uuid", "pipeline_id: [0184990a-477b-4fa8-9968-496074483001]", "pipeline_id: [web]", "looks like", true},
		{"an id in capitals", "pipeline_id: [0184990a-477b-4fa8-9968-496074483001]", "pipeline_id: [0184990A-477B-4FA8-9968-496074483001]", "looks like", true},
		{"a trust domain alone", "spiffe://example.org/deploy/web", "spiffe://example.org", "looks like", true},
		{"no issuer", "    issuer: https://spire.example.org\n", "", "issuer", true},
		{"an issuer without TLS", "https://spire.example.org", "http://spire.example.org", "https", true},
		{"an issuer with a secret", "https://spire.example.org", "https://a:b@spire.example.org", "https", true},
		{"an issuer with a query", "https://spire.example.org", "https://spire.example.org/?x=1", "https", true},
		{"no host", "https://spire.example.org", "https://", "https", true},
		{"a port and no host", "https://spire.example.org", "https://:443", "https", false},
		{"GitHub as any other", "https://ci.example.com/oidc", "https://token.actions.githubusercontent.com", "use github", false},
		{"GitLab as any other", "https://ci.example.com/oidc", "https://GITLAB.com/oidc", "use gitlab", false},
		{"all of CircleCI", "https://oidc.circleci.com/org/2a3b4c5d-0123-4567-89ab-cdef01234567", "https://oidc.circleci.com", "each organization", false},
		{"an audience with a hash", "audience: https://sallyport.example.com", "audience: 'https://sallyport.example.com#x'", "without #", true},
		{"unknown binding", "binding: proof", "binding: trust", "not a binding", true},
		{"a run for ever", "lifetime: 2h", "lifetime: 7h", "between", false},
		{"tokens for ever", "max_token_life: 10m", "max_token_life: 25h", "between", false},
		{"a bad block", `"fd00::/8"`, `"fd00::1/8"`, "CIDR", false},
		{"keys that are none", `"kty":"OKP"`, `"kty":"ABC"`, "no key", false},
		{"a secret key", `"x":"11qY`, `"d":"AA","x":"11qY`, "secret", false},
		{"keys and addresses", "    binding: proof\n    kubernetes", "    addresses: [10.0.0.0/8]\n    kubernetes", "never asked", false},
		{"a name twice", "name: mesh", "name: mobile", "another entry", false},
		{"a bad name", "name: mesh", "name: Mesh", "needs a name", true},
		{"sub alone", "      controller: [ci-1]\n", "", "sub alone", true},
		{"no sub", `      sub: ["job:deploy-web"]`, "      job: [x]", "must list sub", true},
		{"a claim with rules of its own", "      controller: [ci-1]\n", "      aud: [x]\n", "cannot be listed", false},
		{"an issuer of two kinds", "https://ci.example.com/oidc", "https://spire.example.org", "same issuer", false},
		{"an alias", "issuer: https://spire.example.org", "issuer: &a https://spire.example.org\n    audience: *a", "aliases", false},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			if !strings.Contains(source, c.old) {
				t.Fatalf("the document has no %q", c.old)
			}
			wrong := strings.Replace(source, c.old, c.new, 1)
			_, err := Parse([]byte(wrong))
			var fault *Error
			if !errors.As(err, &fault) {
				t.Fatalf("error %v", err)
			}
			if !strings.Contains(fault.Message, c.message) || fault.Line == 0 {
				t.Errorf("line %d: %s; want %q", fault.Line, fault.Message, c.message)
			}
			if c.form && validate(s, decoded[any](t, []byte(wrong), unyaml), "") == nil {
				t.Error("the schema takes it")
			}
		})
	}
}

// Ids are numbers, which people may write as such; they are texts all the same, and
// none loses a digit on the way.
func TestIdsWithoutQuotes(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]string{"74061": "74061", "9007199254740993": "9007199254740993", "18446744073709551615": "18446744073709551615",
		"18446744073709551617": "18446744073709551617", "-1": "", "0": "", "0.5": "", "true": "", "null": "", "~": ""} {
		p, err := Parse([]byte(strings.NewReplacer(`repository_id: ["74061"]`, "repository_id: ["+id+"]",
			`claims: {repository_id: "74061"`, `claims: {repository_id: "`+id+`"`).Replace(string(complete(t).Text)))) // tokens have texts
		switch {
		case err != nil && want != "":
			t.Errorf("%s: %v", id, err)
		case err == nil && p.Agents[0].Claims[0].Values[0] != want:
			t.Errorf("%s is read as %q", id, p.Agents[0].Claims[0].Values)
		}
	}
}
