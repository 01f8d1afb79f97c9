package approvals_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/internal/refusal"
)

// planted is the service with a fault: one of its methods does something else.
// What the fault needs to know it asks the service.
type planted struct {
	real
	decide func(p planted, c identity.Caller, id string, in api.DecisionInput) (api.Request, error)
	cancel func(p planted, c identity.Caller, id string) (api.Request, error)
	finish func(p planted, c identity.Caller, id string) (api.Request, error)
	see    func(p planted, r *api.Request)
	count  func(p planted, c identity.Caller, n int) int
	using  func(p planted, c identity.Caller, id, key string) error
	checks func(p planted, c identity.Caller, id string, err error) error
	asking func(p planted, c identity.Caller, in api.RequestInput) (api.Request, error)
	people *sync.Map // id: identity.Caller, of all who have been seen
}

func (p planted) Request(ctx context.Context, c identity.Caller, in api.RequestInput) (api.Request, error) {
	p.people.Store(c.ID, c)
	if p.asking != nil {
		return p.asking(p, c, in)
	}
	return p.real.Request(ctx, c, in)
}

func (p planted) Decide(ctx context.Context, c identity.Caller, id string, in api.DecisionInput) (api.Request, error) {
	p.people.Store(c.ID, c)
	if p.decide != nil {
		return p.decide(p, c, id, in)
	}
	return p.real.Decide(ctx, c, id, in)
}

func (p planted) Cancel(ctx context.Context, c identity.Caller, id string) (api.Request, error) {
	if p.cancel != nil {
		return p.cancel(p, c, id)
	}
	return p.real.Cancel(ctx, c, id)
}

func (p planted) Finish(ctx context.Context, c identity.Caller, id string) (api.Request, error) {
	if p.finish != nil {
		return p.finish(p, c, id)
	}
	return p.real.Finish(ctx, c, id)
}

func (p planted) Get(ctx context.Context, c identity.Caller, id string) (api.Request, error) {
	p.people.Store(c.ID, c)
	r, err := p.real.Get(ctx, c, id)
	if err == nil && p.see != nil {
		p.see(p, &r)
	}
	return r, err
}

func (p planted) CountWaiting(ctx context.Context, c identity.Caller) (int, error) {
	n, err := p.real.CountWaiting(ctx, c)
	if p.count != nil {
		n = p.count(p, c, n)
	}
	return n, err
}

func (p planted) use(c identity.Caller, id, key string) error {
	if p.using != nil {
		return p.using(p, c, id, key)
	}
	return p.real.use(c, id, key)
}

func (p planted) check(c identity.Caller, id string) error {
	err := p.real.check(c, id)
	if p.checks != nil {
		err = p.checks(p, c, id, err)
	}
	return err
}

// another decides in somebody else's stead: whoever may.
func (p planted) another(id string, in api.DecisionInput, but string) (r api.Request, err error) {
	err = approvals.ErrUnknownRequest
	p.people.Range(func(_, c any) bool {
		if c := c.(identity.Caller); c.ID != but {
			r, err = p.real.Decide(p.h.t.Context(), c, id, in)
		}
		return err != nil
	})
	return r, err
}

// asRequester does something as the request's person.
func (p planted) asRequester(id string, do func(context.Context, identity.Caller, string) (api.Request, error)) (api.Request, error) {
	var asker string
	must(p.h.t, p.h.db.Pool.QueryRow(p.h.t.Context(), `SELECT person_id FROM requests WHERE id = $1`, id).Scan(&asker))
	c, _ := p.people.Load(asker)
	return do(p.h.t.Context(), c.(identity.Caller), id)
}

