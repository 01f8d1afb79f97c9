package pages

import (
	"bytes"
	"context"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/internal/refusal"
)

// The house's policy: version 3 is in force, pol-000000000001 is the operator's own
// proposal, and whatever is proposed is another.
const (
	houseDocument = "sallyport: 1\nrules: []\n"
	ownProposal   = "pol-000000000001"
)

func (h *house) policies() []api.PolicyVersion {
	author, approver := h.people["operator"].API(), h.people["auditor"].API()
	return []api.PolicyVersion{
		{PolicyRef: api.PolicyRef{Version: 3, Hash: "cc"}, InForce: true, Rules: 4, Author: &author, Approver: &approver, Proposal: "pol-000000000000",
			Comment: "more for <b>databases</b>", ActivatedAt: h.clock.Now(), Document: houseDocument},
		{PolicyRef: api.PolicyRef{Version: 1, Hash: "aa"}, ActivatedAt: h.clock.Now(), Document: houseDocument + "# first\n"},
	}
}

func (h *house) readsPolicy(c identity.Caller) error {
	if c.Has(api.Operator) || c.Has(api.Auditor) {
		return nil
	}
	return approvals.ErrPolicyReaders
}

func (h *house) PolicyInForce(_ context.Context, c identity.Caller) (api.PolicyVersion, error) {
	return h.policies()[0], h.readsPolicy(c)
}

func (h *house) PolicyVersion(_ context.Context, c identity.Caller, n int64) (api.PolicyVersion, error) {
	for _, v := range h.policies() {
		if v.Version == n {
			return v, h.readsPolicy(c)
		}
	}
	return api.PolicyVersion{}, approvals.ErrUnknownVersion
}

func (h *house) PolicyVersions(_ context.Context, c identity.Caller, _ string, _ int) (api.Page[api.PolicyVersion], error) {
	return api.Page[api.PolicyVersion]{Items: h.policies()}, h.readsPolicy(c)
}

func (h *house) Proposals(_ context.Context, c identity.Caller, _ bool, _ string, _ int) (api.Page[api.PolicyProposal], error) {
	return api.Page[api.PolicyProposal]{Items: []api.PolicyProposal{h.proposed(c, ownProposal)}}, h.readsPolicy(c)
}

// proposed is a proposal of the operator's.
func (h *house) proposed(c identity.Caller, id string) api.PolicyProposal {
	author := h.people["operator"]
	own := api.Action{Name: "approve", Why: approvals.ErrOwnProposal.Detail}
	if c.ID != author.ID {
		own = api.Action{Name: "approve", Allowed: c.Has(api.Operator), Why: "only operators"}
	}
	return api.PolicyProposal{ID: id, State: api.ProposalOpen, Author: author.API(), Comment: "two approvals <i>now</i>", Statement: "ee",
		Base: api.PolicyRef{Version: 3}, Actions: []api.Action{own, {Name: "deny", Allowed: own.Allowed}, {Name: "withdraw", Allowed: c.ID == author.ID}},
		Document: "# <script>\n", Diff: &api.PolicyDiff{Text: "--- a\n+++ b\n@@ -1 +1 @@\n-old <x>\n+# <script>\n same\n", Added: 1, Removed: 1},
		Effect: &api.PolicyEffect{Summary: []string{"3 people (Ann, Bob, <u>Cy</u>) gain root on 12 hosts"}, People: 5, Hosts: 20,
			Reach: []api.AccessEffect{{Change: "gains", Login: "root", Now: "all", People: api.Sample{Count: 3, Names: []string{"Ann", "Bob", "Cy"}}, Hosts: api.Sample{Count: 12, Names: []string{"db-1"}}}},
			Rules: []api.RuleEffect{{Rule: "all", Change: "changed", Differences: []api.RuleDifference{{Key: "approvals", Was: "1 from a", Now: "2 from a"}}}}, More: 2}}
}

func (h *house) Proposal(_ context.Context, c identity.Caller, id string) (api.PolicyProposal, error) {
	return h.proposed(c, id), h.readsPolicy(c)
}

