package approvals_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/approvals/policy"
	"sallyport/audit/event"
	"sallyport/internal/audittest"
	"sallyport/internal/refusal"
)

// emergencyPolicy is about emergencies; start is a Monday at noon.
const emergencyPolicy = `
sallyport: 1
assurance: session
roles: {operator: [operators], auditor: [auditors]}
rules:
  - name: databases
    who: [engineers]
    where: class=database
    logins: [dba]
    duration: {default: 1h, max: 2h}
    approvals: [{slots: [{groups: [approvers]}]}]
    reason: {min_length: 5}
    ticket: {required: true, pattern: 'INC-[0-9]+'}
    extend: {times: 2, by: 30m}
    emergency:
      who: [oncall, leads]
      duration: {default: 15m, max: 30m}
      tell: [bridge, approvers]
      review: {by: [security, directors], within: 4h}
  - name: no-emergency
    who: [engineers]
    where: class=database
    logins: [root]
    duration: {max: 1h}
    approvals: [{slots: [{groups: [approvers]}]}]
  - name: web
    who: [engineers]
    where: class=web
    logins: [web]
    duration: {max: 1h}
    automatic: {zone: UTC, times: [{days: [mon], from: "09:00", to: "17:00"}]}
    approvals: [{slots: [{groups: [approvers]}]}]
    emergency:
      who: [oncall]
      duration: {default: 15m, max: 30m}
      review: {by: [security], within: 1h}
`

func newEmergencyHouse(t testing.TB) *house {
	t.Helper()
	return newHouseUnder(t, emergencyPolicy)
}

// emergencyInput is an ask that emergencyPolicy takes.
func emergencyInput() api.RequestInput {
	return api.RequestInput{Host: "db-1", Login: "dba", Reason: "the primary is down", Emergency: true}
}

func drillInput() api.RequestInput {
	in := emergencyInput()
	in.Drill = true
	return in
}

func (h *house) opened(c identity.Caller, in api.RequestInput) api.Request {
	h.t.Helper()
	r, err := h.Request(h.t.Context(), c, in)
	must(h.t, err)
	return r
}

func (h *house) reviewed(c identity.Caller, id, verdict string) api.Request {
	h.t.Helper()
	r, err := h.Review(h.t.Context(), c, id, api.ReviewInput{Verdict: verdict, Comment: "I have read what was done"})
	must(h.t, err)
	return r
}

func TestEmergencyStartsBeforeApproval(t *testing.T) {
	t.Parallel()
	for _, drill := range []bool{false, true} {
		h := newEmergencyHouse(t)
		erin := h.person("erin", "engineers", "oncall")
		in := emergencyInput()
		in.Drill = drill
		preview, err := h.Preview(t.Context(), erin, in)
		must(t, err)
		r := h.opened(erin, in)

		told := []string{"approvers", "bridge", "security", "directors"}
		for _, e := range []*api.Emergency{preview.Emergency, r.Emergency} {
			if e == nil || e.Drill != drill || !slices.Equal(e.Told, told) || !slices.Equal(e.ReviewGroups, []string{"security", "directors"}) ||
				!e.ReviewBy.Equal(start.Add(4*time.Hour)) || e.Overdue || e.Review != nil {
				t.Errorf("the emergency is %+v", e)
			}
		}
		if preview.Duration != "15m" || preview.Automatic || len(preview.Approvers) != 1 {
			t.Errorf("the preview is %+v", preview)
		}
		if r.State != api.Approved || r.Duration != "15m" || !r.StartsAt.Equal(start) || !r.EndsAt.Equal(start.Add(15*time.Minute)) || len(r.Decisions) != 0 {
			t.Errorf("the request is %+v", r)
		}
		h.eventually(func() bool { return len(h.events(r.ID)) == 3 })
		if got := h.events(r.ID); !slices.Equal(got, []string{"request.created", "emergency.started", "grant.started"}) {
			t.Errorf("events %v", got)
		}
		for _, e := range h.all("grant.started") {
			if e.Data["emergency"] != true || e.Data["automatic"] != false || (e.Data["drill"] == true) != drill {
				t.Errorf("grant.started has %v", e.Data)
			}
		}
		for _, e := range h.all("emergency.started") {
			if e.Data["reason"] != in.Reason || (e.Data["drill"] == true) != drill || e.Request != r.ID {
				t.Errorf("emergency.started has %v", e.Data)
			}
		}
		must(t, h.use(erin, r.ID, "SHA256:k"))

		// Whoever is told may look; nobody can decide on it any more.
		for name, group := range map[string]string{"ann": "approvers", "bob": "bridge", "sam": "security", "otto": "operators", "audrey": "auditors"} {
			seen := h.see(h.person(name, group), r.ID)
			if a := action(t, seen, "approve"); a.Allowed {
				t.Errorf("%s could approve it", name)
			}
			if a := action(t, seen, "review"); a.Allowed != (group == "security") || a.Allowed == (a.Why != "") {
				t.Errorf("%s: the action to review is %+v", name, a)
			}
			if seen.Emergency == nil {
				t.Errorf("%s does not see that it is an emergency", name)
			}
		}
		_, err = h.Get(t.Context(), h.person("mallory", "engineers", "oncall"), r.ID)
		refused(t, err, approvals.ErrUnknownRequest)

		// The grant ends as every other does, and what it was stays.
		h.clock.Advance(15 * time.Minute)
		if r = h.see(erin, r.ID); r.State != api.Ended || r.Emergency == nil {
			t.Errorf("after its end it is %+v", r)
		}
		g, err := h.grant(erin, r.ID)
		must(t, err)
		refused(t, g.Check(h.clock.Now()), approvals.ErrGrantEnded)
		if g.Terms.Rule.Extend != nil || len(g.Terms.Rule.Stages) != 1 {
			t.Errorf("the terms' rule is %+v", g.Terms.Rule)
		}
	}
}

