package notify

import (
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/api"
)

var (
	noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	soon = noon.Add(30 * time.Minute)
)

// asked is a request that waits for its first stage.
func asked() api.Request {
	return api.Request{
		ID: "req-4f8k2m9qhx1z", State: api.Requested,
		Requester: api.Person{ID: "per-000000000001", Name: "Erin Engineer", Email: "erin@example.com"},
		HostID:    "host-7k3m9q2x4f8h", Host: "db-1", Login: "dba", Duration: "30m",
		Reason: "Replication lag", Ticket: "INC-7", CreatedAt: noon, ApproveBy: noon.Add(time.Hour),
		Approvers: []api.Slot{
			{Stage: 1, Groups: []string{"approvers", "leads"}, Count: 2, Filled: 1, People: []api.Person{{ID: "per-000000000002", Name: "Arne"}}},
			{Stage: 2, Groups: []string{"directors"}, Count: 1},
		},
	}
}

func messageOf(kind Kind, r api.Request) Message {
	return Message{ID: "msg-000000000001", At: noon, Kind: kind, Link: "https://sp.example.com/requests/" + r.ID, Request: &r}
}

// A message names who asks for what, why, until when, and who can decide.
func TestMessagesSayEverything(t *testing.T) {
	t.Parallel()
	m := messageOf(Waiting, asked())
	if got := m.headline(); got != "Erin Engineer asks for dba@db-1 for 30m" {
		t.Errorf("headline %q", got)
	}
	want := []fact{
		{"Who", "Erin Engineer <erin@example.com>"}, {"Where", "dba@db-1"}, {"How long", "30m"},
		{"Reason", "Replication lag"}, {"Ticket", "INC-7"}, {"Decide before", "Sat 21 Nov 2026, 13:00 UTC"},
		{"Needs", "1 from approvers or leads (Arne)"},
	}
	if got := m.facts(); !slices.Equal(got, want) {
		t.Errorf("facts are\n%q, want\n%q", got, want)
	}
	closed := asked()
	closed.State, closed.EndsAt = api.Approved, &soon
	closed.Decisions = []api.Decision{{Approver: api.Person{Name: "Arne"}, Verdict: api.Approve, Comment: "go"}}
	m = messageOf(Closed, closed)
	if got := m.headline(); got != "Approved: dba@db-1 for Erin Engineer" {
		t.Errorf("headline %q", got)
	}
	if !slices.Contains(m.facts(), fact{"Decided by", "Arne: go"}) {
		t.Errorf("facts are %q", m.facts())
	}
	drill := asked()
	drill.State, drill.EndsAt = api.Approved, &soon
	drill.Emergency = &api.Emergency{Drill: true, ReviewGroups: []string{"security"}, ReviewBy: soon}
	m = messageOf(EmergencyStarted, drill)
	if got := m.headline(); !strings.HasPrefix(got, "DRILL, ") || m.loud() {
		t.Errorf("a drill is announced as %q, loud %v", got, m.loud())
	}
	drill.Emergency.Drill = false
	m = messageOf(EmergencyStarted, drill)
	if got := m.headline(); !strings.HasPrefix(got, "EMERGENCY: ") || !m.loud() {
		t.Errorf("an emergency is announced as %q, loud %v", got, m.loud())
	}
}

func TestOvertaken(t *testing.T) {
	t.Parallel()
	with := func(change func(*api.Request)) api.Request {
		r := asked()
		change(&r)
		return r
	}
	cancelled := with(func(r *api.Request) { r.State = api.Cancelled })
	second := with(func(r *api.Request) { r.Approvers[0].Filled = 2 })
	granted := with(func(r *api.Request) { r.State, r.EndsAt = api.Active, &soon })
	ended := with(func(r *api.Request) { r.State, r.EndsAt = api.Ended, &soon })
	emergency := with(func(r *api.Request) { r.State, r.EndsAt, r.Emergency = api.Ended, &soon, &api.Emergency{} })
	reviewed := with(func(r *api.Request) { r.Emergency = &api.Emergency{Review: &api.Review{}} })
	for _, c := range []struct {
		name string
		n    Notice
		r    api.Request
		now  time.Time
		want bool
	}{
		{"waiting", Notice{Kind: Waiting, Stage: 1}, asked(), noon, false},
		{"waiting, cancelled", Notice{Kind: Waiting, Stage: 1}, cancelled, noon, true},
		{"waiting for a stage that has passed", Notice{Kind: Waiting, Stage: 1}, second, noon, true},
		{"waiting for the second stage", Notice{Kind: Waiting, Stage: 2}, second, noon, false},
		{"reminder", Notice{Kind: Reminder}, second, noon, false},
		{"reminder, decided", Notice{Kind: Reminder}, granted, noon, true},
		{"escalation, cancelled", Notice{Kind: Escalated}, cancelled, noon, true},
		{"ending", Notice{Kind: GrantEnding}, granted, noon, false},
		{"ending, finished early", Notice{Kind: GrantEnding}, ended, noon, true},
		{"ending, too late", Notice{Kind: GrantEnding}, granted, soon, true},
		{"ending, but extended", Notice{Kind: GrantEnding}, with(func(r *api.Request) { r.State, r.EndsAt, r.ExtendedBy = api.Active, &soon, "req-000000000002" }), noon, true},
		{"closed", Notice{Kind: Closed}, cancelled, noon, false},
		{"emergency, already ended", Notice{Kind: EmergencyStarted}, emergency, noon, false},
		{"review due", Notice{Kind: ReviewDue}, emergency, noon, false},
		{"review given", Notice{Kind: ReviewDue}, reviewed, noon, true},
		{"review overdue, given", Notice{Kind: ReviewOverdue}, reviewed, noon, true},
	} {
		if got := overtaken(c.n, c.r, c.now); got != c.want {
			t.Errorf("%s: overtaken is %v", c.name, got)
		}
	}
}