func (h *house) OnlyPolicyOperators(_ context.Context, c identity.Caller, _ string) error {
	if !c.Has(api.Operator) {
		return approvals.ErrPolicyOperators
	}
	return nil
}

func (h *house) PreviewPolicy(_ context.Context, c identity.Caller, in api.PolicyInput) (api.PolicyProposal, error) {
	p := h.proposed(c, "")
	return p, h.saw(in)
}

func (h *house) Propose(_ context.Context, c identity.Caller, in api.PolicyInput) (api.PolicyProposal, error) {
	return h.proposed(c, "pol-000000000002"), h.saw(in)
}

func (h *house) DecideProposal(_ context.Context, c identity.Caller, id string, in api.PolicyDecisionInput) (api.PolicyProposal, error) {
	if h.signed {
		return api.PolicyProposal{}, approvals.ErrProviderEvidence
	}
	return h.proposed(c, id), h.saw(in)
}

func (h *house) CountProposals(_ context.Context, c identity.Caller) (int, error) {
	if c.Has(api.Operator) && c.ID != h.people["operator"].ID {
		return 1, nil
	}
	return 0, nil
}

func (h *house) Withdraw(_ context.Context, c identity.Caller, id string) (api.PolicyProposal, error) {
	return h.proposed(c, id), h.saw("withdraw " + id)
}

// proposalForm posts the form of a new proposal.
func proposalForm(h *house, who string, fields map[string]string) *httptest.ResponseRecorder {
	var b bytes.Buffer
	form := multipart.NewWriter(&b)
	for k, v := range fields {
		form.WriteField(k, v)
	}
	form.Close()
	r := httptest.NewRequest(http.MethodPost, ProposalsPath, &b)
	r.Header.Set("Content-Type", form.FormDataContentType())
	r.AddCookie(&http.Cookie{Name: "as", Value: who})
	w := httptest.NewRecorder()
	doors(h).ServeHTTP(w, r)
	return w
}

func policyPageOf(h *house, who, method, path, form string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(form))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Accept", "text/html")
	r.AddCookie(&http.Cookie{Name: "as", Value: who})
	w := httptest.NewRecorder()
	doors(h).ServeHTTP(w, r)
	return w
}

func TestPolicyPages(t *testing.T) {
	t.Parallel()
	h, _ := open(t)
	for _, c := range []struct {
		who, path  string
		status     int
		has, hasNo []string
	}{
		{"auditor", "/policy", 200, []string{"Version 3 is in force", "more for &lt;b&gt;", "sallyport: 1", "/policy?version=1", ownProposal, `aria-current="page"`}, []string{"Propose a change"}},
		{"operator", "/policy", 200, []string{"Propose a change"}, nil},
		{"auditor", "/policy?version=1", 200, []string{"Version 1 was in force", "# first", "own file"}, []string{"Proposals</h2>"}},
		{"auditor", "/policy?version=2", 404, []string{"no such version"}, nil},
		{"auditor", "/policy?version=x", 404, nil, nil},
		{"engineer", "/policy", 403, []string{"Only operators and auditors read the policy"}, []string{"sallyport: 1"}},
		{"engineer", "/policy/proposals/" + ownProposal, 403, nil, []string{"&lt;script"}},
		{"auditor", "/policy/proposals/new", 403, nil, nil},
		{"operator", "/policy/proposals/new", 200, []string{houseDocument, "You cannot approve it yourself"}, []string{`value="propose"`}},
		{"operator", "/policy/proposals/new?from=" + ownProposal, 200, []string{"# &lt;script&gt;"}, nil},
		{"operator", "/policy/proposals/" + ownProposal, 200, []string{"Nobody decides on their own proposal.", `disabled aria-describedby="why-not"`, "Withdraw it",
			"&lt;u&gt;Cy&lt;/u&gt;) gain root on 12 hosts.", `<span class="added">&#43;# &lt;script&gt;</span>`, `<span class="removed">-old &lt;x&gt;</span>`, "And 2 more"}, []string{"/deny", "&#43;&#43;&#43; b"}},
	} {
		w := policyPageOf(h, c.who, "GET", c.path, "")
		if w.Code != c.status {
			t.Errorf("%s at %s: %d", c.who, c.path, w.Code)
		}
		for _, s := range c.has {
			if !strings.Contains(w.Body.String(), s) {
				t.Errorf("%s at %s: no %q", c.who, c.path, s)
			}
		}
		for _, s := range c.hasNo {
			if strings.Contains(w.Body.String(), s) {
				t.Errorf("%s at %s: %q", c.who, c.path, s)
			}
		}
	}

	// What changes stands before the button.
	other := h.people["operator"]
	other.ID, other.Name = "per-000000000009", "Otto"
	h.people["otto"] = other
	page := policyPageOf(h, "otto", "GET", "/policy/proposals/"+ownProposal, "").Body.String()
	effect, diff, button := strings.Index(page, "gain root"), strings.Index(page, `class="diff"`), strings.Index(page, "<span>Approve</span>")
	if effect < 0 || diff < effect || button < diff {
		t.Errorf("effect at %d, diff at %d, button at %d", effect, diff, button)
	}
}

