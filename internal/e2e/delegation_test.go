package e2e

import (
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"sallyport/api"
)

// delegationPolicy wants one approver's decision for dba, signed by the identity
// provider, as rules do that say nothing, and two for root.
const delegationPolicy = `
sallyport: 1
roles:
  operator: [operators]
  auditor: [auditors]
rules:
  - name: databases
    who: [engineers]
    where: class=database
    logins: [dba]
    duration: {default: 30m, max: 2h}
    approvals: [{slots: [{groups: [approvers]}]}]
  - name: root
    who: [engineers]
    where: class=database
    logins: [root]
    duration: {default: 30m, max: 2h}
    approvals: [{slots: [{groups: [approvers]}, {groups: [security]}]}]
    assurance: session
`

// The same by sally alone: see testdata/delegation.
func TestDelegationInATerminal(t *testing.T) {
	t.Parallel()
	h := newHouse(t, delegationPolicy)
	h.addHost("db-1", map[string]string{"class": "database"}, "dba", "root")
	runTerminal(t, h, "testdata/delegation")
}

// Arne goes on leave: on the page he lets Selma decide for him until tomorrow. She
// decides on Erin's request, and the identity provider signs it; the decision names
// both everywhere, the certificate that follows opens the host, and what Selma decided for
// Arne fills no second place. He comes back early and ends it.
func TestDelegation(t *testing.T) {
	t.Parallel()
	h := newHouse(t, delegationPolicy)
	h.addHost("db-1", map[string]string{"class": "database"}, "dba", "root")
	erin := h.signIn(engineer)
	ask := func(login string) string {
		t.Helper()
		var r api.Request
		erin.call(http.MethodPost, "/requests", api.RequestInput{Host: "db-1", Login: login, Reason: "replace the failing disk"}, &r, http.StatusCreated)
		return r.ID
	}
	see := func(id string) (r api.Request) {
		t.Helper()
		erin.call(http.MethodGet, "/requests/"+id, nil, &r, http.StatusOK)
		return r
	}
	selma, arne := h.at(security), h.at(approver)
	dba := ask("dba")
	selma.open("/requests/" + dba)
	selma.read("main", "no such request")

	arne.click(`nav a[href="/delegations"]`)
	arne.read("main", "nobody decides for anybody here")
	arne.fill("#delegate", security)
	arne.fill("#reason", "On leave until tomorrow")
	// As a browser without a locale of its own has it: month, day, year.
	tomorrow := time.Now().Add(24 * time.Hour)
	arne.fill("#until_date", tomorrow.Format("01022006"))
	arne.fill("#until_time", tomorrow.Format("0304PM"))
	arne.picture("delegate")
	arne.click(".lend .primary")
	arne.read(".rows", "decides for you")
	arne.read(".rows", "on leave until tomorrow")

	selma.open("/approvals")
	selma.read(".ask-card", "you decide for Arne Approver")
	selma.click(`.ask-card a.button`)
	selma.read(".banner", "you decide for Arne Approver, by a delegation until")
	selma.fill("#comment", "Arne knows of it")
	selma.picture("decide-delegated")
	selma.click(".decide button.primary")
	passBy(selma, security)
	selma.read(".decision", "approved for Arne Approver")
	arne.open("/requests/" + dba)
	arne.read(".decision", "approved for Arne Approver")

	got := see(dba)
	if d := got.Decisions; got.State != api.Approved || len(d) != 1 || d[0].OnBehalfOf == nil || d[0].OnBehalfOf.Name != "Arne Approver" || d[0].Evidence.Assurance != "provider" {
		t.Fatalf("the request is %s with %+v", got.State, got.Decisions)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	terminal := newTerminal(t, h)
	terminal.env = append(terminal.env, "BROWSER="+self, "SALLYPORT_E2E_BROWSER="+engineer)
	terminal.sally("login")
	if out := terminal.sally("ssh", "dba@db-1", "hostname; id -un"); out != "db-1\ndba\n" {
		t.Fatalf("ssh says %q", out)
	}

	// Root takes two people. Selma gives her own say there; then Arne's is left, and
	// it is not hers to give.
	root := ask("root")
	selma.open("/requests/" + root)
	selma.click(".decide button.primary")
	selma.read(".decision", "approved")
	if d := see(root); d.State != api.Requested || d.Decisions[0].OnBehalfOf != nil {
		t.Fatalf("root is %s with %+v", d.State, d.Decisions)
	}
	selma.read(".banner", "waiting for others")

	// The auditor reads it in the log.
	audrey := h.at(auditor)
	audrey.open("/log?type=delegation.")
	audrey.read(".log", "let Selma Security decide for Arne Approver")
	audrey.open("/log?type=request.decided&view=table&request=" + dba)
	audrey.read(".log", "approved it for Arne Approver")
	audrey.click(".log td.number a")
	audrey.read("aside", "Arne Approver")

	// Arne is back, ends it after a second thought, and approves by himself.
	arne.open("/delegations?scope=mine")
	arne.click(`.rows a.button`)
	arne.read("main", "end this delegation?")
	arne.click(".decide button.danger")
	arne.read("main", "nobody decides for anybody here")
	second := ask("dba")
	selma.open("/requests/" + second)
	selma.read("main", "no such request")
	arne.open("/requests/" + root)
	arne.click(".decide button.primary")
	arne.read(".banner", "may log in")
	if d := see(root); d.State != api.Approved {
		t.Errorf("root is %s", d.State)
	}
	if out := h.said.String(); strings.Contains(out, "a delegation lends nothing") {
		t.Errorf("the broker said:\n%s", out)
	}
}
