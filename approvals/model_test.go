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
	"sallyport/internal/refusal"
)

// model is a request as a reader of the documentation would keep it on paper:
// nothing of it is shared with the code.
type model struct {
	asker     string
	places    [][]string // per stage, one group for each place
	approvals [][]vote   // per stage
	decisions int
	behind    []string // all who stand behind a decision
	loans     []loan   // oldest first
	state     api.State
	approveBy time.Time
	start     time.Time
	length    time.Duration
	useWithin time.Duration
	end       time.Time
	why       string
}

// vote is what somebody can decide with: their own groups, or another's.
type vote struct {
	who, of string // of: the other, or nobody
	groups  []string
}

// loan is that somebody lets another decide for them.
type loan struct {
	id, from, to string
	start, end   time.Time
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
	m.approvals = [][]vote{{}}
	return m
}

// votes are what the person has to decide with, their own first.
func (m *model) votes(who string, now time.Time) []vote {
	votes := []vote{{who: who, groups: modelGroups[who]}}
	for _, l := range m.loans {
		if l.to == who && !now.Before(l.start) && now.Before(l.end) {
			votes = append(votes, vote{who, l.from, modelGroups[l.from]})
		}
	}
	return votes
}

// most is how many of the places the votes can fill, one each, by trying all ways.
func most(places []string, votes []vote) int {
	if len(votes) == 0 {
		return 0
	}
	best := most(places, votes[1:])
	for i, group := range places {
		if slices.Contains(votes[0].groups, group) {
			rest := slices.Delete(slices.Clone(places), i, i+1)
			best = max(best, 1+most(rest, votes[1:]))
		}
	}
	return best
}

func (m *model) stage() int { return len(m.approvals) - 1 }

// say is the first of the person's votes that may deny; none of an unknown person.
func (m *model) say(who string, now time.Time) (vote, bool) {
	for _, v := range m.votes(who, now) {
		if m.sayable(v) {
			return v, true
		}
	}
	return vote{}, false
}

func (m *model) sayable(v vote) bool {
	return m.state == api.Requested && v.who != m.asker && v.of != m.asker &&
		!slices.Contains(m.behind, v.who) && !slices.Contains(m.behind, v.of) &&
		slices.ContainsFunc(slices.Concat(m.places...), func(g string) bool { return slices.Contains(v.groups, g) })
}

// fill is the first of the person's votes that may approve.
func (m *model) fill(who string, now time.Time) (vote, bool) {
	for _, v := range m.votes(who, now) {
		if !m.sayable(v) {
			continue
		}
		have := m.approvals[m.stage()]
		places := m.places[m.stage()]
		if most(places, append(slices.Clone(have), v)) > most(places, have) {
			return v, true
		}
	}
	return vote{}, false
}

func (m *model) fillable(who string, now time.Time) bool {
	_, ok := m.fill(who, now)
	return ok
}

// stand keeps who stands behind a vote that was given.
func (m *model) stand(v vote) {
	m.decisions++
	m.behind = append(m.behind, v.who)
	if v.of != "" {
		m.behind = append(m.behind, v.of)
	}
}

