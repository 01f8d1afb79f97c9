package approvals_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/approvals/notify"
	"sallyport/audit"
)

// disclosed are the summaries of what was shown to people by their role, oldest first.
func (h *house) disclosed() []string {
	h.t.Helper()
	var list []string
	for _, e := range h.all("disclosed.") {
		list = append(list, e.Actor.Name+" "+e.Summary)
	}
	slices.Reverse(list)
	return list
}

// Whoever is concerned reads without a trace; whoever has a role alone does not.
func TestOpeningARequestByRoleIsRecorded(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin, ann := h.person("erin", "engineers"), h.person("ann", "approvers")
	audrey, olga := h.person("audrey", "auditors"), h.person("olga", "operators")
	r := h.ask(erin, "dba", "db-1")
	for _, c := range []identity.Caller{erin, ann, audrey, audrey, olga} {
		if got := h.see(c, r.ID); slices.ContainsFunc(got.Timeline, func(e api.Event) bool { return strings.HasPrefix(e.Type, "disclosed.") }) {
			t.Error("who read it stands in the request's timeline")
		}
	}
	h.see(h.person("alma", "approvers", "auditors"), r.ID) // who may decide reads for that
	want := []string{"audrey opened the request as auditor", "olga opened the request as operator"}
	if got := h.disclosed(); !slices.Equal(got, want) {
		t.Errorf("recorded %q, want %q", got, want)
	}
	for _, e := range h.all("disclosed.") {
		if e.Request != r.ID || e.Person != erin.ID || e.Source == "" {
			t.Errorf("it does not say whose request: %+v", e)
		}
	}
}

// everyRead are all the ways to read what concerns others.
var everyRead = map[string]func(h *house, c identity.Caller, requestID, personID string) error{
	"request": func(h *house, c identity.Caller, requestID, _ string) error {
		_, err := h.Get(h.t.Context(), c, requestID)
		return err
	},
	"requests": func(h *house, c identity.Caller, _, _ string) error {
		_, err := h.List(h.t.Context(), c, approvals.ListFilter{})
		return err
	},
	"people": func(h *house, c identity.Caller, _, _ string) error {
		_, err := h.People(h.t.Context(), c, identity.PeopleFilter{})
		return err
	},
	"person": func(h *house, c identity.Caller, _, personID string) error {
		_, err := h.KnownPerson(h.t.Context(), c, personID)
		return err
	},
	"reach of a person": func(h *house, c identity.Caller, _, personID string) error { // the same to know
		if _, err := h.PersonReach(h.t.Context(), c, personID); err != nil {
			return err
		}
		_, err := h.Explain(h.t.Context(), c, api.ExplainInput{Person: personID, Host: "db-2", Login: "dba"})
		return err
	},
	"reach of a host": func(h *house, c identity.Caller, _, _ string) error {
		_, err := h.HostReach(h.t.Context(), c, "db-1", "dba", "", 0)
		return err
	},
	"messages": func(h *house, c identity.Caller, requestID, _ string) error {
		_, err := h.Notifications(h.t.Context(), c, "GET /api/v1/notifications", notify.Filter{RequestID: requestID})
		return err
	},
	"search": func(h *house, c identity.Caller, _, personID string) error {
		return h.DiscloseSearch(h.t.Context(), c, audit.Filter{PersonID: personID, Text: "failover"})
	},
	"event": func(h *house, c identity.Caller, _, _ string) error {
		e, err := h.log.Entry(h.t.Context(), 0)
		must(h.t, err)
		return h.DiscloseEntry(h.t.Context(), c, e)
	},
	"bundle": func(h *house, c identity.Caller, _, _ string) error {
		return h.DiscloseBundle(h.t.Context(), c, "x001/234.p/7")
	},
}

func TestEveryReadByRoleIsRecordedOnce(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin, audrey := h.person("erin", "engineers"), h.person("audrey", "auditors")
	r := h.ask(erin, "dba", "db-1")
	h.all("request.") // has its place
	for name, read := range everyRead {
		before := len(h.disclosed())
		for range 3 {
			if err := read(h, audrey, r.ID, erin.ID); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		if got := h.disclosed()[before:]; len(got) != 1 || !strings.HasPrefix(got[0], "audrey ") {
			t.Errorf("%s: recorded %q", name, got)
		}
	}
	said := strings.Join(h.disclosed(), "\n")
	for _, want := range []string{"searched the log by person " + erin.ID + `, words "failover"`, "opened event 0 (", "copied entries of the log from 262144 to 327679",
		"listed everybody's requests as auditor", "looked at who there is", "looked up a person", "looked up what a person can reach",
		"looked up who can reach a host", "looked at what people were told"} {
		if !strings.Contains(said, want) {
			t.Errorf("nobody %q in\n%s", want, said)
		}
	}
}

// A read that cannot be recorded is none.
func TestP9_AReadThatCannotBeRecordedIsRefused(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin, ann := h.person("erin", "engineers"), h.person("ann", "approvers")
	audrey := h.person("audrey", "auditors")
	r := h.ask(erin, "dba", "db-1")
	h.all("request.")
	_, err := h.admin().Exec(t.Context(), `REVOKE EXECUTE ON FUNCTION audit.enqueue(bytea[]) FROM sallyport_app`)
	must(t, err)
	for name, read := range everyRead {
		if err := read(h, audrey, r.ID, erin.ID); err == nil {
			t.Errorf("%s: shown to an auditor", name)
		}
	}
	for _, c := range []identity.Caller{erin, ann} { // who need no record
		h.see(c, r.ID)
	}
}

// Nobody makes the log refuse its own record by what they look for.
func TestWhatIsLookedForIsBounded(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	audrey := h.person("audrey", "auditors")
	long := strings.Repeat("\x01", 20_000)
	for _, f := range []audit.Filter{{Type: long}, {RequestID: long}, {PersonID: long}, {HostID: long}} {
		refused(t, h.DiscloseSearch(t.Context(), audrey, f), audit.ErrFilter)
	}
	_, err := h.List(t.Context(), audrey, approvals.ListFilter{HostID: long})
	must(t, err)
	refused(t, h.DiscloseBundle(t.Context(), audrey, "../../x"), audit.ErrNoTile)
	for _, e := range h.all("disclosed.") {
		if e.Type != "disclosed.requests" || fmt.Sprint(e.Data["host"]) != "<nil>" {
			t.Errorf("%s %v", e.Type, e.Data)
		}
	}
}
