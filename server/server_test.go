package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"golang.org/x/mod/sumdb/note"

	"sallyport/api"
	"sallyport/audit"
	"sallyport/internal/clock"
	"sallyport/internal/dex"
	"sallyport/internal/pgtest"
	"sallyport/server/signin"
)

func TestRequestFromAskToEnd(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	k.host(t, "db-1", "database", "dba")
	preview := get[api.Preview](t, k.do(t, "engineer", "POST", "/api/v1/requests?dry_run=true",
		`{"host":"db-1","login":"dba","reason":"x"}`), 200)
	if preview.Automatic || preview.Rule != "database" || len(preview.Approvers) != 1 {
		t.Errorf("preview %+v", preview)
	}
	res := k.do(t, "engineer", "POST", "/api/v1/requests", `{"host":"db-1","login":"dba","duration":"45m","reason":"x"}`)
	r := get[api.Request](t, res, 201)
	if res.Header.Get("Location") != "/api/v1/requests/"+r.ID || r.State != api.Requested || r.Duration != "45m0s" && r.Duration != "45m" {
		t.Errorf("request %+v at %q", r, res.Header.Get("Location"))
	}
	me := get[api.Me](t, k.do(t, "approver", "GET", "/api/v1/me", ""), 200)
	if me.Waiting != 1 || me.Person.ID != k.people["approver"].ID || me.Grants == nil || me.Roles == nil {
		t.Errorf("me %+v", me)
	}
	get[api.Request](t, k.do(t, "approver", "POST", "/api/v1/requests/"+r.ID+"/decisions",
		fmt.Sprintf(`{"verdict":"approve","terms_hash":%q}`, r.TermsHash)), 200)
	me = get[api.Me](t, k.do(t, "engineer", "GET", "/api/v1/me", ""), 200)
	if len(me.Grants) != 1 || me.Grants[0].State != api.Approved {
		t.Errorf("grants %+v", me.Grants)
	}
	for query, want := range map[string]int{
		"scope=mine": 1, "scope=mine&state=requested": 0, "state=approved,active": 1, "host=db-1": 1, "limit=1": 1,
	} {
		page := get[api.Page[api.Request]](t, k.do(t, "engineer", "GET", "/api/v1/requests?"+query, ""), 200)
		if len(page.Items) != want {
			t.Errorf("%s: %d requests, want %d", query, len(page.Items), want)
		}
	}
	if done := get[api.Request](t, k.do(t, "engineer", "POST", "/api/v1/requests/"+r.ID+"/finish", ""), 200); done.State != api.Ended {
		t.Errorf("after finish it is %s", done.State)
	}
}

