package pages

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/approvals/policy"
)

// allowEmergencies lets engineers open db-1 as dba before anybody has approved.
func (h *house) allowEmergencies() {
	h.hosts[0].Rules[0].Emergency = &api.EmergencyRule{MaxDuration: "30m0s", DefaultDuration: "15m0s",
		ReviewGroups: []string{"security"}, ReviewWithin: "24h0m0s"}
}

func (h *house) emergency(rule api.HostRule, in api.RequestInput) (*api.Emergency, error) {
	switch {
	case !in.Emergency:
		return nil, nil
	case rule.Emergency == nil:
		return nil, policy.ErrNoEmergency
	}
	return &api.Emergency{Drill: in.Drill, Told: []string{"approvers", "security"}, ReviewGroups: []string{"security"},
		ReviewBy: h.clock.Now().Add(24 * time.Hour)}, nil
}

func mayReview(c identity.Caller, r api.Request) bool {
	return r.Emergency != nil && r.Emergency.Review == nil && slices.Contains(r.Emergency.ReviewGroups, c.Groups[0])
}

func (h *house) CountReviews(ctx context.Context, c identity.Caller) (int, error) {
	page, err := h.List(ctx, c, approvals.ListFilter{Scope: approvals.Reviews})
	return len(page.Items), err
}

func (h *house) Review(_ context.Context, c identity.Caller, id string, in api.ReviewInput) (api.Request, error) {
	if h.signed {
		return api.Request{}, approvals.ErrProviderEvidence
	}
	return h.change(in, id, func(r *api.Request) error {
		if r.Emergency == nil {
			return approvals.ErrNotEmergency
		}
		r.Emergency.Review = &api.Review{Reviewer: c.API(), Verdict: in.Verdict, Comment: in.Comment, At: h.clock.Now(), Running: true}
		if in.Verdict == api.NotJustified {
			r.State, r.EndReason = api.Ended, "revoked"
		}
		return nil
	})
}

// An emergency without a script: what follows is said before it happens, and the
// page says everywhere that it was one, until its review and after it.
func TestEmergencyWithoutScript(t *testing.T) {
	t.Parallel()
	for _, drill := range []bool{false, true} {
		h, _ := open(t)
		h.asked = nil
		h.allowEmergencies()
		server := httptest.NewServer(doors(h))
		t.Cleanup(server.Close)
		erin, sam := browse(t, server.URL, "engineer"), browse(t, server.URL, "security")
		value, word, button := "yes", "Emergency", "<span>Open the door now</span>"
		if drill {
			value, word, button = "drill", "Drill", "<span>Start the drill now</span>"
		}

		erin.open("/requests/new?host=db-1&login=dba")
		contains(t, erin.page, "Can it wait for approval?")
		fill := url.Values{"reason": {"the primary is down"}, "emergency": {value}}
		erin.press(">Preview</button>", fill)
		says := []string{"Open this door now?", "before anybody has approved", "Told at once:", "approvers and security",
			"somebody independent from security", "you get no second", "the primary is down"}
		contains(t, erin.page, says...)
		erin.press(">Change something</button>", nil)
		contains(t, erin.page, `value="`+value+`" checked`, "the primary is down")
		// Whoever sends at once, as the script does, sees what follows first.
		erin.press(">Send request</button>", fill)
		contains(t, erin.page, says...)
		if len(h.asked) > 0 {
			t.Fatal("the door was opened before what follows was said")
		}
		erin.press(button, nil)
		asked := h.inputs[len(h.inputs)-1].(api.RequestInput)
		if want := (api.RequestInput{Host: "db-1", Login: "dba", Reason: "the primary is down", Emergency: true, Drill: drill}); !reflect.DeepEqual(asked, want) {
			t.Errorf("asked for %+v, want %+v", asked, want)
		}
		contains(t, erin.page, "The door is open: log in now", "sally ssh dba@db-1", ">"+word+"</span>", "Not reviewed",
			"waits for a review by somebody independent from security", "None: the door was opened before anybody had approved")
		if strings.Contains(erin.page, "/review") || strings.Contains(erin.page, "Approved: log in") {
			t.Error("Erin could review her own, or it says that it was approved")
		}
		for _, path := range []string{"/", "/requests", "/requests?scope=emergencies", "/requests?scope=all"} {
			erin.open(path)
			contains(t, erin.page, ">"+word+"</span>")
		}

		sam.open("/")
		contains(t, sam.page, "Emergencies to review", ">"+word+"</span>", "the primary is down", `class="tally">1<`)
		sam.open("/approvals")
		contains(t, sam.page, "Reviews", ">"+word+"</span>", "review due")
		if strings.Contains(sam.page, "Nothing waits for you") {
			t.Error("the page says that nothing waits")
		}
		sam.open("/requests/" + h.asked[0].ID)
		contains(t, sam.page, "What did you look at", "also shuts the door")
		sam.press("<span>Not justified</span>", url.Values{"comment": {"nothing was down"}})
		given := h.inputs[len(h.inputs)-1].(api.ReviewInput)
		if want := (api.ReviewInput{Verdict: api.NotJustified, Comment: "nothing was down"}); given != want {
			t.Errorf("reviewed %+v, want %+v", given, want)
		}
		contains(t, sam.page, "Sam Security</strong> found it not justified", "while the door was still open", "nothing was down", ">"+word+"</span>")
		sam.open("/approvals")
		contains(t, sam.page, "Nothing waits for you")
	}
}

