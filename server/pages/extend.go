package pages

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"sallyport/api"
	"sallyport/approvals/identity"
)

// extend asks for what the form's button stands for: as much more as the rule allows.
func (p *Pages) extend(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	req, err := p.cfg.Approvals.Extend(r.Context(), c, chi.URLParam(r, "id"), api.ExtendInput{})
	if err != nil {
		return p.refused(w, r, c, err)
	}
	http.Redirect(w, r, "/requests/"+url.PathEscape(req.ID), http.StatusSeeOther)
	return nil
}

// revoke ends somebody's request, for operators.
func (p *Pages) revoke(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	if err := parseForm(r); err != nil {
		return err
	}
	id := chi.URLParam(r, "id")
	in := api.RevocationInput{Request: id, Reason: strings.TrimSpace(r.PostForm.Get("comment"))}
	if _, err := p.cfg.Approvals.Revoke(r.Context(), c, in); err != nil {
		return p.refused(w, r, c, err)
	}
	http.Redirect(w, r, "/requests/"+url.PathEscape(id), http.StatusSeeOther)
	return nil
}

// ExtendUntil is when the grant would end if it were extended by as much as its
// terms allow.
func (v requestView) ExtendUntil() *time.Time {
	if v.Extend == nil || v.EndsAt == nil {
		return nil
	}
	by, err := time.ParseDuration(v.Extend.By)
	if err != nil {
		return nil
	}
	until := v.EndsAt.Add(by)
	return &until
}

// soon is how long before its end a grant's person is warned.
const soon = 5 * time.Minute

// Soon reports whether the grant ends so soon that its person should know. The
// script shows the warning at its time, so that nobody has to reload.
func (v requestView) Soon() bool { return v.EndsAt != nil && v.EndsAt.Sub(v.Now) <= soon }

// Warns reports whether the end of the grant is one to be warned of: the viewer's
// own, which nothing follows.
func (v requestView) Warns() bool {
	return v.Mine && v.Running() && !v.Later() && v.EndsAt != nil && v.ExtendedBy == "" && v.Until == nil
}

// Withdrawn reports whether the requester closed the undecided request, and not an operator.
func (v requestView) Withdrawn() bool {
	return !slices.ContainsFunc(v.Timeline, func(e api.Event) bool { return e.Type == "request.closed" && e.Actor.ID != v.Requester.ID })
}

// oneAccess makes grants that follow each other one: the first of them, until the
// end of the last.
func oneAccess(grants []requestView) []requestView {
	next := map[string]requestView{} // by the request that it extends
	for _, g := range grants {
		if g.Extends != "" {
			next[g.Extends] = g
		}
	}
	var out []requestView
	for _, g := range grants {
		if slices.ContainsFunc(grants, func(before requestView) bool { return before.ID == g.Extends }) {
			continue
		}
		for last, ok := next[g.ID]; ok; last, ok = next[last.ID] {
			g.Until = last.EndsAt
		}
		out = append(out, g)
	}
	return out
}
