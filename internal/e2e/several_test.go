package e2e

import (
	"net/http"
	"path"
	"strings"
	"testing"

	"sallyport/api"
	"sallyport/internal/browser"
	"sallyport/internal/dex"
)

// Erin follows a runbook's link for all databases, whose labels select two hosts.
// Arne sees both before he approves, once. She gets a certificate for each, with
// one key, and each opens its own host and not the other (P2).
func TestSeveralHosts(t *testing.T) {
	t.Parallel()
	h := newHouse(t, policy)
	h.addHost("db-1", map[string]string{"class": "database", "env": "prod"}, "dba", "root")
	h.addHost("db-2", map[string]string{"class": "database", "env": "prod"}, "dba", "root")
	h.addHost("db-9", map[string]string{"class": "database", "env": "test"}, "dba")

	// The link survives the sign-in.
	erin := &person{t: t, ctx: browser.New(t), url: h.URL, name: engineer}
	erin.open("/requests/new?selector=class%3Ddatabase%2Cenv%3Dprod&login=dba&ticket=INC-2042")
	erin.fill(`input[name="login"]`, engineer)
	erin.fill(`input[name="password"]`, dex.Password)
	erin.click(`button[type="submit"]`)
	erin.see("#selector")
	erin.fill("#reason", "Change the passwords of the replication")
	erin.read("#preview", "2 hosts")
	erin.read("#preview", "db-2")
	erin.read("#preview", "1 person from approvers")
	erin.click(`button[value="send"]`)
	erin.read("h1", "dba@db-1")
	erin.read("h1", "and 1 more")
	request := path.Base(erin.where())

	arne := h.at(approver)
	arne.open("/approvals")
	arne.read("main", "db-2")
	arne.open("/requests/" + request)
	arne.read(".banner", "on 2 hosts")
	arne.read(".banner .names", "db-1")
	arne.read(".banner .names", "db-2")
	arne.click(".decide button.primary")
	arne.read(".banner", "Erin Engineer may log in")

	erin.read(".commands", "sally ssh dba@db-1")
	erin.read(".commands", "sally ssh dba@db-2")
	erin.read(".commands", "no certificate yet")

	terminal := newTerminal(t, h)
	terminal.login(erin)
	for _, host := range []string{"db-2", "db-1"} {
		if out := terminal.sally("ssh", "dba@"+host, "hostname; id -un"); out != host+"\ndba\n" {
			t.Fatalf("ssh to %s says %q", host, out)
		}
		terminal.sally("cert", request, "--host", host, "--out", host)
		cert := terminal.certificate(host)
		if len(cert.ValidPrincipals) != 1 || cert.ValidPrincipals[0] != "dba@"+h.hostID(t, host) {
			t.Errorf("the certificate for %s has the principals %q", host, cert.ValidPrincipals)
		}
	}
	for _, c := range []struct {
		folder, login, host string
		enters              bool
	}{
		{"db-1", "dba", "db-1", true}, {"db-2", "dba", "db-2", true},
		{"db-1", "dba", "db-2", false}, {"db-2", "dba", "db-1", false},
		{"db-1", "root", "db-1", false}, {"db-1", "dba", "db-9", false}, {"db-2", "dba", "db-9", false},
	} {
		if out, err := terminal.sshWith(h, c.folder, c.folder, c.login, c.host); (err == nil) != c.enters {
			t.Errorf("with the certificate for %s to %s@%s: %v\n%s", c.folder, c.login, c.host, err, out)
		}
	}
	erin.read(".commands", "2 certificates")
	if out := terminal.sally("show", request); !strings.Contains(out, "2 hosts, asked for by class=database,env=prod") ||
		strings.Count(out, "2 certificates") != 2 {
		t.Errorf("sally show says:\n%s", out)
	}

	// The log has the request under each of its hosts, and each certificate under one.
	audrey := h.signIn(auditor)
	for host, want := range map[string]int{"db-1": 1, "db-2": 1, "db-9": 0} {
		var created, issued api.Page[api.Event]
		audrey.call(http.MethodGet, "/audit/events?type=grant.started&host="+h.hostID(t, host), nil, &created, http.StatusOK)
		audrey.call(http.MethodGet, "/audit/events?type=certificate.issued&host="+h.hostID(t, host), nil, &issued, http.StatusOK)
		if len(created.Items) != want || len(issued.Items) != 2*want {
			t.Errorf("of %s the log has %d starts and %d certificates", host, len(created.Items), len(issued.Items))
		}
	}
}