func TestPolicyForms(t *testing.T) {
	t.Parallel()
	h, _ := open(t)
	typed := strings.ReplaceAll(houseDocument, "\n", "\r\n")
	w := proposalForm(h, "operator", map[string]string{"document": typed, "comment": " why ", "step": "preview"})
	if w.Code != 200 || !strings.Contains(w.Body.String(), `value="propose"`) || !strings.Contains(w.Body.String(), "gain root") {
		t.Errorf("preview: %d", w.Code)
	}
	w = proposalForm(h, "operator", map[string]string{"document": typed, "comment": " why ", "step": "propose"})
	if w.Code != 303 || w.Header().Get("Location") != ProposalsPath+"/pol-000000000002" {
		t.Errorf("propose: %d to %s", w.Code, w.Header().Get("Location"))
	}
	if got := h.inputs[len(h.inputs)-1]; got != (api.PolicyInput{Document: houseDocument, Comment: "why"}) {
		t.Errorf("proposed %+v", got)
	}
	if w := proposalForm(h, "auditor", map[string]string{"document": typed}); w.Code != 403 {
		t.Errorf("an auditor proposes: %d", w.Code)
	}
	h.refuse = approvals.ErrBadPolicy.With("the document is not a policy: line 7, column 3: what")
	w = proposalForm(h, "operator", map[string]string{"document": "my <work>", "step": "propose"})
	if w.Code != 422 || !strings.Contains(w.Body.String(), "line 7, column 3") || !strings.Contains(w.Body.String(), "my &lt;work&gt;") {
		t.Errorf("a bad document: %d", w.Code)
	}
	h.refuse = nil

	at := "/policy/proposals/" + ownProposal
	w = policyPageOf(h, "operator", "POST", at+"/approve", "comment=+ok+&statement_hash=ee")
	if got := h.inputs[len(h.inputs)-1]; w.Code != 303 || got != (api.PolicyDecisionInput{Verdict: api.Approve, Comment: "ok", Statement: "ee"}) {
		t.Errorf("approve: %d, %+v", w.Code, got)
	}
	if w := policyPageOf(h, "operator", "POST", at+"/deny", "comment="); w.Code != 422 || !strings.Contains(w.Body.String(), "needs a comment") {
		t.Errorf("deny without a comment: %d", w.Code)
	}
	w = policyPageOf(h, "operator", "POST", at+"/withdraw", "")
	if got := h.inputs[len(h.inputs)-1]; w.Code != 303 || got != "withdraw "+ownProposal {
		t.Errorf("withdraw: %d, %v", w.Code, got)
	}
	h.refuse = approvals.ErrStaleProposal
	if w := policyPageOf(h, "operator", "POST", at+"/approve", "comment=kept"); w.Code != 409 ||
		!strings.Contains(w.Body.String(), refusalText(approvals.ErrStaleProposal)) {
		t.Errorf("refused: %d", w.Code)
	}
}

func refusalText(r *refusal.Error) string { return strings.ToUpper(r.Detail[:1]) + r.Detail[1:] + "." }
