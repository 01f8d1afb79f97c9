package approvals_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
)

// model is a request as a reader of the documentation would keep it on paper:
// nothing of it is shared with the code.
type model struct {
	asker     string
	places    [][]string // per stage, one group for each place
	approvals [][]string // per stage, who approved
	decided   []string
	state     api.State
	approveBy time.Time
	start     time.Time
	length    time.Duration
	useWithin time.Duration
	end       time.Time
	why       string
}

var modelGroups = map[string][]string{
	"e1": {"engineers"}, "e2": {"engineers", "approvers"}, "a1": {"approvers"}, "a2": {"approvers"},
	"s1": {"security"}, "b1": {"approvers", "security", "directors"}, "d1": {"directors"}, "x1": {"interns"},
}

func newModel(asker, login string, now time.Time) *model {
	m := &model{asker: asker, state: api.Requested, approveBy: now.Add(time.Hour), length: 30 * time.Minute}
	switch login {
	case "dba":
		m.places = [][]string{{"approvers"}}
	case "root":
		m.places = [][]string{{"approvers", "security"}}
	case "staged":
		m.places, m.useWithin = [][]string{{"approvers", "approvers"}, {"directors"}}, 10*time.Minute
	}
	m.approvals = [][]string{{}}
	return m
}

// most is how many of the places the people can fill, one each, by trying all ways.
func most(places, people []string) int {
	if len(people) == 0 {
		return 0
	}
	best := most(places, people[1:])
	for i, group := range places {
		if slices.Contains(modelGroups[people[0]], group) {
			rest := slices.Delete(slices.Clone(places), i, i+1)
			best = max(best, 1+most(rest, people[1:]))
		}
	}
	return best
}

func (m *model) stage() int { return len(m.approvals) - 1 }

// sayable: may the person deny.
func (m *model) sayable(who string) bool {
	return m.state == api.Requested && who != m.asker && !slices.Contains(m.decided, who) &&
		slices.ContainsFunc(slices.Concat(m.places...), func(g string) bool { return slices.Contains(modelGroups[who], g) })
}

// fillable: may the person approve.
func (m *model) fillable(who string) bool {
	if !m.sayable(who) {
		return false
	}
	have := m.approvals[m.stage()]
	places := m.places[m.stage()]
	return most(places, append(slices.Clone(have), who)) > most(places, have)
}

func (m *model) approve(who string, now time.Time) {
	k := m.stage()
	m.approvals[k] = append(m.approvals[k], who)
	m.decided = append(m.decided, who)
	if most(m.places[k], m.approvals[k]) < len(m.places[k]) {
		return
	}
	m.approvals = append(m.approvals, []string{})
	if m.stage() == len(m.places) {
		m.state, m.start, m.end = api.Approved, now, now.Add(m.length)
	}
}

// pass lets time pass.
func (m *model) pass(now time.Time) {
	switch {
	case m.state == api.Requested && !now.Before(m.approveBy):
		m.state = api.Expired
	case m.state == api.Approved && m.useWithin > 0 && !now.Before(m.start.Add(m.useWithin)):
		m.state, m.end, m.why = api.Ended, m.start.Add(m.useWithin), "unused"
	case (m.state == api.Approved || m.state == api.Active) && !now.Before(m.end):
		m.state, m.why = api.Ended, "time"
	}
}

func (m *model) granted() bool { return m.state == api.Approved || m.state == api.Active }

