package e2e

import (
	"net/http"
	"os/exec"
	"strings"
	"testing"

	"sallyport/api"
)

// An emergency as its people live it: Erin's door opens before anybody has
// approved, by one command; everybody sees what it is; she gets no second one
// until Sven has reviewed it; and a rehearsal of all that says that it was one.
func TestEmergency(t *testing.T) {
	t.Parallel()
	h := newHouse(t, policy)
	h.addHost("db-1", map[string]string{"class": "database"}, "dba", "root")

	// An ordinary request waits, and goes on waiting whatever happens besides.
	erin := h.at(engineer)
	erin.open("/requests/new?host=db-1&login=root")
	erin.fill("#reason", "Update the kernel")
	erin.read("#preview", "approvers")
	erin.click(`button[value="send"]`)
	erin.read(".banner", "waiting for approval")
	terminal := newTerminal(t, h)
	terminal.login(erin)

	if out, err := terminal.run("emergency", "dba@db-1", "--reason", "The primary is down"); err == nil || !strings.Contains(out, "--yes") {
		t.Fatalf("it opens without a yes: %v\n%s", err, out)
	}
	if out := terminal.sally("emergency", "dba@db-1", "--reason", "The primary is down, orders fail", "--yes", "hostname; id -un"); out != "db-1\ndba\n" {
		t.Fatalf("ssh says %q", out)
	}
	var list api.Page[api.Request]
	mine, audit := h.signIn(engineer), h.signIn(auditor)
	mine.call(http.MethodGet, "/requests?emergency=true&scope=mine", nil, &list, http.StatusOK)
	if len(list.Items) != 1 || list.Items[0].State != api.Active || list.Items[0].Emergency == nil || len(list.Items[0].Decisions) != 0 {
		t.Fatalf("the emergency is %+v", list.Items)
	}
	first := list.Items[0].ID

	// Those who would have approved see it, marked; they have nothing to decide.
	arne := h.at(approver)
	arne.open("/requests?scope=all")
	arne.read("main", "Emergency")
	arne.open("/requests/" + first)
	arne.read(".banner.emergency", "before anybody had approved")
	if page := arne.page(); strings.Contains(page, "Your decision") {
		t.Errorf("there is something to decide:\n%s", page)
	}

	// No second one: not now, not when it has ended, not as a drill.
	refused := func(when string, args ...string) {
		t.Helper()
		args = append([]string{"emergency", "dba@db-1", "--reason", "Once more, please", "--yes"}, args...)
		out, err := terminal.run(args...)
		if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 3 || !strings.Contains(out, "has not been reviewed") {
			t.Fatalf("%s: %v\n%s", when, err, out)
		}
	}
	terminal.sally("finish", "dba@db-1")
	refused("ended")
	refused("as a drill", "--drill")
	var problem api.Problem
	if err := mine.try(http.MethodPost, "/requests/"+first+"/review", api.ReviewInput{Verdict: api.Justified, Comment: "it was me"}, &problem); err == nil {
		t.Fatal("Erin signs off her own emergency")
	}

	// Sven finds it on his first page, reads what was done, and signs it off.
	sven := h.at(security)
	sven.read("main", "Emergencies to review")
	sven.click(`main a[href="/requests/` + first + `"]`)
	sven.read(".banner.emergency", "The primary is down, orders fail")
	sven.picture("review")
	sven.fill("#review-comment", "The session shows the failover and nothing else")
	sven.click(`button[value="justified"]`)
	sven.read(".banner.emergency", "found it justified")
	erin.open("/requests/" + first)
	erin.read(".banner.emergency", "the failover and nothing else")

	// A rehearsal, which does not stand in the way of the real thing.
	if out := terminal.sally("emergency", "dba@db-1", "--drill", "--reason", "Quarterly rehearsal", "--yes", "id -un"); out != "dba\n" {
		t.Fatalf("ssh says %q", out)
	}
	terminal.sally("finish", "dba@db-1")
	refused("a second drill", "--drill")

	// And by the page.
	erin.open("/requests/new?host=db-1&login=dba")
	erin.fill("#reason", "The replica is down, too")
	erin.click(`#emergency label:has(input[value="yes"])`)
	erin.read("#preview", "before anybody has approved")
	erin.picture("emergency")
	erin.click(`button[value="send"]`)
	erin.read("main", "Open this door now?")
	erin.read("main", "you get no second emergency")
	erin.click(`button[value="open"]`)
	erin.read(".banner.emergency", "waits for a review")
	if out := terminal.sally("ssh", "dba@db-1", "hostname"); out != "db-1\n" {
		t.Fatalf("ssh says %q", out)
	}

	// What is left of it all.
	audit.call(http.MethodGet, "/requests?review=waiting", nil, &list, http.StatusOK)
	if len(list.Items) != 2 {
		t.Errorf("%d wait for their review", len(list.Items))
	}
	var events api.Page[api.Event]
	audit.call(http.MethodGet, "/audit/events?type=emergency.started", nil, &events, http.StatusOK)
	drills := 0
	for _, e := range events.Items {
		if e.Data["drill"] == true {
			drills++
		}
	}
	if len(events.Items) != 3 || drills != 1 {
		t.Errorf("%d emergencies are in the log, %d of them drills", len(events.Items), drills)
	}
	audit.call(http.MethodGet, "/audit/events?type=review.given", nil, &events, http.StatusOK)
	if len(events.Items) != 1 || events.Items[0].Data["evidence_hash"] == "" {
		t.Errorf("reviews in the log: %+v", events.Items)
	}
	for _, figure := range []string{
		`sallyport_emergencies_total{drill="false"} 2`, `sallyport_emergencies_total{drill="true"} 1`,
		`sallyport_emergencies_unreviewed{overdue="false"} 2`, `sallyport_emergencies_unreviewed{overdue="true"} 0`,
	} {
		if !strings.Contains(audit.text("/metrics"), figure) {
			t.Errorf("/metrics does not say %s", figure)
		}
	}
}
