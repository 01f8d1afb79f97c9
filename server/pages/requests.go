package pages

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/server/problem"
	"sallyport/web"
)

// listPage is a list of requests.
type listPage struct {
	Scope string // mine, waiting, emergencies or all
	State string // of the filter; empty: every state
	Items []requestView
	// Reviews wait for the viewer, on the page of approvals.
	Reviews []requestView
	// Deployments, likewise.
	Deployments []deploymentView

	First string // address of the first page, if this is another
	Next  string // address of the next page, if there is one
}

// States are the choices of the filter.
func (listPage) States() []api.State {
	return append([]api.State{api.Requested, api.Approved, api.Active}, closed...)
}

// Version changes whenever anything on the page does.
func (l listPage) Version() string {
	return version(homePage{Waiting: l.Items, Reviews: l.Reviews, Deployments: l.Deployments}.versions())
}

// scopes by their name in the address.
// "emergencies" also narrows to those; see requests.
var scopes = map[string]approvals.Scope{"mine": approvals.Mine, "waiting": approvals.Waiting, "all": approvals.All, "emergencies": approvals.All}

func (p *Pages) requests(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	q := r.URL.Query()
	page := listPage{Scope: q.Get("scope"), State: q.Get("state")}
	if page.Scope == "" {
		page.Scope = "mine"
		if c.Has(api.Auditor) {
			page.Scope = "all"
		}
	}
	scope, ok := scopes[page.Scope]
	if !ok || page.State != "" && !slices.Contains(page.States(), api.State(page.State)) {
		return approvals.ErrBadFilter
	}
	f := approvals.ListFilter{Scope: scope, Cursor: q.Get("cursor"), Emergency: page.Scope == "emergencies"}
	if page.State != "" {
		f.States = []api.State{api.State(page.State)}
	}
	list, err := p.cfg.Approvals.List(r.Context(), c, f)
	if err != nil {
		return err
	}
	page.Items = p.views(c, list.Items)
	page.First, page.Next = paging(r.URL, "cursor", list.Next)
	web.Render(w, r, http.StatusOK, "requests", page)
	return nil
}

// paging gives the addresses of the first and the next page of the list at u.
func paging(u *url.URL, key, next string) (first, following string) {
	q := u.Query()
	if q.Has(key) {
		q.Del(key)
		first = u.Path + "?" + q.Encode()
	}
	if next != "" {
		q.Set(key, next)
		following = u.Path + "?" + q.Encode()
	}
	return first, following
}

func (p *Pages) approvals(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	list, err := p.cfg.Approvals.List(r.Context(), c, approvals.ListFilter{
		Scope: approvals.Waiting, Cursor: r.URL.Query().Get("cursor"),
	})
	if err != nil {
		return err
	}
	reviews, err := p.cfg.Approvals.List(r.Context(), c, approvals.ListFilter{Scope: approvals.Reviews, Limit: 200})
	if err != nil {
		return err
	}
	deployments, err := p.cfg.Deployments.Waiting(r.Context(), c)
	if err != nil {
		return err
	}
	page := listPage{Scope: "waiting", Items: p.views(c, list.Items), Reviews: p.views(c, reviews.Items), Deployments: p.deploymentViews(deployments)}
	page.First, page.Next = paging(r.URL, "cursor", list.Next)
	web.Render(w, r, http.StatusOK, "approvals", page)
	return nil
}

func (p *Pages) request(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	req, err := p.cfg.Broker.Request(r.Context(), c, chi.URLParam(r, "id"))
	if err != nil {
		return err
	}
	web.Render(w, r, http.StatusOK, "request", p.view(c, req))
	return nil
}

// How long changes waits for one, and how often it looks.
const (
	changesWait = 25 * time.Second
	changesLook = time.Second
)

