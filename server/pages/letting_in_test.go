package pages

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"sallyport/api"
)

// An operator lets hosts in without a script: by a token, which is shown once, or by the
// fingerprint that the host itself shows.
func TestAnOperatorLetsHostsIn(t *testing.T) {
	t.Parallel()
	h, _ := open(t)
	server := httptest.NewServer(doors(h))
	t.Cleanup(server.Close)
	otto := browse(t, server.URL, "operator")

	otto.open("/hosts/join-tokens")
	contains(t, otto.page, "cache-1.eu-west", "made by Oscar Operator", "Withdraw", "Expired", "Used", `Waiting <span class="tally">2</span>`)
	otto.press("<span>Make a token</span>", url.Values{"name": {"db-9"}, "labels": {"class=database,  env=prod"}, "logins": {"dba root"}})
	contains(t, otto.page, "db-9 may enrol", "sally-host enroll --url https://sallyport.example.com --token sjt_secret")
	otto.open("/hosts/join-tokens")
	if strings.Contains(otto.page, "sjt_secret") {
		t.Error("the token is shown again")
	}
	otto.press("Withdraw", nil)
	if otto.at != "/hosts/join-tokens" {
		t.Errorf("at %s", otto.at)
	}

	otto.open("/hosts/pending")
	contains(t, otto.page, "db-3", "says it is at 10.0.3.43:22", "called from 203.0.113.66")
	otto.open("/hosts/pending/enr-4f8k2m9qhx1z")
	contains(t, otto.page, "SHA256:iVqz0X…", "OpenSSH_9.2p1", `value="dba"`)
	if strings.Contains(otto.page, waitingKey) {
		t.Error("the page gives away what the operator shall read on the host")
	}
	otto.press("<span>Let it in</span>", url.Values{"fingerprint": {waitingKey}, "labels": {"class=database"}})
	if otto.at != "/hosts/db-1" {
		t.Errorf("at %s", otto.at)
	}
	otto.open("/hosts/pending/enr-4f8k2m9qhx1z")
	otto.press("<span>Refuse</span>", url.Values{"reason": {"not one of ours"}})
	if otto.at != "/hosts/pending" {
		t.Errorf("at %s", otto.at)
	}

	otto.open("/hosts/labels")
	fill := url.Values{"selector": {"class=database"}, "set": {"env=test"}, "remove": {"class"}}
	otto.press("Show what changes", fill)
	contains(t, otto.page, "3 hosts would be different", "env=test", "Change 3 hosts")
	otto.press("Change 3 hosts", nil)
	contains(t, otto.page, "3 hosts changed")
}

// What is wrong stands beside the field that it is about, and what was filled in stays.
func TestLettingHostsInSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	_, v := open(t)
	for _, c := range []struct {
		path   string
		form   url.Values
		status int
		want   []string
	}{
		{"/hosts/join-tokens", url.Values{"name": {"db-2"}, "labels": {"class"}}, 422, []string{`id="labels-fault"`, `value="db-2"`, `“class”`}},
		{"/hosts/join-tokens", url.Values{"name": {"db-2"}, "labels": {"a=b a=c"}}, 422, []string{`id="labels-fault"`}},
		{"/hosts/join-tokens", url.Values{"name": {"db-2"}, "address": {"nowhere"}}, 422, []string{`id="address-fault"`, `value="nowhere"`}},
		{"/hosts/join-tokens", url.Values{"name": {"db-1"}}, 422, []string{`class="alert"`}},
		{"/hosts/pending/enr-4f8k2m9qhx1z/approve", url.Values{"fingerprint": {"SHA256:<x>"}, "name": {"db-4"}}, 409, []string{`id="fingerprint-fault"`, `value="SHA256:&lt;x&gt;"`, `value="db-4"`}},
		{"/hosts/pending/enr-4f8k2m9qhx1z/refuse", url.Values{}, 422, []string{`id="reason-fault"`}},
		{"/hosts/labels", url.Values{"selector": {"(("}}, 422, []string{`id="selector-fault"`}},
		{"/hosts/labels", url.Values{"selector": {"a"}, "set": {"b"}}, 422, []string{`id="set-fault"`}},
	} {
		w := v.do("operator", "POST", c.path, c.form)
		if w.Code != c.status {
			t.Errorf("%s %v: status %d", c.path, c.form, w.Code)
		}
		for _, want := range c.want {
			if !strings.Contains(w.Body.String(), want) && !strings.Contains(w.Body.String(), strings.NewReplacer("“", "&#34;", "”", "&#34;").Replace(want)) {
				t.Errorf("%s %v: lacks %s", c.path, c.form, want)
			}
		}
	}
	if w := v.get("operator", "/hosts/pending/enr-000000000009"); w.Code != http.StatusNotFound {
		t.Errorf("a host that does not wait: status %d", w.Code)
	}
	if page := v.page("operator", "/hosts/pending"); strings.Contains(page, "<b>payments") {
		t.Error("a host's name is not escaped")
	}
}

// Hosts are shown by state; how many are in each is for those who may see all of them.
func TestHostsPageByState(t *testing.T) {
	t.Parallel()
	h, v := open(t)
	h.hosts[1].State = api.HostDrifted
	page := v.page("auditor", "/hosts?state=drifted&q=web")
	contains(t, page, "web-1", `badge-drifted`, `href="/hosts?q=web"`, `href="/hosts?q=web&amp;state=open"`, `name="state" value="drifted"`)
	if strings.Contains(page, `href="/hosts/db-1"`) || strings.Contains(page, "/hosts/join-tokens") {
		t.Error("an auditor sees hosts in other states, or what only operators do")
	}
	contains(t, v.page("operator", "/hosts"), "/hosts/join-tokens", "/hosts/pending", "/hosts/labels")
	if page := v.page("engineer", "/hosts"); strings.Contains(page, `class="states"`) || strings.Contains(page, "/hosts/join-tokens") {
		t.Error("an engineer is told how many hosts there are")
	}
}

func TestP10_OnlyOperatorsSeeHowHostsAreLetIn(t *testing.T) {
	t.Parallel()
	_, v := open(t)
	for _, who := range []string{"engineer", "auditor", "approver"} {
		for _, path := range []string{"/hosts/join-tokens", "/hosts/pending", "/hosts/pending/enr-4f8k2m9qhx1z", "/hosts/labels"} {
			if w := v.get(who, path); w.Code != http.StatusForbidden {
				t.Errorf("%s gets %s: status %d", who, path, w.Code)
			}
		}
		for _, path := range []string{"/hosts/join-tokens", "/hosts/join-tokens/join-000000000001/withdraw", "/hosts/pending/enr-4f8k2m9qhx1z/refuse", "/hosts/labels"} {
			if w := v.do(who, "POST", path, url.Values{"name": {"x"}, "reason": {"x"}, "selector": {"x"}}); w.Code != http.StatusForbidden {
				t.Errorf("%s posts %s: status %d", who, path, w.Code)
			}
		}
	}
}
