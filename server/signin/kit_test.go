package signin_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/audit"
	"sallyport/audit/event"
	"sallyport/internal/audittest"
	"sallyport/internal/clock"
	"sallyport/internal/oidctest"
	"sallyport/internal/pgtest"
	"sallyport/server/problem"
	"sallyport/server/signin"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

const (
	idle     = time.Hour
	lifetime = 8 * time.Hour
)

// kit is a broker that can do nothing but sign people in and say who they are.
type kit struct {
	t        *testing.T
	URL      string
	db       *pgtest.DB
	clock    *clock.Manual
	log      *audit.Log
	people   *identity.Store
	provider *oidctest.Provider
	service  *signin.Service
	key      ed25519.PrivateKey
	output   *output // what the process logs
	config   signin.Config
	// decisions stand in for package approvals; how it decides is tested there.
	decisions *decisions
}

func newKit(t *testing.T, change ...func(*kit)) *kit {
	t.Helper()
	t.Parallel()
	k := &kit{t: t, db: pgtest.New(t), clock: clock.NewManual(time.Now()), output: &output{}, decisions: &decisions{}}
	k.provider = oidctest.New(t, k.clock)
	_, k.key, _ = ed25519.GenerateKey(rand.Reader)

	k.log = audittest.Open(t, k.db.Pool, k.clock)
	var err error
	k.people, err = identity.New(identity.Config{Pool: k.db.Pool, Log: k.log, Clock: k.clock})
	must(t, err)

	srv := httptest.NewUnstartedServer(nil)
	k.URL = "http://" + srv.Listener.Addr().String()
	logger := slog.New(slog.NewTextHandler(k.output, &slog.HandlerOptions{Level: slog.LevelDebug}))
	k.config = signin.Config{
		URL: k.URL, Issuer: k.provider.URL, ClientID: oidctest.ClientID, ClientSecret: oidctest.ClientSecret,
		GroupsClaim: "groups", People: k.people, Decisions: k.decisions, Pool: k.db.Pool, TokenKey: k.key,
		Roles: func(groups []string) ([]api.Role, event.PolicyRef) {
			policy := event.PolicyRef{Version: 1, Hash: "ab12"}
			if slices.Contains(groups, "operators") {
				return []api.Role{api.Operator}, policy
			}
			return nil, policy
		},
		Idle: idle, Lifetime: lifetime, Clock: k.clock, Logger: logger,
	}
	for _, c := range change {
		c(k)
	}
	k.service, err = signin.New(t.Context(), k.config)
	must(t, err)

	r := chi.NewRouter()
	r.Use(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(w, r.WithContext(problem.With(r.Context(), &problem.Call{Logger: logger})))
		})
	}, k.service.Middleware)
	r.Get("/whoami", func(w http.ResponseWriter, r *http.Request) {
		if c, ok := signin.Caller(r.Context()); ok {
			json.NewEncoder(w).Encode(c)
		}
	})
	r.Post("/requests/{id}/approve", func(w http.ResponseWriter, r *http.Request) {
		id := chi.URLParam(r, "id")
		err := k.service.Sign(w, r, "/requests/"+id, func(_ identity.Caller, b approvals.Browser) (approvals.Draft, error) {
			if b.ClientID != oidctest.ClientID || !strings.HasPrefix(b.SignIn, "fam-") {
				t.Errorf("the browser is %+v", b)
			}
			return k.decisions.Draft(id)
		})
		if err != nil {
			problem.Write(w, r, err)
		}
	})
	r.Get("/requests/{id}", func(w http.ResponseWriter, r *http.Request) {})
	k.service.Routes(r)
	srv.Config.Handler = r
	srv.Start()
	t.Cleanup(srv.Close)
	return k
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// output collects what is logged.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// browser follows redirects and keeps cookies, as one does.
type browser struct {
	k *kit
	*http.Client
	token string // a bearer token, for what is not really a browser
}

func (k *kit) browser() *browser {
	jar, _ := cookiejar.New(nil)
	return &browser{k: k, Client: &http.Client{Jar: jar}}
}

// answer is a response that has been read.
type answer struct {
	*http.Response
	body string
}