func TestLongPollAnswersWhenTheStateChanges(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	k.host(t, "db-1", "database", "dba")
	r := k.ask(t, "db-1", "dba")
	path := "/api/v1/requests/" + r.ID + "?state=requested&wait="
	if same := get[api.Request](t, k.do(t, "engineer", "GET", path+"1ms", ""), 200); same.State != api.Requested {
		t.Fatalf("it is %s", same.State)
	}
	waited := make(chan answer, 1)
	go func() { waited <- k.do(t, "engineer", "GET", path+"60s", "") }()
	get[api.Request](t, k.do(t, "approver", "POST", "/api/v1/requests/"+r.ID+"/decisions", `{"verdict":"approve"}`), 200)
	select {
	case a := <-waited:
		if got := get[api.Request](t, a, 200); got.State != api.Approved {
			t.Errorf("it answered %s", got.State)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it did not answer")
	}
	// A stranger learns nothing by waiting.
	problemOf(t, k.do(t, "stranger", "GET", path+"60s", ""), 404)
}

func TestEventsPageAndReceiptsVerify(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	k.host(t, "db-1", "database", "dba")
	r := k.ask(t, "db-1", "dba")
	var seen []int64
	path := "/api/v1/audit/events?limit=3"
	for next := ""; ; {
		p := get[api.Page[api.Event]](t, k.do(t, "auditor", "GET", path+next, ""), 200)
		for _, e := range p.Items {
			seen = append(seen, e.Index)
		}
		if p.Next == "" {
			break
		}
		next = "&before=" + p.Next
	}
	for i, index := range seen {
		if index != int64(len(seen)-1-i) {
			t.Fatalf("pages have indexes %v", seen)
		}
	}
	var mine api.Page[api.Event]
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		mine = get[api.Page[api.Event]](t, k.do(t, "auditor", "GET", "/api/v1/audit/events?request="+r.ID, ""), 200)
		if len(mine.Items) != 1 || mine.Items[0].Type != "request.created" || time.Now().After(deadline) {
			t.Fatalf("events of the request: %+v", mine.Items)
		}
		if mine.Items[0].Index >= 0 { // until then it waits for its place
			break
		}
	}
	one := get[api.Event](t, k.do(t, "auditor", "GET", fmt.Sprintf("/api/v1/audit/events/%d", mine.Items[0].Index), ""), 200)
	if !bytes.Contains(one.Leaf, []byte(r.ID)) || one.LeafHash == "" {
		t.Errorf("the event lacks its leaf: %+v", one)
	}
	receipt := k.do(t, "auditor", "GET", fmt.Sprintf("/api/v1/audit/events/%d/receipt", one.Index), "")
	if !strings.HasPrefix(string(receipt.body), "c2sp.org/tlog-proof@v1\n") || !strings.HasPrefix(receipt.Header.Get("Content-Type"), "text/plain") {
		t.Errorf("receipt %s: %q", receipt.Header.Get("Content-Type"), receipt.body)
	}
	vkey := strings.TrimSpace(string(k.do(t, "", "GET", "/log/vkey", "").body))
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatalf("verifier key %q: %v", vkey, err)
	}
	if _, err := note.Open(k.do(t, "", "GET", "/log/checkpoint", "").body, note.VerifierList(verifier)); err != nil {
		t.Errorf("checkpoint: %v", err)
	}
}

// TestP9_DatabaseGone kills PostgreSQL below a running broker.
func TestP9_DatabaseGone(t *testing.T) {
	t.Parallel()
	cluster, db := pgtest.NewCluster(t, false)
	k := newKitOn(t, db, nil)
	k.host(t, "web-1", "web", "web")
	ready := k.do(t, "", "GET", "/readyz", "")
	if ready.StatusCode != 200 || !strings.Contains(string(ready.body), `"sign_in":"down"`) {
		t.Errorf("with the provider down: %s %s", ready.Status, ready.body)
	}
	cluster.Kill()
	if p := problemOf(t, k.do(t, "", "GET", "/readyz", ""), 503); p.Code != "not-ready" || strings.Contains(p.Detail, "127.0.0.1") {
		t.Errorf("readyz: %+v", p)
	}
	if a := k.do(t, "", "GET", "/healthz", ""); a.StatusCode != 200 {
		t.Errorf("healthz: %s", a.Status)
	}
	if a := k.do(t, "", "GET", "/metrics", ""); a.StatusCode != 200 {
		t.Errorf("metrics: %s", a.Status)
	}
	for _, c := range []struct{ who, method, path, body string }{
		{"engineer", "GET", "/api/v1/me", ""},
		{"engineer", "GET", "/api/v1/hosts", ""},
		{"engineer", "POST", "/api/v1/requests", `{"host":"web-1","login":"web"}`},
		{"auditor", "GET", "/api/v1/audit/events", ""},
	} {
		a := k.do(t, c.who, c.method, c.path, c.body)
		p := problemOf(t, a, 503)
		if strings.Contains(string(a.body), "127.0.0.1") {
			t.Errorf("%s: the caller learns of the inside: %+v", c.path, p)
		}
	}
	// A refusal that cannot be recorded stands, and the process's log has it.
	if p := problemOf(t, k.do(t, "engineer", "GET", "/api/v1/audit/events", ""), 403); p.Code != "auditors-only" {
		t.Errorf("an engineer reads the log: %+v", p)
	}
	if !strings.Contains(k.logged.String(), "a refusal could not be recorded") {
		t.Error("nothing says that a refusal was not recorded")
	}
}

