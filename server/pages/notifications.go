package pages

import (
	"net/http"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/approvals/notify"
	"sallyport/web"
)

// notificationsPage is what people were told, newest first.
type notificationsPage struct {
	State, Request string // of the filter
	Items          []api.Notification
	First, Next    string
}

// States are the choices of the filter.
func (notificationsPage) States() []string {
	return []string{"failed", "retrying", "waiting", "sending", "sent", "dropped"}
}

func (p *Pages) notifications(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	q := r.URL.Query()
	page := notificationsPage{State: q.Get("state"), Request: q.Get("request")}
	list, err := p.cfg.Approvals.Notifications(r.Context(), c, "GET /notifications",
		notify.Filter{State: page.State, RequestID: page.Request, Cursor: q.Get("cursor")})
	if err != nil {
		return err
	}
	page.Items = list.Items
	page.First, page.Next = paging(r.URL, "cursor", list.Next)
	web.Render(w, r, http.StatusOK, "notifications", page)
	return nil
}
