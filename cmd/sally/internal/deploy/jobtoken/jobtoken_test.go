package jobtoken_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sallyport/cmd/sally/internal/deploy/jobtoken"
)

const good = "head.claims.signature"

func job(env map[string]string) jobtoken.Job {
	return jobtoken.Job{Getenv: func(name string) string { return env[name] }, HTTP: http.DefaultClient,
		Run:    func(context.Context, string, ...string) ([]byte, error) { return nil, errors.New("not here") },
		Exists: func(string) bool { return false }}
}

func TestEachPipelinesToken(t *testing.T) {
	t.Parallel()
	var asked []string
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Header.Get("Authorization"), r.URL.RawQuery)
		w.Write([]byte(`{"count": 1, "value": "` + good + `"}`))
	}))
	defer service.Close()
	for name, c := range map[string]struct {
		env     map[string]string
		program []string
		binding jobtoken.Binding
		chosen  bool
	}{
		"GitHub": {env: map[string]string{"GITHUB_ACTIONS": "true", "ACTIONS_ID_TOKEN_REQUEST_URL": service.URL + "/?api-version=2.0",
			"ACTIONS_ID_TOKEN_REQUEST_TOKEN": "secret"}, binding: jobtoken.ByAudience, chosen: true},
		"GitLab": {env: map[string]string{"GITLAB_CI": "true", "SALLYPORT_ID_TOKEN": good}, binding: jobtoken.ByProof},
		"Buildkite": {env: map[string]string{"BUILDKITE": "true"}, binding: jobtoken.ByAudience, chosen: true,
			program: []string{"buildkite-agent", "oidc", "request-token", "--audience", "https://broker#hash", "--claim", "organization_id,pipeline_id"}},
		"CircleCI": {env: map[string]string{"CIRCLECI": "true"}, binding: jobtoken.ByProof, chosen: true,
			program: []string{"circleci", "run", "oidc", "get", "--claims", `{"aud":"https://broker#hash"}`}},
	} {
		j := job(c.env)
		j.Run = func(_ context.Context, program string, args ...string) ([]byte, error) {
			if got := append([]string{program}, args...); !slices.Equal(got, c.program) {
				t.Errorf("%s: %q", name, got)
			}
			return []byte(good + "\n"), nil
		}
		s, err := j.Find()
		if err != nil || s.Binding != c.binding || s.Chosen != c.chosen {
			t.Errorf("%s: %+v %v", name, s, err)
			continue
		}
		if token, err := s.Get(t.Context(), "https://broker#hash"); err != nil || token != good {
			t.Errorf("%s: %q %v", name, token, err)
		}
	}
	if want := []string{"Bearer secret", "api-version=2.0&audience=https%3A%2F%2Fbroker%23hash"}; !slices.Equal(asked, want) {
		t.Errorf("GitHub was asked %q", asked)
	}
}

func TestNoToken(t *testing.T) {
	t.Parallel()
	for name, env := range map[string]map[string]string{
		"nowhere": {}, "GitHub without the permission": {"GITHUB_ACTIONS": "true"}, "GitLab without id_tokens": {"GITLAB_CI": "true"},
		"Kubernetes without a volume": {"KUBERNETES_SERVICE_HOST": "10.0.0.1"},
	} {
		if _, err := job(env).Find(); !errors.Is(err, jobtoken.ErrNone) {
			t.Errorf("%s: %v", name, err)
		}
	}
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/refused":
			w.WriteHeader(403)
		case "/garbage":
			w.Write([]byte("<html>secret"))
		default:
			w.Write([]byte(`{"value": "secret secret"}`))
		}
	}))
	defer broken.Close()
	for _, path := range []string{"/refused", "/garbage", "/no-token"} {
		s, err := job(map[string]string{"ACTIONS_ID_TOKEN_REQUEST_URL": broken.URL + path}).Find()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Get(t.Context(), "x"); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestTokenInAFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(good+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if token, err := jobtoken.File(file).Get(t.Context(), "x"); err != nil || token != good {
		t.Error(token, err)
	}
	if _, err := jobtoken.File(file+"2").Get(t.Context(), "x"); !errors.Is(err, jobtoken.ErrNone) {
		t.Error(err)
	}
	for _, text := range []string{"", "one.two", "a.b.c d", strings.Repeat("x", 20000) + ".b.c"} {
		if _, err := jobtoken.Given(text, "here").Get(t.Context(), "x"); err == nil {
			t.Errorf("%.20q is a token", text)
		}
	}
}