// An emergency is offered where a rule allows it, and nowhere else.
func TestEmergencyIsOfferedWhereItIsAllowed(t *testing.T) {
	t.Parallel()
	h, v := open(t)
	if strings.Contains(v.page("engineer", "/requests/new"), "emergency") {
		t.Error("an emergency is offered where no rule allows one")
	}
	h.allowEmergencies()
	contains(t, v.page("engineer", "/requests/new"), `<fieldset id="emergency">`)
	contains(t, v.page("engineer", "/requests/new?host=db-1&login=root"), `<fieldset id="emergency" hidden>`)
	contains(t, v.page("engineer", "/requests/new?host=db-1&login=dba&emergency=drill"), `value="drill" checked`)
	if page := v.page("engineer", "/requests/new?host=db-1&login=dba&emergency=always"); !strings.Contains(page, `value="" checked><span>Yes`) {
		t.Error("an address makes an emergency of something else")
	}
	form := url.Values{"target": {"root@db-1"}, "reason": {"x"}, "ticket": {"INC-1"}, "emergency": {"yes"}, "step": {"open"}}
	w := v.do("engineer", "POST", "/requests", form)
	contains(t, w.Body.String(), "does not let you open this door", `id="emergency-fault"`)
	if w.Code != http.StatusForbidden {
		t.Errorf("status %d", w.Code)
	}
	// Where the form has no place for it, the refusal stands on top.
	h.hosts[0].Rules[0].Emergency = nil
	w = v.do("engineer", "POST", "/requests", form)
	contains(t, w.Body.String(), "does not let you open this door", `role="alert"`)
	// What the preview of an incomplete emergency says is not who would approve.
	h.allowEmergencies()
	w = v.do("engineer", "POST", "/requests/preview", url.Values{"target": {"dba@db-1"}, "emergency": {"yes"}})
	contains(t, w.Body.String(), "A reason is needed")
	if strings.Contains(w.Body.String(), "Needs approval") {
		t.Error("the preview of an emergency says who would approve")
	}
	w = v.do("engineer", "POST", "/requests/preview", url.Values{"target": {"dba@db-1"}, "emergency": {"yes"}, "reason": {"down"}})
	contains(t, w.Body.String(), "The door opens at once", "you get no second emergency")
}

// A refused review keeps what was written, and those who may not review read why.
func TestReviewForm(t *testing.T) {
	t.Parallel()
	h, v := open(t)
	h.allowEmergencies()
	r := h.first(api.Active, "engineer")
	i := slices.IndexFunc(h.asked, func(x api.Request) bool { return x.ID == r.ID })
	h.asked[i].Emergency = &api.Emergency{Told: []string{"approvers"}, ReviewGroups: []string{"security"}, ReviewBy: h.clock.Now().Add(-time.Hour), Overdue: true}
	path := "/requests/" + r.ID
	contains(t, v.page("operator", path), "The review is overdue", "Review overdue", "You are in none of the groups that review")
	contains(t, v.page("security", path), `action="`+path+`/review"`)
	h.refuse = approvals.ErrReviewed
	w := v.do("security", "POST", path+"/review", url.Values{"verdict": {api.Justified}, "comment": {"I looked at it"}})
	contains(t, w.Body.String(), "The emergency has been reviewed", "I looked at it")
	if w.Code != http.StatusConflict {
		t.Errorf("status %d", w.Code)
	}
	h.refuse = nil
	if w = v.do("security", "POST", path+"/review", url.Values{"verdict": {api.Justified}, "comment": {"fine"}}); w.Code != http.StatusSeeOther {
		t.Errorf("status %d", w.Code)
	}
	contains(t, v.page("security", path), "found it justified", "fine")
	if w = v.do("security", "POST", "/requests/req-none/review", url.Values{"verdict": {api.Justified}, "comment": {"x"}}); w.Code != http.StatusNotFound {
		t.Errorf("status %d", w.Code)
	}
}