// What is no emergency, for the asker or at all. The preview says the same.
func TestEmergencyRefusals(t *testing.T) {
	t.Parallel()
	h := newEmergencyHouse(t)
	oncall, engineer := h.person("erin", "engineers", "oncall"), h.person("eve", "engineers")
	outsider := h.person("olga", "oncall")
	at := start.Add(time.Hour)
	for name, tt := range map[string]struct {
		who    identity.Caller
		change func(*api.RequestInput)
		want   *refusal.Error
	}{
		"not among those who may":         {engineer, func(in *api.RequestInput) {}, policy.ErrNoEmergency},
		"among them, but not in the rule": {outsider, func(in *api.RequestInput) {}, approvals.ErrUnknownHost},
		"a rule without":                  {oncall, func(in *api.RequestInput) { in.Login = "root" }, policy.ErrNoEmergency},
		"a login of no rule":              {oncall, func(in *api.RequestInput) { in.Login = "postgres" }, policy.ErrNoRule},
		"longer than in an emergency":     {oncall, func(in *api.RequestInput) { in.Duration = "31m" }, policy.ErrTooLong},
		"for no time":                     {oncall, func(in *api.RequestInput) { in.Duration = "1ns" }, policy.ErrBadDuration},
		"no reason":                       {oncall, func(in *api.RequestInput) { in.Reason = " \n" }, policy.ErrReason},
		"short reason":                    {oncall, func(in *api.RequestInput) { in.Reason = "help" }, policy.ErrReason},
		"a ticket that is none":           {oncall, func(in *api.RequestInput) { in.Ticket = "later" }, policy.ErrTicket},
		"later":                           {oncall, func(in *api.RequestInput) { in.NotBefore = &at }, approvals.ErrEmergencyLater},
		"a drill of nothing":              {oncall, func(in *api.RequestInput) { in.Emergency, in.Drill = false, true }, approvals.ErrDrill},
		"where nobody need be asked":      {oncall, func(in *api.RequestInput) { in.Host, in.Login = "web-1", "web" }, approvals.ErrNeedless},
	} {
		in := emergencyInput()
		tt.change(&in)
		for how, ask := range map[string]func() error{
			"preview": func() error { _, err := h.Preview(t.Context(), tt.who, in); return err },
			"request": func() error { _, err := h.Request(t.Context(), tt.who, in); return err },
		} {
			if err := ask(); !errors.Is(err, tt.want) || refusal.As(err).Hint == "" {
				t.Errorf("%s: the %s says %v, want %s", name, how, err, tt.want.Code)
			}
		}
	}
	if n := h.count(`SELECT count(*) FROM requests`); n != 0 {
		t.Errorf("there are %d requests", n)
	}
	for _, e := range h.all("request.refused") {
		if e.Data["emergency"] != true && e.Data["code"] != approvals.ErrDrill.Code {
			t.Errorf("the refusal does not say that it was of an emergency: %v", e.Data)
		}
	}
	// A rule that is automatic now can be rehearsed, and is an emergency at night.
	in := emergencyInput()
	in.Host, in.Login, in.Drill = "web-1", "web", true
	if r := h.opened(oncall, in); r.Emergency == nil || len(r.Approvers) != 1 {
		t.Errorf("the drill is %+v", r)
	}
	h.clock.Advance(8 * time.Hour)
	in.Drill = false
	h.opened(oncall, in)
}

