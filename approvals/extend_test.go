package approvals_test

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/policy"
	"sallyport/internal/ids"
	"sallyport/internal/refusal"
)

// extendPolicy has a rule for each way in which grants can be extended.
const extendPolicy = `
sallyport: 1
assurance: session
roles:
  operator: [operators]
  auditor: [auditors]
rules:
  - name: dba
    who: [engineers, approvers]
    where: class=database
    logins: [dba]
    duration: {default: 30m, max: 2h}
    approvals: [{slots: [{groups: [approvers]}]}]
    start_within: 10m
    reason: {required: true, min_length: 5}
    extend: {times: 2, by: 20m, automatic: true}
  - name: staged
    who: [engineers]
    where: class=database
    logins: [staged]
    duration: {default: 30m, max: 1h}
    approvals: [{slots: [{groups: [approvers]}]}]
    extend: {times: 1, by: 30m}
  - name: root
    who: [engineers]
    where: class=database
    logins: [root]
    duration: {max: 1h}
    approvals: [{slots: [{groups: [approvers]}]}]
    emergency: {who: [engineers], duration: {max: 30m}, review: {by: [approvers]}}
    extend: {times: 1, by: 30m, automatic: true}
  - name: web
    who: [engineers]
    where: class=web
    logins: [web]
    duration: {default: 20m, max: 1h}
    automatic: true
    extend: {times: 1, by: 10m}
`

// newExtendHouse is a house under extendPolicy.
func newExtendHouse(t testing.TB) *house {
	h := newHouse(t)
	h.Service = h.open(extendPolicy)
	return h
}

// inUse is a request of the caller's whose grant has been used with the key.
func (h *house) inUse(name, login, host, key string) api.Request {
	h.t.Helper()
	c := h.person(name, "engineers")
	r := h.ask(c, login, host)
	if r.State == api.Requested {
		h.approve(h.person("ann", "approvers"), r.ID)
	}
	must(h.t, h.use(c, r.ID, key))
	return h.see(c, r.ID)
}

// until lets time pass.
func (h *house) until(t time.Time) { h.clock.Advance(t.Sub(h.clock.Now())) }

func (h *house) extend(name, id string) (api.Request, error) {
	h.t.Helper()
	return h.Extend(h.t.Context(), h.person(name, "engineers"), id, api.ExtendInput{})
}

func TestExtensionFollowsWithoutAGap(t *testing.T) {
	t.Parallel()
	h := newExtendHouse(t)
	erin := h.person("erin", "engineers")
	first := h.inUse("erin", "dba", "db-1", "SHA256:k")
	if e := first.Extend; e == nil || *e != (api.ExtendRule{Times: 2, By: "20m", Automatic: true}) || !action(t, first, "extend").Allowed {
		t.Fatalf("the grant can be extended: %+v, %+v", e, action(t, first, "extend"))
	}
	second, err := h.extend("erin", first.ID)
	must(t, err)
	if second.State != api.Approved || second.Extends != first.ID || !second.StartsAt.Equal(*first.EndsAt) ||
		second.EndsAt.Sub(*second.StartsAt) != 20*time.Minute || second.KeyFingerprint != "SHA256:k" ||
		second.StartWithin != "" || second.Extend.Times != 1 {
		t.Errorf("the extension is %+v", second)
	}
	if again := h.see(erin, first.ID); again.State != first.State || !again.EndsAt.Equal(*first.EndsAt) || again.TermsHash != first.TermsHash || again.ExtendedBy != second.ID {
		t.Errorf("the extension has changed the first grant to %+v", again)
	}
	// What was approved first says how often; nobody is asked, and it may be extended
	// before it has begun.
	third, err := h.extend("erin", second.ID)
	must(t, err)
	_, err = h.extend("erin", third.ID)
	refused(t, err, approvals.ErrNoExtensionLeft)

	check := func(id string, want *refusal.Error) {
		t.Helper()
		err := h.use(erin, id, "SHA256:k")
		if want == nil {
			must(t, err)
		} else {
			refused(t, err, want)
		}
	}
	check(first.ID, nil)
	check(second.ID, approvals.ErrNotStarted)
	h.until(*first.EndsAt)
	check(first.ID, approvals.ErrGrantEnded)
	check(second.ID, nil)
	if err := h.use(erin, second.ID, "SHA256:other"); !errors.Is(err, approvals.ErrOtherKey) {
		t.Errorf("with another key: %v", err)
	}
	h.until(*second.EndsAt)
	check(second.ID, approvals.ErrGrantEnded)
	h.clock.Advance(15 * time.Minute) // past start_within of the rule: it goes on with what is in use
	check(third.ID, nil)
	h.until(*third.EndsAt)
	check(third.ID, approvals.ErrGrantEnded)
	if third.EndsAt.Sub(*first.StartsAt) != 70*time.Minute {
		t.Errorf("all together lasts %s", third.EndsAt.Sub(*first.StartsAt))
	}
	if got := h.events(second.ID); !slices.Contains(got, "request.created") || !slices.Contains(got, "grant.started") {
		t.Errorf("the extension's events are %v", got)
	}
}

