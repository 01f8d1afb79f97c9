package pages

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/broker"
	"sallyport/broker/hosts"
	"sallyport/internal/refusal"
	"sallyport/server/problem"
	"sallyport/web"
)

// target is one login on one host that the person may ask for.
type target struct {
	Host   string // name
	Login  string
	Labels map[string]string
	Rule   api.HostRule
}

// askPage is the form for a new request, and the step that confirms it.
type askPage struct {
	Search   string
	Target   string // login@host, or severalHosts
	Login    string // for several hosts
	Selector string // for several hosts: their labels, as api.ParseSelector reads them
	Duration string // one of the choices, empty for the rule's default, or "other"
	Other    string // a Go duration, for "other"
	Reason   string
	Ticket   string
	// Emergency is "yes" to open the door before approval, "drill" to rehearse that.
	Emergency string
	Start     startForm

	Targets []target
	More    bool // there are more hosts than the list shows
	Preview *previewView
	Problem *api.Problem
}

// previewView is what would happen to the request, had it been sent.
type previewView struct {
	Login, Host         string
	Hosts               []api.RequestHost
	Rule                string
	Duration            string
	MaxDuration         string // as far as known
	Automatic           bool
	Slots               []slotView
	ApproveBy           *time.Time
	NotBefore           *time.Time
	StartWithin         string
	CertificateLifetime string
	Emergency           *api.Emergency
	Missing             *api.Problem // what keeps the request from being sent
}

// durations are the quick choices.
var durations = []string{"15m", "30m", "1h", "2h", "4h", "8h"}

// Durations are the quick choices.
func (askPage) Durations() []string { return durations }

// Chosen is the target of the form among those offered, or nil.
func (a askPage) Chosen() *target {
	i := slices.IndexFunc(a.Targets, func(t target) bool { return t.Login+"@"+t.Host == a.Target })
	if i < 0 {
		return nil
	}
	return &a.Targets[i]
}

// Fault is the refusal of one field of the form, or nil. The API's host, selector
// and login are one field here.
func (a askPage) Fault(field string) *api.Problem {
	if a.Problem == nil || len(a.Problem.Errors) == 0 {
		return nil
	}
	at := a.Problem.Errors[0].Location
	if at == field || field == "target" && (at == "host" || at == "login" || at == "selector") {
		return a.Problem
	}
	return nil
}

// Faulty reports whether the refusal is of a field that the form shows.
func (a askPage) Faulty() bool {
	if a.Fault("emergency") != nil {
		return a.OffersEmergency()
	}
	return slices.ContainsFunc([]string{"target", "duration", "not_before", "reason", "ticket"}, func(f string) bool { return a.Fault(f) != nil })
}

// input is the form as the approvals room wants it.
func (a askPage) input() (api.RequestInput, error) {
	login, host, ok := strings.Cut(a.Target, "@")
	var selector map[string]string
	var err error
	switch {
	case a.Several():
		login = a.Login
		if selector, err = a.several(); err != nil {
			return api.RequestInput{}, err
		}
	case !ok:
		return api.RequestInput{}, errNoTarget
	}
	in := api.RequestInput{Host: host, Selector: selector, Login: login, Duration: a.Duration, Reason: a.Reason, Ticket: a.Ticket,
		Emergency: a.Emergency != "", Drill: a.Emergency == "drill"}
	if a.Duration == "other" {
		in.Duration = a.Other
	}
	in.NotBefore, err = a.Start.at()
	return in, err
}

// askFrom reads the form's fields, as posted or as prefilled by an address.
func askFrom(form url.Values) askPage {
	field := func(name string) string { return strings.TrimSpace(form.Get(name)) }
	a := askPage{
		Search: field("q"), Target: field("target"), Login: field("login"), Selector: field("selector"), Duration: field("duration"), Other: field("other"),
		Reason: field("reason"), Ticket: field("ticket"), Start: startFrom(form),
	}
	if e := field("emergency"); e == "yes" || e == "drill" {
		a.Emergency = e
	}
	if a.Target == "" && a.Selector != "" {
		a.Target = severalHosts
	}
	if a.Target == "" && form.Has("host") && form.Has("login") {
		a.Target = field("login") + "@" + field("host")
	}
	if a.Duration != "" && a.Duration != "other" && !slices.Contains(durations, a.Duration) {
		a.Duration, a.Other = "other", a.Duration
	}
	return a
}

// newRequest shows the form, prefilled by the address: host or selector, login,
// duration, reason, ticket, not_before.
func (p *Pages) newRequest(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	a := askFrom(r.URL.Query())
	if host := r.URL.Query().Get("host"); a.Target == "" && a.Search == "" && host != "" {
		a.Search = host
	}
	return p.showForm(w, r, c, a, nil)
}

