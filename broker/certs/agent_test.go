package certs_test

import (
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/broker/certs"
)

const (
	deploymentID = "dep-4f8k2m9qhx1z"
	runID        = "run-4f8k2m9qhx1z"
)

func agentTemplate(key ssh.PublicKey) certs.Agent {
	return certs.Agent{Serial: 7, Key: key, Login: "deploy", HostID: hostID, DeploymentID: deploymentID, Batch: 2, Epoch: 5, Run: runID,
		Command: "/usr/local/bin/deploy sha256:ab", SourceAddress: []string{"192.0.2.0/24"}, Now: issued, Lifetime: 5 * time.Minute, Until: issued.Add(time.Hour)}
}

// What an agent's certificate cannot say, none is made with.
func TestP2_AgentsCertificatesCannotSayMore(t *testing.T) {
	t.Parallel()
	ca, key := newKey(t).PublicKey(), newKey(t).PublicKey()
	if _, err := agentTemplate(key).Pre(ca, rand.Reader); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*certs.Agent){
		"no command":          func(a *certs.Agent) { a.Command = "" },
		"two commands":        func(a *certs.Agent) { a.Command = "true\nid" },
		"a NUL":               func(a *certs.Agent) { a.Command = "true\x00" },
		"a long command":      func(a *certs.Agent) { a.Command = strings.Repeat("x", 2001) },
		"from anywhere":       func(a *certs.Agent) { a.SourceAddress = nil },
		"from a name":         func(a *certs.Agent) { a.SourceAddress = []string{"example.com"} },
		"no deployment":       func(a *certs.Agent) { a.DeploymentID = "" },
		"another's id":        func(a *certs.Agent) { a.DeploymentID = requestID },
		"a slash in the run":  func(a *certs.Agent) { a.Run = "run-4f8k2m9qhx1/" },
		"a person for a run":  func(a *certs.Agent) { a.Run = personID },
		"no batch":            func(a *certs.Agent) { a.Batch = 0 },
		"no epoch":            func(a *certs.Agent) { a.Epoch = 0 },
		"no time left":        func(a *certs.Agent) { a.Until = issued },
		"every login":         func(a *certs.Agent) { a.Login = "*" },
		"no host":             func(a *certs.Agent) { a.HostID = "" },
		"no serial":           func(a *certs.Agent) { a.Serial = 0 },
		"negative life":       func(a *certs.Agent) { a.Lifetime = -time.Minute },
		"a certificate's key": func(a *certs.Agent) { a.Key = issue(t, template(key), newKey(t)) },
	} {
		a := agentTemplate(key)
		spoil(&a)
		if _, err := a.Pre(ca, rand.Reader); err == nil {
			t.Errorf("%s: a pre-certificate was made", name)
		}
	}
	long := agentTemplate(key)
	long.Lifetime = time.Hour
	pre, err := long.Pre(ca, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if life := pre.ValidBefore().Sub(issued); life > certs.MaxAgentLifetime {
		t.Errorf("an agent's certificate lives for %s", life)
	}
}

// Whatever one changes in an agent's certificate, even signed again by the true CA, the
// check that hosts make sees it.
func TestP2_CheckSeesEveryChangeOfAnAgents(t *testing.T) {
	t.Parallel()
	ca := newKey(t)
	key := newKey(t).PublicKey()
	fresh := func() *ssh.Certificate {
		return &ssh.Certificate{Nonce: make([]byte, 32), Key: key, Serial: 7, CertType: ssh.UserCert, KeyId: deploymentID + "/2/5/" + runID,
			ValidPrincipals: []string{"deploy@" + hostID}, ValidAfter: uint64(issued.Add(-time.Minute).Unix() + 1), ValidBefore: uint64(issued.Add(5 * time.Minute).Unix()),
			Permissions: ssh.Permissions{CriticalOptions: map[string]string{"force-command": "/usr/local/bin/deploy sha256:ab", "source-address": "192.0.2.0/24"}, Extensions: map[string]string{}}}
	}
	check := func(c *ssh.Certificate) error {
		if err := c.SignCert(rand.Reader, ca); err != nil {
			t.Fatal(err)
		}
		if err := agentTemplate(key).CheckContent(c, issued); err != nil {
			return err
		}
		return certs.CheckUser(c, ca.PublicKey(), "deploy", hostID, issued)
	}
	if err := check(fresh()); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*ssh.Certificate){
		"terminal":           func(c *ssh.Certificate) { c.Extensions["permit-pty"] = "" },
		"port forwarding":    func(c *ssh.Certificate) { c.Extensions["permit-port-forwarding"] = "" },
		"agent forwarding":   func(c *ssh.Certificate) { c.Extensions["permit-agent-forwarding"] = "" },
		"user rc":            func(c *ssh.Certificate) { c.Extensions["permit-user-rc"] = "" },
		"no command":         func(c *ssh.Certificate) { delete(c.CriticalOptions, "force-command") },
		"another command":    func(c *ssh.Certificate) { c.CriticalOptions["force-command"] = "/bin/sh" },
		"an empty command":   func(c *ssh.Certificate) { c.CriticalOptions["force-command"] = "" },
		"from anywhere":      func(c *ssh.Certificate) { delete(c.CriticalOptions, "source-address") },
		"from elsewhere":     func(c *ssh.Certificate) { c.CriticalOptions["source-address"] = "0.0.0.0/0" },
		"a further option":   func(c *ssh.Certificate) { c.CriticalOptions["verify-required"] = "" },
		"a longer life":      func(c *ssh.Certificate) { c.ValidBefore += 3600 },
		"another batch":      func(c *ssh.Certificate) { c.KeyId = deploymentID + "/3/5/" + runID },
		"another epoch":      func(c *ssh.Certificate) { c.KeyId = deploymentID + "/2/4/" + runID },
		"an epoch with zero": func(c *ssh.Certificate) { c.KeyId = deploymentID + "/2/05/" + runID },
		"a person's key id":  func(c *ssh.Certificate) { c.KeyId = requestID + ":" + personID },
		"two principals":     func(c *ssh.Certificate) { c.ValidPrincipals = append(c.ValidPrincipals, "root@"+hostID) },
		"another login":      func(c *ssh.Certificate) { c.ValidPrincipals = []string{"root@" + hostID} },
		"a host's":           func(c *ssh.Certificate) { c.CertType = ssh.HostCert },
	} {
		c := fresh()
		change(c)
		if check(c) == nil {
			t.Errorf("%s: signed anew, it passes", name)
		}
	}
	// A person's certificate with a command passes for nobody's.
	person := issue(t, template(key), ca)
	person.CriticalOptions = map[string]string{"force-command": "id"}
	if err := person.SignCert(rand.Reader, ca); err != nil {
		t.Fatal(err)
	}
	if certs.CheckUser(person, ca.PublicKey(), "dba", hostID, issued) == nil {
		t.Error("a person's certificate with a command passes")
	}
}
