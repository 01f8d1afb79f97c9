package pages

import (
	"net/http"
	"slices"

	"github.com/go-chi/chi/v5"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/broker/hosts"
	"sallyport/internal/refusal"
	"sallyport/server/problem"
	"sallyport/web"
)

// whyPage says why somebody can or cannot ask for a login on a host.
type whyPage struct {
	api.ExplainInput
	Others  bool // the viewer may ask about others
	Answer  *api.Explanation
	Slots   []slotView
	Problem *api.Problem
}

func (p *Pages) why(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	q := r.URL.Query()
	page := whyPage{Others: reads(c), ExplainInput: api.ExplainInput{
		Host: q.Get("host"), Login: q.Get("login"), Duration: q.Get("for"), Person: q.Get("person"), Emergency: q.Get("emergency") != "",
	}}
	status := http.StatusOK
	if page.Host != "" && page.Login != "" {
		answer, err := p.cfg.Approvals.Explain(r.Context(), c, page.ExplainInput)
		switch {
		case refusal.As(err) != nil:
			page.Problem = problem.Note(r.Context(), err) // corrected where it stands
			status = page.Problem.Status
		case err != nil:
			return err
		default:
			page.Answer, page.Slots = &answer, slotViews(answer.Approvers)
		}
	}
	web.Render(w, r, status, "why", page)
	return nil
}

// reachPage says what somebody can reach.
type reachPage struct {
	api.PersonReach
	Who, Search, Selector string
	Others                bool
	First, Next           string
	Problem               *api.Problem
}

func (p *Pages) reach(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	q := r.URL.Query()
	page := reachPage{Who: q.Get("person"), Search: q.Get("q"), Selector: q.Get("labels"), Others: reads(c)}
	status := http.StatusOK
	reach, err := p.cfg.Broker.PersonReach(r.Context(), c, page.Who, hosts.Filter{
		Search: page.Search, Selector: page.Selector, Cursor: q.Get("cursor")})
	switch {
	case refusal.As(err) != nil:
		page.Problem = problem.Note(r.Context(), err)
		status = page.Problem.Status
	case err != nil:
		return err
	}
	page.PersonReach = reach
	page.First, page.Next = paging(r.URL, "cursor", reach.Hosts.Next)
	web.Render(w, r, status, "reach", page)
	return nil
}

// doorPage says who can reach a login on a host.
type doorPage struct {
	api.HostReach
	Doors       []doorRule
	First, Next string
}

type doorRule struct {
	api.ReachRule
	Slots []slotView
}

func (p *Pages) door(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	q := r.URL.Query()
	reach, err := p.cfg.Approvals.HostReach(r.Context(), c, chi.URLParam(r, "host"), q.Get("login"), q.Get("cursor"), 0)
	if err != nil {
		return err
	}
	page := doorPage{HostReach: reach}
	for _, rule := range reach.Rules {
		page.Doors = append(page.Doors, doorRule{rule, slotViews(rule.Approvers)})
	}
	page.First, page.Next = paging(r.URL, "cursor", reach.People.Next)
	web.Render(w, r, http.StatusOK, "door", page)
	return nil
}

// reads reports whether the caller may read about others.
func reads(c identity.Caller) bool {
	return slices.ContainsFunc([]api.Role{api.Operator, api.Auditor}, c.Has)
}