// ask takes the form. Without the script it goes there and back: "find" narrows
// the list, "preview" shows what would happen, "edit" goes back, and everything
// else sends the request.
func (p *Pages) ask(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	if err := parseForm(r); err != nil {
		return err
	}
	a := askFrom(r.PostForm)
	step := r.PostForm.Get("step")
	if step == "find" || step == "edit" {
		return p.showForm(w, r, c, a, nil)
	}
	in, err := a.input()
	if err != nil {
		return p.showForm(w, r, c, a, err)
	}
	// What follows an emergency is said before it is sent, also to those who did not
	// look at the preview.
	if step == "preview" || in.Emergency && step != "open" {
		preview, err := p.cfg.Approvals.Preview(r.Context(), c, in)
		if err != nil {
			return p.showForm(w, r, c, a, err)
		}
		a.Preview = previewOf(preview)
		web.Render(w, r, http.StatusOK, "request_confirm", a)
		return nil
	}
	req, err := p.cfg.Approvals.Request(r.Context(), c, in)
	if err != nil {
		return p.showForm(w, r, c, a, err)
	}
	http.Redirect(w, r, "/requests/"+url.PathEscape(req.ID), http.StatusSeeOther)
	return nil
}

// preview answers the script with what would happen to the form as it is now.
func (p *Pages) preview(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	if err := parseForm(r); err != nil {
		return err
	}
	a := askFrom(r.PostForm)
	if err := p.lookAhead(r, c, &a); err != nil {
		return err
	}
	web.RenderPart(w, r, http.StatusOK, "request_new", "preview", a)
	return nil
}

// showForm shows the form with what was refused, if anything was.
func (p *Pages) showForm(w http.ResponseWriter, r *http.Request, c identity.Caller, a askPage, refused error) error {
	status := http.StatusOK
	if refused != nil {
		a.Problem = problem.Note(r.Context(), refused)
		status = a.Problem.Status
	}
	list, err := p.cfg.Broker.ListHosts(r.Context(), c, broker.HostFilter{Filter: hosts.Filter{Search: a.Search, Limit: 200}})
	if err != nil {
		return err
	}
	a.Targets, a.More = targetsOf(list.Items), list.Next != ""
	if _, host, ok := strings.Cut(a.Target, "@"); ok && a.Chosen() == nil {
		// What was chosen stays in the list, whatever was searched for since.
		if h, err := p.cfg.Broker.Host(r.Context(), c, host); err == nil {
			a.Targets = append(targetsOf([]api.Host{h}), a.Targets...)
			a.Target = strings.TrimSuffix(a.Target, host) + h.Name // the address may have had the id
		}
	}
	if a.Target == "" && len(a.Targets) == 1 {
		a.Target = a.Targets[0].Login + "@" + a.Targets[0].Host
	}
	if err := p.lookAhead(r, c, &a); err != nil {
		return err
	}
	web.Render(w, r, status, "request_new", a)
	return nil
}

// lookAhead sets the form's preview, if a target is chosen. While the form is
// incomplete, the rule already tells who would have to approve.
func (p *Pages) lookAhead(r *http.Request, c identity.Caller, a *askPage) error {
	in, err := a.input()
	if err != nil {
		return nil // nothing is chosen yet
	}
	preview, err := p.cfg.Approvals.Preview(r.Context(), c, in)
	if err == nil {
		a.Preview = previewOf(preview)
		return nil
	}
	if refusal.As(err) == nil {
		return err
	}
	a.Preview = &previewView{Login: in.Login, Host: in.Host, Missing: problem.From(err)}
	if a.Several() {
		return nil // of which rule and approvers, no single host says
	}
	host, err := p.cfg.Broker.Host(r.Context(), c, in.Host)
	if err != nil {
		return nil // the refusal says enough
	}
	for _, t := range targetsOf([]api.Host{host}) {
		if t.Login == in.Login && !in.Emergency {
			a.Preview.Rule, a.Preview.Automatic, a.Preview.Slots = t.Rule.Rule, t.Rule.Automatic, slotViews(t.Rule.Approvers)
		}
	}
	return nil
}

func previewOf(pre api.Preview) *previewView {
	return &previewView{
		Login: pre.Login, Host: pre.Host.Name, Hosts: pre.Hosts, Rule: pre.Rule, Duration: pre.Duration, Automatic: pre.Automatic,
		Slots: slotViews(pre.Approvers), ApproveBy: &pre.ApproveBy, NotBefore: pre.NotBefore, StartWithin: pre.StartWithin,
		CertificateLifetime: pre.CertificateLifetime,
		Emergency:           pre.Emergency,
	}
}

// targetsOf lists what may be asked for on the hosts: logins that a rule covers.
func targetsOf(list []api.Host) []target {
	var targets []target
	for _, h := range list {
		for _, rule := range h.Rules {
			targets = append(targets, target{Host: h.Name, Login: rule.Login, Labels: h.Labels, Rule: rule})
		}
	}
	return targets
}