func TestExtensionIsDecidedLikeItsRule(t *testing.T) {
	t.Parallel()
	h := newExtendHouse(t)
	erin, ann := h.person("erin", "engineers"), h.person("ann", "approvers")
	first := h.inUse("erin", "staged", "db-1", "SHA256:k")
	second, err := h.extend("erin", first.ID)
	must(t, err)
	if second.State != api.Requested || second.Extends != first.ID {
		t.Fatalf("the extension is %+v", second)
	}
	_, err = h.extend("erin", first.ID) // one waits
	refused(t, err, approvals.ErrExtended)
	// A denied one is none: the next may be asked for, and approved after the end.
	_, err = h.Decide(t.Context(), ann, second.ID, api.DecisionInput{Verdict: api.Deny})
	must(t, err)
	again, err := h.extend("erin", first.ID)
	must(t, err)
	h.until(first.EndsAt.Add(5 * time.Minute))
	h.approve(ann, again.ID)
	got := h.see(erin, again.ID)
	if !got.StartsAt.Equal(h.clock.Now()) {
		t.Errorf("approved after the end, it starts at %s", got.StartsAt)
	}
	must(t, h.use(erin, again.ID, "SHA256:k"))

	// An automatic rule approves extensions too.
	web := h.inUse("erin", "web", "web-1", "SHA256:w")
	more, err := h.extend("erin", web.ID)
	must(t, err)
	if more.State != api.Approved {
		t.Errorf("under an automatic rule the extension is %s", more.State)
	}
}