// The longest and the usual durations are the emergency's own, and a ticket may
// be missing though the rule wants one.
func TestEmergencyHasItsOwnLimits(t *testing.T) {
	t.Parallel()
	h := newEmergencyHouse(t)
	for name, tt := range map[string]struct{ asked, got, ticket string }{
		"a": {"", "15m", ""}, "b": {"30m", "30m", "INC-7"}, "c": {"1m", "1m", ""},
	} {
		in := emergencyInput()
		in.Duration, in.Ticket = tt.asked, tt.ticket
		if r := h.opened(h.person(name, "engineers", "leads"), in); r.Duration != tt.got || r.Ticket != tt.ticket {
			t.Errorf("%+v gives %s", tt, r.Duration)
		}
	}
}

// Until an independent person has reviewed it, its person gets no second one:
// not when it has ended, nor when its deadline has passed, nor by calling the
// second a drill. Everything else goes on.
func TestEmergencyBlocksTheNext(t *testing.T) {
	t.Parallel()
	h := newEmergencyHouse(t)
	erin, other, sam := h.person("erin", "engineers", "oncall"), h.person("olaf", "engineers", "oncall"), h.person("sam", "security")
	blocked := func(when string) {
		t.Helper()
		for _, in := range []api.RequestInput{emergencyInput(), drillInput()} {
			_, err := h.Preview(t.Context(), erin, in)
			refused(t, err, approvals.ErrUnreviewed)
			if _, err = h.Request(t.Context(), erin, in); !errors.Is(err, approvals.ErrUnreviewed) {
				t.Errorf("%s: the second (drill: %v) says %v", when, in.Drill, err)
			}
		}
	}
	first := h.opened(erin, emergencyInput())
	blocked("at once")
	ordinary := h.ask(erin, "dba", "db-1")
	if ordinary.State != api.Requested || ordinary.Emergency != nil {
		t.Errorf("an ordinary request is %+v", ordinary)
	}
	h.approve(h.person("ann", "approvers"), ordinary.ID)
	h.opened(other, emergencyInput())

	_, err := h.Finish(t.Context(), erin, first.ID)
	must(t, err)
	blocked("finished")
	h.clock.Advance(4 * time.Hour)
	if r := h.see(erin, first.ID); !r.Emergency.Overdue {
		t.Error("it is not overdue at its deadline")
	}
	blocked("overdue")
	h.clock.Advance(1000 * time.Hour)
	blocked("long overdue")
	erin = h.person("erin", "engineers", "oncall")
	blocked("signed in again")

	if r := h.reviewed(sam, first.ID, api.Justified); r.Emergency.Review == nil || !r.Emergency.Review.Late || r.Emergency.Overdue {
		t.Errorf("reviewed late, it is %+v", r.Emergency)
	}
	second := h.opened(erin, emergencyInput())
	blocked("the second")
	h.reviewed(sam, second.ID, api.NotJustified) // also this signs it off
	h.opened(erin, drillInput())
}

// A drill opens a door as well, so it must itself be reviewed before the next
// drill; but nobody is locked out of a real emergency for having rehearsed.
func TestDrillBlocksOnlyDrills(t *testing.T) {
	t.Parallel()
	h := newEmergencyHouse(t)
	erin, sam := h.person("erin", "engineers", "oncall"), h.person("sam", "security")
	drill := h.opened(erin, drillInput())
	_, err := h.Request(t.Context(), erin, drillInput())
	refused(t, err, approvals.ErrUnreviewed)
	actual := h.opened(erin, emergencyInput())
	h.reviewed(sam, drill.ID, api.Justified)
	_, err = h.Request(t.Context(), erin, drillInput())
	refused(t, err, approvals.ErrUnreviewed) // the real one waits
	h.reviewed(sam, actual.ID, api.Justified)
	h.opened(erin, drillInput())
	for _, e := range h.all("review.given") {
		if (e.Data["drill"] == true) != (e.Request == drill.ID) {
			t.Errorf("the review of %s says %v", e.Request, e.Data["drill"])
		}
	}
}

