package pages

import (
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"sallyport/api"
)

// browser is one without a script: it follows links and sends forms as they are.
type browser struct {
	t    *testing.T
	base string
	http *http.Client
	at   string // path of the page shown
	page string
}

func browse(t *testing.T, base, as string) *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	b := &browser{t: t, base: base, http: &http.Client{Jar: jar}}
	b.open("/as/" + as)
	return b
}

func (b *browser) open(path string) {
	b.t.Helper()
	b.show(b.http.Get(b.base + path))
}

func (b *browser) show(res *http.Response, err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	if res.StatusCode != http.StatusOK {
		b.t.Fatalf("%s: status %d", res.Request.URL, res.StatusCode)
	}
	b.at, b.page = res.Request.URL.Path, html.UnescapeString(string(body))
}

var (
	formTag  = regexp.MustCompile(`(?s)<form[^>]* action="([^"]*)".*?</form>`)
	inputTag = regexp.MustCompile(`<input[^>]* name="([^"]*)" value="([^"]*)"[^>]*>`)
)

// press sends the page's form that has the button, with its hidden and checked
// fields and what the person fills in.
func (b *browser) press(button string, fill url.Values) {
	b.t.Helper()
	for _, form := range formTag.FindAllStringSubmatch(b.page, -1) {
		i := strings.LastIndex(form[0], button)
		if i < 0 {
			continue
		}
		tag := form[0][:i]
		tag = tag[strings.LastIndex(tag, "<button"):]
		action, values := form[1], url.Values{}
		if m := regexp.MustCompile(`formaction="([^"]*)"`).FindStringSubmatch(tag); m != nil {
			action = m[1]
		}
		for _, in := range inputTag.FindAllStringSubmatch(form[0], -1) {
			if !strings.Contains(in[0], `type="radio"`) || strings.Contains(in[0], " checked") {
				values.Set(in[1], in[2])
			}
		}
		if m := regexp.MustCompile(`name="([^"]*)" value="([^"]*)"`).FindStringSubmatch(tag); m != nil {
			values.Set(m[1], m[2])
		}
		for name := range fill {
			values.Set(name, fill.Get(name))
		}
		b.show(b.http.PostForm(b.base+action, values))
		return
	}
	b.t.Fatalf("%s has no button %q", b.at, button)
}

func TestTheWholeWayWithoutScript(t *testing.T) {
	t.Parallel()
	h, _ := open(t)
	h.asked = nil
	server := httptest.NewServer(doors(h))
	t.Cleanup(server.Close)
	erin, ada := browse(t, server.URL, "engineer"), browse(t, server.URL, "approver")

	contains(t, erin.page, "No door is open for you")
	erin.open("/requests/new")
	erin.press(">Search</button>", url.Values{"q": {"payments"}})
	contains(t, erin.page, "payments-replica-3.eu-west")
	if strings.Contains(erin.page, `value="dba@db-1"`) {
		t.Error("the search did not narrow the list")
	}
	erin.open("/requests/new?host=db-1&login=dba&ticket=INC-7&duration=45m")
	contains(t, erin.page, `value="45m"`, `value="INC-7"`)
	erin.press(">Preview</button>", url.Values{"reason": {"look at the locks"}})
	contains(t, erin.page, "Send this request?", "Ada Approver", "Priya Natarajan", "45 minutes", "look at the locks", "INC-7")
	if len(h.asked) > 0 {
		t.Fatal("the preview made a request")
	}
	erin.press(">Change something</button>", nil)
	contains(t, erin.page, "look at the locks", `value="INC-7"`, `value="dba@db-1" checked`)
	erin.press(">Preview</button>", url.Values{"reason": {"look at the locks"}})
	erin.press(">Send request</button>", nil)
	contains(t, erin.page, "Waiting for approval", "Cancel this request", "0 of 1 from approvers")
	asked := h.inputs[len(h.inputs)-1].(api.RequestInput)
	if want := (api.RequestInput{Host: "db-1", Login: "dba", Duration: "45m", Reason: "look at the locks", Ticket: "INC-7"}); !reflect.DeepEqual(asked, want) {
		t.Errorf("asked for %+v, want %+v", asked, want)
	}

	contains(t, ada.page, "No door is open for you")
	ada.open("/")
	contains(t, ada.page, "Waiting for me", "Erin Engineer")
	ada.open("/approvals")
	contains(t, ada.page, "look at the locks", "INC-7", "45 minutes")
	ada.open(erin.at)
	contains(t, ada.page, "Your decision")
	ada.press("<span>Approve</span>", url.Values{"comment": {"go ahead"}})
	decided := h.inputs[len(h.inputs)-1].(api.DecisionInput)
	if want := (api.DecisionInput{Verdict: api.Approve, Comment: "go ahead", TermsHash: h.asked[0].TermsHash, For: "me"}); decided != want {
		t.Errorf("decided %+v, want %+v", decided, want)
	}

	erin.open(erin.at)
	contains(t, erin.page, "Approved: log in now", "sally ssh dba@db-1", "go ahead")
	erin.open("/")
	contains(t, erin.page, "sally ssh dba@db-1")
	erin.press("<span>I’m done</span>", nil)
	contains(t, erin.page, "Ended early", "Ask again")
}

func TestAutomaticApprovalIsSaidBefore(t *testing.T) {
	t.Parallel()
	h, _ := open(t)
	server := httptest.NewServer(doors(h))
	t.Cleanup(server.Close)
	erin := browse(t, server.URL, "engineer")
	erin.open("/requests/new?host=web-1&login=web")
	erin.press(">Preview</button>", nil)
	contains(t, erin.page, "Approved automatically")
	erin.press(">Send request</button>", nil)
	contains(t, erin.page, "Approved: log in now", "sally ssh web@web-1")
}