// What a person wrote stays on its line, whatever it has in it.
func TestOneLine(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"plain":                          "plain",
		" two\r\nlines\tand\u2028three ": "two lines and three",
		"left\u202eright\u200b\x00\x1b[": "left right [",
		"bad \xff utf-8":                 "bad utf-8",
		"Zoë 中 😀":                        "Zoë 中 😀",
		strings.Repeat("é", 500):         strings.Repeat("é", 399) + "…",
	} {
		if got := oneLine(in, 400); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}

// Whoever decides for somebody is named with them.
func TestMessagesSayForWhom(t *testing.T) {
	t.Parallel()
	arne, dora := api.Person{ID: "per-000000000002", Name: "Arne", Email: "arne@example.com"}, api.Person{ID: "per-000000000003", Name: "Dora"}
	r := asked()
	r.Approvers[0].Delegates = []api.Delegate{{Person: dora, For: arne}}
	if got := needs(r); got != "1 from approvers or leads (Arne, Dora for Arne)" {
		t.Errorf("needs %q", got)
	}
	for range maxNames {
		r.Approvers[0].Delegates = append(r.Approvers[0].Delegates, api.Delegate{Person: dora, For: arne})
	}
	if got := needs(r); !strings.HasSuffix(got, "Dora for Arne, 2 more)") {
		t.Errorf("needs %q", got)
	}
	r.State = api.Denied
	r.Decisions = []api.Decision{{Approver: dora, OnBehalfOf: &arne, Verdict: api.Deny, Comment: "no"}}
	if got := deciders(r); got != "Dora for Arne, who denied it: no" {
		t.Errorf("decided by %q", got)
	}
	if got := payload(messageOf(Closed, r)).Data.Request.Decisions[0].OnBehalfOf; got == nil || got.ID != arne.ID {
		t.Errorf("the webhook says for %v", got)
	}
	// Nobody is asked for whom somebody has decided, unless it counts no more.
	if n := (Notice{Kind: Waiting}); !excluded(n, r, arne.ID) {
		t.Error("who was decided for is asked")
	}
	r.Decisions[0].Void = true
	if n := (Notice{Kind: Waiting}); excluded(n, r, arne.ID) || !excluded(n, r, dora.ID) {
		t.Error("a decision that counts no more takes away the delegator's say, or does not take away its giver's")
	}

	// A name cannot look like another fact, nor push out what it is about.
	l := api.Delegation{State: "running", Delegate: api.Person{Name: "Dora\nFor: Mallory " + strings.Repeat("x", 100), Email: "dora@example.com"}, Delegator: arne, MadeBy: arne,
		Groups: []string{"approvers"}, From: noon, Until: soon, Reason: "on\r\nleave"}
	m := Message{At: noon, Kind: DelegationMade, Delegation: &l}
	if got := m.headline(); strings.ContainsAny(got, "\r\n") || !strings.HasSuffix(got, "decides for Arne until Sat 21 Nov 2026, 12:30 UTC") {
		t.Errorf("headline %q", got)
	}
	l.State = "planned"
	if got := m.headline(); !strings.HasSuffix(got, "will decide for Arne from Sat 21 Nov 2026, 12:00 UTC") {
		t.Errorf("headline %q", got)
	}
	for _, f := range m.facts() {
		if strings.ContainsAny(f.Value, "\r\n") {
			t.Errorf("fact %q", f)
		}
	}
}
