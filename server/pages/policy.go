package pages

import (
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/server/problem"
	"sallyport/web"
)

// ProposalsPath is where the form that proposes a policy is posted to: the one
// page whose body may be as large as a document.
const ProposalsPath = "/policy/proposals"

// policyPage is one version of the policy, with what is proposed and what was.
type policyPage struct {
	api.PolicyVersion
	Versions    []api.PolicyVersion
	Proposals   []api.PolicyProposal
	First, Next string // of the versions
	Now         time.Time
}

func (p *Pages) policy(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	q := r.URL.Query()
	page := policyPage{Now: p.cfg.Clock.Now()}
	var err error
	if q.Get("version") == "" {
		page.PolicyVersion, err = p.cfg.Approvals.PolicyInForce(r.Context(), c)
	} else if n, bad := strconv.ParseInt(q.Get("version"), 10, 64); bad != nil {
		err = approvals.ErrUnknownVersion
	} else {
		page.PolicyVersion, err = p.cfg.Approvals.PolicyVersion(r.Context(), c, n)
	}
	if err != nil {
		return err
	}
	versions, err := p.cfg.Approvals.PolicyVersions(r.Context(), c, q.Get("cursor"), 20)
	if err != nil {
		return err
	}
	proposals, err := p.cfg.Approvals.Proposals(r.Context(), c, false, "", 20)
	if err != nil {
		return err
	}
	page.Versions, page.Proposals = versions.Items, proposals.Items
	page.First, page.Next = paging(r.URL, "cursor", versions.Next)
	web.Render(w, r, http.StatusOK, "policy", page)
	return nil
}

// proposePage is the form for a new version.
type proposePage struct {
	Document, Comment string
	Preview           *proposalView
	Problem           *api.Problem
}

func (p *Pages) newProposal(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	if err := p.cfg.Approvals.OnlyPolicyOperators(r.Context(), c, "GET /policy/proposals/new"); err != nil {
		return err
	}
	force, err := p.cfg.Approvals.PolicyInForce(r.Context(), c)
	if err != nil {
		return err
	}
	page := proposePage{Document: force.Document}
	if from := r.URL.Query().Get("from"); from != "" { // a proposal to begin with
		old, err := p.cfg.Approvals.Proposal(r.Context(), c, from)
		if err != nil {
			return err
		}
		page.Document, page.Comment = old.Document, old.Comment
	}
	web.Render(w, r, http.StatusOK, "policy_new", page)
	return nil
}

func (p *Pages) propose(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	if err := p.cfg.Approvals.OnlyPolicyOperators(r.Context(), c, "POST "+ProposalsPath); err != nil {
		return err // before the document, which may be large, is read
	}
	if err := r.ParseMultipartForm(api.MaxPolicyBody); err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return errDocumentTooLarge
		}
		return errBadForm.Because(err)
	}
	// Browsers end the lines of what was typed as on Windows.
	page := proposePage{Document: strings.ReplaceAll(r.PostForm.Get("document"), "\r\n", "\n"), Comment: strings.TrimSpace(r.PostForm.Get("comment"))}
	in := api.PolicyInput{Document: page.Document, Comment: page.Comment}
	do := p.cfg.Approvals.PreviewPolicy
	if r.PostForm.Get("step") == "propose" {
		do = p.cfg.Approvals.Propose
	}
	made, err := do(r.Context(), c, in)
	switch {
	case err != nil:
		page.Problem = problem.Note(r.Context(), err)
		web.Render(w, r, page.Problem.Status, "policy_new", page)
	case made.ID != "":
		http.Redirect(w, r, ProposalsPath+"/"+url.PathEscape(made.ID), http.StatusSeeOther)
	default:
		page.Preview = &proposalView{PolicyProposal: made, Now: p.cfg.Clock.Now()}
		web.Render(w, r, http.StatusOK, "policy_new", page)
	}
	return nil
}

// proposalView is a proposal as one person sees it.
type proposalView struct {
	api.PolicyProposal
	Now     time.Time
	Problem *api.Problem // what was refused just now
	Said    string       // the comment that was written then
}

// Action is what is known of one action; nil if it does not apply.
func (v proposalView) Action(name string) *api.Action {
	for i := range v.Actions {
		if v.Actions[i].Name == name {
			return &v.Actions[i]
		}
	}
	return nil
}

// Can reports whether the person can do it.
func (v proposalView) Can(name string) bool {
	a := v.Action(name)
	return a != nil && a.Allowed
}

// DiffLine is a line of a diff, and what kind it is of.
type DiffLine struct{ Kind, Text string }

// Lines are those of the diff, without its head.
func (v proposalView) Lines() []DiffLine {
	if v.Diff == nil {
		return nil
	}
	var out []DiffLine
	for line := range strings.Lines(v.Diff.Text) {
		line = strings.TrimRight(line, "\r\n")
		kind := map[byte]string{'+': "added", '-': "removed", '@': "place"}[(line + " ")[0]]
		if len(out) == 0 && (strings.HasPrefix(line, "--- ") || strings.HasPrefix(line, "+++ ")) {
			continue
		}
		out = append(out, DiffLine{kind, line})
	}
	return out
}

func (p *Pages) proposal(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	made, err := p.cfg.Approvals.Proposal(r.Context(), c, chi.URLParam(r, "id"))
	if err != nil {
		return err
	}
	web.Render(w, r, http.StatusOK, "policy_proposal", proposalView{PolicyProposal: made, Now: p.cfg.Clock.Now()})
	return nil
}

// decideProposal takes the verdict that the form's button stands for, by way of the
// identity provider if that has to sign it.
func (p *Pages) decideProposal(verdict api.Verdict) handler {
	return func(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
		if err := parseForm(r); err != nil {
			return err
		}
		id := chi.URLParam(r, "id")
		in := api.PolicyDecisionInput{Verdict: verdict, Comment: strings.TrimSpace(r.PostForm.Get("comment")), Statement: r.PostForm.Get("statement_hash")}
		err := error(errDenyWithoutReason)
		if verdict == api.Approve || in.Comment != "" {
			_, err = p.cfg.Approvals.DecideProposal(r.Context(), c, id, in)
		}
		sent, err := p.sign(w, r, err, ProposalsPath+"/"+url.PathEscape(id), func(c identity.Caller, b approvals.Browser) (approvals.Draft, error) {
			return p.cfg.Approvals.DraftPolicyDecision(r.Context(), c, b, id, in)
		})
		if sent {
			return nil
		}
		return p.didProposal(w, r, c, id, err)
	}
}

func (p *Pages) withdrawProposal(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	id := chi.URLParam(r, "id")
	_, err := p.cfg.Approvals.Withdraw(r.Context(), c, id)
	return p.didProposal(w, r, c, id, err)
}

// didProposal leads back to the proposal, or shows it with what was refused on top.
func (p *Pages) didProposal(w http.ResponseWriter, r *http.Request, c identity.Caller, id string, err error) error {
	if err == nil {
		http.Redirect(w, r, ProposalsPath+"/"+url.PathEscape(id), http.StatusSeeOther)
		return nil
	}
	made, gone := p.cfg.Approvals.Proposal(r.Context(), c, id)
	if gone != nil {
		return err
	}
	v := proposalView{PolicyProposal: made, Now: p.cfg.Clock.Now(), Problem: problem.Note(r.Context(), err), Said: r.PostFormValue("comment")}
	web.Render(w, r, v.Problem.Status, "policy_proposal", v)
	return nil
}
