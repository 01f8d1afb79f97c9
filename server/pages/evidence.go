package pages

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/evidence/controls"
	"sallyport/internal/refusal"
	"sallyport/server/problem"
	"sallyport/web"
)

// Evidence is what pages need of the room of that name.
type Evidence interface {
	Make(ctx context.Context, c identity.Caller, action string, in api.PackInput) (api.Pack, error)
	Pack(ctx context.Context, c identity.Caller, action, id string) (api.Pack, error)
	Packs(ctx context.Context, c identity.Caller, action, cursor string, limit int) (api.Page[api.Pack], error)
}

// EvidencePath is where auditors ask for evidence packs.
const EvidencePath = "/evidence"

// evidencePage is the form and what was asked for, newest first.
type evidencePage struct {
	Form        packForm
	Controls    []controls.Control
	Quarters    []quarter
	Items       []api.Pack
	First, Next string
}

// packForm is an ask as the person wrote it. To is the last day, as people say it.
type packForm struct {
	From, To, Zone, Seed string
	Controls             []string
	Problem              *api.Problem
}

// Fault is what is wrong with a field, or nil.
func (f packForm) Fault(name string) *api.Problem {
	if f.Problem != nil && len(f.Problem.Errors) > 0 && f.Problem.Errors[0].Location == name {
		return f.Problem
	}
	return nil
}

// Faulty reports whether the problem stands at a field.
func (f packForm) Faulty() bool {
	for _, name := range []string{"from", "to", "zone", "seed", "controls"} {
		if f.Fault(name) != nil {
			return true
		}
	}
	return false
}

// Chosen reports whether a criterion is.
func (f packForm) Chosen(id string) bool {
	for _, c := range f.Controls {
		if c == id {
			return true
		}
	}
	return false
}

// quarter is one to choose.
type quarter struct{ Name, From, To, Address string }

// quarters are the current one and the four before it, newest first.
func quarters(now time.Time, zone *time.Location) []quarter {
	now = now.In(zone)
	start := time.Date(now.Year(), (now.Month()-1)/3*3+1, 1, 0, 0, 0, 0, zone)
	var out []quarter
	for range 5 {
		end := start.AddDate(0, 3, -1)
		q := quarter{From: start.Format(dateLayout), To: end.Format(dateLayout)}
		q.Name = "Q" + string('1'+rune((start.Month()-1)/3)) + " " + start.Format("2006")
		q.Address = EvidencePath + "?" + url.Values{"from": {q.From}, "to": {q.To}, "zone": {zone.String()}}.Encode()
		out, start = append(out, q), start.AddDate(0, -3, 0)
	}
	return out
}

func (p *Pages) evidence(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	return p.showEvidence(w, r, c, http.StatusOK, readPackForm(r.URL.Query()))
}

func readPackForm(form url.Values) packForm {
	field := func(name string) string { return strings.TrimSpace(form.Get(name)) }
	return packForm{From: field("from"), To: field("to"), Zone: field("zone"), Seed: field("seed"), Controls: form["controls"]}
}

func (p *Pages) showEvidence(w http.ResponseWriter, r *http.Request, c identity.Caller, status int, form packForm) error {
	list, err := p.cfg.Evidence.Packs(r.Context(), c, "GET "+EvidencePath, r.URL.Query().Get("cursor"), 20)
	if err != nil {
		return err
	}
	if form.Zone == "" {
		form.Zone = "UTC"
	}
	zone, err := time.LoadLocation(form.Zone)
	if err != nil || form.Zone == "Local" {
		zone = time.UTC
	}
	page := evidencePage{Form: form, Controls: controls.All, Quarters: quarters(p.cfg.Clock.Now(), zone), Items: list.Items}
	if page.Form.From == "" && page.Form.To == "" { // the last one that is over
		page.Form.From, page.Form.To = page.Quarters[1].From, page.Quarters[1].To
	}
	page.First, page.Next = paging(r.URL, "cursor", list.Next)
	web.Render(w, r, status, "evidence", page)
	return nil
}

func (p *Pages) makePack(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	if err := parseForm(r); err != nil {
		return err
	}
	form := readPackForm(r.PostForm)
	in := api.PackInput{From: form.From, To: form.To, Zone: form.Zone, Seed: form.Seed, Controls: form.Controls}
	// People name the last day; the period ends with it.
	if day, err := time.Parse(dateLayout, form.To); err == nil {
		in.To = day.AddDate(0, 0, 1).Format(dateLayout)
	}
	made, err := p.cfg.Evidence.Make(r.Context(), c, "POST "+EvidencePath, in)
	if err != nil {
		form.Problem = problem.Note(r.Context(), err)
		if refused := refusal.As(err); refused == nil || refused.Kind != refusal.Invalid && refused.Kind != refusal.TooMany ||
			p.showEvidence(w, r, c, form.Problem.Status, form) != nil {
			return err
		}
		return nil
	}
	http.Redirect(w, r, EvidencePath+"/"+made.ID, http.StatusSeeOther)
	return nil
}

// packPage is one pack, and how to verify it.
type packPage struct {
	api.Pack
	VerifierKey string
}

// Version changes with everything that the page shows.
func (p packPage) Version() string {
	return string(p.State) + "-" + time.Duration(p.Done).String()
}

// Busy reports whether the pack is still to be made.
func (p packPage) Busy() bool { return p.State == api.PackWaiting || p.State == api.PackRunning }

func (p *Pages) pack(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	found, err := p.cfg.Evidence.Pack(r.Context(), c, "GET "+EvidencePath+"/{id}", chi.URLParam(r, "id"))
	if err != nil {
		return err
	}
	web.Render(w, r, http.StatusOK, "evidence_pack", packPage{found, p.cfg.Log.VerifierKey()})
	return nil
}
