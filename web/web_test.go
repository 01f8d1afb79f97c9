package web

import (
	"html/template"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"
)

const hostile = `"><img src=x onerror=alert(1)><script>alert(1)</script>'` + "`"

var now = time.Date(2026, 11, 20, 23, 30, 0, 0, time.UTC)

// render renders a page for somebody with a hostile name.
func render(t *testing.T, page string, data any) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest("GET", "/somewhere", nil)
	r = r.WithContext(WithChrome(r.Context(), Chrome{Name: hostile, Email: hostile, Auditor: true, Waiting: func() int { return 3 }, Now: now}))
	w := httptest.NewRecorder()
	Render(w, r, http.StatusOK, page, data)
	return w
}

var (
	quoted = regexp.MustCompile(`"[^"]*"`)
	inline = regexp.MustCompile(`(?i)<script>|<style|<[^>]+\s(style|on[a-z]+)\s*=`)
)

// forbidden finds what the policy forbids: scripts and styles within the page.
func forbidden(page string) string { return inline.FindString(quoted.ReplaceAllString(page, `""`)) }

// pages that other packages render, with the data they give.
var pages = map[string]any{
	"landing": "/",
	"forward": template.URL("https://id.example.com/logout?a=b&c=%22"),
	"authorize": struct {
		Client, Person string
		Fields         map[string]string
	}{"sally", hostile, map[string]string{"state": hostile}},
	"device": struct {
		UserCode, Message string
		Confirm           bool
	}{hostile, hostile, true},
	"device_done": nil,
	"problem": struct {
		Title, Detail, Hint, Code, Instance string
		Status                              int
	}{hostile, hostile, hostile, hostile, hostile, 403},
}

func TestPagesShowHostileTextAsText(t *testing.T) {
	t.Parallel()
	for page, data := range pages {
		w := render(t, page, data)
		body := w.Body.String()
		if w.Code != http.StatusOK {
			t.Errorf("%s: status %d", page, w.Code)
		}
		if bad := forbidden(body); bad != "" || strings.Contains(body, "<img") {
			t.Errorf("%s: hostile text became markup, or the page has something inline: %s", page, bad)
		}
		if !strings.Contains(body, "&lt;img") {
			t.Errorf("%s: the name is not shown", page)
		}
	}
}

func TestPolicyIsStrict(t *testing.T) {
	t.Parallel()
	w := render(t, "landing", "/")
	policy := w.Header().Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "form-action 'self'", "frame-ancestors 'none'", "base-uri 'none'"} {
		if !strings.Contains(policy, want) {
			t.Errorf("the policy lacks %s", want)
		}
	}
	for _, bad := range []string{"unsafe", "*", "http:", "https:", "data:", "blob:"} {
		if strings.Contains(policy, bad) {
			t.Errorf("the policy has %s", bad)
		}
	}
	for header, want := range map[string]string{"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Content-Type": "text/html; charset=utf-8"} {
		if got := w.Header().Get(header); got != want {
			t.Errorf("%s is %q, want %q", header, got, want)
		}
	}
}

func TestRenderIsAllOrNothing(t *testing.T) {
	t.Parallel()
	for page, data := range map[string]any{"problem": struct{ Title string }{"half"}, "no-such-page": nil} {
		w := render(t, page, data)
		if w.Code != http.StatusInternalServerError || strings.Contains(w.Body.String(), "<") {
			t.Errorf("%s: status %d, body %q", page, w.Code, w.Body)
		}
	}
}

func TestForwardNamesItsTarget(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	Forward(w, httptest.NewRequest("POST", "/signout", nil), "http://127.0.0.1:4711/callback?code=x&state=y")
	if got := w.Header().Get("Refresh"); got != "0; url=http://127.0.0.1:4711/callback?code=x&state=y" {
		t.Errorf("Refresh is %q", got)
	}
	if !strings.Contains(w.Body.String(), `href="http://127.0.0.1:4711/callback?code=x&amp;state=y"`) {
		t.Error("the page has no link for browsers that do not follow")
	}
}