// TestP11_SecretsAreNotLogged sends what is secret everywhere it can be sent, and
// reads everything that the process logged, down to debug.
func TestP11_SecretsAreNotLogged(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	const secret = "s3cr3t-hunter2"
	form := []string{"Content-Type", "application/x-www-form-urlencoded"}
	k.do(t, "", "GET", "/signin/callback?code="+secret+"&state="+secret, "", "Cookie", "sallyport="+secret)
	k.do(t, "", "GET", "/signin?next=/"+secret, "")
	k.do(t, "", "GET", "/device?user_code="+secret, "")
	k.do(t, "", "POST", "/oauth/token", "grant_type=authorization_code&client_id=sally&code="+secret+"&code_verifier="+secret, form...)
	k.do(t, "", "POST", "/oauth/token", "grant_type=refresh_token&client_id=sally&refresh_token="+secret, form...)
	k.do(t, "", "POST", "/oauth/revoke", "token="+secret+"&client_id=sally", form...)
	k.do(t, "", "GET", "/api/v1/me?access_token="+secret, "", "Authorization", "Bearer "+secret)
	k.do(t, "", "GET", "/api/v1/me", "", "Authorization", "Basic "+secret)
	k.do(t, "engineer", "GET", "/api/v1/hosts?search="+secret+"&nonsense="+secret, "")
	k.do(t, "engineer", "POST", "/api/v1/requests", `{"password":"`+secret+`"}`)
	k.do(t, "engineer", "POST", "/api/v1/requests", secret)
	k.do(t, "engineer", "POST", "/api/v1/requests/req-000000000000/certificates", `{"public_key":"x","proof":"`+secret+`"}`)
	if log := k.logged.String(); strings.Contains(log, secret) || !strings.Contains(log, "path=/signin/callback") {
		for _, line := range strings.Split(log, "\n") {
			if strings.Contains(line, secret) {
				t.Errorf("logged: %s", line)
			}
		}
	}
	entries, err := k.log.Entries(context.Background(), audit.Filter{Limit: 200})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if bytes.Contains(e.Leaf, []byte(secret)) {
			t.Errorf("event: %s", e.Leaf)
		}
	}
}

func TestPanicsBecomeProblems(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	mux := chi.NewMux()
	log := &lockedBuffer{}
	mux.Use(logged(slog.New(slog.NewTextHandler(log, nil)), clock.System, newMetrics(k.log)), recovered)
	mux.Get("/", func(http.ResponseWriter, *http.Request) { panic("the text of hunter2") })
	mux.Get("/error", func(http.ResponseWriter, *http.Request) { panic(errors.New("hunter2")) })
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	for _, path := range []string{"/", "/error"} {
		k := &kit{http: server}
		a := k.do(t, "", "GET", path, "")
		if p := problemOf(t, a, 500); p.Code != "internal" || strings.Contains(string(a.body), "hunter2") {
			t.Errorf("%s", a.body)
		}
	}
	if text := log.String(); !strings.Contains(text, "hunter2") || !strings.Contains(text, "server_test.go") || !strings.Contains(text, "status=500") {
		t.Errorf("the log lacks the panic, its stack or the call: %s", text)
	}
}

func TestEveryAnswerIsGuarded(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	for _, path := range []string{"/", "/nothing", "/api/v1/me", "/api/v1/openapi.json", "/log/checkpoint", "/healthz", "/static/x"} {
		for _, accept := range []string{"text/html", "application/json"} {
			a := k.do(t, "engineer", "GET", path, "", "Accept", accept)
			for header, want := range map[string]string{
				"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'", "X-Request-Id": "call-",
			} {
				if got := a.Header.Get(header); !strings.HasPrefix(got, want) {
					t.Errorf("%s: %s: %q", path, header, got)
				}
			}
			if csp := a.Header.Get("Content-Security-Policy"); strings.Contains(csp, "unsafe") || !strings.Contains(csp, "frame-ancestors 'none'") {
				t.Errorf("%s: %s", path, csp)
			}
		}
	}
}

