package pages

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/audit"
	"sallyport/audit/event"
	"sallyport/internal/clock"
	"sallyport/web"
)

// visit is one call of a browser at the pages, as somebody ("" is nobody).
type visit struct {
	t     *testing.T
	doors http.Handler
}

func open(t *testing.T) (*house, visit) {
	h := newHouse(clock.NewManual(time.Date(2026, 11, 20, 23, 30, 0, 0, time.UTC))).furnish()
	return h, visit{t, doors(h)}
}

func (v visit) do(as, method, path string, form url.Values, headers ...string) *httptest.ResponseRecorder {
	v.t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(form.Encode()))
	r.Header.Set("Accept", "text/html,application/xhtml+xml")
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if as != "" {
		r.AddCookie(&http.Cookie{Name: "as", Value: as})
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	v.doors.ServeHTTP(w, r)
	return w
}

func (v visit) get(as, path string) *httptest.ResponseRecorder {
	v.t.Helper()
	return v.do(as, "GET", path, nil)
}

// page gets a page that must be there, and returns it.
func (v visit) page(as, path string) string {
	v.t.Helper()
	w := v.get(as, path)
	if w.Code != http.StatusOK {
		v.t.Fatalf("GET %s as %s: status %d\n%s", path, as, w.Code, w.Body)
	}
	return w.Body.String()
}

func contains(t *testing.T, page string, want ...string) {
	t.Helper()
	for _, s := range want {
		if !strings.Contains(page, s) {
			t.Errorf("the page lacks %q", s)
		}
	}
}

// first is the house's first request in the state by the person.
func (h *house) first(state api.State, requester string) api.Request {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range h.asked {
		if r.State == state && r.Requester.Subject == requester {
			return r
		}
	}
	panic("no such request")
}

// everywhere are the addresses of all pages.
func everywhere(h *house) []string {
	paths := []string{"/", "/approvals", "/requests", "/requests?scope=all", "/requests?state=denied", "/requests/new", "/requests/new?host=db-1&login=dba",
		"/requests/new?q=" + url.QueryEscape(hostile), "/requests/new?duration=" + url.QueryEscape(hostile) + "&reason=" + url.QueryEscape(hostile) + "&ticket=" + url.QueryEscape(hostile) + "&host=db-1&login=root",
		"/hosts", "/hosts?labels=((&q=" + url.QueryEscape(hostile), "/hosts/db-1", "/log", "/log?type=" + url.QueryEscape(hostile) + "&person=" + url.QueryEscape(hostile), "/log/events/0", "/log/events/4", "/evidence", "/evidence?from=" + url.QueryEscape(hostile) + "&zone=" + url.QueryEscape(hostile), "/evidence/pack-000000000000", "/evidence/pack-000000000001",
		"/requests/req-none", "/nowhere"}
	for _, r := range h.asked {
		paths = append(paths, "/requests/"+r.ID, "/requests/"+r.ID+"/decide?verdict=approve&comment="+url.QueryEscape(hostile))
	}
	odd := url.QueryEscape(hostile)
	paths = append(paths, "/trends", "/trends?weeks="+odd, "/log?host=db-1", "/log?host="+odd+"&zone=UTC&text="+odd, "/log?request="+odd+"&view="+odd)
	paths = append(paths, "/people", "/people?q="+odd+"&removed="+odd, "/people/"+h.people["engineer"].ID, "/people/"+odd,
		"/requests/new?start_date="+odd+"&start_time="+odd+"&zone="+odd, "/requests/new?not_before="+odd)
	return append(paths, "/why", "/why?host=db-1&login=dba", "/why?host="+odd+"&login="+odd+"&for="+odd+"&person="+odd, "/why?host=db-1&login="+odd,
		"/delegations", "/delegations?past=yes", "/delegations?scope="+odd, "/delegations?delegator="+odd+"&delegate="+odd+"&reason="+odd+"&until_date="+odd+"&zone="+odd, "/delegations/"+odd+"/end",
		"/delegations/"+h.lend("engineer", func(d *api.Delegation) { d.Groups, d.Reason = []string{hostile}, hostile }).ID+"/end",
		"/reach", "/reach?q="+odd+"&labels=((&person="+odd, "/hosts/db-1/reach?login=dba", "/hosts/db-1/reach?login="+odd,
		"/recordings/"+taped, "/recordings/"+taped+"/1", "/recordings/"+taped+"/3", "/recordings/"+odd, "/recordings/"+odd+"/"+odd)
}

