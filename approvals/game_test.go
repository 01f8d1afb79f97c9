package approvals_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"pgregory.net/rapid"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/internal/refusal"
)

// system is what games are played with: the service, or one with a planted fault.
type system interface {
	Request(context.Context, identity.Caller, api.RequestInput) (api.Request, error)
	Decide(context.Context, identity.Caller, string, api.DecisionInput) (api.Request, error)
	Cancel(context.Context, identity.Caller, string) (api.Request, error)
	Finish(context.Context, identity.Caller, string) (api.Request, error)
	Get(context.Context, identity.Caller, string) (api.Request, error)
	List(context.Context, identity.Caller, approvals.ListFilter) (api.Page[api.Request], error)
	CountWaiting(context.Context, identity.Caller) (int, error)
	Delegate(context.Context, identity.Caller, api.DelegationInput) (api.Delegation, error)
	EndDelegation(context.Context, identity.Caller, string) (api.Delegation, error)
	// use does to a grant what issuing a certificate for the key does.
	use(c identity.Caller, id, key string) error
	// check is what the broker asks of a grant's evidence before it issues.
	check(c identity.Caller, id string) error
}

// real is the service as the broker uses it.
type real struct {
	*approvals.Service
	h *house
}

func (r real) use(c identity.Caller, id, key string) error { return r.h.use(c, id, key) }

func (r real) check(c identity.Caller, id string) error {
	g, err := r.h.grant(c, id)
	if err != nil {
		return err
	}
	return g.Check(r.h.clock.Now())
}

// gameRule is the one rule of a random policy.
type gameRule struct {
	stages                               [][]gameSlot
	approveWithin, startWithin, duration time.Duration
}

type gameSlot struct {
	groups []string
	count  int
}

func splitPlace(place string) []string { return strings.Split(place, "|") }

// places are the rule's slots for the model: each as often as it counts.
func (r gameRule) places() [][]string {
	var out [][]string
	for _, stage := range r.stages {
		var places []string
		for _, slot := range stage {
			for range slot.count {
				places = append(places, strings.Join(slot.groups, "|"))
			}
		}
		out = append(out, places)
	}
	return out
}

// document is the policy that has the rule.
func (r gameRule) document() string {
	var b strings.Builder
	b.WriteString("sallyport: 1\nassurance: session\nroles: {operator: [operators], auditor: [auditors]}\nrules:\n" +
		"  - name: game\n    who: [players]\n    where: class=database\n    logins: [dba]\n")
	fmt.Fprintf(&b, "    duration: {max: %s, default: %s}\n    approve_within: %s\n", r.duration, r.duration, r.approveWithin)
	if r.startWithin > 0 {
		fmt.Fprintf(&b, "    start_within: %s\n", r.startWithin)
	}
	b.WriteString("    approvals:\n")
	for _, stage := range r.stages {
		b.WriteString("      - slots:\n")
		for _, slot := range stage {
			fmt.Fprintf(&b, "          - {groups: [%s], count: %d}\n", strings.Join(slot.groups, ", "), slot.count)
		}
	}
	return b.String()
}

// approverGroups are those that slots of games name.
var approverGroups = []string{"red", "green", "blue"}

// drawRule draws a random rule: few groups, so that people are in several, and
// slots overlap.
func drawRule(t *rapid.T) gameRule {
	r := gameRule{
		approveWithin: time.Duration(rapid.IntRange(4, 12).Draw(t, "approve_within")) * 5 * time.Minute,
		duration:      time.Duration(rapid.IntRange(2, 6).Draw(t, "duration")) * 5 * time.Minute,
		startWithin:   time.Duration(rapid.IntRange(0, 2).Draw(t, "start_within")) * 5 * time.Minute,
	}
	for range rapid.SampledFrom([]int{1, 1, 1, 2}).Draw(t, "stages") {
		var stage []gameSlot
		for range rapid.SampledFrom([]int{1, 1, 2}).Draw(t, "slots") {
			stage = append(stage, gameSlot{
				groups: rapid.SliceOfNDistinct(rapid.SampledFrom(approverGroups), 1, 2, rapid.ID).Draw(t, "groups"),
				count:  rapid.SampledFrom([]int{1, 1, 2}).Draw(t, "count"),
			})
		}
		r.stages = append(r.stages, stage)
	}
	return r
}

// drawGroups draws the groups of somebody: also none, as when the claim is missing.
func drawGroups(t *rapid.T) []string {
	groups := rapid.SliceOfNDistinct(rapid.SampledFrom(approverGroups), 0, 3, rapid.ID).Draw(t, "groups of a person")
	if rapid.Bool().Draw(t, "player") {
		groups = append(groups, "players")
	}
	return groups
}