func TestMetricsNameNobody(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	r := get[api.Host](t, k.do(t, "operator", "GET", "/api/v1/hosts/"+k.host(t, "web-1", "web", "web").ID, ""), 200)
	k.do(t, "engineer", "GET", "/api/v1/hosts/nobody-knows", "")
	k.do(t, "engineer", "FROBNICATE", "/some/where", "")
	text := string(k.do(t, "", "GET", "/metrics", "").body)
	for _, want := range []string{
		`sallyport_http_request_duration_seconds_count{method="GET",route="/api/v1/hosts/{host}",status="200"} 1`,
		`sallyport_http_request_duration_seconds_count{method="other",route="none",status="405"} 1`,
		`sallyport_problems_total{code="unknown-method"} 1`,
		`sallyport_certificates_issued_total 0`,
		`sallyport_log_size `,
		`go_goroutines `,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	for _, never := range []string{r.ID, "web-1", "engineer", "nobody-knows", "127.0.0.1", k.people["engineer"].ID} {
		if strings.Contains(text, never) {
			t.Errorf("metrics name %s", never)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}

// TestServeFinishesWhatItBegan stops a broker while somebody waits for an answer.
func TestServeFinishesWhatItBegan(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	k.host(t, "db-1", "database", "dba")
	r := k.ask(t, "db-1", "dba")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	began, inner := make(chan struct{}), k.handler
	k.handler = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		close(began)
		inner.ServeHTTP(w, req.WithContext(signin.With(req.Context(), k.people["engineer"])))
	})
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	served := make(chan error, 1)
	go func() { served <- k.Serve(ctx, l) }()
	answered := make(chan error, 1)
	go func() {
		res, err := http.Get("http://" + l.Addr().String() + "/api/v1/requests/" + r.ID + "?state=requested&wait=60s")
		if err == nil && res.StatusCode != http.StatusOK {
			err = errors.New(res.Status)
		}
		answered <- err
	}()
	<-began
	stop()
	if err := <-answered; err != nil {
		t.Errorf("who waited got %v", err)
	}
	if err := <-served; err != nil {
		t.Errorf("serving ended with %v", err)
	}
	if _, err := net.Dial("tcp", l.Addr().String()); err == nil {
		t.Error("it still listens")
	}
}

// TestSignInThroughTheWholeServer signs in at a real provider, and uses what the
// browser then has.
func TestSignInThroughTheWholeServer(t *testing.T) {
	t.Parallel()
	k := newKitOn(t, pgtest.New(t), func(cfg *Config) {
		provider, err := dex.Start(t.Context(), dex.Config{RedirectURIs: []string{cfg.URL + signin.CallbackPath}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(provider.Stop)
		cfg.OIDC = OIDC{Issuer: provider.Issuer(), ClientID: dex.ClientID, ClientSecret: dex.ClientSecret, GroupsClaim: "groups"}
	})
	if a := k.do(t, "", "GET", "/readyz", ""); !strings.Contains(string(a.body), `"sign_in":"ok"`) {
		t.Errorf("readyz: %s", a.body)
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := &http.Client{Jar: jar}
	page, err := dex.SignIn(t.Context(), browser, k.cfg.URL+"/signin", "auditor@example.com", dex.Password)
	if err != nil {
		t.Fatal(err)
	}
	page.Body.Close()
	if page.StatusCode != http.StatusOK || page.Request.URL.Host != k.http.Listener.Addr().String() {
		t.Fatalf("it ended at %s with %s", page.Request.URL, page.Status)
	}
	res, err := browser.Get(k.cfg.URL + "/api/v1/me")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var me api.Me
	if err := json.NewDecoder(res.Body).Decode(&me); err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%s, %v", res.Status, err)
	}
	if me.Person.Email != "auditor@example.com" || len(me.Roles) != 1 || me.Roles[0] != api.Auditor {
		t.Errorf("me %+v", me)
	}
	// Another site can send the cookie along in no browser, but say so in all.
	post, err := http.NewRequest("POST", k.cfg.URL+"/signout", nil)
	if err != nil {
		t.Fatal(err)
	}
	post.Header.Set("Sec-Fetch-Site", "cross-site")
	if res, err := browser.Do(post); err != nil || res.StatusCode != http.StatusForbidden {
		t.Errorf("a cross-site sign-out: %v, %v", res, err)
	}
	if log := k.logged.String(); !strings.Contains(log, "person="+me.Person.ID) || strings.Contains(log, "code=ey") || strings.Contains(log, "?code") {
		t.Errorf("the access log: %s", log)
	}
}

func TestNewRefusesMissingParts(t *testing.T) {
	t.Parallel()
	if _, err := New(context.Background(), Config{}); err == nil {
		t.Error("a broker of nothing starts")
	}
}
