package pages

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/go-chi/chi/v5"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/broker/fleet"
	"sallyport/web"
)

// pendingPage is who waits to be let in.
type pendingPage struct {
	Items   []api.PendingHost
	Waiting int
}

func (p *Pages) pending(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	list, err := p.cfg.Fleet.Pending(r.Context(), c)
	if err != nil {
		return err
	}
	web.Render(w, r, http.StatusOK, "pending", pendingPage{list, len(list)})
	return nil
}

// pendingHostPage is one host that waits, and what an operator can do about it.
type pendingHostPage struct {
	api.PendingHost
	form
}

// Hint is how the fingerprint begins: enough to tell two hosts in the list apart, and too
// little to be copied into the form instead of what the host itself shows.
func (p pendingHostPage) Hint() string { return hint(p.Fingerprint) }

func hint(fingerprint string) string {
	return fingerprint[:min(len(fingerprint), len("SHA256:")+6)] + "…"
}

func (p *Pages) pendingHost(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	return p.showPending(w, r, c, nil, nil)
}

// showPending shows the host, with the form as it was sent, if it was.
func (p *Pages) showPending(w http.ResponseWriter, r *http.Request, c identity.Caller, sent url.Values, refused error) error {
	list, err := p.cfg.Fleet.Pending(r.Context(), c)
	if err != nil {
		return err
	}
	for _, h := range list {
		if h.ID != chi.URLParam(r, "id") {
			continue
		}
		page := pendingHostPage{PendingHost: h, form: form{values: sent, fields: []string{"fingerprint", "name", "address", "labels", "logins", "reason"}}}
		if sent == nil {
			page.values = url.Values{"name": {h.Name}, "logins": {strings.Join(h.Logins, ", ")}}
		}
		var status int
		page.form, status = page.refuse(r, refused)
		web.Render(w, r, status, "pending_host", page)
		return nil
	}
	if refused != nil {
		return refused
	}
	return fleet.ErrUnknownPending
}

func (p *Pages) approveHost(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	if err := parseForm(r); err != nil {
		return err
	}
	field := func(name string) string { return strings.TrimSpace(r.PostForm.Get(name)) }
	labels, err := labelsOf(field("labels"), "labels")
	var h api.Host
	if err == nil {
		h, err = p.cfg.Fleet.Approve(r.Context(), c, chi.URLParam(r, "id"), api.PendingDecision{Fingerprint: field("fingerprint"),
			Name: field("name"), Address: field("address"), Labels: labels, Logins: words(field("logins"))})
	}
	if err != nil {
		return p.showPending(w, r, c, r.PostForm, err)
	}
	http.Redirect(w, r, "/hosts/"+url.PathEscape(h.Name), http.StatusSeeOther)
	return nil
}

func (p *Pages) refuseHost(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	if err := parseForm(r); err != nil {
		return err
	}
	if err := p.cfg.Fleet.Refuse(r.Context(), c, chi.URLParam(r, "id"), r.PostForm.Get("reason")); err != nil {
		return p.showPending(w, r, c, r.PostForm, err)
	}
	http.Redirect(w, r, pendingPath, http.StatusSeeOther)
	return nil
}