// move is what somebody does.
type move struct{ what, who, key string }

// games are played in one house, one after the other.
type games struct {
	h      *house
	faulty func(system) system // plants a fault; nil for none
	names  []string
}

func newGames(h *house) *games {
	return &games{h: h, names: []string{"ann", "ben", "cem", "dia", "eva", "fay"}}
}

// open are two brokers under the rule.
func (g *games) open(r gameRule) []system {
	doc := r.document()
	var both []system
	for range 2 {
		var s system = real{g.h.open(doc), g.h}
		if g.faulty != nil {
			s = g.faulty(s)
		}
		both = append(both, s)
	}
	return both
}

// play plays a random game with random people under a random policy, and returns
// the first difference between what the system says and the model.
func (g *games) play(t *rapid.T) error {
	h := g.h
	h.clock.Advance(24 * time.Hour) // the games before are over
	rule := drawRule(t)
	systems := g.open(rule)
	people, groups := map[string]identity.Caller{}, map[string][]string{}
	for i, name := range g.names {
		groups[name] = drawGroups(t)
		if i == 0 && !slices.Contains(groups[name], "players") {
			groups[name] = append(groups[name], "players")
		}
		people[name] = h.person(name, groups[name]...)
	}
	auditor := h.person("auditor", "auditors")
	asker := g.names[0]

	// Who fits no rule is refused, and nothing of it stays.
	for _, name := range g.names[1:] {
		if slices.Contains(groups[name], "players") {
			continue
		}
		if r, err := systems[0].Request(h.t.Context(), people[name], input("dba", "db-1")); err == nil {
			return fmt.Errorf("%s, in no group that may, got request %s", name, r.ID)
		}
	}
	r, err := systems[0].Request(h.t.Context(), people[asker], input("dba", "db-1"))
	if err != nil {
		return fmt.Errorf("%s cannot ask: %w", asker, err)
	}
	m := newModel(asker, rule, groups, h.clock.Now())

	for range rapid.IntRange(0, 2).Draw(t, "lenders") {
		if err := g.lend(t, systems[0], m, people, rapid.SampledFrom(g.names).Draw(t, "lender")); err != nil {
			return err
		}
	}
	for range rapid.IntRange(1, 12).Draw(t, "moves") {
		s := rapid.SampledFrom(systems).Draw(t, "broker")
		now := h.clock.Now()
		what := rapid.SampledFrom([]string{"approve", "approve", "approve", "approve", "at once", "at once", "deny", "cancel", "finish",
			"use", "use", "wait", "lend", "unlend", "regroup"}).Draw(t, "move")
		switch what {
		case "wait":
			h.clock.Advance(time.Duration(rapid.IntRange(1, 6).Draw(t, "steps")) * 5 * time.Minute)
		case "regroup":
			who := rapid.SampledFrom(g.names[1:]).Draw(t, "who")
			m.groups[who] = drawGroups(t)
			people[who] = h.person(who, m.groups[who]...)
		case "lend":
			if err := g.lend(t, s, m, people, rapid.SampledFrom(g.names).Draw(t, "lender")); err != nil {
				return err
			}
		case "unlend":
			if err := g.unlend(t, s, m, people); err != nil {
				return err
			}
		case "at once":
			var moves []move
			for range rapid.IntRange(2, 3).Draw(t, "how many") {
				moves = append(moves, g.drawMove(t, m, now, rapid.SampledFrom([]string{"approve", "approve", "deny", "cancel", "use", "finish"}).Draw(t, "move")))
			}
			if m, err = g.atOnce(systems, m, people, r.ID, moves); err != nil {
				return err
			}
		default:
			mv := g.drawMove(t, m, now, what)
			allowed, v := m.do(mv, now)
			got, err := g.do(s, people, r.ID, mv)
			if err := agree(mv, allowed, err); err != nil {
				return err
			}
			if mv.what == "approve" && allowed {
				of := got.Decisions[len(got.Decisions)-1].OnBehalfOf
				if (of != nil) != (v.of != "") || of != nil && of.ID != people[v.of].ID {
					return fmt.Errorf("%s approved for %v, in the model for %q", mv.who, of, v.of)
				}
			}
		}
		m.pass(h.clock.Now())
		if err := g.compare(t, s, m, people, auditor, r); err != nil {
			return fmt.Errorf("after %s: %w", what, err)
		}
	}
	return nil
}