const hostile = `"'><img src=x onerror=alert(1)><script>alert(1)</script>javascript:alert(1)`

var (
	quoted = regexp.MustCompile(`"[^"]*"`)
	inline = regexp.MustCompile(`(?i)<script>|<style|<[^>]+\s(style|on[a-z]+)\s*=`)
	script = regexp.MustCompile(`(?i)(href|src|action|formaction)="\s*(javascript|data|//)`)
)

func TestEveryPageIsStrictAndKeepsHostileTextText(t *testing.T) {
	t.Parallel()
	h, v := open(t)
	for key, c := range h.people {
		c.Name, c.Email = hostile, hostile
		h.people[key] = c
	}
	for i := range h.hosts {
		h.hosts[i].Address, h.hosts[i].HostKey, h.hosts[i].Labels = hostile, hostile, map[string]string{hostile: hostile}
		h.hosts[i].Logins = append(h.hosts[i].Logins, hostile)
	}
	for i := range h.asked {
		r := &h.asked[i]
		r.Requester.Name, r.Requester.Email, r.Host, r.Login, r.Reason, r.Ticket, r.Rule = hostile, hostile, hostile, hostile, hostile, hostile, hostile
		r.Duration, r.KeyFingerprint, r.TermsHash, r.CertificateLifetime = hostile, hostile, hostile, hostile
		for j := range r.Decisions {
			r.Decisions[j].Comment, r.Decisions[j].Approver.Name = hostile, hostile
			r.Decisions[j].Evidence = api.DecisionEvidence{Assurance: hostile, Statement: hostile, IDTokenHash: hostile, KeysHash: hostile,
				AMR: []string{hostile}, ACR: hostile}
		}
		for j := range r.Approvers {
			r.Approvers[j].Groups = append(slices.Clone(r.Approvers[j].Groups), hostile)
		}
	}
	h.write(h.people["engineer"], h.asked[0].ID, event.RequestRefused{Host: hostile, Login: hostile, Code: hostile, Reason: hostile})
	paths := append(everywhere(h), "/log/events/27")
	for _, as := range []string{"", "engineer", "approver", "auditor", "operator"} {
		for _, path := range paths {
			w := v.get(as, path)
			if w.Code/100 == 3 || path == "/nowhere" {
				continue
			}
			page := w.Body.String()
			if strings.Contains(page, "<img") || script.MatchString(page) {
				t.Errorf("%s as %q: hostile text became markup", path, as)
			}
			if bad := inline.FindString(quoted.ReplaceAllString(page, `""`)); bad != "" {
				t.Errorf("%s as %q: something inline: %s", path, as, bad)
			}
			if w.Header().Get("Content-Security-Policy") != web.Policy || w.Header().Get("Cache-Control") != "no-store" {
				t.Errorf("%s as %q: headers %v", path, as, w.Header())
			}
		}
	}
}

func TestStrangersAreLedToSignInAndBack(t *testing.T) {
	t.Parallel()
	h, v := open(t)
	contains(t, v.page("", "/"), `href="/signin?next=%2f"`)
	for _, path := range append(everywhere(h)[1:16], "/requests/req-1/changes?since=x", "//evil.example/%2e%2e", "/requests/..%2f..%2f%5cevil.example?x=//evil.example") {
		w := v.get("", path)
		if w.Code == http.StatusNotFound {
			continue // not one of ours
		}
		to, err := url.Parse(w.Header().Get("Location"))
		if w.Code != http.StatusSeeOther || err != nil || to.Host != "" || to.Path != "/signin" || to.Query().Get("next") != path {
			t.Errorf("GET %s: status %d to %s", path, w.Code, to)
		}
	}
}