// changes answers with the request's page, without the layout, as soon as it
// differs from the version that the script has; with 204 if it does not.
func (p *Pages) changes(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	ctx, cancel := context.WithTimeout(r.Context(), changesWait)
	defer cancel()
	look := time.NewTicker(changesLook)
	defer look.Stop()
	for {
		req, err := p.cfg.Broker.Request(ctx, c, chi.URLParam(r, "id"))
		if ctx.Err() == nil && err != nil {
			return err
		}
		if v := p.view(c, req); err == nil && v.Version() != r.URL.Query().Get("since") {
			web.RenderPart(w, r, http.StatusOK, "request", "live", v)
			return nil
		}
		select {
		case <-look.C:
			continue
		case <-ctx.Done():
		case <-p.cfg.Closing:
		}
		web.Secure(w.Header())
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
}

// decidePage is the page on which one thing can be done: to give the verdict.
type decidePage struct {
	requestView
	Verdict api.Verdict
}

// deciding shows exactly what would be decided. It is where sally sends people
// whose decision the identity provider has to sign.
func (p *Pages) deciding(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	page := decidePage{Verdict: api.Verdict(r.URL.Query().Get("verdict"))}
	if page.Verdict != api.Approve && page.Verdict != api.Deny {
		return approvals.ErrBadVerdict
	}
	req, err := p.cfg.Broker.Request(r.Context(), c, chi.URLParam(r, "id"))
	if err != nil {
		return err
	}
	page.requestView = p.view(c, req)
	page.Comment = r.URL.Query().Get("comment")
	web.Render(w, r, http.StatusOK, "decide", page)
	return nil
}

// decide takes the verdict that the form's button stands for, by way of the
// identity provider if that has to sign it.
func (p *Pages) decide(verdict api.Verdict) handler {
	return func(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
		if err := parseForm(r); err != nil {
			return err
		}
		in := api.DecisionInput{
			Verdict: verdict, Comment: strings.TrimSpace(r.PostForm.Get("comment")), TermsHash: r.PostForm.Get("terms_hash"),
			For: r.PostForm.Get("for_" + string(verdict)),
		}
		if verdict == api.Deny && in.Comment == "" {
			return p.refused(w, r, c, errDenyWithoutReason)
		}
		id := chi.URLParam(r, "id")
		next := "/requests/" + url.PathEscape(id)
		_, err := p.cfg.Approvals.Decide(r.Context(), c, id, in)
		sent, err := p.sign(w, r, err, next, func(c identity.Caller, b approvals.Browser) (approvals.Draft, error) {
			return p.cfg.Approvals.DraftDecision(r.Context(), c, b, id, in)
		})
		if err != nil {
			return p.refused(w, r, c, err)
		}
		if !sent {
			http.Redirect(w, r, next, http.StatusSeeOther)
		}
		return nil
	}
}

// act does one of the actions that need nothing but the request's id.
func (p *Pages) act(do func(context.Context, identity.Caller, string) (api.Request, error)) handler {
	return func(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
		id := chi.URLParam(r, "id")
		if _, err := do(r.Context(), c, id); err != nil {
			return p.refused(w, r, c, err)
		}
		http.Redirect(w, r, "/requests/"+url.PathEscape(id), http.StatusSeeOther)
		return nil
	}
}

// refused answers a post with the request's page as it is now, with what was
// refused on top and the comment kept. If the page cannot be shown either, the
// refusal stands alone.
func (p *Pages) refused(w http.ResponseWriter, r *http.Request, c identity.Caller, err error) error {
	req, gone := p.cfg.Broker.Request(r.Context(), c, chi.URLParam(r, "id"))
	if gone != nil {
		return err
	}
	v := p.view(c, req)
	v.Problem, v.Comment = problem.Note(r.Context(), err), r.PostFormValue("comment")
	web.Render(w, r, v.Problem.Status, "request", v)
	return nil
}

// parseForm reads the posted form. What is too large stays recognisable.
func parseForm(r *http.Request) error {
	err := r.ParseForm()
	var tooLarge *http.MaxBytesError
	if err == nil || errors.As(err, &tooLarge) {
		return err
	}
	return errBadForm.Because(err)
}
