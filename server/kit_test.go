package server

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/approvals/policy"
	"sallyport/broker/keys"
	"sallyport/internal/audittest"
	"sallyport/internal/clock"
	"sallyport/internal/pgtest"
	"sallyport/server/problem"
	"sallyport/server/signin"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

const testPolicy = `
sallyport: 1
assurance: session
roles:
  operator: [operators]
  auditor: [auditors]
rules:
  - name: web
    who: [engineers]
    where: class=web
    logins: [web]
    duration: {default: 30m, max: 1h}
    certificate: {lifetime: 5m}
    automatic: true
  - name: database
    who: [engineers]
    where: class=database
    logins: [dba]
    duration: {default: 30m, max: 2h}
    certificate: {lifetime: 5m}
    approvals:
      - slots:
          - {groups: [approvers], count: 1}
    reason: {required: true}
`

// groups of the people in the tests; "stranger" is in none that counts.
var groups = map[string][]string{
	"engineer": {"engineers"}, "approver": {"approvers"}, "auditor": {"auditors"},
	"operator": {"operators"}, "stranger": {"visitors"},
}

// kit is a running broker, with a provider that is down, and people who are
// signed in nevertheless: a call says who makes it in a header that exists only here.
type kit struct {
	*Server
	db     *pgtest.DB
	http   *httptest.Server
	people map[string]identity.Caller
	logged *lockedBuffer
}

const whoHeader = "Test-Who"

func newKit(t *testing.T) *kit { return newKitOn(t, pgtest.New(t), nil) }

// newKitOn is a kit on one database. configure, if any, changes its configuration.
func newKitOn(t *testing.T, db *pgtest.DB, configure func(*Config)) *kit {
	t.Helper()
	ctx := context.Background()
	k := &kit{db: db, people: map[string]identity.Caller{}, logged: &lockedBuffer{}}
	dir := t.TempDir() + "/keys"
	if err := keys.Init(keys.InitOptions{Dir: dir, Origin: "sallyport.example.com/log"}); err != nil {
		t.Fatal(err)
	}
	set, err := keys.Load(keys.LoadOptions{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	pol, err := policy.Parse([]byte(testPolicy))
	if err != nil {
		t.Fatal(err)
	}
	k.http = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, ok := k.people[r.Header.Get(whoHeader)]; ok {
			r = r.WithContext(signin.With(r.Context(), c))
		}
		k.ServeHTTP(w, r)
	}))
	cfg := Config{
		URL: "http://" + k.http.Listener.Addr().String(), Version: "test", Pool: db.Pool, Keys: set, Policy: pol,
		OIDC:       OIDC{Issuer: "http://127.0.0.1:1", ClientID: "sallyport", GroupsClaim: "groups"},
		SignInIdle: time.Hour, SignInLifetime: 12 * time.Hour, Clock: clock.System,
		Logger: slog.New(slog.NewTextHandler(k.logged, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if configure != nil {
		configure(&cfg)
	}
	audittest.Complete(t, db.Pool)
	if k.Server, err = New(ctx, cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	people, err := identity.New(identity.Config{Pool: db.Pool, Log: k.log, Clock: clock.System})
	if err != nil {
		t.Fatal(err)
	}
	for name, g := range groups {
		p, err := people.SignIn(ctx, identity.Claims{Issuer: "http://127.0.0.1:1", Subject: name, Name: name,
			Groups: g, AuthTime: time.Now()}, "web", "127.0.0.1")
		if err != nil {
			t.Fatal(err)
		}
		k.arrives(name, p)
	}
	k.http.Start()
	t.Cleanup(k.http.Close)
	return k
}

// arrives lets a person make calls by that name.
func (k *kit) arrives(name string, p identity.Person) {
	c := identity.Caller{Person: p, Source: "127.0.0.1", AuthTime: time.Now(), Via: "web"}
	c.Roles, c.Policy = k.requests.Roles(p.Groups)
	k.people[name] = c
}

// answer is a response that was read.
type answer struct {
	*http.Response
	body []byte
}

// do calls as somebody ("" for nobody). header holds pairs.
func (k *kit) do(t *testing.T, who, method, path, body string, header ...string) answer {
	t.Helper()
	req, err := http.NewRequest(method, k.http.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set(whoHeader, who)
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return k.send(t, req)
}

// send makes a call and follows no redirect.
func (k *kit) send(t *testing.T, req *http.Request) answer {
	t.Helper()
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", req.Method, req.URL, err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", req.Method, req.URL, err)
	}
	return answer{res, text}
}

// get decodes the JSON of an answer that must have the status.
func get[T any](t *testing.T, a answer, status int) T {
	t.Helper()
	var v T
	if a.StatusCode != status {
		t.Fatalf("%s %s: %s, want %d\n%s", a.Request.Method, a.Request.URL.Path, a.Status, status, a.body)
	}
	if err := json.Unmarshal(a.body, &v); err != nil {
		t.Fatalf("%s %s: %v\n%s", a.Request.Method, a.Request.URL.Path, err, a.body)
	}
	return v
}

// problemOf checks that an answer is a whole problem, and returns it.
func problemOf(t *testing.T, a answer, status int) api.Problem {
	t.Helper()
	if ct := a.Header.Get("Content-Type"); ct != problem.ContentType {
		t.Fatalf("%s %s: %s of type %q\n%s", a.Request.Method, a.Request.URL.Path, a.Status, ct, a.body)
	}
	p := get[api.Problem](t, a, status)
	if p.Code == "" || p.Hint == "" || p.Detail == "" || p.Status != status || p.Type != problem.TypePrefix+p.Code ||
		p.Instance != "urn:sallyport:"+a.Header.Get("X-Request-Id") {
		t.Errorf("%s %s: incomplete problem %s", a.Request.Method, a.Request.URL.Path, a.body)
	}
	return p
}

// host registers a host of a class and returns it.
func (k *kit) host(t *testing.T, name, class, login string) api.Host {
	t.Helper()
	return get[api.Host](t, k.do(t, "operator", "POST", "/api/v1/hosts", fmt.Sprintf(
		`{"name":%q,"address":"127.0.0.9:22","labels":{"class":%q},"logins":[%q],"host_key":%q}`, name, class, login, hostKey)), 201)
}

const hostKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIILUypHmr9/nJkLGXSXkQOJgkXLhSrLtVA4KqnHBLxnS host"

// ask makes a request as the engineer.
func (k *kit) ask(t *testing.T, host, login string) api.Request {
	t.Helper()
	return get[api.Request](t, k.do(t, "engineer", "POST", "/api/v1/requests",
		fmt.Sprintf(`{"host":%q,"login":%q,"reason":"the disk is full"}`, host, login)), 201)
}

// lockedBuffer takes the log of several goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