// TestP5_ModelOfRequests plays random games with the service and the model, and
// compares what they say after every move.
func TestP5_ModelOfRequests(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	services := []*approvals.Service{h.Service, h.open(testPolicy)}
	people := map[string]identity.Caller{}
	names := []string{}
	for name, groups := range modelGroups {
		people[name] = h.person(name, groups...)
		names = append(names, name)
	}
	slices.Sort(names)
	auditor := h.person("auditor", "auditors")

	rapid.Check(t, func(rt *rapid.T) {
		h.clock.Advance(24 * time.Hour) // the games before are over
		s := rapid.SampledFrom(services).Draw(rt, "service")
		asker := rapid.SampledFrom([]string{"e1", "e2"}).Draw(rt, "asker")
		login := rapid.SampledFrom([]string{"dba", "root", "staged"}).Draw(rt, "login")
		r, err := s.Request(t.Context(), people[asker], input(login, "db-1"))
		must(rt, err)
		m := newModel(asker, login, h.clock.Now())

		for range rapid.IntRange(1, 10).Draw(rt, "moves") {
			who := rapid.SampledFrom(names).Draw(rt, "who")
			now := h.clock.Now()
			var err error
			var allowed bool
			move := rapid.SampledFrom([]string{"approve", "approve", "approve", "deny", "cancel", "finish", "use", "wait", "settle"}).Draw(rt, "move")
			if useful := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !m.fillable(n) }); move == "approve" && len(useful) > 0 {
				who = rapid.OneOf(rapid.Just(who), rapid.SampledFrom(useful)).Draw(rt, "approver")
			}
			switch move {
			case "approve":
				if allowed = m.fillable(who); allowed {
					m.approve(who, now)
				}
				_, err = s.Decide(t.Context(), people[who], r.ID, api.DecisionInput{Verdict: api.Approve})
			case "deny":
				if allowed = m.sayable(who); allowed {
					m.state, m.decided = api.Denied, append(m.decided, who)
				}
				_, err = s.Decide(t.Context(), people[who], r.ID, api.DecisionInput{Verdict: api.Deny})
			case "cancel":
				if allowed = who == asker && m.state == api.Requested; allowed {
					m.state = api.Cancelled
				}
				_, err = s.Cancel(t.Context(), people[who], r.ID)
			case "finish":
				if allowed = who == asker && m.granted(); allowed {
					m.state, m.end, m.why = api.Ended, now, "finished"
				}
				_, err = s.Finish(t.Context(), people[who], r.ID)
			case "use":
				if allowed = who == asker && m.granted(); allowed {
					m.state = api.Active
				}
				err = h.use(people[who], r.ID, "SHA256:k")
			case "wait":
				allowed = true
				h.clock.Advance(time.Duration(rapid.IntRange(1, 6).Draw(rt, "steps")) * 5 * time.Minute)
			case "settle":
				allowed = true
				err = s.Settle(t.Context(), r.ID)
			}
			m.pass(h.clock.Now())
			if (err == nil) != allowed {
				rt.Fatalf("%s by %s: allowed is %v in the model, and the service says %v", move, who, allowed, err)
			}

			got, err := s.Get(t.Context(), auditor, r.ID)
			must(rt, err)
			if got.State != m.state || got.EndReason != m.why || len(got.Decisions) != len(m.decided) {
				rt.Fatalf("after %s by %s the request is %s %q, in the model %s %q", move, who, got.State, got.EndReason, m.state, m.why)
			}
			if !m.end.IsZero() && (!got.EndsAt.Equal(m.end) || !got.StartsAt.Equal(m.start)) {
				rt.Fatalf("the grant runs from %s to %s, in the model from %s to %s", got.StartsAt, got.EndsAt, m.start, m.end)
			}
			for _, f := range []struct {
				states []api.State
				want   bool
			}{{[]api.State{m.state}, true}, {allStatesBut(m.state), false}} {
				page, err := s.List(t.Context(), auditor, approvals.ListFilter{States: f.states, Limit: 1})
				must(rt, err)
				if listed := len(page.Items) > 0 && page.Items[0].ID == r.ID; listed != f.want {
					rt.Fatalf("a request that is %s: in the list of %v is %v", m.state, f.states, listed)
				}
			}
			observer := rapid.SampledFrom(names).Draw(rt, "observer")
			waiting, err := s.CountWaiting(t.Context(), people[observer])
			must(rt, err)
			if (waiting == 1) != m.fillable(observer) || waiting > 1 {
				rt.Fatalf("%d requests wait for %s", waiting, observer)
			}
			g, err := h.grant(people[asker], r.ID)
			must(rt, err)
			if err := g.Check(h.clock.Now()); (err == nil) != m.granted() || errors.Is(err, approvals.ErrEvidence) {
				rt.Fatalf("the grant's evidence of a request that is %s: %v", m.state, err)
			}
		}
	})
}

func allStatesBut(state api.State) []api.State {
	all := []api.State{api.Requested, api.Approved, api.Active, api.Ended, api.Denied, api.Cancelled, api.Expired}
	return slices.DeleteFunc(all, func(s api.State) bool { return s == state })
}
