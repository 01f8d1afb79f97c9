package approvals_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/approvals/notify"
)

// Those who can decide now are told, then those whose turn comes; when it is over,
// all of them and the requester, and nobody else at any time.
func TestEachStageIsToldInItsTurn(t *testing.T) {
	t.Parallel()
	h := newTellHouse(t, byHook)
	h.until(h.Run)
	erin := h.person("erin", "engineers")
	a, b, d := h.person("a", "approvers"), h.person("b", "approvers"), h.person("d", "directors")
	r := h.ask(erin, "staged", "db-1")
	h.wantTold("approvers request.waiting")
	first := h.hook.got[0]
	if first.Data.Link != "https://sp.example.com/requests/"+r.ID || first.Data.Request.Requester.Name != "erin" || first.Data.Request.Reason != "restore a backup" {
		t.Errorf("the message says %+v of %+v", first.Data, first.Data.Request)
	}
	if w := first.Data.Request.Waiting; len(w) != 1 || w[0].Count != 2 || len(w[0].People) != 2 {
		t.Errorf("it names as deciders %+v", w)
	}
	h.approve(a, r.ID)
	h.quiet()
	h.wantTold("approvers request.waiting") // it still waits for the same people
	h.approve(b, r.ID)
	h.wantTold("approvers request.waiting", "directors request.waiting")
	h.approve(d, r.ID)
	h.wantTold("approvers request.waiting", "directors request.waiting", "approvers request.closed", "directors request.closed")
	h.eventuallyEqual(h.mailed, []string{"erin@example.com: Approved: staged@db-1 for erin"})
}

func TestWhatIsClosedIsFollowedUp(t *testing.T) {
	t.Parallel()
	h := newTellHouse(t, byHook)
	erin, arne := h.person("erin", "engineers"), h.person("arne", "approvers")
	denied, cancelled, expired := h.ask(erin, "dba", "db-1"), h.ask(erin, "dba", "db-1"), h.ask(erin, "dba", "db-2")
	stop := h.until(h.Run)
	h.wantTold("approvers request.waiting", "approvers request.waiting", "approvers request.waiting")
	_, err := h.Decide(t.Context(), arne, denied.ID, api.DecisionInput{Verdict: api.Deny, Comment: "not today"})
	must(t, err)
	_, err = h.Cancel(t.Context(), erin, cancelled.ID)
	must(t, err)
	w := "approvers request.waiting"
	c := "approvers request.closed"
	h.wantTold(w, w, w, c, c)
	stop()
	h.clock.Advance(time.Hour)
	// The job that expires it was put off by the machine's clock; ours has moved.
	must(t, h.exec(`UPDATE jobs.river_job SET state = 'available', scheduled_at = '2025-01-01' WHERE kind = 'request_settle' AND state = 'scheduled'`))
	h.until(h.openTelling(byHook).Run)
	h.wantTold(w, w, w, c, c, c)
	if got := h.see(erin, expired.ID); got.State != api.Expired {
		t.Errorf("the request is %s", got.State)
	}
	// What one did oneself one is not told.
	h.eventuallyEqual(h.mailed, []string{"erin@example.com: Denied: dba@db-1 for erin", "erin@example.com: Expired undecided: dba@db-2 for erin"})
}

// Before a request expires those who can decide are reminded, and while it waits
// others are told, in the order of the rule; after a decision nobody is.
func TestRemindersAndEscalationComeInOrder(t *testing.T) {
	t.Parallel()
	h := newTellHouse(t, byHook)
	h.until(h.Run)
	erin, a := h.person("erin", "engineers"), h.person("a", "approvers")
	r := h.ask(erin, "staged", "db-1")
	h.wantTold("approvers request.waiting")
	h.clock.Advance(20*time.Minute - time.Second)
	h.wantTold("approvers request.waiting")
	h.clock.Advance(time.Second)
	told := []string{"approvers request.waiting", "managers request.escalated"}
	h.wantTold(told...)
	h.clock.Advance(10 * time.Minute)
	told = append(told, "managers request.escalated", "directors request.escalated")
	h.wantTold(told...)
	h.clock.Advance(15 * time.Minute)
	// The rule's approvers, of all stages.
	told = append(told, "approvers request.reminder", "directors request.reminder")
	h.wantTold(told...)
	_, err := h.Decide(t.Context(), a, r.ID, api.DecisionInput{Verdict: api.Deny})
	must(t, err)
	h.wantTold(append(told, "approvers request.closed", "directors request.closed", "managers request.closed")...)

	again := h.ask(erin, "staged", "db-2")
	_, err = h.Cancel(t.Context(), erin, again.ID)
	must(t, err)
	n := len(h.hook.told())
	h.clock.Advance(50 * time.Minute)
	h.eventually(func() bool {
		return h.count(`SELECT count(*) FROM jobs.river_job WHERE kind = 'notice' AND state <> 'completed'`) == 0
	})
	h.quiet()
	for _, g := range h.hook.told()[min(n, len(h.hook.told())):] {
		if strings.Contains(g, "reminder") || strings.Contains(g, "escalated") {
			t.Errorf("of what was cancelled: %s", g)
		}
	}
	if n := h.count(`SELECT count(*) FROM messages WHERE request_id = $1 AND kind IN ('request.reminder', 'request.escalated')`, again.ID); n > 0 {
		t.Errorf("%d messages remind of what was cancelled", n)
	}
}