// Many at once, through two processes: one wins.
func TestEmergencyRace(t *testing.T) {
	t.Parallel()
	h := newEmergencyHouse(t)
	services := []*approvals.Service{h.Service, h.open(emergencyPolicy)}
	erin, sam := h.person("erin", "engineers", "oncall"), h.person("sam", "security")
	for round := range 5 {
		var won, lost []string
		var mu sync.Mutex
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				in := emergencyInput()
				in.Drill = i == 7 && round > 0
				r, err := services[i%2].Request(t.Context(), erin, in)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					won = append(won, r.ID)
				case errors.Is(err, approvals.ErrUnreviewed):
					lost = append(lost, err.Error())
				default:
					t.Error(err)
				}
			})
		}
		all.Wait()
		// A drill that came first does not stand in the way of the real one.
		n := h.count(`SELECT count(*) FROM emergencies e WHERE NOT drill AND NOT EXISTS (SELECT FROM reviews v WHERE v.request_id = e.request_id)`)
		if n != 1 || len(won) > 2 || len(won)+len(lost) != 8 {
			t.Fatalf("%d real ones are open, %v won, %v lost", n, won, lost)
		}
		for _, id := range won {
			h.reviewed(sam, id, api.Justified)
		}
	}
}

// The first that is open is also the last, when the second ask has been waiting
// for the lock while the first was made.
func TestEmergencyRaceWithItsReview(t *testing.T) {
	t.Parallel()
	h := newEmergencyHouse(t)
	erin, sam := h.person("erin", "engineers", "oncall"), h.person("sam", "security")
	for range 10 {
		first := h.opened(erin, emergencyInput())
		var all sync.WaitGroup
		var second error
		all.Go(func() { _, second = h.Request(t.Context(), erin, emergencyInput()) })
		all.Go(func() { h.reviewed(sam, first.ID, api.Justified) })
		all.Wait()
		if second != nil {
			refused(t, second, approvals.ErrUnreviewed)
			continue
		}
		for _, r := range h.list(sam, approvals.ListFilter{Scope: approvals.Reviews}) {
			h.reviewed(sam, r.ID, api.Justified)
		}
	}
}

func (h *house) list(c identity.Caller, f approvals.ListFilter) []api.Request {
	h.t.Helper()
	page, err := h.List(h.t.Context(), c, f)
	must(h.t, err)
	return page.Items
}

