package server

import (
	"net/http"
	"strings"
	"testing"

	"sallyport/api"
	"sallyport/server/rest"
)

func TestBadInputIsRefusedWithAHint(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	k.host(t, "db-1", "database", "dba")
	const requests = "/api/v1/requests"
	long := strings.Repeat("x", 2001)
	for name, c := range map[string]struct {
		method, path, body string
		status             int
		code, says         string
	}{
		"no body":             {"POST", requests, "", 400, "malformed-json", ""},
		"not JSON":            {"POST", requests, `{"host":`, 400, "malformed-json", ""},
		"two values":          {"POST", requests, `{"host":"a","login":"b"}{}`, 400, "malformed-json", ""},
		"an array":            {"POST", requests, `[]`, 422, "invalid-input", "object"},
		"null":                {"POST", requests, `null`, 422, "invalid-input", ""},
		"deep":                {"POST", requests, strings.Repeat("[", 30000), 400, "malformed-json", ""},
		"unknown field":       {"POST", requests, `{"host":"db-1","login":"dba","hosst":"x"}`, 422, "invalid-input", "hosst"},
		"wrong type":          {"POST", requests, `{"host":7,"login":"dba"}`, 422, "invalid-input", "host"},
		"missing field":       {"POST", requests, `{"host":"db-1"}`, 422, "invalid-input", "login"},
		"too long":            {"POST", requests, `{"host":"db-1","login":"dba","reason":"` + long + `"}`, 422, "invalid-input", "reason"},
		"too large":           {"POST", requests, `{"reason":"` + strings.Repeat("x", rest.MaxBody) + `"}`, 413, "body-too-large", ""},
		"bad time":            {"POST", requests, `{"host":"db-1","login":"dba","not_before":"tomorrow"}`, 422, "invalid-input", "not_before"},
		"unknown verdict":     {"POST", requests + "/req-000000000000/decisions", `{"verdict":"maybe"}`, 422, "invalid-input", "verdict"},
		"unknown query":       {"GET", requests + "?scoope=mine", "", 422, "invalid-input", "scoope"},
		"unknown scope":       {"GET", requests + "?scope=everything", "", 422, "invalid-input", "scope"},
		"unknown state":       {"GET", requests + "?state=open", "", 422, "invalid-input", "state"},
		"limit":               {"GET", requests + "?limit=201", "", 422, "invalid-input", "limit"},
		"wait too long":       {"GET", requests + "/req-000000000000?wait=2h&state=requested", "", 422, "bad-duration", "wait"},
		"wait without unit":   {"GET", requests + "/req-000000000000?wait=30&state=requested", "", 422, "bad-duration", "wait"},
		"time of events":      {"GET", "/api/v1/audit/events?from=yesterday", "", 422, "bad-time", "from"},
		"index":               {"GET", "/api/v1/audit/events/first", "", 422, "invalid-input", "index"},
		"index below 0":       {"GET", "/api/v1/audit/events/-1", "", 422, "invalid-input", "index"},
		"no such event":       {"GET", "/api/v1/audit/events/99999", "", 404, "", ""},
		"no such request":     {"GET", requests + "/req-000000000000", "", 404, "", ""},
		"no such host":        {"GET", "/api/v1/hosts/nope", "", 404, "", ""},
		"NUL in a field":      {"POST", requests, `{"host":"db-1\u0000","login":"dba","reason":"x"}`, 0, "", ""},
		"NUL in the reason":   {"POST", requests, `{"host":"db-1","login":"dba","reason":"a\u0000b"}`, 0, "", ""},
		"NUL in the path":     {"GET", requests + "/req-%00", "", 0, "", ""},
		"not UTF-8":           {"GET", "/api/v1/hosts/%ff%fe", "", 0, "", ""},
		"not UTF-8 in query":  {"GET", "/api/v1/hosts?search=%ff%fe", "", 0, "", ""},
		"no such route":       {"GET", "/api/v1/nothing", "", 404, "unknown-address", ""},
		"no such page":        {"GET", "/nothing", "", 404, "unknown-address", ""},
		"wrong method":        {"DELETE", "/api/v1/me", "", 405, "unknown-method", ""},
		"wrong method, page":  {"DELETE", "/healthz", "", 405, "unknown-method", ""},
		"no such tile":        {"GET", "/log/tile/9/999", "", 404, "", ""},
		"nonsense for a tile": {"GET", "/log/tile/../../etc", "", 404, "", ""},
	} {
		for _, who := range []string{"engineer", "auditor"} {
			if strings.Contains(c.path, "/audit/") != (who == "auditor") {
				continue
			}
			a := k.do(t, who, c.method, c.path, c.body)
			if c.status == 0 { // whatever it is, it is not our fault
				if a.StatusCode >= 500 {
					t.Errorf("%s: %s\n%s", name, a.Status, a.body)
				}
				continue
			}
			if a.StatusCode != c.status {
				t.Errorf("%s: %s, want %d\n%s", name, a.Status, c.status, a.body)
				continue
			}
			p := problemOf(t, a, c.status)
			if c.code != "" && p.Code != c.code || !strings.Contains(p.Detail, c.says) {
				t.Errorf("%s: code %s, detail %q; want %s and %q in it", name, p.Code, p.Detail, c.code, c.says)
			}
			if len(a.body) > 4000 {
				t.Errorf("%s: the input is echoed in %d bytes", name, len(a.body))
			}
		}
	}
}

