package pages

import (
	"context"
	"net/http"
	"strings"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/web"
)

// Registry is what pages need of the list of hosts.
type Registry interface {
	OnlyOperators(ctx context.Context, c identity.Caller, action, hostID string) error
	Relabel(ctx context.Context, c identity.Caller, in api.LabelsInput) ([]api.Host, error)
}

// labelsPage changes labels of many hosts: it is looked at first, and then done.
type labelsPage struct {
	form
	Step    string // preview or change, if it was sent and not refused
	Items   []api.Host
	Waiting int // hosts that wait to be let in
}

func (p *Pages) labels(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	if err := p.cfg.Registry.OnlyOperators(r.Context(), c, "hosts.labels", ""); err != nil {
		return err
	}
	return p.showLabels(w, r, labelsPage{form: form{values: r.URL.Query()}}, nil)
}

// relabel shows what would change, or with the step change does it.
func (p *Pages) relabel(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	if err := parseForm(r); err != nil {
		return err
	}
	page := labelsPage{form: form{values: r.PostForm}}
	set, err := labelsOf(page.Value("set"), "set")
	if err == nil {
		in := api.LabelsInput{Selector: strings.TrimSpace(page.Value("selector")), Set: set, Remove: words(page.Value("remove")), DryRun: page.Value("step") != "change"}
		page.Items, err = p.cfg.Registry.Relabel(r.Context(), c, in)
		if page.Step = "preview"; !in.DryRun {
			page.Step = "change"
		}
	}
	return p.showLabels(w, r, page, err)
}

func (p *Pages) showLabels(w http.ResponseWriter, r *http.Request, page labelsPage, refused error) error {
	if refused != nil {
		page.Step = ""
	}
	var err error
	if page.Waiting, err = p.waitingHosts(r.Context()); err != nil {
		return err
	}
	page.fields = []string{"selector", "set", "remove", "labels"}
	var status int
	page.form, status = page.refuse(r, refused)
	web.Render(w, r, status, "host_labels", page)
	return nil
}
