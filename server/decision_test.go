package server

import (
	"encoding/json"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/approvals/policy"
	"sallyport/internal/clock"
	"sallyport/internal/oidctest"
	"sallyport/internal/pgtest"
)

const signedPolicy = `
sallyport: 1
roles:
  operator: [operators]
  auditor: [auditors]
rules:
  - {name: database, who: [engineers], where: class=database, logins: [dba], duration: {max: 2h},
     approvals: [{slots: [{groups: [approvers]}]}], assurance: session}
  - {name: root, who: [engineers], where: "*", logins: [root], duration: {max: 1h},
     approvals: [{slots: [{groups: [approvers]}, {groups: [security]}]}]}
  - {name: fresh, who: [engineers], where: "*", logins: [fresh], duration: {max: 1h},
     approvals: [{slots: [{groups: [approvers]}]}], max_age: 15m}
`

// signedKit is a kit whose people come from a provider that signs decisions, as
// the policy has it unless a rule says otherwise.
type signedKit struct {
	*kit
	t        *testing.T
	provider *oidctest.Provider
}

func newSignedKit(t *testing.T) *signedKit {
	t.Helper()
	k := &signedKit{t: t, provider: oidctest.New(t, clock.System)}
	k.kit = newKitOn(t, pgtest.New(t), func(cfg *Config) {
		cfg.OIDC = OIDC{Issuer: k.provider.URL, ClientID: oidctest.ClientID, ClientSecret: oidctest.ClientSecret, GroupsClaim: "groups"}
		var err error
		if cfg.Policy, err = policy.Parse([]byte(signedPolicy)); err != nil {
			t.Fatal(err)
		}
	})
	for _, login := range []string{"dba", "root", "fresh"} {
		k.host(t, "for-"+login, "database", login)
	}
	return k
}

// person is somebody at a browser of their own.
type person struct {
	k       *signedKit
	browser *http.Client
	subject string
	groups  []string
}

// at signs somebody in, by the provider.
func (k *signedKit) at(subject string, groups ...string) *person {
	k.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		k.t.Fatal(err)
	}
	p := &person{k: k, browser: &http.Client{Jar: jar}, subject: subject, groups: groups}
	k.signsIn(p)
	if page := p.get("/signin?next=/requests"); page.StatusCode != http.StatusOK {
		k.t.Fatalf("signing in as %s: %s", subject, page.Status)
	}
	return p
}

// signsIn is who sits at the provider's page from now on.
func (k *signedKit) signsIn(p *person) {
	k.provider.Claim("sub", p.subject)
	k.provider.Claim("name", strings.ToUpper(p.subject[:1])+p.subject[1:])
	k.provider.Claim("groups", p.groups)
}

func (p *person) send(r *http.Request) answer {
	p.k.t.Helper()
	r.Header.Set("Accept", "text/html")
	resp, err := p.browser.Do(r)
	if err != nil {
		p.k.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		p.k.t.Fatal(err)
	}
	return answer{resp, []byte(html.UnescapeString(string(body)))}
}

func (p *person) get(target string) answer {
	p.k.t.Helper()
	if strings.HasPrefix(target, "/") {
		target = p.k.cfg.URL + target
	}
	r, err := http.NewRequest("GET", target, nil)
	if err != nil {
		p.k.t.Fatal(err)
	}
	return p.send(r)
}

var sentOn = regexp.MustCompile(`0; url=(.*)`)