// drawMove draws who moves: anybody, or with luck somebody for whom it is allowed.
func (g *games) drawMove(t *rapid.T, m *model, now time.Time, what string) move {
	choices := []*rapid.Generator[string]{rapid.SampledFrom(g.names), rapid.Just(m.asker)}
	if what == "approve" || what == "deny" {
		choices = choices[:1]
		if useful := slices.DeleteFunc(slices.Clone(g.names), func(n string) bool { return !m.fillable(n, now) }); len(useful) > 0 {
			choices = append(choices, rapid.SampledFrom(useful), rapid.SampledFrom(useful))
		}
		if len(m.loans) > 0 {
			l := rapid.SampledFrom(m.loans).Draw(t, "loan")
			choices = append(choices, rapid.SampledFrom([]string{l.from, l.to}))
		}
		if len(m.behind) > 0 {
			choices = append(choices, rapid.SampledFrom(m.behind)) // once more
		}
		choices = append(choices, rapid.Just(m.asker))
	}
	return move{what, rapid.OneOf(choices...).Draw(t, "who"), rapid.SampledFrom([]string{"SHA256:k", "SHA256:k", "SHA256:other"}).Draw(t, "key")}
}

// do makes the move with the system.
func (g *games) do(s system, people map[string]identity.Caller, id string, mv move) (r api.Request, err error) {
	c, ctx := people[mv.who], g.h.t.Context()
	switch mv.what {
	case "approve":
		return s.Decide(ctx, c, id, api.DecisionInput{Verdict: api.Approve})
	case "deny":
		return s.Decide(ctx, c, id, api.DecisionInput{Verdict: api.Deny, Comment: "not now"})
	case "cancel":
		return s.Cancel(ctx, c, id)
	case "finish":
		return s.Finish(ctx, c, id)
	}
	return r, s.use(c, id, mv.key)
}

// agree reports whether the system did what the model says; a fault of the system
// is no refusal.
func agree(mv move, allowed bool, err error) error {
	if (err == nil) != allowed || err != nil && refusal.As(err) == nil {
		return fmt.Errorf("%s by %s: allowed is %v in the model, and the system says %w", mv.what, mv.who, allowed, orNothing(err))
	}
	return nil
}

var errNothing = errors.New("nothing against it")

func orNothing(err error) error {
	if err == nil {
		return errNothing
	}
	return err
}

// atOnce makes the moves at the same time, with both brokers. What came of it must
// be what some order of them gives in the model, which goes on from there.
func (g *games) atOnce(systems []system, m *model, people map[string]identity.Caller, id string, moves []move) (*model, error) {
	now := g.h.clock.Now()
	errs := make([]error, len(moves))
	var wg sync.WaitGroup
	for i, mv := range moves {
		wg.Go(func() { _, errs[i] = g.do(systems[i%2], people, id, mv) })
	}
	wg.Wait()
	after, err := systems[0].Get(g.h.t.Context(), people[m.asker], id)
	if err != nil {
		return m, err
	}
	for order := range orders(len(moves)) {
		other, same := m.clone(), true
		for _, i := range order {
			allowed, _ := other.do(moves[i], now)
			same = same && agree(moves[i], allowed, errs[i]) == nil
		}
		if same && other.state == after.State && other.decisions == len(after.Decisions) {
			return other, nil
		}
	}
	return m, fmt.Errorf("no order of %v at once gives %v and a request that is %s with %d decisions", moves, errs, after.State, len(after.Decisions))
}

// orders are all orders of n things.
func orders(n int) func(yield func([]int) bool) {
	return func(yield func([]int) bool) {
		var rest func(order []int) bool
		rest = func(order []int) bool {
			if len(order) == n {
				return yield(order)
			}
			for i := range n {
				if !slices.Contains(order, i) && !rest(append(slices.Clone(order), i)) {
					return false
				}
			}
			return true
		}
		rest(nil)
	}
}

// lend lets somebody let somebody else decide for them.
func (g *games) lend(t *rapid.T, s system, m *model, people map[string]identity.Caller, who string) error {
	now, to := g.h.clock.Now(), rapid.SampledFrom(g.names).Draw(t, "to")
	l := loan{from: who, to: to, start: now.Add(time.Duration(rapid.IntRange(0, 2).Draw(t, "after")) * 5 * time.Minute)}
	l.end = l.start.Add(time.Duration(rapid.IntRange(1, 8).Draw(t, "long")) * 5 * time.Minute)
	d, err := s.Delegate(g.h.t.Context(), people[who], api.DelegationInput{Delegate: people[to].ID, From: &l.start, Until: l.end, Reason: "away"})
	l.id = d.ID
	named := slices.Concat(m.places...)
	allowed := to != who && slices.ContainsFunc(named, func(place string) bool { return fits(place, m.groups[who]) })
	if allowed {
		// What is lent are the groups that the delegator has by then that count.
		m.loans = append(m.loans, l)
	}
	g.h.clock.Advance(time.Microsecond) // of two, the older one comes first
	return agree(move{what: "lend", who: who}, allowed, err)
}