func TestOnlyJSONIsTaken(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	for _, ct := range []string{"text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/xml"} {
		a := k.do(t, "engineer", "POST", "/api/v1/requests", `{"host":"db-1","login":"dba"}`, "Content-Type", ct)
		if p := problemOf(t, a, 415); p.Code != "unsupported-media-type" {
			t.Errorf("%s: %+v", ct, p)
		}
	}
}

func TestCrossSitePostsAreRefused(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	h := k.host(t, "web-1", "web", "web")
	body := `{"host":"web-1","login":"web"}`
	for name, header := range map[string][]string{
		"another site":       {"Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"},
		"a sibling":          {"Sec-Fetch-Site", "same-site", "Origin", "https://evil.sallyport.test"},
		"an older browser":   {"Origin", "https://evil.example"},
		"an origin of null":  {"Origin", "null"},
		"a form as JSON":     {"Sec-Fetch-Site", "cross-site", "Content-Type", "text/plain"},
		"a method of delete": {"Sec-Fetch-Site", "cross-site"},
	} {
		method, path := "POST", "/api/v1/requests"
		if strings.HasSuffix(name, "delete") {
			method, path = "DELETE", "/api/v1/hosts/"+h.ID
		}
		for _, who := range []string{"engineer", "operator"} {
			a := k.do(t, who, method, path, body, header...)
			if p := problemOf(t, a, 403); p.Code != "cross-origin" {
				t.Errorf("%s: %+v", name, p)
			}
		}
	}
	mine := get[api.Page[api.Request]](t, k.do(t, "engineer", "GET", "/api/v1/requests", ""), 200)
	if len(mine.Items) != 0 {
		t.Errorf("a cross-site post made %d requests", len(mine.Items))
	}
	// sally sends neither header; a page of ours sends same-origin.
	get[api.Request](t, k.do(t, "engineer", "POST", "/api/v1/requests", body), 201)
	get[api.Request](t, k.do(t, "engineer", "POST", "/api/v1/requests", body, "Sec-Fetch-Site", "same-origin"), 201)
}

func TestSignInIsLimitedPerAddress(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	var last answer
	for range signInBurst + 60 {
		if last = k.do(t, "", "POST", "/oauth/token", "grant_type=refresh_token&client_id=sally&refresh_token=guess",
			"Content-Type", "application/x-www-form-urlencoded"); last.StatusCode == http.StatusTooManyRequests {
			break
		}
	}
	if p := problemOf(t, last, 429); p.Code != "too-many-attempts" || last.Header.Get("Retry-After") == "" {
		t.Errorf("%+v, Retry-After %q", p, last.Header.Get("Retry-After"))
	}
	if a := k.do(t, "engineer", "GET", "/api/v1/me", ""); a.StatusCode != 200 {
		t.Errorf("somebody who is signed in is refused with it: %s", a.Status)
	}
}