func TestExtensionRefused(t *testing.T) {
	t.Parallel()
	h := newExtendHouse(t)
	erin := h.person("erin", "engineers")
	r := h.inUse("erin", "dba", "db-1", "SHA256:k")
	for name, tt := range map[string]struct {
		in   api.ExtendInput
		want *refusal.Error
	}{
		"longer than the rule allows": {api.ExtendInput{Duration: "21m"}, policy.ErrTooLong},
		"no duration":                 {api.ExtendInput{Duration: "soon"}, policy.ErrBadDuration},
		"negative":                    {api.ExtendInput{Duration: "-5m"}, policy.ErrBadDuration},
		"almost nothing":              {api.ExtendInput{Duration: "1ms"}, policy.ErrBadDuration},
		"a reason of its own, short":  {api.ExtendInput{Reason: "x"}, policy.ErrReason},
		"a hidden reason":             {api.ExtendInput{Reason: "all \u202e good"}, approvals.ErrBadText},
	} {
		_, err := h.Extend(t.Context(), erin, r.ID, tt.in)
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// By somebody else it does not even exist; approvers see it, and may not.
	_, err := h.Extend(t.Context(), h.person("finn", "engineers"), r.ID, api.ExtendInput{})
	refused(t, err, approvals.ErrUnknownRequest)
	_, err = h.Extend(t.Context(), h.person("ann", "approvers"), r.ID, api.ExtendInput{})
	refused(t, err, approvals.ErrNotRequester)
	if n := len(h.all("request.refused")); n < 3 {
		t.Errorf("%d refusals in the log", n)
	}

	unused := h.ask(erin, "dba", "db-2")
	_, err = h.extend("erin", unused.ID)
	refused(t, err, approvals.ErrNoGrant)
	h.approve(h.person("ann", "approvers"), unused.ID)
	_, err = h.extend("erin", unused.ID)
	refused(t, err, approvals.ErrNothingToExtend)

	emergency, err := h.Request(t.Context(), erin, api.RequestInput{Host: "db-1", Login: "root", Reason: "all is down", Emergency: true})
	must(t, err)
	must(t, h.use(erin, emergency.ID, "SHA256:k"))
	_, err = h.extend("erin", emergency.ID)
	refused(t, err, approvals.ErrNoExtension)

	h.until(*r.EndsAt)
	_, err = h.extend("erin", r.ID)
	refused(t, err, approvals.ErrGrantEnded)
	if n := h.count(`SELECT count(*) FROM extensions`); n != 0 {
		t.Errorf("%d extensions came of refusals", n)
	}
}

// What the policy has become can take away from what the first terms allow, and
// never add to it.
func TestExtensionUnderAnotherPolicy(t *testing.T) {
	t.Parallel()
	h := newExtendHouse(t)
	r := h.inUse("erin", "staged", "db-1", "SHA256:k")
	h.Service = h.open(replaced(extendPolicy, "extend: {times: 1, by: 30m}", "extend: {times: 20, by: 45m, automatic: true}"))
	_, err := h.Extend(t.Context(), h.person("erin", "engineers"), r.ID, api.ExtendInput{Duration: "31m"})
	refused(t, err, policy.ErrTooLong)
	more, err := h.extend("erin", r.ID)
	must(t, err)
	if more.State != api.Requested || more.Extend != nil {
		t.Errorf("a generous policy made it %s, extendable %+v", more.State, more.Extend)
	}

	again := h.inUse("finn", "staged", "db-1", "SHA256:k")
	h.Service = h.open(replaced(extendPolicy, "    extend: {times: 1, by: 30m}\n", ""))
	_, err = h.extend("finn", again.ID)
	refused(t, err, approvals.ErrNoExtension)
	// Who may ask no more gets no extension either.
	h.Service = h.open(extendPolicy)
	_, err = h.Extend(t.Context(), h.person("finn", "interns"), again.ID, api.ExtendInput{})
	refused(t, err, approvals.ErrUnknownHost)
}

func TestExtensionsAtOnce(t *testing.T) {
	t.Parallel()
	h := newExtendHouse(t)
	erin := h.person("erin", "engineers")
	r := h.inUse("erin", "dba", "db-1", "SHA256:k")
	services := []*approvals.Service{h.Service, h.open(extendPolicy)}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var made []string
	for i := range 12 {
		wg.Go(func() {
			got, err := services[i%2].Extend(t.Context(), erin, r.ID, api.ExtendInput{})
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				made = append(made, got.ID)
			case !errors.Is(err, approvals.ErrExtended):
				t.Errorf("extending: %v", err)
			}
		})
	}
	wg.Wait()
	if len(made) != 1 || h.count(`SELECT count(*) FROM extensions`) != 1 {
		t.Errorf("%d extensions were made at once", len(made))
	}
}

