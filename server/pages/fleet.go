package pages

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/go-chi/chi/v5"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/broker/hosts"
	"sallyport/server/problem"
	"sallyport/web"
)

// Fleet is what pages need of enrolled hosts, and of those that want to be.
type Fleet interface {
	Posture(ctx context.Context, c identity.Caller, nameOrID string) (api.HostPosture, error)
	Count(ctx context.Context) (map[api.HostState]int, error)
	MakeToken(ctx context.Context, c identity.Caller, in api.JoinTokenInput) (api.JoinToken, error)
	Tokens(ctx context.Context, c identity.Caller) ([]api.JoinToken, error)
	WithdrawToken(ctx context.Context, c identity.Caller, id string) error
	Pending(ctx context.Context, c identity.Caller) ([]api.PendingHost, error)
	Approve(ctx context.Context, c identity.Caller, id string, in api.PendingDecision) (api.Host, error)
	Refuse(ctx context.Context, c identity.Caller, id, reason string) error
}

// Where operators let hosts in, and label them. No host has these names.
const (
	tokensPath  = "/hosts/join-tokens"
	pendingPath = "/hosts/pending"
	labelsPath  = "/hosts/labels"
)

func (p *Pages) fleetRoutes(r chi.Router) {
	r.Get(tokensPath, p.signedIn(p.joinTokens))
	r.Post(tokensPath, p.signedIn(p.makeJoinToken))
	r.Post(tokensPath+"/{id}/withdraw", p.signedIn(p.withdrawJoinToken))
	r.Get(pendingPath, p.signedIn(p.pending))
	r.Get(pendingPath+"/{id}", p.signedIn(p.pendingHost))
	r.Post(pendingPath+"/{id}/approve", p.signedIn(p.approveHost))
	r.Post(pendingPath+"/{id}/refuse", p.signedIn(p.refuseHost))
	r.Get(labelsPath, p.signedIn(p.labels))
	r.Post(labelsPath, p.signedIn(p.relabel))
}

// form is what was filled in, and what is wrong with it.
type form struct {
	values  url.Values
	fields  []string // that the page shows what is wrong with
	Problem *api.Problem
}

// Value is what was filled in there.
func (f form) Value(field string) string { return f.values.Get(field) }

// Fault is the refusal of one field, or nil.
func (f form) Fault(field string) *api.Problem {
	if f.Problem == nil || len(f.Problem.Errors) == 0 || f.Problem.Errors[0].Location != field {
		return nil
	}
	return f.Problem
}

// Whole is the refusal, if it is of none of the fields.
func (f form) Whole() *api.Problem {
	if slices.ContainsFunc(f.fields, func(field string) bool { return f.Fault(field) != nil }) {
		return nil
	}
	return f.Problem
}

// refuse is the form with what was refused, and the status to answer with.
func (f form) refuse(r *http.Request, err error) (form, int) {
	if err == nil {
		return f, http.StatusOK
	}
	f.Problem = problem.Note(r.Context(), err)
	return f, f.Problem.Status
}

// words are what somebody listed, with commas or blanks in between.
func words(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(", \t\r\n", r) })
}

// labelsOf reads labels as people write them: class=database, env=prod.
func labelsOf(text, field string) (map[string]string, error) {
	labels := map[string]string{}
	for _, word := range words(text) {
		name, value, ok := strings.Cut(word, "=")
		if _, twice := labels[name]; !ok || twice {
			return nil, hosts.ErrLabels.With("%q is no label, or is there twice", word).Hinting("write name=value, such as class=database, env=prod").On(field)
		}
		labels[name] = value
	}
	return labels, nil
}

// tokensPage is the join tokens of the last week, and the form for another.
type tokensPage struct {
	form
	Made    *api.JoinToken // just now: the only time that the token is shown
	Command string         // to be run on the host
	Items   []api.JoinToken
	Waiting int // hosts that wait to be let in
}

func (p *Pages) joinTokens(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	page := tokensPage{form: form{values: r.URL.Query()}}
	return p.showTokens(w, r, c, page, nil)
}

func (p *Pages) makeJoinToken(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	if err := parseForm(r); err != nil {
		return err
	}
	page := tokensPage{form: form{values: r.PostForm}}
	field := func(name string) string { return strings.TrimSpace(r.PostForm.Get(name)) }
	labels, err := labelsOf(field("labels"), "labels")
	if err == nil {
		var made api.JoinToken
		if made, err = p.cfg.Fleet.MakeToken(r.Context(), c, api.JoinTokenInput{Name: field("name"), Address: field("address"), Labels: labels,
			Logins: words(field("logins")), Expires: field("expires_in")}); err == nil {
			page = tokensPage{Made: &made, Command: "sally-host enroll --url " + p.cfg.URL + " --token " + made.Token}
		}
	}
	return p.showTokens(w, r, c, page, err)
}

func (p *Pages) showTokens(w http.ResponseWriter, r *http.Request, c identity.Caller, page tokensPage, refused error) error {
	list, err := p.cfg.Fleet.Tokens(r.Context(), c)
	if err != nil {
		return err
	}
	page.Items = list
	if page.Waiting, err = p.waitingHosts(r.Context()); err != nil {
		return err
	}
	page.fields = []string{"name", "address", "labels", "logins", "expires_in"}
	var status int
	page.form, status = page.refuse(r, refused)
	web.Render(w, r, status, "join_tokens", page)
	return nil
}

func (p *Pages) withdrawJoinToken(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	if err := p.cfg.Fleet.WithdrawToken(r.Context(), c, chi.URLParam(r, "id")); err != nil {
		return err
	}
	http.Redirect(w, r, tokensPath, http.StatusSeeOther)
	return nil
}

// waitingHosts is how many hosts wait to be let in, for the tab; of some seconds ago.
func (p *Pages) waitingHosts(ctx context.Context) (int, error) {
	count, err := p.cfg.Fleet.Count(ctx)
	return count[api.HostPending], err
}
