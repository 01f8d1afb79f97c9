package main

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"sallyport/api/hostapi"
	"sallyport/cmd/sally-host/internal/brokertest"
	"sallyport/cmd/sally-host/internal/session"
)

// postures are what the broker was told, each verified by the host's key.
func (w *watched) postures() []hostapi.Posture {
	w.t.Helper()
	s, err := w.place.Read()
	must(w.t, err)
	key, err := s.Key(w.place)
	must(w.t, err)
	var all []hostapi.Posture
	for _, r := range w.broker.Reports() {
		if r.Kind != hostapi.KindPosture {
			continue
		}
		var d hostapi.PostureReport
		must(w.t, json.Unmarshal(r.Data, &d))
		p, err := hostapi.VerifyPosture(d, key.PublicKey())
		must(w.t, err)
		if p.Number != r.Seq || p.BootID != r.BootID || p.HostID != w.id {
			w.t.Errorf("report %d of boot %s is posture %d of %s on %s", r.Seq, r.BootID, p.Number, p.BootID, p.HostID)
		}
		all = append(all, p)
	}
	return all
}

func checkOf(p hostapi.Posture, id string) hostapi.Check {
	i := slices.IndexFunc(p.Checks, func(c hostapi.Check) bool { return c.ID == id })
	if i < 0 {
		return hostapi.Check{}
	}
	return p.Checks[i]
}

// waitCheck waits until the last posture says this of a check.
func (w *watched) waitCheck(id string, result hostapi.Result, finding string) hostapi.Posture {
	w.t.Helper()
	var p hostapi.Posture
	w.broker.Wait(id+" to be "+string(result)+": "+finding, func() bool {
		all := w.postures()
		if len(all) == 0 {
			return false
		}
		p = all[len(all)-1]
		c := checkOf(p, id)
		return c.Result == result && strings.Contains(strings.Join(c.Findings, "\n"), finding)
	})
	return p
}

// The first posture of a host that is as enrolment left it. What the machine that plays
// the host has running on its network is the machine's.
func TestPostureOfAGuardedHost(t *testing.T) {
	t.Parallel()
	w := watch(t, session.ByCgroup)
	w.waitCheck("clock", hostapi.Pass, "")
	p := w.postures()[0]
	for _, id := range hostapi.Checks {
		if c := checkOf(p, id); c.Result != hostapi.Pass && id != "listening" && id != "reopeners" {
			t.Errorf("%s is %q: %q", id, c.Result, c.Findings)
		}
	}
	if c := checkOf(p, "isolation"); c.Result != hostapi.Pass || len(c.Findings) > 0 {
		t.Errorf("isolation is %q: %q", c.Result, c.Findings)
	}
	out, err := w.Command(t.Context(), "/usr/lib/sallyport/sally-host", "posture").Output()
	if !strings.Contains(string(out), "pass     sshd") {
		t.Errorf("by hand: %v\n%s", err, out)
	}
}

// A person leaves a key, a password, an account and a job behind. Their session's end has
// the host looked at, and all of it is found.
func TestAKeyPlantedDuringASessionIsFound(t *testing.T) {
	t.Parallel()
	w := watch(t, session.ByCgroup)
	w.waitCheck("keys", hostapi.Pass, "")
	cert := w.grant(nil)
	client := w.open(cert)
	if out, err := w.run(client, "mkdir -p ~/.ssh && echo ssh-ed25519 AAAA >> ~/.ssh/authorized_keys"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, file := range []struct{ name, text string }{ // and a root who is none of ours
		{"/etc/shadow", "eve:$6$abc$def:20000:0:99999:7:::\n"}, {"/etc/passwd", "eve:x:0:0::/root:/bin/bash\n"},
	} {
		f, err := os.OpenFile(w.Path(file.name), os.O_APPEND|os.O_WRONLY, 0)
		must(t, err)
		_, err = f.WriteString(file.text)
		must(t, err)
		must(t, f.Close())
	}
	must(t, os.MkdirAll(w.Path("/var/spool/cron/crontabs"), 0o755))
	must(t, os.WriteFile(w.Path("/var/spool/cron/crontabs/dba"), []byte("* * * * * id\n"), 0o600))
	client.Close()
	w.ended(cert)
	w.waitCheck("keys", hostapi.Fail, "there is /home/dba/.ssh/authorized_keys")
	w.waitCheck("passwords", hostapi.Fail, "eve has a password")
	w.waitCheck("root", hostapi.Fail, "eve has the number of root")
	w.waitCheck("reopeners", hostapi.Fail, "/var/spool/cron/crontabs/dba")
	w.waitCheck("sessions", hostapi.Pass, "")
}

// A Match block for one login and address is found, and what cannot be found out is no
// pass.
func TestAMatchBlockAndABrokenCollector(t *testing.T) {
	t.Parallel()
	w := watch(t, session.BySession)
	w.waitCheck("sshd", hostapi.Pass, "")
	f, err := os.OpenFile(w.Path("/etc/ssh/sshd_config"), os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteString("Match User dba Address 198.51.100.7\n  AuthorizedKeysFile .ssh/more\n")
	must(t, err)
	must(t, f.Close())
	must(t, os.WriteFile(w.Path("/etc/nsswitch.conf"), []byte("passwd: files ldap\n"), 0o644))
	client := w.open(w.grant(nil))
	client.Close()
	w.waitCheck("sshd", hostapi.Unknown, "accounts come from ldap")
	w.waitCheck("passwords", hostapi.Unknown, "accounts come from ldap")
	must(t, os.Remove(w.Path("/etc/nsswitch.conf")))
	client = w.open(w.grant(nil))
	client.Close()
	w.waitCheck("sshd", hostapi.Fail, `authorizedkeysfile is ".ssh/more", not "none", for dba from 198.51.100.7`)
	w.waitCheck("running", hostapi.Fail, "sshd has not read /etc/ssh/sshd_config since it was changed")
	w.waitCheck("isolation", hostapi.Pass, "there is no cgroup v2")
}

// Somebody who says they are a login of the host's, and has not been let in, is no session:
// anybody can do that, and the broker's look from outside does.
func TestWhoIsNotLetInIsNoSession(t *testing.T) {
	t.Parallel()
	w := watch(t, session.ByCgroup)
	asked, let := make(chan struct{}), make(chan struct{})
	over := make(chan struct{})
	go func() {
		defer close(over)
		c, err := ssh.Dial("tcp", w.Addr(), &ssh.ClientConfig{User: "dba", HostKeyCallback: ssh.InsecureIgnoreHostKey(), Timeout: brokertest.Patience,
			Auth: []ssh.AuthMethod{ssh.PublicKeysCallback(func() ([]ssh.Signer, error) { close(asked); <-let; return nil, nil })}})
		if err == nil {
			c.Close()
		}
	}()
	t.Cleanup(func() { <-over })
	t.Cleanup(func() { close(let) })
	select {
	case <-asked:
	case <-over:
		t.Fatalf("sshd does not ask\n%s", w.tail())
	}
	if titles, err := w.Command(t.Context(), "ps", "-eo", "args").Output(); err != nil || !strings.Contains(string(titles), "dba [priv]") {
		t.Fatalf("sshd's title does not say who it might be: %v\n%s", err, titles)
	}
	out, err := w.Command(t.Context(), "/usr/lib/sallyport/sally-host", "posture").Output()
	if !strings.Contains(string(out), "pass     sessions") {
		t.Errorf("by hand: %v\n%s", err, out)
	}
}