// Members of a group are told at their own address, but not who asks, nor who has
// decided; a bad address harms nobody else.
func TestPersonalMail(t *testing.T) {
	t.Parallel()
	h := newTellHouse(t, "routes: {approvers: [mail], directors: [mail]}\noperators: [ops]")
	h.until(h.Run)
	erin := h.person("erin", "engineers", "approvers")
	a, b := h.person("a", "approvers"), h.person("b", "approvers", "directors")
	h.person("gone", "approvers")
	h.person("d", "directors")
	_, err := h.people.SignIn(t.Context(), identity.Claims{Issuer: "https://id.test", Subject: "eve", Name: "Eve\r\nBcc: x@evil.example",
		Email: "eve@example.com\r\nBcc: x@evil.example", Groups: []string{"approvers"}, AuthTime: start}, "web", "192.0.2.7")
	must(t, err)
	_, err = h.people.SignIn(t.Context(), identity.Claims{Issuer: "https://id.test", Subject: "mute", Name: "mute",
		Groups: []string{"approvers"}, AuthTime: start}, "web", "192.0.2.7")
	must(t, err)
	r := h.ask(erin, "staged", "db-1")
	subject := "erin asks for staged@db-1 for 40m"
	h.eventuallyEqual(h.mailed, []string{"a@example.com: " + subject, "b@example.com: " + subject})
	if got := h.states(notify.Waiting); !slices.Equal(got, []string{"mail failed", "mail failed", "mail sent", "mail sent"}) {
		t.Errorf("messages are %q", got)
	}
	h.approve(a, r.ID)
	h.approve(b, r.ID)
	// b decided and cannot decide again, although a director.
	h.eventuallyEqual(h.mailed, []string{"a@example.com: " + subject, "b@example.com: " + subject, "d@example.com: " + subject})
}

// Access that ends is announced to whoever has it, unless it has ended already.
func TestTheEndIsAnnounced(t *testing.T) {
	t.Parallel()
	h := newTellHouse(t, byHook)
	h.until(h.Run)
	erin, arne := h.person("erin", "engineers"), h.person("arne", "approvers")
	r, done := h.ask(erin, "dba", "db-1"), h.ask(erin, "dba", "db-2")
	h.approve(arne, r.ID)
	h.approve(arne, done.ID)
	approved := []string{"erin@example.com: Approved: dba@db-1 for erin", "erin@example.com: Approved: dba@db-2 for erin"}
	h.eventuallyEqual(h.mailed, approved)
	_, err := h.Finish(t.Context(), erin, done.ID)
	must(t, err)
	h.clock.Advance(30*time.Minute - time.Second)
	h.eventuallyEqual(h.mailed, approved)
	h.clock.Advance(time.Second)
	h.eventuallyEqual(h.mailed, append(approved, "erin@example.com: Your access to dba@db-1 ends soon"))
	h.eventually(func() bool {
		return h.count(`SELECT count(*) FROM jobs.river_job WHERE kind = 'notice' AND state <> 'completed'`) == 0
	})
	h.eventuallyEqual(h.mailed, append(approved, "erin@example.com: Your access to dba@db-1 ends soon"))
}

// Nobody is asked under an automatic rule, and nobody is told.
func TestWhatIsAutomaticTellsNobody(t *testing.T) {
	t.Parallel()
	h := newTellHouse(t, byHook+"\ndefault: [ops]")
	h.ask(h.person("erin", "engineers"), "web", "web-1")
	if n := h.count(`SELECT count(*) FROM jobs.river_job WHERE kind = 'notice' AND args->'notice'->>'kind' <> 'grant.ending'`); n > 0 {
		t.Errorf("%d notices", n)
	}
}