func (m *model) approve(v vote, now time.Time) {
	k := m.stage()
	m.approvals[k] = append(m.approvals[k], v)
	m.stand(v)
	if most(m.places[k], m.approvals[k]) < len(m.places[k]) {
		return
	}
	m.approvals = append(m.approvals, []vote{})
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
		lend := func(who string) (allowed bool, err error) {
			now, to := h.clock.Now(), rapid.SampledFrom(names).Draw(rt, "to")
			l := loan{from: who, to: to, start: now.Add(time.Duration(rapid.IntRange(0, 2).Draw(rt, "after")) * 5 * time.Minute)}
			l.end = l.start.Add(time.Duration(rapid.IntRange(1, 8).Draw(rt, "long")) * 5 * time.Minute)
			d, err := s.Delegate(t.Context(), people[who], api.DelegationInput{Delegate: people[to].ID, From: &l.start, Until: l.end, Reason: "away"})
			l.id, allowed = d.ID, to != who && slices.ContainsFunc(modelGroups[who], func(g string) bool {
				return slices.Contains([]string{"approvers", "security", "directors"}, g)
			})
			if allowed {
				m.loans = append(m.loans, l)
			}
			h.clock.Advance(time.Microsecond) // of two, the older one comes first
			return allowed, err
		}
		for _, who := range rapid.SliceOfN(rapid.OneOf(rapid.Just(asker), rapid.SampledFrom(names)), 0, 4).Draw(rt, "lenders") {
			if allowed, err := lend(who); (err == nil) != allowed {
				rt.Fatalf("lending by %s: %v in the model, and the service says %v", who, allowed, err)
			}
		}

		for range rapid.IntRange(1, 14).Draw(rt, "moves") {
			who := rapid.SampledFrom(names).Draw(rt, "who")
			now := h.clock.Now()
			var err error
			var allowed bool
			move := rapid.SampledFrom([]string{"approve", "approve", "approve", "deny", "cancel", "finish", "use", "wait", "settle", "lend", "unlend"}).Draw(rt, "move")
			if move == "approve" || move == "deny" {
				choices := []*rapid.Generator[string]{rapid.Just(who)}
				if useful := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !m.fillable(n, now) }); len(useful) > 0 {
					choices = append(choices, rapid.SampledFrom(useful))
				}
				if len(m.loans) > 0 {
					l := rapid.SampledFrom(m.loans).Draw(rt, "loan")
					choices = append(choices, rapid.SampledFrom([]string{l.from, l.to}))
				}
				who = rapid.OneOf(choices...).Draw(rt, "decider")
			}
			switch move {
			case "approve":
				var v vote
				if v, allowed = m.fill(who, now); allowed {
					m.approve(v, now)
				}
				var got api.Request
				got, err = s.Decide(t.Context(), people[who], r.ID, api.DecisionInput{Verdict: api.Approve})
				if err == nil && allowed {
					of := got.Decisions[len(got.Decisions)-1].OnBehalfOf
					if (of != nil) != (v.of != "") || of != nil && of.ID != people[v.of].ID {
						rt.Fatalf("%s approved for %v, in the model for %q", who, of, v.of)
					}
				}
			case "deny":
				var v vote
				if v, allowed = m.say(who, now); allowed {
					m.state = api.Denied
					m.stand(v)
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
			case "lend":
				allowed, err = lend(who)
			case "unlend":
				if len(m.loans) == 0 {
					continue
				}
				i := rapid.IntRange(0, len(m.loans)-1).Draw(rt, "loan")
				l := m.loans[i]
				who = rapid.SampledFrom([]string{who, l.from, l.to}).Draw(rt, "ender")
				allowed = (who == l.from || who == l.to) && now.Before(l.end)
				if _, err = s.EndDelegation(t.Context(), people[who], l.id); allowed {
					m.loans[i].end = now
				}
			}
			m.pass(h.clock.Now())
			if (err == nil) != allowed || err != nil && refusal.As(err) == nil {
				rt.Fatalf("%s by %s: allowed is %v in the model, and the service says %v", move, who, allowed, err)
			}

			got, err := s.Get(t.Context(), auditor, r.ID)
			must(rt, err)
			if got.State != m.state || got.EndReason != m.why || len(got.Decisions) != m.decisions {
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
			observers := []string{rapid.SampledFrom(names).Draw(rt, "observer")}
			for _, l := range m.loans {
				observers = append(observers, l.from, l.to)
			}
			for _, observer := range observers {
				waiting, err := s.CountWaiting(t.Context(), people[observer])
				must(rt, err)
				if (waiting == 1) != m.fillable(observer, h.clock.Now()) || waiting > 1 {
					rt.Fatalf("%d requests wait for %s", waiting, observer)
				}
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