// "I'm done" at the moment of an extension leaves nothing open, whichever comes first.
func TestExtensionRacingTheEnd(t *testing.T) {
	t.Parallel()
	h := newExtendHouse(t)
	erin := h.person("erin", "engineers")
	for i := range 10 {
		r := h.inUse("erin", "dba", []string{"db-1", "db-2"}[i%2], "SHA256:k")
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := h.Extend(t.Context(), erin, r.ID, api.ExtendInput{}); err != nil && !errors.Is(err, approvals.ErrGrantEnded) {
				t.Errorf("extending: %v", err)
			}
		})
		wg.Go(func() {
			if _, err := h.Finish(t.Context(), erin, r.ID); err != nil {
				t.Errorf("finishing: %v", err)
			}
		})
		wg.Wait()
		if n := h.count(`SELECT count(*) FROM requests WHERE state IN ('requested', 'approved', 'active')`); n != 0 {
			t.Fatalf("%d requests are open after the end", n)
		}
	}
}

func TestTheEndEndsWhatFollows(t *testing.T) {
	t.Parallel()
	h := newExtendHouse(t)
	erin := h.person("erin", "engineers")
	first := h.inUse("erin", "dba", "db-1", "SHA256:k")
	second, err := h.extend("erin", first.ID)
	must(t, err)
	third, err := h.extend("erin", second.ID)
	must(t, err)
	// An end in the middle leaves what comes before.
	_, err = h.Finish(t.Context(), erin, second.ID)
	must(t, err)
	if got := h.see(erin, third.ID); got.State != api.Ended || got.EndReason != "finished" {
		t.Errorf("the third is %s (%s)", got.State, got.EndReason)
	}
	must(t, h.use(erin, first.ID, "SHA256:k"))
	h.until(*first.EndsAt)
	refused(t, h.use(erin, second.ID, "SHA256:k"), approvals.ErrGrantEnded)

	waiting := h.inUse("erin", "staged", "db-1", "SHA256:k")
	more, err := h.extend("erin", waiting.ID)
	must(t, err)
	_, err = h.Finish(t.Context(), erin, waiting.ID)
	must(t, err)
	if got := h.see(erin, more.ID); got.State != api.Cancelled {
		t.Errorf("the extension that waited is %s", got.State)
	}
}

// Two grants for one login on one host are two: neither's end is the other's (TEAM#279).
func TestOverlappingGrantsNeverEndEachOther(t *testing.T) {
	t.Parallel()
	h := newExtendHouse(t)
	erin, ann := h.person("erin", "engineers"), h.person("ann", "approvers")
	ask := func(duration string) string {
		in := input("dba", "db-1")
		in.Duration = duration
		r, err := h.Request(t.Context(), erin, in)
		must(t, err)
		h.approve(ann, r.ID)
		must(t, h.use(erin, r.ID, "SHA256:"+duration))
		return r.ID
	}
	short, long, done := ask("10m"), ask("1h"), ask("30m")
	_, err := h.Finish(t.Context(), erin, done)
	must(t, err)
	extended, err := h.extend("erin", short)
	must(t, err)
	_, err = h.Finish(t.Context(), erin, extended.ID)
	must(t, err)
	must(t, h.use(erin, short, "SHA256:10m"))
	h.clock.Advance(10 * time.Minute)
	must(t, h.Settle(t.Context(), short)) // the job that keeps its end
	must(t, h.use(erin, long, "SHA256:1h"))
	if got := h.see(erin, long); got.State != api.Active || got.EndsAt.Sub(*got.StartsAt) != time.Hour {
		t.Errorf("the longer grant is %s until %s", got.State, got.EndsAt)
	}
}

func replaced(s, old, new string) string {
	out := strings.Replace(s, old, new, 1)
	if out == s {
		panic("nothing to replace: " + old)
	}
	return out
}

