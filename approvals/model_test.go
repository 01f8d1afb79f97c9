package approvals_test

import (
	"maps"
	"slices"
	"time"

	"sallyport/api"
)

// model is a request as a reader of the documentation would keep it on paper:
// nothing of it is shared with the code. It knows P3, P4, P5 and the rules of slots.
type model struct {
	asker     string
	places    [][]string // per stage, one list of groups for each place, joined by "|"
	groups    map[string][]string
	approvals [][]vote // per stage
	decisions int
	behind    []string // all who stand behind a decision
	loans     []loan   // oldest first
	state     api.State
	approveBy time.Time
	length    time.Duration
	useWithin time.Duration // 0: until the end
	start     time.Time
	end       time.Time
	why       string
	key       string
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

// newModel is what an ask under the rule is, at once.
func newModel(asker string, r gameRule, groups map[string][]string, now time.Time) *model {
	return &model{asker: asker, places: r.places(), groups: groups, approvals: [][]vote{{}}, state: api.Requested,
		approveBy: now.Add(r.approveWithin), length: r.duration, useWithin: r.startWithin}
}

// clone is a model that can go another way.
func (m *model) clone() *model {
	c := *m
	c.groups, c.behind, c.loans = maps.Clone(m.groups), slices.Clone(m.behind), slices.Clone(m.loans)
	c.approvals = nil
	for _, stage := range m.approvals {
		c.approvals = append(c.approvals, slices.Clone(stage))
	}
	return &c
}

// votes are what the person has to decide with, their own first.
func (m *model) votes(who string, now time.Time) []vote {
	votes := []vote{{who: who, groups: m.groups[who]}}
	for _, l := range m.loans {
		if l.to == who && !now.Before(l.start) && now.Before(l.end) {
			votes = append(votes, vote{who, l.from, m.groups[l.from]})
		}
	}
	return votes
}

// fits reports whether somebody in the groups may stand in the place.
func fits(place string, groups []string) bool {
	return slices.ContainsFunc(splitPlace(place), func(g string) bool { return slices.Contains(groups, g) })
}

// most is how many of the places the votes can fill, one each, by trying all ways.
func most(places []string, votes []vote) int {
	if len(votes) == 0 {
		return 0
	}
	best := most(places, votes[1:])
	for i, place := range places {
		if fits(place, votes[0].groups) {
			rest := slices.Delete(slices.Clone(places), i, i+1)
			best = max(best, 1+most(rest, votes[1:]))
		}
	}
	return best
}

func (m *model) stage() int { return len(m.approvals) - 1 }

// say is the first of the person's votes that may deny.
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
		slices.ContainsFunc(slices.Concat(m.places...), func(place string) bool { return fits(place, v.groups) })
}

// fill is the first of the person's votes that may approve.
func (m *model) fill(who string, now time.Time) (vote, bool) {
	for _, v := range m.votes(who, now) {
		if !m.sayable(v) {
			continue
		}
		have, places := m.approvals[m.stage()], m.places[m.stage()]
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

func (m *model) granted() bool { return m.state == api.Approved || m.state == api.Active }

// do makes a move, if it is allowed, and says whether it was. The vote is the one
// that an approval was given with.
func (m *model) do(mv move, now time.Time) (allowed bool, v vote) {
	switch mv.what {
	case "approve":
		if v, allowed = m.fill(mv.who, now); !allowed {
			return false, v
		}
		k := m.stage()
		m.approvals[k] = append(m.approvals[k], v)
		m.stand(v)
		if most(m.places[k], m.approvals[k]) < len(m.places[k]) {
			return true, v
		}
		m.approvals = append(m.approvals, []vote{})
		if m.stage() == len(m.places) {
			m.state, m.start, m.end = api.Approved, now, now.Add(m.length)
		}
	case "deny":
		if v, allowed = m.say(mv.who, now); allowed {
			m.state = api.Denied
			m.stand(v)
		}
	case "cancel":
		if allowed = mv.who == m.asker && m.state == api.Requested; allowed {
			m.state = api.Cancelled
		}
	case "finish":
		if allowed = mv.who == m.asker && m.granted(); allowed {
			m.state, m.end, m.why = api.Ended, now, "finished"
		}
	case "use":
		if allowed = mv.who == m.asker && m.granted() && (m.key == "" || m.key == mv.key); allowed {
			m.state, m.key = api.Active, mv.key
		}
	}
	return allowed, v
}

// pass lets time pass.
func (m *model) pass(now time.Time) {
	switch {
	case m.state == api.Requested && !now.Before(m.approveBy):
		m.state = api.Expired
	case m.state == api.Approved && m.useWithin > 0 && m.useWithin < m.length && !now.Before(m.start.Add(m.useWithin)):
		m.state, m.end, m.why = api.Ended, m.start.Add(m.useWithin), "unused"
	case m.granted() && !now.Before(m.end):
		m.state, m.why = api.Ended, "time"
	}
}
