package e2e

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"sallyport/api"
	"sallyport/internal/dex"
)

// signedPolicy wants the identity provider's signature for root, as rules do that
// say nothing, and the broker's word for dba.
const signedPolicy = `
sallyport: 1
roles:
  operator: [operators, security]
  auditor: [auditors]
rules:
  - name: root
    who: [engineers]
    where: "*"
    logins: [root]
    duration: {default: 15m, max: 1h}
    approvals:
      - slots:
          - {groups: [approvers]}
          - {groups: [security]}
    emergency: {who: [engineers], duration: {default: 10m, max: 30m}, review: {by: [security], within: 24h}}
  - name: databases
    who: [engineers]
    where: class=database
    logins: [dba]
    duration: {default: 30m, max: 2h}
    approvals: [{slots: [{groups: [approvers]}]}]
    assurance: session
  - name: fresh
    who: [engineers]
    where: class=database
    logins: [web]
    duration: {default: 30m, max: 2h}
    approvals: [{slots: [{groups: [approvers]}]}]
    max_age: 15m
`

// Root on db-1 takes two decisions that the provider signs: Arne gives his on the
// page, Selma hers from the terminal, and both pass by the provider. Without it
// nobody decides on root, and all else goes on (P9).
func TestProviderSignsDecisions(t *testing.T) {
	t.Parallel()
	h := newHouse(t, signedPolicy)
	h.addHost("db-1", map[string]string{"class": "database"}, "root", "dba", "web")
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
	root := ask("root")

	arne := h.at(approver)
	arne.open("/requests/" + root)
	arne.read(".banner", "your identity provider, which signs your decision")
	arne.fill("#comment", "Go ahead")
	arne.click(".decide button.primary")
	passBy(arne, approver)
	arne.read("h1", "root@db-1")
	arne.read(".decision", "approved")
	arne.click("aside summary")
	arne.read("aside", "signed by the identity provider")
	arne.picture("signed")
	arne.open("/requests/" + ask("root") + "/decide?verdict=approve&comment=as+agreed")
	arne.read("main", "approve this request?")
	arne.picture("decide-signed")

	// Selma has no browser of her own at hand but the one that sally opens.
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	selma := newTerminal(t, h)
	selma.env = append(selma.env, "BROWSER="+self, "SALLYPORT_E2E_BROWSER="+security)
	selma.sally("login")
	if out := selma.sally("approve", root, "--yes", "--comment", "as discussed"); !strings.Contains(out, "approved") {
		t.Fatalf("sally approve says %q", out)
	}

	got := see(root)
	if got.State != api.Approved || len(got.Decisions) != 2 || got.Decisions[1].Comment != "as discussed" {
		t.Fatalf("the request is %s with %+v", got.State, got.Decisions)
	}
	for _, d := range got.Decisions {
		if e := d.Evidence; e.Assurance != "provider" || e.IDTokenHash == "" || e.KeysHash == "" {
			t.Errorf("decision of %s: %+v", d.Approver.Name, e)
		}
	}
	terminal := newTerminal(t, h)
	terminal.env = append(terminal.env, "BROWSER="+self, "SALLYPORT_E2E_BROWSER="+engineer)
	terminal.sally("login")
	if out := terminal.sally("ssh", "root@db-1", "hostname; id -un"); out != "db-1\nroot\n" {
		t.Fatalf("ssh says %q", out)
	}
	// The log has the keys that Dex had, once, and both decisions by their tokens' hashes.
	audrey := h.signIn(auditor)
	var keys, decided api.Page[api.Event]
	audrey.call(http.MethodGet, "/audit/events?type=provider.keys_seen", nil, &keys, http.StatusOK)
	audrey.call(http.MethodGet, "/audit/events?type=request.decided&request="+root, nil, &decided, http.StatusOK)
	if len(keys.Items) != 1 || len(decided.Items) != 2 || keys.Items[0].Data["issuer"] != h.provider.Issuer() {
		t.Fatalf("%d events of keys, %d of decisions", len(keys.Items), len(decided.Items))
	}
	for i, e := range decided.Items { // newest first
		if e.Data["id_token_hash"] != got.Decisions[1-i].Evidence.IDTokenHash || e.Data["keys_hash"] != keys.Items[0].Data["note_hash"] {
			t.Errorf("the log says %v", e.Data)
		}
	}

	// So are the review of an emergency, and a decision on the policy.
	var opened api.Request
	erin.call(http.MethodPost, "/requests", api.RequestInput{Host: "db-1", Login: "root", Reason: "the disk is gone", Emergency: true}, &opened, http.StatusCreated)
	if out := selma.sally("review", opened.ID, "--justified", "--yes", "--comment", "the disk, and nothing else"); !strings.Contains(out, opened.ID) {
		t.Fatalf("sally review says %q", out)
	}
	if v := see(opened.ID).Emergency.Review; v == nil || v.Comment != "the disk, and nothing else" || v.Evidence.IDTokenHash == "" {
		t.Errorf("the review is %+v", v)
	}
	var proposed api.PolicyProposal
	h.signIn(operator).call(http.MethodPost, "/policy/proposals", api.PolicyInput{Document: signedPolicy + "# as discussed\n"}, &proposed, http.StatusCreated)
	if out := selma.sally("policy", "approve", proposed.ID, "--yes", "--comment", "read it"); !strings.Contains(out, "version 2") {
		t.Fatalf("sally policy approve says %q", out)
	}

	// Dex does not say when it authenticated anybody. A rule that wants to know
	// gets no decision through, and says why.
	fresh := ask("web")
	arne.open("/requests/" + fresh)
	arne.click(".decide button.primary")
	passBy(arne, approver)
	arne.read("main", "does not say when you signed in")
	if r := see(fresh); len(r.Decisions) != 0 {
		t.Errorf("it was decided: %+v", r.Decisions)
	}

	// The provider is gone.
	second, dba := ask("root"), ask("dba")
	h.provider.Stop()
	arne.open("/requests/" + second)
	arne.click(".decide button.primary")
	arne.read("main", "cannot sign a decision")
	arne.open("/requests/" + dba)
	arne.click(".decide button.primary")
	arne.read(".banner", "may log in")
	if out := terminal.sally("ssh", "root@db-1", "id -un"); out != "root\n" {
		t.Errorf("ssh says %q", out)
	}
	if r := see(second); r.State != api.Requested || len(r.Decisions) != 0 {
		t.Errorf("without the provider it is %s with %d decisions", r.State, len(r.Decisions))
	}
}

// passBy signs the person in at the provider, which asks each time.
func passBy(p *person, email string) {
	p.t.Helper()
	p.fill(`input[name="login"]`, email)
	p.fill(`input[name="password"]`, dex.Password)
	p.click(`button[type="submit"]`)
	p.see(fmt.Sprintf(`form[action=%q]`, "/signout"))
}
