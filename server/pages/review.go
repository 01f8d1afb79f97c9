package pages

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/go-chi/chi/v5"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
)

// review takes the sign-off of an emergency that the form's button stands for, by
// way of the identity provider if that has to sign it.
func (p *Pages) review(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	if err := parseForm(r); err != nil {
		return err
	}
	id := chi.URLParam(r, "id")
	in := api.ReviewInput{Verdict: r.PostForm.Get("verdict"), Comment: strings.TrimSpace(r.PostForm.Get("comment"))}
	next := "/requests/" + url.PathEscape(id)
	_, err := p.cfg.Approvals.Review(r.Context(), c, id, in)
	sent, err := p.sign(w, r, err, next, func(c identity.Caller, b approvals.Browser) (approvals.Draft, error) {
		return p.cfg.Approvals.DraftReview(r.Context(), c, b, id, in)
	})
	if err != nil {
		return p.refused(w, r, c, err)
	}
	if !sent {
		http.Redirect(w, r, next, http.StatusSeeOther)
	}
	return nil
}

// OffersEmergency reports whether the form can be about an emergency: a rule lets
// the person open one of the doors that it offers before approval.
func (a askPage) OffersEmergency() bool {
	return slices.ContainsFunc(a.Targets, func(t target) bool { return t.Rule.Emergency != nil })
}
