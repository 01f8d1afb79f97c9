package pages

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/go-chi/chi/v5"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/server/problem"
	"sallyport/web"
)

// peoplePage is everybody who has ever signed in, for operators and auditors.
type peoplePage struct {
	Search  string
	Removed bool // only those who have been removed
	Items   []api.KnownPerson
	First   string // address of the first page, if this is another
	Next    string // address of the next page, if there is one
}

func (p *Pages) people(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	q := r.URL.Query()
	page := peoplePage{Search: strings.TrimSpace(q.Get("q")), Removed: q.Get("removed") != ""}
	list, err := p.cfg.Approvals.People(r.Context(), c, identity.PeopleFilter{Search: page.Search, Removed: page.Removed, After: q.Get("cursor")})
	if err != nil {
		return err
	}
	page.Items = list.Items
	page.First, page.Next = paging(r.URL, "cursor", list.Next)
	web.Render(w, r, http.StatusOK, "people", page)
	return nil
}

// personPage is one person, and what an operator can do to them.
type personPage struct {
	api.KnownPerson
	Me      bool
	Done    *api.RemovedPerson // what a removal has just ended
	Reason  string
	Problem *api.Problem
}

func (p *Pages) person(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	return p.showPerson(w, r, c, http.StatusOK, personPage{})
}

func (p *Pages) showPerson(w http.ResponseWriter, r *http.Request, c identity.Caller, status int, page personPage) error {
	known, err := p.cfg.Approvals.KnownPerson(r.Context(), c, chi.URLParam(r, "person"))
	if err != nil {
		return err
	}
	page.KnownPerson, page.Me = known, known.ID == c.ID
	web.Render(w, r, status, "person", page)
	return nil
}

func (p *Pages) removePerson(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	return p.govern(w, r, c, func(ctx context.Context, id, reason string) (*api.RemovedPerson, error) {
		out, err := p.cfg.Approvals.RemovePerson(ctx, c, id, reason)
		return &out, err
	})
}

func (p *Pages) restorePerson(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	return p.govern(w, r, c, func(ctx context.Context, id, reason string) (*api.RemovedPerson, error) {
		_, err := p.cfg.Approvals.RestorePerson(ctx, c, id, reason)
		return nil, err
	})
}

// govern does something to the person that needs a reason, and shows what came of it.
func (p *Pages) govern(w http.ResponseWriter, r *http.Request, c identity.Caller, do func(ctx context.Context, id, reason string) (*api.RemovedPerson, error)) error {
	if err := parseForm(r); err != nil {
		return err
	}
	reason, id := r.PostForm.Get("reason"), chi.URLParam(r, "person")
	done, err := do(r.Context(), id, reason)
	if err != nil {
		note := problem.Note(r.Context(), err)
		if p.showPerson(w, r, c, note.Status, personPage{Reason: reason, Problem: note}) != nil {
			return err
		}
		return nil
	}
	if done == nil {
		http.Redirect(w, r, "/people/"+url.PathEscape(id), http.StatusSeeOther)
		return nil
	}
	return p.showPerson(w, r, c, http.StatusOK, personPage{Done: done})
}
