package pages

import (
	"context"
	"errors"
	"net/http"

	"github.com/go-chi/chi/v5"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/web"
)

// Drafts are what the identity provider has to sign before it counts.
type Drafts interface {
	DraftDecision(ctx context.Context, c identity.Caller, b approvals.Browser, id string, in api.DecisionInput) (approvals.Draft, error)
	DraftReview(ctx context.Context, c identity.Caller, b approvals.Browser, id string, in api.ReviewInput) (approvals.Draft, error)
	DraftPolicyDecision(ctx context.Context, c identity.Caller, b approvals.Browser, id string, in api.PolicyDecisionInput) (approvals.Draft, error)
}

// drafting prepares one.
type drafting func(identity.Caller, approvals.Browser) (approvals.Draft, error)

// sign answers what was said with err: where that says that the provider has to sign
// it, the browser is sent there, and comes back to next. Otherwise it is for the
// caller to answer, with the error that is left.
func (p *Pages) sign(w http.ResponseWriter, r *http.Request, err error, next string, draft drafting) (sent bool, _ error) {
	if !errors.Is(err, approvals.ErrProviderEvidence) {
		return false, err
	}
	err = p.cfg.Decisions.Sign(w, r, next, draft)
	return err == nil, err
}

// reviewPage is the page on which one thing can be done: to sign off an emergency.
type reviewPage struct {
	requestView
	Verdict string
}

// reviewing shows exactly what would be said of the emergency. It is where sally
// sends people whose review the identity provider has to sign.
func (p *Pages) reviewing(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	page := reviewPage{Verdict: r.URL.Query().Get("verdict")}
	if page.Verdict != api.Justified && page.Verdict != api.NotJustified {
		return approvals.ErrBadReview
	}
	req, err := p.cfg.Broker.Request(r.Context(), c, chi.URLParam(r, "id"))
	if err != nil {
		return err
	}
	if req.Emergency == nil {
		return approvals.ErrNotEmergency
	}
	page.requestView = p.view(c, req)
	page.Comment = r.URL.Query().Get("comment")
	web.Render(w, r, http.StatusOK, "review", page)
	return nil
}

// policyDecidePage is the page on which one thing can be done: to give the verdict
// on a proposal.
type policyDecidePage struct {
	proposalView
	Verdict api.Verdict
}

// decidingProposal shows exactly what would be decided, as deciding does.
func (p *Pages) decidingProposal(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	page := policyDecidePage{Verdict: api.Verdict(r.URL.Query().Get("verdict"))}
	if page.Verdict != api.Approve && page.Verdict != api.Deny {
		return approvals.ErrBadVerdict
	}
	made, err := p.cfg.Approvals.Proposal(r.Context(), c, chi.URLParam(r, "id"))
	if err != nil {
		return err
	}
	page.proposalView = proposalView{PolicyProposal: made, Now: p.cfg.Clock.Now(), Said: r.URL.Query().Get("comment")}
	web.Render(w, r, http.StatusOK, "policy_decide", page)
	return nil
}