// Chromium holds redirects after a form against form-action, GET forms included.
func TestStrangersFromWithinAreForwarded(t *testing.T) {
	t.Parallel()
	_, v := open(t)
	w := v.do("", "GET", "/hosts?q=db", nil, "Sec-Fetch-Site", "same-origin")
	if w.Code != http.StatusOK || w.Header().Get("Refresh") != "0; url=/signin?next=%2Fhosts%3Fq%3Ddb" {
		t.Errorf("status %d, Refresh %q", w.Code, w.Header().Get("Refresh"))
	}
}

func TestStrangersPostNothing(t *testing.T) {
	t.Parallel()
	h, v := open(t)
	id := h.first(api.Requested, "engineer").ID
	for _, path := range []string{"/requests", "/requests/preview", "/requests/" + id + "/approve", "/requests/" + id + "/deny", "/requests/" + id + "/cancel", "/requests/" + id + "/finish"} {
		if w := v.do("", "POST", path, url.Values{"comment": {"x"}}); w.Code != http.StatusUnauthorized {
			t.Errorf("POST %s: status %d, want 401", path, w.Code)
		}
	}
	if len(h.inputs) > 0 {
		t.Errorf("something was done: %v", h.inputs)
	}
}

func TestOtherSitesPostNothing(t *testing.T) {
	t.Parallel()
	h, v := open(t)
	r := h.first(api.Requested, "natarajan")
	for _, headers := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", "https://evil.example"}} {
		w := v.do("approver", "POST", "/requests/"+r.ID+"/approve", url.Values{"terms_hash": {r.TermsHash}}, headers...)
		if w.Code != http.StatusForbidden {
			t.Errorf("%v: status %d, want 403", headers, w.Code)
		}
	}
	if len(h.inputs) > 0 || h.first(api.Requested, "natarajan").ID != r.ID {
		t.Error("a decision was taken")
	}
	for _, path := range []string{"/approve", "/deny", "/cancel", "/finish"} {
		if w := v.get("approver", "/requests/"+r.ID+path); w.Code != http.StatusMethodNotAllowed {
			t.Errorf("GET %s: status %d: a link must change nothing", path, w.Code)
		}
	}
}

func TestOnlyAuditorsReadTheLog(t *testing.T) {
	t.Parallel()
	h, v := open(t)
	for _, path := range []string{"/log", "/log/events/0", "/log/events/0/leaf", "/log/events/0/receipt"} {
		for _, as := range []string{"engineer", "approver", "operator"} {
			h.inputs = nil
			w := v.get(as, path)
			if w.Code != http.StatusForbidden || strings.Contains(w.Body.String(), "registered host db-1") {
				t.Errorf("%s as %s: status %d", path, as, w.Code)
			}
			got, ok := h.inputs[0].(tried)
			if !ok || got.who.ID != h.people[as].ID || got.who.Source != "192.0.2.17" {
				t.Fatalf("%s as %s: tried %v", path, as, h.inputs)
			}
			if !strings.HasPrefix(got.action, "GET /log") || strings.Contains(got.action, "0") {
				t.Errorf("tried %q; the action is the route", got.action)
			}
		}
		if w := v.get("auditor", path); w.Code != http.StatusOK {
			t.Errorf("%s as auditor: status %d", path, w.Code)
		}
	}
}

// P9: a refusal that cannot be recorded stays one.
func TestP9_UnrecordedRefusalIsNoSuccess(t *testing.T) {
	t.Parallel()
	h, v := open(t)
	h.refuse = errors.New("the log is gone: secret detail")
	w := v.get("engineer", "/log")
	if w.Code != http.StatusInternalServerError || strings.Contains(w.Body.String(), "registered") {
		t.Errorf("status %d", w.Code)
	}
}

// P11: the text of an error that is not a refusal is for the process's log.
func TestP11_InternalErrorsAreNotShown(t *testing.T) {
	t.Parallel()
	h, v := open(t)
	h.refuse = errors.New("password=hunter2 on 10.0.0.5")
	r := h.first(api.Requested, "natarajan")
	for _, path := range []string{"/requests/" + r.ID + "/approve", "/requests"} {
		w := v.do("approver", "POST", path, url.Values{"terms_hash": {r.TermsHash}, "target": {"dba@db-1"}, "reason": {"x"}})
		if w.Code != http.StatusInternalServerError || strings.Contains(w.Body.String(), "hunter2") {
			t.Errorf("POST %s: status %d", path, w.Code)
		}
	}
}

