package pages

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/evidence"
	"sallyport/approvals/identity"
	"sallyport/internal/clock"
	"sallyport/server/signin"
	"sallyport/web"
)

// provider stands in for the identity provider, which signs decisions.
type provider struct{ *house }

const providerPage = "https://id.example.com/authorize?nonce=n"

func (p provider) Sign(w http.ResponseWriter, r *http.Request, next string, draft func(identity.Caller, approvals.Browser) (approvals.Draft, error)) error {
	c, _ := signin.Caller(r.Context())
	if _, err := draft(c, approvals.Browser{}); err != nil {
		return err
	}
	p.sentTo = append(p.sentTo, next)
	web.Forward(w, r, providerPage)
	return nil
}

func (h *house) DraftDecision(_ context.Context, _ identity.Caller, _ approvals.Browser, _ string, in api.DecisionInput) (approvals.Draft, error) {
	return approvals.Draft{}, h.saw(in)
}

func (h *house) DraftReview(_ context.Context, _ identity.Caller, _ approvals.Browser, _ string, in api.ReviewInput) (approvals.Draft, error) {
	return approvals.Draft{}, h.saw(in)
}

func (h *house) DraftPolicyDecision(_ context.Context, _ identity.Caller, _ approvals.Browser, _ string, in api.PolicyDecisionInput) (approvals.Draft, error) {
	return approvals.Draft{}, h.saw(in)
}

// signed is a house whose first request's decisions the provider signs.
func signed(t *testing.T) (h *house, base string, r api.Request) {
	t.Helper()
	h = newHouse(clock.System).furnish()
	h.asked[1].Assurance = evidence.Provider
	server := httptest.NewServer(doors(h))
	t.Cleanup(server.Close)
	return h, server.URL, h.asked[1]
}

func TestDecidingLeadsToTheProvider(t *testing.T) {
	t.Parallel()
	_, base, r := signed(t)
	b := browse(t, base, "approver")
	b.open("/requests/" + r.ID)
	if !strings.Contains(b.page, "identity provider, which signs your decision") {
		t.Error("the page does not say where the button leads")
	}
	b.press("Approve", url.Values{"comment": {"as agreed"}})
	if !strings.Contains(b.page, providerPage) {
		t.Errorf("the button led to %s", b.page)
	}
}

// The page that sally opens says what would be decided, and has one button.
func TestTheDecidePage(t *testing.T) {
	t.Parallel()
	h, base, r := signed(t)
	b := browse(t, base, "approver")
	b.open("/requests/" + r.ID + "/decide?verdict=deny&comment=" + url.QueryEscape("not <now>"))
	for _, want := range []string{"Deny this request?", r.Requester.Name, r.Login, r.Host, r.HostID, r.Reason, r.Ticket, r.TermsHash, "not <now>", "signs your decision"} {
		if !strings.Contains(b.page, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	if strings.Count(b.page, "<button")-strings.Count(b.page, "/signout") > 1+strings.Count(b.page, `class="copy"`) {
		t.Errorf("the page has more than one button:\n%s", b.page)
	}
	b.press("Deny", url.Values{"comment": {"not <now>"}})
	if !strings.Contains(b.page, providerPage) {
		t.Errorf("the button led to %s", b.page)
	}
	if in, ok := h.inputs[len(h.inputs)-1].(api.DecisionInput); !ok || in != (api.DecisionInput{Verdict: api.Deny, Comment: "not <now>", TermsHash: r.TermsHash, For: "me"}) {
		t.Errorf("decided: %+v", h.inputs)
	}
	// Who cannot decide is told why, and gets no button.
	own := browse(t, base, r.Requester.Subject)
	own.open("/requests/" + r.ID + "/decide?verdict=approve")
	if strings.Contains(own.page, `action="/requests/`+r.ID+`/approve"`) {
		t.Error("the requester is offered to approve")
	}
	for path, status := range map[string]int{
		"/requests/" + r.ID + "/decide":                     http.StatusUnprocessableEntity,
		"/requests/" + r.ID + "/decide?verdict=revoke":      http.StatusUnprocessableEntity,
		"/requests/req-000000000000/decide?verdict=approve": http.StatusNotFound,
	} {
		res, err := b.http.Get(base + path)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != status {
			t.Errorf("%s: %s, want %d", path, res.Status, status)
		}
	}
}

// P9: without the provider there is no such decision, and the page says so.
func TestP9_ProviderDownIsSaidOnThePage(t *testing.T) {
	t.Parallel()
	h, base, r := signed(t)
	h.refuse = signin.ErrProviderDown
	b := browse(t, base, "approver")
	res, err := b.http.PostForm(base+"/requests/"+r.ID+"/approve", url.Values{"comment": {"kept"}, "terms_hash": {r.TermsHash}})
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	page := string(body)
	if res.StatusCode != http.StatusServiceUnavailable || !strings.Contains(page, "identity provider does not answer") || !strings.Contains(page, "kept") {
		t.Errorf("%s: %s", res.Status, page)
	}
}