// An emergency is told to everybody at once, and its review is asked for until it
// is there.
func TestAnEmergencyIsToldToEveryoneAtOnce(t *testing.T) {
	t.Parallel()
	h := newTellHouse(t, byHook)
	erin, sam := h.person("erin", "engineers"), h.person("sam", "security")
	in := input("dba", "db-1")
	in.Emergency = true
	r, err := h.Request(t.Context(), erin, in)
	must(t, err)
	stop := h.until(h.Run)
	started := []string{"approvers emergency.started", "managers emergency.started", "security emergency.started", "ops emergency.started"}
	h.wantTold(started...)
	if got := h.hook.got[0].Data; !strings.HasPrefix(got.Title, "EMERGENCY: ") || got.Request.Emergency == nil || got.Request.Emergency.ReviewGroups[0] != "security" {
		t.Errorf("it says %+v", got)
	}
	stop()
	later := func(d time.Duration, want ...string) {
		t.Helper()
		h.clock.Advance(d)
		must(t, h.exec(`UPDATE jobs.river_job SET state = 'available', scheduled_at = '2025-01-01'
			WHERE kind = 'emergency_review' AND state = 'scheduled' AND (args->>'due')::timestamptz <= $1`, h.clock.Now()))
		stop := h.until(h.openTelling(byHook).Run)
		started = append(started, want...)
		h.wantTold(started...)
		stop()
	}
	later(30*time.Minute, "security review.due")
	later(15*time.Minute, "security review.due")
	later(15*time.Minute, "security review.overdue", "approvers review.overdue", "managers review.overdue", "ops review.overdue")
	_, err = h.Review(t.Context(), sam, r.ID, api.ReviewInput{Verdict: "justified", Comment: "fine"})
	must(t, err)
	// Sam knows; the others who were told are told that it is over, and so is Erin.
	later(48*time.Hour, "security review.given", "approvers review.given", "managers review.given", "ops review.given")
	h.eventuallyEqual(h.mailed, []string{"erin@example.com: Reviewed: emergency access of erin to dba@db-1"})
}

// Whoever loses what they asked for hears of it; whoever did it knows.
func TestWhatOthersEndIsTold(t *testing.T) {
	t.Parallel()
	h := newTellHouse(t, byHook)
	h.until(h.Run)
	erin, arne, oscar := h.person("erin", "engineers"), h.person("arne", "approvers"), h.person("oscar", "operators")
	granted, waiting, own := h.ask(erin, "dba", "db-1"), h.ask(erin, "dba", "db-2"), h.ask(erin, "dba", "db-2")
	h.approve(arne, granted.ID)
	approved := "erin@example.com: Approved: dba@db-1 for erin"
	h.eventuallyEqual(h.mailed, []string{approved})
	for _, id := range []string{granted.ID, waiting.ID} {
		_, err := h.Revoke(t.Context(), oscar, api.RevocationInput{Request: id, Reason: "incident"})
		must(t, err)
	}
	_, err := h.Revoke(t.Context(), erin, api.RevocationInput{Request: own.ID, Reason: "done"})
	must(t, err)
	h.eventuallyEqual(h.mailed, []string{approved, "erin@example.com: Cancelled: dba@db-2 for erin",
		"erin@example.com: Your access to dba@db-1 has been ended"})
}

// When an approver is removed, what they approved waits again, and those who can
// decide are told again; the person who was removed is told nothing more.
func TestWhatWaitsAgainIsToldAgain(t *testing.T) {
	t.Parallel()
	h := newTellHouse(t, "routes: {approvers: [approvers, mail], directors: [directors]}\noperators: [ops]")
	h.until(h.Run)
	erin, oscar := h.person("erin", "engineers"), h.person("oscar", "operators")
	a, b := h.person("a", "approvers"), h.person("b", "approvers")
	r := h.ask(erin, "staged", "db-1")
	h.wantTold("approvers request.waiting")
	h.approve(a, r.ID)
	h.approve(b, r.ID)
	h.wantTold("approvers request.waiting", "directors request.waiting")
	_, err := h.RemovePerson(t.Context(), oscar, a.ID, "left")
	must(t, err)
	h.wantTold("approvers request.waiting", "directors request.waiting", "approvers request.waiting")
	h.quiet()
	_, err = h.Cancel(t.Context(), erin, r.ID)
	must(t, err)
	h.wantTold("approvers request.waiting", "directors request.waiting", "approvers request.waiting",
		"approvers request.closed", "directors request.closed")
	for _, m := range h.mailed() {
		if strings.HasPrefix(m, "a@") && strings.Contains(m, "Cancelled") {
			t.Errorf("somebody who was removed is told: %s", m)
		}
	}
}