func TestUnknownThings(t *testing.T) {
	t.Parallel()
	_, v := open(t)
	for path, want := range map[string]int{
		"/requests/req-none": 404, "/requests/req-none/changes": 404, "/hosts/none": 404, "/log/events/999": 404, "/log/events/-1": 404, "/log/events/x": 404, "/log/events/99999999999999999999": 404,
		"/log?before=x": 422, "/log?before=-4": 422, "/log?from=yesterday": 422, "/requests?scope=theirs": 422, "/requests?state=open": 422, "/hosts?labels=((": 422,
	} {
		w := v.get("auditor", path)
		if w.Code != want || !strings.Contains(w.Body.String(), "<h1>") {
			t.Errorf("%s: status %d, want %d and a page", path, w.Code, want)
		}
	}
}

// Whoever reads the log leaves a trace, or reads nothing.
func TestReadingTheLogIsDisclosedFirst(t *testing.T) {
	t.Parallel()
	h, v := open(t)
	paths := map[string]any{"/log?text=failover": audit.Filter{Text: "failover", Limit: 50}, "/log/events/1": int64(1),
		"/log/events/2/leaf": int64(2)}
	for path, what := range paths {
		h.disclosed, h.refuse = nil, nil
		if w := v.get("auditor", path); w.Code != http.StatusOK || len(h.disclosed) != 1 || h.disclosed[0].what != what {
			t.Errorf("%s: status %d, disclosed %+v", path, w.Code, h.disclosed)
		}
		h.refuse = audit.ErrUnavailable
		if w := v.get("auditor", path); w.Code != http.StatusServiceUnavailable || strings.Contains(w.Body.String(), "person.signed_in") {
			t.Errorf("%s: status %d although it could not be recorded", path, w.Code)
		}
	}
}

func TestLogFiltersAndPages(t *testing.T) {
	t.Parallel()
	h, v := open(t)
	h.inputs = nil
	v.page("auditor", "/log?type=request.&request=req-1&person=per-1&host=db-1&from=2026-11-20T10:00&to=2026-11-21T00:00:00Z&before=7")
	want := audit.Filter{Type: "request.", RequestID: "req-1", PersonID: "per-1", HostID: h.hosts[0].ID, Before: 7, Limit: 50,
		From: time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC), To: time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)}
	if got := h.inputs[0]; got != want {
		t.Errorf("asked for %+v\nwant %+v", got, want)
	}
	h.inputs = nil
	v.page("auditor", "/log?text=+failover+replica+")
	v.page("auditor", "/log?text=req-4f8k2m9qhx1z") // pasted where one looks for anything
	if h.inputs[0] != (audit.Filter{Text: "failover replica", Limit: 50}) || h.inputs[1] != (audit.Filter{RequestID: "req-4f8k2m9qhx1z", Limit: 50}) {
		t.Errorf("asked for %+v", h.inputs)
	}
	if page := v.page("auditor", "/log?text=stops+early"); !strings.Contains(page, "Looked at everything since") || !strings.Contains(page, "before=3") {
		t.Errorf("a search that stopped early does not say so:\n%s", page)
	}
	for range 60 {
		h.write(h.people["engineer"], "", event.PersonSignedOut{Via: "web"})
	}
	next := regexp.MustCompile(`href="(/log\?before=\d+&amp;type=person\.)"`)
	m := next.FindStringSubmatch(v.page("auditor", "/log?type=person."))
	if m == nil {
		t.Fatal("there is no second page, or it forgets the filter")
	}
	second := v.page("auditor", strings.ReplaceAll(m[1], "&amp;", "&"))
	if next.MatchString(second) || strings.Count(second, "<tr>") != 11 || !strings.Contains(second, `href="/log?type=person."`) {
		t.Error("the second page is not the last ten events with a way back")
	}
}

