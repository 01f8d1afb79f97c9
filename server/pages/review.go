package pages

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/go-chi/chi/v5"

	"sallyport/api"
	"sallyport/approvals/identity"
)

// review takes the sign-off of an emergency that the form's button stands for.
func (p *Pages) review(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	if err := parseForm(r); err != nil {
		return err
	}
	id := chi.URLParam(r, "id")
	in := api.ReviewInput{Verdict: r.PostForm.Get("verdict"), Comment: strings.TrimSpace(r.PostForm.Get("comment"))}
	if _, err := p.cfg.Approvals.Review(r.Context(), c, id, in); err != nil {
		return p.refused(w, r, c, err)
	}
	http.Redirect(w, r, "/requests/"+url.PathEscape(id), http.StatusSeeOther)
	return nil
}

// OffersEmergency reports whether the form can be about an emergency: a rule lets
// the person open one of the doors that it offers before approval.
func (a askPage) OffersEmergency() bool {
	return slices.ContainsFunc(a.Targets, func(t target) bool { return t.Rule.Emergency != nil })
}