func TestFormsKeepInputAndSayWhatIsWrong(t *testing.T) {
	t.Parallel()
	h, v := open(t)
	for _, x := range []struct {
		name   string
		change url.Values
		status int
		want   []string
	}{
		{"no target", url.Values{"target": {""}}, 422, []string{"No host and login were chosen", `id="target-fault"`}},
		{"unknown host", url.Values{"target": {"dba@gone"}}, 404, []string{"There is no such host", `id="target-fault"`}},
		{"no rule", url.Values{"target": {"postgres@db-1"}}, 403, []string{"No rule lets you ask for that", `id="target-fault"`}},
		{"too long", url.Values{"duration": {"other"}, "other": {"9h"}}, 422, []string{"longer than the rule allows", `id="duration-fault"`, `value="9h"`, "Ask for 2h at most"}},
		{"no reason", url.Values{"reason": {" \n"}}, 422, []string{"A reason is needed", `id="reason-fault"`, "Say what you are going to do"}},
	} {
		for _, step := range []string{"preview", "send", ""} {
			form := url.Values{"target": {"dba@db-1"}, "duration": {"15m"}, "reason": {"because"}, "ticket": {"INC-9"}, "step": {step}}
			for name := range x.change {
				form.Set(name, x.change.Get(name))
			}
			w := v.do("engineer", "POST", "/requests", form)
			if w.Code != x.status {
				t.Errorf("%s, %q: status %d, want %d", x.name, step, w.Code, x.status)
			}
			contains(t, w.Body.String(), append(x.want, `value="INC-9"`, `<form class="ask"`)...)
		}
	}
	if n := len(h.asked); n != 11 {
		t.Errorf("there are %d requests, want those of the beginning", n)
	}
}

func TestRuleIsShownWhileTheFormIsIncomplete(t *testing.T) {
	t.Parallel()
	_, v := open(t)
	w := v.do("engineer", "POST", "/requests/preview", url.Values{"target": {"root@web-1"}})
	contains(t, w.Body.String(), "A reason is needed", "Ada Approver", "Sam Security")
	if w.Code != http.StatusOK || strings.Contains(w.Body.String(), "<html") {
		t.Errorf("status %d, or not a part of a page", w.Code)
	}
	contains(t, v.do("engineer", "POST", "/requests/preview", url.Values{}).Body.String(), "Choose a host and login")
	contains(t, v.do("engineer", "POST", "/requests/preview", url.Values{"target": {"dba@gone"}}).Body.String(), "There is no such host")
}

func TestRefusedDecisionsKeepTheComment(t *testing.T) {
	t.Parallel()
	h, v := open(t)
	r := h.first(api.Requested, "natarajan")
	path := "/requests/" + r.ID
	w := v.do("approver", "POST", path+"/deny", url.Values{"terms_hash": {r.TermsHash}})
	contains(t, w.Body.String(), "A denial needs a comment", "Your decision")
	if w.Code != http.StatusUnprocessableEntity || len(h.inputs) > 0 {
		t.Errorf("status %d, inputs %v", w.Code, h.inputs)
	}
	w = v.do("approver", "POST", path+"/approve", url.Values{"terms_hash": {"other"}, "comment": {"seen by me"}})
	contains(t, w.Body.String(), "other terms than you saw", "Look at them again", "seen by me")
	if w.Code != http.StatusConflict {
		t.Errorf("status %d, want 409", w.Code)
	}
	for _, action := range []string{"approve", "deny", "cancel", "finish"} {
		if w := v.do("approver", "POST", "/requests/req-none/"+action, url.Values{"comment": {"x"}}); w.Code != http.StatusNotFound {
			t.Errorf("%s of an unknown request: status %d, want 404", action, w.Code)
		}
	}
	w = v.do("approver", "POST", path+"/deny", url.Values{"terms_hash": {r.TermsHash}, "comment": {"not now"}})
	if w.Code != http.StatusSeeOther || w.Header().Get("Location") != path {
		t.Errorf("status %d to %q", w.Code, w.Header().Get("Location"))
	}
	contains(t, v.page("natarajan", path), "Denied by Ada Approver", "not now", "Ask again")
}

func TestDisabledActionsSayWhy(t *testing.T) {
	t.Parallel()
	h, v := open(t)
	path := "/requests/" + h.first(api.Requested, "natarajan").ID
	contains(t, v.page("operator", path), "disabled", "You are in none of the groups")
	if strings.Contains(v.page("operator", path), `name="terms_hash"`) {
		t.Error("the form is shown to somebody who may not decide")
	}
}

func TestEveryStateSaysWhatIsNext(t *testing.T) {
	t.Parallel()
	h, v := open(t)
	for i, want := range map[int]string{0: "Waiting for approval", 2: "You can log in", 3: "Approved: log in now", 4: "Denied by Sam Security",
		5: "Ended early", 6: "Its time was up", 7: "Ended unused", 8: "Revoked", 9: "withdrew it", 10: "Nobody decided in time"} {
		page := v.page("engineer", "/requests/"+h.asked[i].ID)
		contains(t, page, want)
		if h.asked[i].State.Final() != strings.Contains(page, "Ask again") {
			t.Errorf("%s: asking again is offered wrongly, or not", h.asked[i].State)
		}
	}
}