func TestStatic(t *testing.T) {
	t.Parallel()
	get := func(path string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		Static().ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		return w
	}
	body := render(t, "landing", "/").Body.String()
	for _, want := range []string{"text/css", "text/javascript", "image/svg+xml"} {
		found := false
		for _, m := range regexp.MustCompile(`(?:href|src)="(/static/[^"]+)"`).FindAllStringSubmatch(body, -1) {
			w := get(m[1])
			if w.Code != http.StatusOK {
				t.Errorf("%s: status %d", m[1], w.Code)
			}
			if strings.HasPrefix(w.Header().Get("Content-Type"), want) {
				found = strings.Contains(w.Header().Get("Cache-Control"), "immutable") && w.Header().Get("X-Content-Type-Options") == "nosniff"
			}
		}
		if !found {
			t.Errorf("the layout refers to no %s that is kept for ever", want)
		}
	}
	for _, path := range []string{"/static/", "/static/app.css", "/static/../templates/layout.html", "/static/app.000000000000.css"} {
		if w := get(path); w.Code != http.StatusNotFound {
			t.Errorf("%s: status %d, want 404", path, w.Code)
		}
	}
}

func TestAssetsReferToNothingOutside(t *testing.T) {
	t.Parallel()
	for name, a := range assets {
		if a.contentType == "text/plain; charset=utf-8" {
			continue // which does nothing
		}
		text := strings.ReplaceAll(string(a.body), "http://www.w3.org/2000/svg", "")
		if regexp.MustCompile(`https?://|@import|url\(|eval\(|innerHTML`).MatchString(text) {
			t.Errorf("%s refers to something outside, or runs text", name)
		}
	}
}

func TestWords(t *testing.T) {
	t.Parallel()
	for _, x := range []struct{ got, want string }{
		{duration("30m"), "30 minutes"},
		{duration("1h0m0s"), "1 hour"},
		{duration(90 * time.Minute), "1 hour 30 minutes"},
		{duration("1s"), "1 second"},
		{duration("0s"), "0 seconds"},
		{duration(hostile), hostile},
		{count(1, "more approval"), "1 more approval"},
		{count(0, "approval"), "0 approvals"},
		{count(2, "person"), "2 people"},
		{initials("Erin Engineer"), "EE"},
		{initials("ada"), "A"},
		{initials("Łukasz van der Ölm-Ørsted"), "ŁØ"},
		{initials("  <>"), "?"},
		{either(nil), ""},
		{either([]string{"a"}), "a"},
		{either([]string{"a", "b", "c"}), "a, b or c"},
		{short("0123456789abcdef"), "0123456789ab…"},
		{short("0123"), "0123"},
		{sentence("no rule fits"), "No rule fits."},
		{sentence("ask: why?"), "Ask: why?"},
		{sentence("éa"), "Éa."},
		{sentence(""), ""},
		{relative(now, now), "just now"},
		{relative(now.Add(20*time.Second), now), "in a moment"},
		{relative(now.Add(-time.Minute), now), "1 minute ago"},
		{relative(now.Add(89*time.Minute), now), "in 89 minutes"},
		{relative(now.Add(-2*time.Hour), now), "2 hours ago"},
		{relative(now.Add(72*time.Hour), now), "in 3 days"},
		{relative(now, time.Time{}), "20 Nov 2026, 23:30 UTC"},
		{string(moment((*time.Time)(nil))), "—"},
		{string(moment(&now)), `<time datetime="2026-11-20T23:30:00Z" data-show="moment">20 Nov 2026, 23:30 UTC</time>`},
		{string(moment(now.In(time.FixedZone("", 3600)))), `<time datetime="2026-11-20T23:30:00Z" data-show="moment">20 Nov 2026, 23:30 UTC</time>`},
	} {
		if x.got != x.want {
			t.Errorf("got %q, want %q", x.got, x.want)
		}
	}
}

func TestBadgesDifferByWordAndShape(t *testing.T) {
	t.Parallel()
	words, shapes := map[string]bool{}, map[string]bool{}
	for state, s := range states {
		if words[s.word] || shapes[s.icon] {
			t.Errorf("%s has the word or the shape of another state", state)
		}
		words[s.word], shapes[s.icon] = true, true
		if icons[s.icon] == "" || !strings.Contains(string(badge(state)), s.word) {
			t.Errorf("%s is not shown", state)
		}
	}
	if got := string(badge(hostile)); strings.Contains(got, "<img") {
		t.Errorf("an unknown state became markup: %s", got)
	}
}