func TestEventDetailAndDownloads(t *testing.T) {
	t.Parallel()
	h, v := open(t)
	receipt, _ := h.Receipt(t.Context(), 1)
	contains(t, v.page("auditor", "/log/events/1"), "Event 1", `href="/log/events/0"`, `href="/log/events/2"`, h.VerifierKey()[:20], "terms_hash")
	for path, want := range map[string]string{"leaf": string(h.leaves[1].Leaf), "receipt": string(receipt)} {
		w := v.get("auditor", "/log/events/1/"+path)
		if w.Body.String() != want || !strings.HasPrefix(w.Header().Get("Content-Disposition"), "attachment") || w.Header().Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %q, headers %v", path, w.Body, w.Header())
		}
	}
}

func TestChangesAnswerAsSoonAsSomethingDiffers(t *testing.T) {
	t.Parallel()
	h, v := open(t)
	r := h.first(api.Requested, "natarajan")
	path := "/requests/" + r.ID
	since := regexp.MustCompile(`data-version="([0-9a-f]{16})"`).FindStringSubmatch(v.page("natarajan", path))[1]
	done := make(chan *httptest.ResponseRecorder)
	go func() { done <- v.get("natarajan", path+"/changes?since="+since) }()
	if w := v.do("approver", "POST", path+"/approve", url.Values{"terms_hash": {r.TermsHash}}); w.Code != http.StatusSeeOther {
		t.Fatalf("approving: status %d", w.Code)
	}
	w := <-done
	if w.Code != http.StatusOK || strings.Contains(w.Body.String(), "<html") || strings.Contains(w.Body.String(), since) {
		t.Errorf("status %d, body %s", w.Code, w.Body)
	}
	contains(t, w.Body.String(), "Approved", "sally ssh dba@payments-replica-3.eu-west")
}

func TestChangesEndWhenTheProcessDoes(t *testing.T) {
	t.Parallel()
	h, v := open(t)
	closing := make(chan struct{})
	close(closing)
	p, err := New(Config{Approvals: h, Decisions: provider{h}, Broker: rooms{h}, Fleet: rooms{h}, Registry: rooms{h}, Deployments: yard{h}, Log: h, Evidence: drawer{h}, Recordings: archive{h}, Clock: h.clock, URL: "https://sallyport.example.com", Closing: closing})
	if err != nil {
		t.Fatal(err)
	}
	r := h.first(api.Requested, "natarajan")
	since := regexp.MustCompile(`data-version="([0-9a-f]{16})"`).FindStringSubmatch(v.page("natarajan", "/requests/"+r.ID))[1]
	w := visit{t, route(p, h)}.get("natarajan", "/requests/"+r.ID+"/changes?since="+since)
	if w.Code != http.StatusNoContent || w.Body.Len() > 0 {
		t.Errorf("status %d, %d bytes", w.Code, w.Body.Len())
	}
}

func TestNewRefusesMissingRooms(t *testing.T) {
	t.Parallel()
	h, _ := open(t)
	for _, cfg := range []Config{{}, {Broker: rooms{h}, Fleet: rooms{h}, Registry: rooms{h}, Log: h, Evidence: drawer{h}, Recordings: archive{h}, Clock: h.clock, URL: "https://sallyport.example.com"}, {Approvals: h, Log: h, Clock: h.clock}, {Approvals: h, Broker: rooms{h}, Clock: h.clock}, {Approvals: h, Broker: rooms{h}, Fleet: rooms{h}, Log: h}} {
		if _, err := New(cfg); err == nil {
			t.Errorf("accepted %+v", cfg)
		}
	}
}

func TestOversizedForm(t *testing.T) {
	t.Parallel()
	h, _ := open(t)
	limited := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, 1024)
		doors(h).ServeHTTP(w, r)
	})
	v := visit{t, limited}
	if w := v.do("engineer", "POST", "/requests", url.Values{"reason": {strings.Repeat("x", 2048)}}); w.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("status %d, want 413", w.Code)
	}
	w := v.do("engineer", "POST", "/requests", nil, "Content-Type", "application/x-www-form-urlencoded; charset=;;")
	if w.Code != http.StatusUnprocessableEntity {
		t.Errorf("unreadable form: status %d, want 422", w.Code)
	}
	io.Copy(io.Discard, w.Body)
}
