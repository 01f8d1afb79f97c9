package server

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/go-chi/chi/v5"

	"sallyport/api"
	"sallyport/server/rest"
)

// Another site makes a browser that is signed in send whatever it likes, to every
// address that changes something: pages, sign-in and API alike.
func TestCrossSiteChangesAreRefusedEverywhere(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	var routes []string
	example := strings.NewReplacer("{id}", "req-000000000000", "{host}", "web-1")
	err := chi.Walk(k.handler.(chi.Routes), func(method, route string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		if method != http.MethodGet && !strings.HasSuffix(route, "*") {
			routes = append(routes, method+" "+example.Replace(route))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	document := get[struct{ Paths map[string]map[string]any }](t, k.do(t, "", "GET", rest.Prefix+"/openapi.json", ""), 200)
	for path, calls := range document.Paths {
		for method := range calls {
			if method != "get" && method != "parameters" {
				routes = append(routes, strings.ToUpper(method)+" "+rest.Prefix+example.Replace(strings.TrimPrefix(path, rest.Prefix)))
			}
		}
	}
	for _, must := range []string{"POST /signout", "POST /oauth/authorize", "POST /device", "POST /requests", "POST /requests/req-000000000000/approve",
		"POST /api/v1/requests/req-000000000000/decisions", "PUT /api/v1/hosts/web-1", "DELETE /api/v1/hosts/web-1"} {
		if !strings.Contains(strings.Join(routes, "\n"), must) {
			t.Errorf("%s is not among the routes:\n%s", must, strings.Join(routes, "\n"))
		}
	}
	for _, route := range routes {
		method, path, _ := strings.Cut(route, " ")
		for _, header := range [][]string{
			{"Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"},
			{"Origin", "https://evil.example", "Content-Type", "application/x-www-form-urlencoded"},
			{"Origin", "null", "Content-Type", "text/plain"},
		} {
			if p := problemOf(t, k.do(t, "operator", method, path, "{}", header...), 403); p.Code != "cross-origin" {
				t.Errorf("%s with %q: %+v", route, header, p)
			}
		}
	}
}

// A proxy that passes on any Host, or a name that an attacker lets lead to the
// broker's address: nothing in an answer is made of it.
func TestHostHeaderIsNotBelieved(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	const evil = "evil.example"
	for _, path := range []string{"/", "/signin?next=/requests", "/requests/new", "/device", "/oauth/authorize?client_id=sally",
		"/.well-known/oauth-authorization-server", "/oauth/jwks", "/api/v1/openapi.json", "/api/v1/me", "/nothing", "/log/checkpoint"} {
		for _, accept := range []string{"text/html", "application/json"} {
			for _, who := range []string{"", "engineer"} {
				req, err := http.NewRequest("GET", k.http.URL+path, nil)
				if err != nil {
					t.Fatal(err)
				}
				req.Host = evil
				req.Header.Set("Accept", accept)
				req.Header.Set(whoHeader, who)
				for _, name := range []string{"X-Forwarded-Host", "X-Forwarded-Server", "X-Original-URL", "X-Rewrite-URL"} {
					req.Header.Set(name, evil)
				}
				req.Header.Set("Forwarded", "host="+evil)
				a := k.send(t, req)
				var said strings.Builder
				a.Header.Write(&said)
				said.Write(a.body)
				if strings.Contains(said.String(), evil) {
					t.Errorf("GET %s as %q says:\n%s", path, who, said.String())
				}
			}
		}
	}
}

// What is somebody's own is in no cache, and in no other site's frame.
func TestPagesAreNeitherKeptNorFramed(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	k.host(t, "db-1", "database", "dba")
	r := k.ask(t, "db-1", "dba")
	for _, path := range []string{"/", "/requests", "/requests/new", "/requests/" + r.ID, "/approvals", "/hosts", "/hosts/db-1", "/log",
		"/log/events/0", "/log/events/0/leaf", "/device", "/signin", "/nothing",
		"/api/v1/me", "/api/v1/hosts", "/api/v1/requests/" + r.ID, "/api/v1/audit/events"} {
		for _, who := range []string{"", "engineer", "auditor"} {
			a := k.do(t, who, "GET", path, "", "Accept", "text/html")
			if got := a.Header.Get("Cache-Control"); !strings.Contains(got, "no-store") {
				t.Errorf("%s as %q: Cache-Control %q", path, who, got)
			}
			if a.Header.Get("X-Frame-Options") != "DENY" || !strings.Contains(a.Header.Get("Content-Security-Policy"), "frame-ancestors 'none'") {
				t.Errorf("%s as %q may be framed: %q", path, who, a.Header)
			}
		}
	}
}

// TestP10_PagesShowNoMoreThanTheAPI is the matrix of who sees and does what, by
// the pages' addresses.
func TestP10_PagesShowNoMoreThanTheAPI(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	k.host(t, "db-1", "database", "dba")
	who := []string{"engineer", "stranger", "approver", "auditor", "operator"}
	form := []string{"Content-Type", "application/x-www-form-urlencoded", "Accept", "text/html"}
	r := k.ask(t, "db-1", "dba")
	for _, c := range []struct {
		path string
		want []int // by who
	}{
		{"/requests/" + r.ID, []int{200, 404, 200, 200, 200}},
		{"/requests/" + r.ID + "/changes", []int{200, 404, 200, 200, 200}},
		{"/requests?scope=all", []int{200, 200, 200, 200, 200}},
		{"/hosts/db-1", []int{200, 404, 404, 200, 200}},
		{"/requests/new?host=db-1&login=dba", []int{200, 200, 200, 200, 200}},
		{"/log", []int{403, 403, 403, 200, 403}},
		{"/log/events/0", []int{403, 403, 403, 200, 403}},
		{"/log/events/0/leaf", []int{403, 403, 403, 200, 403}},
		{"/log/events/0/receipt", []int{403, 403, 403, 200, 403}},
	} {
		for i, want := range c.want {
			a := k.do(t, who[i], "GET", c.path, "", form[2:]...)
			if a.StatusCode != want {
				t.Errorf("%s as %s: %s, want %d", c.path, who[i], a.Status, want)
			}
			// Who may not know of the request reads nothing of it, wherever.
			if who[i] == "stranger" && (strings.Contains(string(a.body), "the disk is full") || strings.Contains(string(a.body), r.ID) && want != 404) {
				t.Errorf("%s tells a stranger of the request:\n%s", c.path, a.body)
			}
		}
	}
	for _, c := range []struct {
		action string
		want   []int // by who; 303 did it
	}{
		{"approve", []int{403, 404, 303, 403, 403}},
		{"deny", []int{403, 404, 303, 403, 403}},
		{"cancel", []int{303, 404, 403, 403, 403}},
		{"finish", []int{409, 404, 403, 403, 403}},
	} {
		for i, want := range c.want {
			r := k.ask(t, "db-1", "dba")
			body := "comment=no&terms_hash=" + r.TermsHash
			if a := k.do(t, who[i], "POST", "/requests/"+r.ID+"/"+c.action, body, form...); a.StatusCode != want {
				t.Errorf("%s as %s: %s, want %d\n%s", c.action, who[i], a.Status, want, a.body)
			}
			after := get[api.Request](t, k.do(t, "operator", "GET", "/api/v1/requests/"+r.ID, ""), 200)
			if (after.State != api.Requested) != (want == 303) {
				t.Errorf("%s as %s: the request is %s", c.action, who[i], after.State)
			}
		}
	}
	for _, who := range who[1:] {
		before := len(get[api.Page[api.Request]](t, k.do(t, "operator", "GET", "/api/v1/requests?limit=200", ""), 200).Items)
		if a := k.do(t, who, "POST", "/requests", "target=dba@db-1&reason=please&step=send", form...); a.StatusCode != 404 {
			t.Errorf("a request by %s: %s", who, a.Status)
		}
		if after := len(get[api.Page[api.Request]](t, k.do(t, "operator", "GET", "/api/v1/requests?limit=200", ""), 200).Items); after != before {
			t.Errorf("%s made a request", who)
		}
	}
}

// The names of the log's parts, written otherwise: entries stay the auditors'.
func TestEntryBundlesHaveNoOtherName(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	for _, path := range []string{"/log/tile/entries/000.p/1", "/log/tile/%65ntries/000.p/1", "/log/tile//entries/000.p/1", "/log/tile/./entries/000.p/1",
		"/log/tile/0/../entries/000.p/1", "/log//tile/entries/000.p/1", "/log/tile/entries%2f000.p/1", "/log/tile/-1/000.p/1", "/log/tile/data/000.p/1"} {
		a := k.do(t, "", "GET", path, "")
		if a.StatusCode != 401 && a.StatusCode != 404 {
			t.Errorf("%s: %s\n%s", path, a.Status, a.body)
		}
	}
}

// Somebody without a sign-in asks for device codes and sign-ins as fast as they
// can, and says that each call comes from somewhere else.
func TestFloodsOfStrangersAreBounded(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	for _, c := range []struct{ method, path, body string }{
		{"POST", "/oauth/device_authorization", "client_id=sally"},
		{"GET", "/signin", ""},
	} {
		refused := 0
		for i := range 2 * signInBurst {
			a := k.do(t, "", c.method, c.path, c.body, "Content-Type", "application/x-www-form-urlencoded",
				"X-Forwarded-For", fmt.Sprintf("192.0.2.%d", i), "X-Real-Ip", fmt.Sprintf("192.0.2.%d", i), "Forwarded", fmt.Sprintf("for=192.0.2.%d", i))
			if a.StatusCode == http.StatusTooManyRequests {
				refused++
			}
		}
		if refused < signInBurst/2 {
			t.Errorf("of %d calls of %s only %d were refused", 2*signInBurst, c.path, refused)
		}
	}
	var codes, cookies int
	if err := k.db.Pool.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM device_authorizations), (SELECT count(*) FROM sessions)`).Scan(&codes, &cookies); err != nil {
		t.Fatal(err)
	}
	if codes > 2*signInBurst || cookies > 2*signInBurst {
		t.Errorf("the flood left %d device codes and %d cookies", codes, cookies)
	}
	if a := k.do(t, "engineer", "GET", "/api/v1/me", ""); a.StatusCode != 200 {
		t.Errorf("somebody who is signed in is refused with it: %s", a.Status)
	}
}