// plantedFaults are mistakes as other systems made them, or as ours could.
var plantedFaults = map[string]planted{
	"who asked may decide": {decide: func(p planted, c identity.Caller, id string, in api.DecisionInput) (api.Request, error) {
		r, err := p.real.Decide(p.h.t.Context(), c, id, in)
		if isRefusal(err, approvals.ErrOwnRequest) {
			return p.another(id, in, c.ID)
		}
		return r, err
	}},
	"one person fills two places": {decide: func(p planted, c identity.Caller, id string, in api.DecisionInput) (api.Request, error) {
		r, err := p.real.Decide(p.h.t.Context(), c, id, in)
		if isRefusal(err, approvals.ErrAlreadyDecided) {
			return p.another(id, in, c.ID)
		}
		return r, err
	}},
	"who is in no group may decide": {decide: func(p planted, c identity.Caller, id string, in api.DecisionInput) (api.Request, error) {
		r, err := p.real.Decide(p.h.t.Context(), c, id, in)
		if err != nil && len(c.Groups) == 0 {
			return p.another(id, in, c.ID)
		}
		return r, err
	}},
	"any group will do": {decide: func(p planted, c identity.Caller, id string, in api.DecisionInput) (api.Request, error) {
		r, err := p.real.Decide(p.h.t.Context(), c, id, in)
		if err != nil && len(c.Groups) > 0 && !isRefusal(err, approvals.ErrOwnRequest) && !isRefusal(err, approvals.ErrAlreadyDecided) {
			return p.another(id, in, c.ID)
		}
		return r, err
	}},
	"an approval is lost": {decide: func(p planted, c identity.Caller, id string, in api.DecisionInput) (api.Request, error) {
		if strings.HasPrefix(c.Name, "d") {
			return p.real.Get(p.h.t.Context(), c, id)
		}
		return p.real.Decide(p.h.t.Context(), c, id, in)
	}},
	"a denial counts as an approval": {decide: func(p planted, c identity.Caller, id string, in api.DecisionInput) (api.Request, error) {
		return p.real.Decide(p.h.t.Context(), c, id, api.DecisionInput{Verdict: api.Approve})
	}},
	"a decision after the end is accepted": {decide: func(p planted, c identity.Caller, id string, in api.DecisionInput) (api.Request, error) {
		r, err := p.real.Decide(p.h.t.Context(), c, id, in)
		if isRefusal(err, approvals.ErrClosed) {
			return p.real.Get(p.h.t.Context(), c, id)
		}
		return r, err
	}},
	"of two at once both are told that it was theirs": {decide: func(p planted, c identity.Caller, id string, in api.DecisionInput) (api.Request, error) {
		before := p.h.stored(id)
		r, err := p.real.Decide(p.h.t.Context(), c, id, in)
		if isRefusal(err, approvals.ErrClosed) && before == string(api.Requested) {
			return api.Request{}, nil
		}
		return r, err
	}},
	"anybody may cancel": {cancel: func(p planted, c identity.Caller, id string) (api.Request, error) {
		return p.asRequester(id, p.real.Cancel)
	}},
	"anybody may finish": {finish: func(p planted, c identity.Caller, id string) (api.Request, error) {
		return p.asRequester(id, p.real.Finish)
	}},
	"anybody may ask": {asking: func(p planted, c identity.Caller, in api.RequestInput) (api.Request, error) {
		c.Groups = []string{"players"}
		return p.real.Request(p.h.t.Context(), c, in)
	}},
	"any key will do": {using: func(p planted, c identity.Caller, id, key string) error {
		err := p.real.use(c, id, key)
		if isRefusal(err, approvals.ErrOtherKey) {
			return nil
		}
		return err
	}},
	"anybody may use it": {using: func(p planted, c identity.Caller, id, key string) error {
		_, err := p.asRequester(id, func(_ context.Context, c identity.Caller, id string) (api.Request, error) {
			return api.Request{}, p.real.use(c, id, key)
		})
		return err
	}},
	"the clock starts when it is asked": {see: func(_ planted, r *api.Request) {
		if r.StartsAt != nil {
			r.StartsAt = &r.CreatedAt
		}
	}},
	"a grant lasts a minute longer": {see: func(_ planted, r *api.Request) {
		if r.EndsAt != nil && r.State != api.Ended {
			end := r.EndsAt.Add(time.Minute)
			r.EndsAt = &end
		}
	}},
	"it never expires": {see: func(_ planted, r *api.Request) {
		if r.State == api.Expired {
			r.State = api.Requested
		}
	}},
	"what is not used goes on": {see: func(_ planted, r *api.Request) {
		if r.EndReason == "unused" {
			r.State, r.EndReason = api.Approved, ""
		}
	}},
	"one approval is enough": {see: func(_ planted, r *api.Request) {
		if r.State == api.Requested && len(r.Decisions) > 0 {
			r.State = api.Approved
		}
	}},
	"more than enough is not enough": {see: func(_ planted, r *api.Request) {
		if r.State == api.Approved && len(r.Decisions) > 1 {
			r.State = api.Requested
		}
	}},
	"the terms change when approved": {see: func(_ planted, r *api.Request) {
		if r.State == api.Approved {
			r.Duration = "8h"
		}
	}},
	"the evidence is not looked at": {checks: func(planted, identity.Caller, string, error) error { return nil }},
	"one's own request waits for oneself": {count: func(p planted, c identity.Caller, n int) int {
		page, err := p.real.List(p.h.t.Context(), c, approvals.ListFilter{Scope: approvals.Mine, States: []api.State{api.Requested}, Limit: 1})
		must(p.h.t, err)
		return n + len(page.Items)
	}},
	"nothing waits for delegates": {count: func(p planted, c identity.Caller, n int) int {
		if !slices.ContainsFunc(c.Groups, func(g string) bool { return slices.Contains(approverGroups, g) }) {
			return 0
		}
		return n
	}},
	"the page offers what is refused": {see: func(_ planted, r *api.Request) {
		for i := range r.Actions {
			if r.Actions[i].Name == "approve" {
				r.Actions[i].Allowed = true
			}
		}
	}},
}

func isRefusal(err error, want *refusal.Error) bool {
	r := refusal.As(err)
	return r != nil && r.Code == want.Code
}

// gamesToFind is how many games a planted fault may stay unseen.
const gamesToFind = 400

// The test above finds every one of these, or it would find nothing.
func TestPlantedFaultsAreFound(t *testing.T) {
	t.Parallel()
	g := newGames(newHouse(t))
	for name, fault := range plantedFaults {
		t.Run(name, func(t *testing.T) { // not parallel: the clock is the house's
			people := &sync.Map{}
			g.faulty = func(s system) system {
				faulty := fault
				faulty.real, faulty.people = s.(real), people
				return faulty
			}
			games := rapid.Custom(g.play)
			for seed := range gamesToFind {
				if err := games.Example(seed); err != nil {
					t.Logf("found in game %d: %v", seed+1, err)
					return
				}
			}
			t.Errorf("not found in %d games", gamesToFind)
		})
	}
}