// press presses the button on the request's page, and returns where the provider is.
func (p *person) press(r api.Request, verdict api.Verdict) (toProvider string, page answer) {
	p.k.t.Helper()
	form := url.Values{"terms_hash": {r.TermsHash}, "comment": {"by " + p.subject}}
	req, err := http.NewRequest("POST", p.k.cfg.URL+"/requests/"+r.ID+"/"+string(verdict), strings.NewReader(form.Encode()))
	if err != nil {
		p.k.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	page = p.send(req)
	if m := sentOn.FindStringSubmatch(page.Header.Get("Refresh")); m != nil {
		return m[1], page
	}
	return "", page
}

// decide goes the whole way.
func (p *person) decide(r api.Request, verdict api.Verdict) answer {
	p.k.t.Helper()
	p.k.signsIn(p)
	to, page := p.press(r, verdict)
	if to == "" {
		return page
	}
	return p.get(to)
}

// ask is a request of the engineer.
func (k *signedKit) ask(login string) api.Request {
	k.t.Helper()
	return k.kit.ask(k.t, "for-"+login, login)
}

func (k *signedKit) see(id string) api.Request {
	k.t.Helper()
	return get[api.Request](k.t, k.do(k.t, "engineer", "GET", "/api/v1/requests/"+id, ""), http.StatusOK)
}

func TestProviderSignsDecisions(t *testing.T) {
	t.Parallel()
	k := newSignedKit(t)
	ada, sam := k.at("ada", "approvers"), k.at("sam", "security")
	r := k.ask("root")
	if r.Assurance != "provider" {
		t.Fatalf("the request's assurance is %q", r.Assurance)
	}
	page := ada.decide(r, api.Approve)
	if page.StatusCode != http.StatusOK || page.Request.URL.Path != "/requests/"+r.ID || !strings.Contains(string(page.body), "by ada") {
		t.Fatalf("it ended at %s with %s: %s", page.Request.URL, page.Status, page.body)
	}
	if !strings.Contains(string(page.body), "signed by the identity provider") {
		t.Error("the page does not say what proves the decision")
	}
	if got := k.see(r.ID); got.State != api.Requested || len(got.Decisions) != 1 {
		t.Fatalf("half approved, it is %s with %d decisions", got.State, len(got.Decisions))
	}
	sam.decide(r, api.Approve)
	got := k.see(r.ID)
	if got.State != api.Approved || len(got.Decisions) != 2 {
		t.Fatalf("it is %s with %d decisions", got.State, len(got.Decisions))
	}
	for _, d := range got.Decisions {
		if e := d.Evidence; e.Assurance != "provider" || e.IDTokenHash == "" || e.KeysHash == "" || e.AuthTime == nil {
			t.Errorf("evidence: %+v", e)
		}
	}
	other := k.ask("root")
	sam.decide(other, api.Deny)
	if got := k.see(other.ID); got.State != api.Denied {
		t.Errorf("denied, it is %s", got.State)
	}
}

// The API says where to go on; what it is told there counts.
func TestAPINamesThePageForSignedDecisions(t *testing.T) {
	t.Parallel()
	k := newSignedKit(t)
	ada := k.at("ada", "approvers")
	r := k.ask("root")
	req, err := http.NewRequest("POST", k.cfg.URL+"/api/v1/requests/"+r.ID+"/decisions",
		strings.NewReader(`{"verdict":"approve","comment":"go & see","terms_hash":"`+r.TermsHash+`"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	a := ada.send(req)
	var p api.Problem
	if err := json.Unmarshal(a.body, &p); err != nil {
		t.Fatal(err)
	}
	want := k.cfg.URL + "/requests/" + r.ID + "/decide?comment=go+%26+see&verdict=approve"
	if a.StatusCode != http.StatusConflict || p.Code != "provider-evidence-needed" || p.Continue != want || p.Hint == "" {
		t.Fatalf("%s: %+v", a.Status, p)
	}
	page := ada.get(p.Continue)
	for _, text := range []string{"Approve this request?", "go & see", r.TermsHash, r.Requester.Name, "the disk is full", `action="/requests/` + r.ID + `/approve"`} {
		if !strings.Contains(string(page.body), text) {
			t.Errorf("the page does not say %q", text)
		}
	}
	if len(k.see(r.ID).Decisions) != 0 {
		t.Error("looking at the page decided")
	}
	// Who may not decide is told that, and is named no page.
	a = k.do(t, "engineer", "POST", "/api/v1/requests/"+r.ID+"/decisions", `{"verdict":"approve"}`)
	if a.StatusCode != http.StatusForbidden || strings.Contains(string(a.body), "continue") {
		t.Errorf("the requester: %s: %s", a.Status, a.body)
	}
	// Somebody waits for a decision that leaves the state as it is.
	waited := make(chan answer, 1)
	go func() {
		waited <- k.do(t, "engineer", "GET", "/api/v1/requests/"+r.ID+"?wait=30s&state=requested&decisions=0", "")
	}()
	ada.decide(r, api.Approve)
	var seen api.Request
	if err := json.Unmarshal((<-waited).body, &seen); err != nil || len(seen.Decisions) != 1 || seen.State != api.Requested {
		t.Errorf("waiting: %s with %d decisions, %v", seen.State, len(seen.Decisions), err)
	}
}

// On the way to the provider and back something goes wrong: nothing is decided,
// and the page says why.
func TestSignedDecisionsThatFail(t *testing.T) {
	t.Parallel()
	k := newSignedKit(t)
	ada, eve := k.at("ada", "approvers"), k.at("eve", "approvers")
	for name, c := range map[string]struct {
		login  string
		trip   func(r api.Request) answer
		status int
		says   string
	}{
		"another person signs in at the provider": {"root", func(r api.Request) answer {
			to, _ := ada.press(r, api.Approve)
			k.signsIn(eve)
			return ada.get(to)
		}, http.StatusForbidden, "omebody else signed in"},
		"the requester cancels meanwhile": {"root", func(r api.Request) answer {
			to, _ := ada.press(r, api.Approve)
			k.do(t, "engineer", "POST", "/api/v1/requests/"+r.ID+"/cancel", "")
			return ada.get(to)
		}, http.StatusConflict, "cancelled"},
		"the provider is down before": {"root", func(r api.Request) answer {
			k.provider.Down(true)
			_, page := ada.press(r, api.Approve)
			return page
		}, http.StatusServiceUnavailable, "cannot sign a decision"},
		"the provider is down meanwhile": {"root", func(r api.Request) answer {
			to, _ := ada.press(r, api.Approve)
			back := ada.stopBefore(to)
			k.provider.Down(true)
			return ada.get(back)
		}, http.StatusServiceUnavailable, "othing was decided"},
		"the provider signs nothing": {"root", func(r api.Request) answer {
			k.provider.Break(oidctest.AlgNone)
			return ada.decide(r, api.Approve)
		}, http.StatusUnauthorized, "othing was decided"},
		"the provider signs another nonce": {"root", func(r api.Request) answer {
			k.provider.Break(oidctest.WrongNonce)
			return ada.decide(r, api.Approve)
		}, http.StatusUnauthorized, "othing was decided"},
		"the group is gone": {"root", func(r api.Request) answer {
			to, _ := ada.press(r, api.Approve)
			k.provider.Claim("groups", []string{"staff"})
			return ada.get(to)
		}, http.StatusForbidden, "no longer says that you are in a group"},
		"the callback of another browser": {"root", func(r api.Request) answer {
			to, _ := ada.press(r, api.Approve)
			return eve.get(ada.stopBefore(to))
		}, http.StatusUnauthorized, "not begun in this browser"},
		"other terms than were seen": {"root", func(r api.Request) answer {
			r.TermsHash = strings.Repeat("0", 64)
			return ada.decide(r, api.Approve)
		}, http.StatusConflict, "other terms"},
		"the provider does not say when": {"fresh", func(r api.Request) answer {
			k.provider.Break(oidctest.NoAuthTime)
			return ada.decide(r, api.Approve)
		}, http.StatusForbidden, "does not say when you signed in"},
		"the provider ignores max_age": {"fresh", func(r api.Request) answer {
			k.provider.SignedIn(time.Now().Add(-time.Hour))
			k.provider.Break(oidctest.IgnoreMaxAge)
			return ada.decide(r, api.Approve)
		}, http.StatusForbidden, "too long ago"},
	} {
		r := k.ask(c.login)
		k.signsIn(ada)
		a := c.trip(r)
		if a.StatusCode != c.status || !strings.Contains(string(a.body), c.says) {
			t.Errorf("%s: %s: %s", name, a.Status, a.body)
		}
		k.provider.Down(false)
		k.provider.Break(oidctest.None)
		k.provider.SignedIn(time.Time{})
		if got := k.see(r.ID); len(got.Decisions) != 0 || got.StartsAt != nil {
			t.Errorf("%s: it is %s with %d decisions", name, got.State, len(got.Decisions))
		}
		if page := ada.get("/requests"); page.Request.URL.Path != "/requests" {
			t.Fatalf("%s: it signed ada out", name)
		}
	}
	// The callback a second time.
	r := k.ask("root")
	to, _ := ada.press(r, api.Approve)
	k.signsIn(ada)
	back := ada.stopBefore(to)
	ada.get(back)
	if a := ada.get(back); a.StatusCode != http.StatusUnauthorized || len(k.see(r.ID).Decisions) != 1 {
		t.Errorf("a replay: %s, %d decisions", a.Status, len(k.see(r.ID).Decisions))
	}
	// A provider that heeds max_age has the person sign in anew.
	r = k.ask("fresh")
	k.provider.SignedIn(time.Now().Add(-time.Hour))
	ada.decide(r, api.Approve)
	if got := k.see(r.ID); got.State != api.Approved {
		t.Errorf("signed in anew, it is %s", got.State)
	}
}

// stopBefore goes to the provider, and returns where it sends the browser back to.
func (p *person) stopBefore(toProvider string) string {
	p.k.t.Helper()
	still := *p.browser
	still.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := still.Get(toProvider)
	if err != nil {
		p.k.t.Fatal(err)
	}
	resp.Body.Close()
	return resp.Header.Get("Location")
}

// P9: without the provider, what it need not sign is decided as ever.
func TestP9_OtherRulesGoOnWithoutTheProvider(t *testing.T) {
	t.Parallel()
	k := newSignedKit(t)
	ada := k.at("ada", "approvers")
	r := k.ask("dba")
	k.provider.Down(true)
	if page := ada.decide(r, api.Approve); page.StatusCode != http.StatusOK || k.see(r.ID).State != api.Approved {
		t.Errorf("%s, it is %s", page.Status, k.see(r.ID).State)
	}
	got := k.see(r.ID)
	if e := got.Decisions[0].Evidence; got.Assurance != "session" || e.Assurance != "session" || e.AuthTime == nil || e.IDTokenHash != "" {
		t.Errorf("%s by %+v", got.Assurance, e)
	}
}