// An extension as honest as it gets, and what somebody could write into the
// database instead.
func TestP4_CheckRefusesForgedExtensions(t *testing.T) {
	t.Parallel()
	const key = "SHA256:k"
	type chain struct{ first, next *forge }
	honest := func() chain {
		first := goodForge()
		first.state, first.key = api.Active, key
		first.terms.Rule.Extend = &approvals.TermsExtend{Times: 2, By: "20m", Automatic: true}
		at := first.end
		next := &forge{state: api.Approved, key: key, start: at, end: at.Add(20 * time.Minute), terms: first.terms}
		next.terms.RequestID, next.terms.Extends, next.terms.NotBefore, next.terms.PublicKey = ids.New(ids.Request), first.terms.RequestID, &at, key
		next.terms.Duration, next.terms.CreatedAt = "20m", start.Add(30*time.Minute)
		next.terms.Rule.Stages, next.terms.Rule.Automatic = []approvals.TermsStage{}, true
		next.terms.Rule.Extend = &approvals.TermsExtend{Times: 1, By: "20m", Automatic: true}
		return chain{first, next}
	}
	bad, ended := approvals.ErrEvidence, approvals.ErrGrantEnded
	for name, tt := range map[string]struct {
		forge func(*chain)
		want  *refusal.Error
	}{
		"honest":                      {func(*chain) {}, nil},
		"honest, after the first":     {func(c *chain) { c.first.state = api.Ended }, nil},
		"starts before the end":       {func(c *chain) { at := c.first.end.Add(-time.Minute); c.next.terms.NotBefore, c.next.start = &at, at }, bad},
		"starts after the end":        {func(c *chain) { at := c.first.end.Add(time.Second); c.next.terms.NotBefore, c.next.start = &at, at }, bad},
		"starts whenever":             {func(c *chain) { c.next.terms.NotBefore, c.next.start = nil, c.next.terms.CreatedAt }, bad},
		"bound to no key":             {func(c *chain) { c.next.terms.PublicKey = "" }, bad},
		"bound to another key":        {func(c *chain) { c.next.terms.PublicKey, c.next.key = "SHA256:x", "SHA256:x" }, bad},
		"the first had another key":   {func(c *chain) { c.first.terms.PublicKey = "SHA256:x" }, bad},
		"the first was never used":    {func(c *chain) { c.first.state, c.first.key = api.Approved, "" }, bad},
		"another person's":            {func(c *chain) { c.first.terms.Person.Subject = "finn" }, bad},
		"another host":                {func(c *chain) { c.next.terms.Host.ID = ids.New(ids.Host) }, bad},
		"another login":               {func(c *chain) { c.next.terms.Login = "dba" }, bad},
		"longer than a step":          {func(c *chain) { c.next.terms.Duration, c.next.end = "21m", c.next.start.Add(21*time.Minute) }, bad},
		"allows itself as many again": {func(c *chain) { c.next.terms.Rule.Extend.Times = 2 }, bad},
		"allows itself longer steps":  {func(c *chain) { c.next.terms.Rule.Extend.By = "2h" }, bad},
		"allows none, which is less":  {func(c *chain) { c.next.terms.Rule.Extend = nil }, bad},
		"the first allows none":       {func(c *chain) { c.first.terms.Rule.Extend = nil }, bad},
		"the first was not approved":  {func(c *chain) { c.first.statements = c.first.statements[:1] }, bad},
		"the first was made longer":   {func(c *chain) { c.first.end = c.first.end.Add(time.Minute) }, bad},
		"the first was ended early":   {func(c *chain) { c.first.state, c.first.end = api.Ended, c.first.end.Add(-time.Minute) }, ended},
		"the first was denied":        {func(c *chain) { c.first.state = api.Denied }, ended},
		"asked for after the end":     {func(c *chain) { c.next.terms.CreatedAt = c.first.end }, bad},
		"extends nothing":             {func(c *chain) { c.next.terms.Extends = "" }, bad},
		"extends something else":      {func(c *chain) { c.next.terms.Extends = ids.New(ids.Request) }, bad},
		"extends itself":              {func(c *chain) { c.next.terms.Extends = c.next.terms.RequestID }, bad},
		"the first is an emergency": {func(c *chain) {
			c.first.statements, c.first.terms.Reason = nil, "down"
			c.first.terms.Emergency = &approvals.TermsEmergency{Told: []string{}, ReviewGroups: []string{"security"}, ReviewBy: start.Add(time.Hour)}
		}, bad},
	} {
		c := honest()
		tt.forge(&c)
		g := c.next.grant(t)
		first := c.first.grant(t)
		first.Person = g.Person
		g.Earlier = &first
		err := g.Check(c.next.start)
		if tt.want == nil && err != nil || tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	c := honest()
	if err := c.next.grant(t).Check(c.next.start); !errors.Is(err, bad) {
		t.Errorf("without the first: %v", err)
	}
	plain, first := goodForge().grant(t), c.first.grant(t)
	plain.Earlier = &first
	if err := plain.Check(start.Add(25 * time.Minute)); !errors.Is(err, bad) {
		t.Errorf("with a first that the terms do not name: %v", err)
	}
}

// However somebody extends, stops and waits: there are never more extensions than
// the first terms allow, no two of them count at once, each begins where the one
// before it ends, with its key, and what was ended early stays closed.
func TestP3_ChainsOfExtensions(t *testing.T) {
	t.Parallel()
	h := newExtendHouse(t)
	game := 0
	rapid.Check(t, func(rt *rapid.T) {
		game++
		name := "erin" + randomHex(4)
		erin, ann := h.person(name, "engineers"), h.person("ann", "approvers")
		login := rapid.SampledFrom([]string{"dba", "staged"}).Draw(rt, "login")
		times, by := 2, 20*time.Minute
		if login == "staged" {
			times, by = 1, 30*time.Minute
		}
		chain := []api.Request{h.inUse(name, login, "db-1", "SHA256:k")}
		for range rapid.IntRange(1, 8).Draw(rt, "moves") {
			last := h.see(erin, chain[len(chain)-1].ID)
			switch rapid.SampledFrom([]string{"extend", "approve", "deny", "finish", "wait", "use"}).Draw(rt, "move") {
			case "extend":
				next, err := h.Extend(t.Context(), erin, last.ID, api.ExtendInput{})
				could := (last.State == api.Active || last.State == api.Approved) && len(chain) <= times
				if could != (err == nil) {
					rt.Fatalf("extending a grant that is %s, number %d: %v", last.State, len(chain), err)
				}
				if err == nil {
					chain = append(chain, next)
				}
			case "approve":
				h.Decide(t.Context(), ann, last.ID, api.DecisionInput{Verdict: api.Approve})
			case "deny":
				if _, err := h.Decide(t.Context(), ann, last.ID, api.DecisionInput{Verdict: api.Deny}); err == nil {
					chain = chain[:len(chain)-1]
				}
			case "finish":
				h.Finish(t.Context(), erin, rapid.SampledFrom(chain).Draw(rt, "of").ID)
			case "wait":
				h.clock.Advance(time.Duration(rapid.IntRange(1, 25).Draw(rt, "minutes")) * time.Minute)
			case "use":
				if err := h.use(erin, last.ID, "SHA256:other"); err == nil {
					rt.Fatal("another key was taken")
				}
			}
			open, stopped := 0, false
			for i, r := range chain {
				now := h.see(erin, r.ID)
				if i > 0 && now.StartsAt != nil {
					before := h.see(erin, chain[i-1].ID)
					if now.StartsAt.Before(*before.EndsAt) && !stopped || now.KeyFingerprint != "SHA256:k" ||
						now.State != api.Ended && now.EndsAt.Sub(*now.StartsAt) > by {
						rt.Fatalf("%d begins at %s, before %s", i, now.StartsAt, before.EndsAt)
					}
				}
				if stopped && !now.State.Final() {
					rt.Fatalf("%d is %s although what it follows was ended early", i, now.State)
				}
				stopped = stopped || now.EndReason == "finished"
				if err := h.use(erin, r.ID, "SHA256:k"); err == nil {
					open++
				}
			}
			if open > 1 {
				rt.Fatalf("%d grants of one chain are open at once", open)
			}
		}
	})
}