func (b *browser) do(method, target string, form url.Values, headers ...string) answer {
	b.k.t.Helper()
	if strings.HasPrefix(target, "/") {
		target = b.k.URL + target
	}
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	req, err := http.NewRequest(method, target, body)
	must(b.k.t, err)
	req.Header.Set("Accept", "text/html")
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	if b.token != "" {
		req.Header.Set("Authorization", "Bearer "+b.token)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := b.Do(req)
	must(b.k.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	must(b.k.t, err)
	return answer{resp, string(text)}
}

func (b *browser) get(target string, headers ...string) answer {
	b.k.t.Helper()
	return b.do(http.MethodGet, target, nil, headers...)
}

func (b *browser) post(target string, form url.Values, headers ...string) answer {
	b.k.t.Helper()
	return b.do(http.MethodPost, target, form, headers...)
}

// still makes the browser show redirects instead of following them.
func (b *browser) still() *browser {
	c := *b.Client
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &browser{k: b.k, Client: &c, token: b.token}
}

// signIn goes the whole way and fails the test if it does not lead in.
func (b *browser) signIn() identity.Caller {
	b.k.t.Helper()
	if a := b.get("/signin?next=/whoami"); a.StatusCode != http.StatusOK || a.Request.URL.Path != "/whoami" {
		b.k.t.Fatalf("sign-in ended at %s with %s: %s", a.Request.URL.Path, a.Status, a.body)
	}
	c, ok := b.whoami()
	if !ok {
		b.k.t.Fatal("signed in, but nobody")
	}
	return c
}

func (b *browser) whoami() (c identity.Caller, ok bool) {
	b.k.t.Helper()
	a := b.get("/whoami")
	if a.StatusCode != http.StatusOK || a.body == "" {
		return c, false
	}
	must(b.k.t, json.Unmarshal([]byte(a.body), &c))
	return c, true
}

// toCallback goes to the provider and stops before what it is sent back to.
func (b *browser) toCallback(next string) *url.URL {
	b.k.t.Helper()
	a := b.still().get("/signin?next=" + url.QueryEscape(next))
	if a.StatusCode != http.StatusFound {
		b.k.t.Fatalf("/signin: %s: %s", a.Status, a.body)
	}
	u, err := b.still().get(a.Header.Get("Location")).Location()
	must(b.k.t, err)
	return u
}

// cookie is the browser's cookie for the broker.
func (b *browser) cookie() string {
	u, _ := url.Parse(b.k.URL)
	for _, c := range b.Jar.Cookies(u) {
		if strings.HasSuffix(c.Name, "sallyport") {
			return c.Value
		}
	}
	return ""
}

func (b *browser) setCookie(value string) {
	u, _ := url.Parse(b.k.URL)
	b.Jar.SetCookies(u, []*http.Cookie{{Name: "sallyport", Value: value, Path: "/"}})
}

// forwarded is where a page sends the browser.
func (a answer) forwarded() *url.URL {
	_, target, _ := strings.Cut(a.Header.Get("Refresh"), "url=")
	u, _ := url.Parse(target)
	return u
}

var hidden = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)">`)

// fields are the hidden ones of a page's form.
func (a answer) fields() url.Values {
	v := url.Values{}
	for _, m := range hidden.FindAllStringSubmatch(a.body, -1) {
		v.Set(m[1], strings.NewReplacer("&#43;", "+", "&amp;", "&").Replace(m[2]))
	}
	return v
}

// events are those of the type that were committed until now, newest first.
func (k *kit) events(typ string) []string {
	k.t.Helper()
	return audittest.Leaves(k.t, k.log, k.clock.Now(), typ)
}

// refusedWith fails the test unless the newest refused sign-in has the code.
func (k *kit) refusedWith(code string) {
	k.t.Helper()
	ev := k.events("person.sign_in_failed")
	if len(ev) == 0 || !strings.Contains(ev[0], `"code":"`+code+`"`) {
		k.t.Errorf("refused sign-ins in the log: %s, want %s", ev, code)
	}
}

// absent fails the test if a secret is in text, as it is or as hex.
func absent(t *testing.T, where, text string, secrets ...string) {
	t.Helper()
	for _, s := range secrets {
		if s == "" {
			t.Fatal("an empty secret proves nothing")
		}
		if strings.Contains(text, s) || strings.Contains(text, hex.EncodeToString([]byte(s))) {
			t.Errorf("%s contains the secret %s", where, s)
		}
	}
}