// unlend ends a delegation before its time.
func (g *games) unlend(t *rapid.T, s system, m *model, people map[string]identity.Caller) error {
	if len(m.loans) == 0 {
		return nil
	}
	i := rapid.IntRange(0, len(m.loans)-1).Draw(t, "loan")
	l, now := m.loans[i], g.h.clock.Now()
	who := rapid.SampledFrom([]string{rapid.SampledFrom(g.names).Draw(t, "ender"), l.from, l.to}).Draw(t, "one of")
	allowed := (who == l.from || who == l.to) && now.Before(l.end)
	_, err := s.EndDelegation(g.h.t.Context(), people[who], l.id)
	if allowed {
		m.loans[i].end = now
	}
	return agree(move{what: "unlend", who: who}, allowed, err)
}

// compare compares all that the system says of the request with the model.
func (g *games) compare(t *rapid.T, s system, m *model, people map[string]identity.Caller, auditor identity.Caller, asked api.Request) error {
	ctx, now := g.h.t.Context(), g.h.clock.Now()
	got, err := s.Get(ctx, auditor, asked.ID)
	if err != nil {
		return err
	}
	if got.State != m.state || got.EndReason != m.why || len(got.Decisions) != m.decisions {
		return fmt.Errorf("the request is %s %q with %d decisions, in the model %s %q with %d", got.State, got.EndReason, len(got.Decisions),
			m.state, m.why, m.decisions)
	}
	if got.TermsHash != asked.TermsHash || got.Reason != asked.Reason || got.Login != asked.Login || got.Duration != asked.Duration {
		return fmt.Errorf("the terms are %s, and were %s (P4)", got.TermsHash, asked.TermsHash)
	}
	if !m.end.IsZero() && (!got.EndsAt.Equal(m.end) || !got.StartsAt.Equal(m.start)) {
		return fmt.Errorf("the grant runs from %s to %s, in the model from %s to %s (P3)", got.StartsAt, got.EndsAt, m.start, m.end)
	}
	for _, f := range []struct {
		states []api.State
		want   bool
	}{{[]api.State{m.state}, true}, {allStatesBut(m.state), false}} {
		page, err := s.List(ctx, auditor, approvals.ListFilter{States: f.states, Limit: 1})
		if err != nil {
			return err
		}
		if listed := len(page.Items) > 0 && page.Items[0].ID == asked.ID; listed != f.want {
			return fmt.Errorf("a request that is %s: in the list of %v is %v", m.state, f.states, listed)
		}
	}
	observers := map[string]bool{m.asker: true, rapid.SampledFrom(g.names).Draw(t, "observer"): true}
	for _, l := range m.loans {
		observers[l.from], observers[l.to] = true, true
	}
	for _, observer := range slices.Sorted(maps.Keys(observers)) {
		may := m.fillable(observer, now)
		waiting, err := s.CountWaiting(ctx, people[observer])
		if err != nil {
			return err
		}
		if (waiting == 1) != may || waiting > 1 {
			return fmt.Errorf("%d requests wait for %s, who may approve it: %v", waiting, observer, may)
		}
		// What the request says of who may do what is what happens.
		seen, err := s.Get(ctx, people[observer], asked.ID)
		if err != nil && !may && refusal.As(err) != nil {
			continue // it is none of their business
		}
		if err != nil {
			return err
		}
		for _, a := range seen.Actions {
			if a.Name == "approve" && a.Allowed != may {
				return fmt.Errorf("%s is told that approving is allowed: %v, and it is %v in the model", observer, a.Allowed, may)
			}
		}
	}
	if err := s.check(people[m.asker], asked.ID); (err == nil) != m.granted() || errors.Is(err, approvals.ErrEvidence) {
		return fmt.Errorf("the evidence of the grant of a request that is %s: %w", m.state, orNothing(err))
	}
	return nil
}

func allStatesBut(state api.State) []api.State {
	all := []api.State{api.Requested, api.Approved, api.Active, api.Ended, api.Denied, api.Cancelled, api.Expired}
	return slices.DeleteFunc(all, func(s api.State) bool { return s == state })
}