// Lists, counts and figures of emergencies.
func TestEmergencyLists(t *testing.T) {
	t.Parallel()
	h := newEmergencyHouse(t)
	erin, olaf := h.person("erin", "engineers", "oncall"), h.person("olaf", "engineers", "oncall")
	sam, audrey := h.person("sam", "security"), h.person("audrey", "auditors")
	ordinary := h.ask(erin, "dba", "db-1")
	first := h.opened(erin, emergencyInput())
	h.reviewed(sam, first.ID, api.Justified)
	h.clock.Advance(time.Minute)
	second := h.opened(erin, emergencyInput())
	h.clock.Advance(4*time.Hour - time.Minute)
	drill := h.opened(olaf, drillInput())
	h.clock.Advance(time.Minute - time.Microsecond)

	check := func(what string, c identity.Caller, f approvals.ListFilter, want ...string) {
		t.Helper()
		got := []string{}
		for _, r := range h.list(c, f) {
			got = append(got, r.ID)
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	overdue := approvals.ListFilter{Review: approvals.ReviewOverdue}
	check("emergencies", audrey, approvals.ListFilter{Emergency: true}, first.ID, second.ID, drill.ID)
	check("all", audrey, approvals.ListFilter{}, first.ID, second.ID, drill.ID, ordinary.ID)
	check("waiting for review", audrey, approvals.ListFilter{Review: approvals.ReviewWaiting}, second.ID, drill.ID)
	check("mine", erin, approvals.ListFilter{Emergency: true, Scope: approvals.Mine}, first.ID, second.ID)
	check("Sam's", sam, approvals.ListFilter{Scope: approvals.Reviews}, second.ID, drill.ID)
	check("Audrey's", audrey, approvals.ListFilter{Scope: approvals.Reviews})
	check("Erin's", erin, approvals.ListFilter{Scope: approvals.Reviews})
	check("not overdue yet", audrey, overdue)
	h.clock.Advance(time.Microsecond)
	check("overdue", audrey, overdue, second.ID)
	check("a stranger's", h.person("mallory"), approvals.ListFilter{Emergency: true})
	if _, err := h.List(t.Context(), audrey, approvals.ListFilter{Review: "late"}); !errors.Is(err, approvals.ErrBadFilter) {
		t.Errorf("a filter that is none: %v", err)
	}
	if n, err := h.CountReviews(t.Context(), sam); n != 2 || err != nil {
		t.Errorf("%d, %v wait for Sam", n, err)
	}
	if n, err := h.CountReviews(t.Context(), audrey); n != 0 || err != nil {
		t.Errorf("%d, %v wait for Audrey", n, err)
	}
	want := approvals.Emergencies{Real: 2, Drills: 1, Unreviewed: 2, Overdue: 1}
	if n, err := h.CountEmergencies(t.Context()); n != want || err != nil {
		t.Errorf("the figures are %+v, %v", n, err)
	}
	for _, r := range h.list(sam, approvals.ListFilter{Emergency: true}) {
		if r.Emergency == nil || action(t, r, "review").Allowed != (r.ID != first.ID) {
			t.Errorf("in the list: %+v", r)
		}
	}
}

// An emergency and its grant are in the log or they are not at all.
func TestP9_NoEmergencyWithoutTheLog(t *testing.T) {
	t.Parallel()
	h := newEmergencyHouse(t)
	erin, sam := h.person("erin", "engineers", "oncall"), h.person("sam", "security")
	open := h.opened(erin, drillInput())
	h.all("") // everything is sequenced
	_, err := h.admin().Exec(t.Context(), `REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA audit FROM sallyport_app`)
	must(t, err)
	if _, err := h.Request(t.Context(), erin, emergencyInput()); err == nil {
		t.Error("an emergency without its events")
	}
	if _, err := h.Review(t.Context(), sam, open.ID, api.ReviewInput{Verdict: api.Justified, Comment: "fine"}); err == nil {
		t.Error("a review without its event")
	}
	h.clock.Advance(4 * time.Hour)
	if h.WatchReview(t.Context(), open.ID) == nil {
		t.Error("an overdue review without its event")
	}
	if h.count(`SELECT count(*) FROM emergencies`) != 1 || h.count(`SELECT count(*) FROM reviews`) != 0 {
		t.Error("something changed")
	}
}

// The looks at a review: reminders before its deadline, and at it the event, once,
// however often and in however many processes the job runs.
func TestReviewOverdue(t *testing.T) {
	t.Parallel()
	h := newEmergencyHouse(t)
	services := []*approvals.Service{h.Service, h.open(emergencyPolicy)}
	erin, sam := h.person("erin", "engineers", "oncall"), h.person("sam", "security")
	r, signed := h.opened(erin, emergencyInput()), h.opened(h.person("olaf", "engineers", "oncall"), emergencyInput())
	h.reviewed(sam, signed.ID, api.Justified)
	jobs := func(id string) int {
		return h.count(`SELECT count(*) FROM jobs.river_job WHERE kind = 'emergency_review' AND args->>'request_id' = $1`, id)
	}
	if jobs(r.ID) != 3 {
		t.Errorf("there are %d looks at its review", jobs(r.ID))
	}
	h.clock.Advance(4*time.Hour - time.Microsecond)
	must(t, h.WatchReview(t.Context(), r.ID))
	if len(h.all("review.overdue")) != 0 {
		t.Error("it is overdue before its deadline")
	}
	h.clock.Advance(time.Microsecond)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() { must(t, services[i%2].WatchReview(context.WithoutCancel(t.Context()), r.ID)) })
	}
	all.Wait()
	must(t, h.WatchReview(t.Context(), signed.ID))
	got := h.all("review.overdue")
	if len(got) != 1 || got[0].Request != r.ID || got[0].Actor.Kind != string(event.Broker) {
		t.Errorf("events %+v", got)
	}
	if n := jobs(r.ID); n != 3+1 { // they all ask for the same next look
		t.Errorf("there are %d looks", n)
	}
	h.reviewed(sam, r.ID, api.Justified)
	must(t, h.WatchReview(t.Context(), r.ID))
	if n := jobs(r.ID); n != 3+1 {
		t.Errorf("after its review there are %d looks", n)
	}
}

// The queue itself runs the looks.
func TestReviewJobRuns(t *testing.T) {
	t.Parallel()
	h := newEmergencyHouse(t)
	r := h.opened(h.person("erin", "engineers", "oncall"), emergencyInput())
	h.clock.Advance(4 * time.Hour)
	audittest.Run(t, h.Run)
	h.eventually(func() bool { return slices.Contains(h.events(r.ID), "review.overdue") })
}
