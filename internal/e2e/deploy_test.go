package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/api"
)

// A pipeline deploys to a canary, three and six others with a script of its own: each
// host's service is another program afterwards, and each host is sealed and shows it before
// the next batch begins. The next artifact is not well: the canary, and no other host, is
// put back to what was verified last, and sealed. Then no agent can enter any more, though
// one has not let go; a person can whom somebody has let.
func TestADeployment(t *testing.T) {
	t.Parallel()
	s := newShop(t, 10, "{canary: {hosts: 1}, batches: [{hosts: 3}, {hosts: 6}], on_failure: rollback}", 1)
	s.runs(t, "first")
	held := t.TempDir()

	one, digest := s.build(t, "one", http.StatusOK)
	if code, said := s.pipeline(t, one, "HELD="+held); code != 0 {
		t.Fatalf("the pipeline ended with %d\n%s\n%s", code, said, s.facts(t))
	}
	s.runs(t, "one")
	good := s.newest(t)
	if good.State != "complete" || good.Digest != digest || len(good.Batches) != 3 {
		t.Errorf("the deployment is %+v", good)
	}
	for i, b := range good.Batches {
		if len(b.Hosts) != []int{1, 3, 6}[i] {
			t.Errorf("batch %d has %d hosts", b.Number, len(b.Hosts))
		}
		for _, host := range b.Hosts {
			if host.State != "sealed" || host.Result != "ok" {
				t.Errorf("%s is %s, %s", host.Name, host.State, host.Result)
			}
			s.is(t, host.Name, api.HostSealed)
		}
	}
	if _, err := os.Stat(filepath.Join(held, "in")); err != nil {
		t.Errorf("the agent that would not leave was never in: %v", err)
	}
	eventually(t, "end of the connection that the agent would not leave", func() bool {
		_, err := os.Stat(filepath.Join(held, "out"))
		return err == nil
	})

	two, broken := s.build(t, "two", http.StatusServiceUnavailable)
	code, said := s.pipeline(t, two, "HELD=")
	bad := s.newest(t)
	if code != 1 || bad.State != "rolled_back" || bad.Digest != broken || bad.Previous != digest {
		t.Fatalf("the pipeline ended with %d\n%s\n%+v\n%s", code, said, bad, s.facts(t))
	}
	s.runs(t, "one")
	if b := bad.Batches; len(b) != 4 || b[0].State != "failed" || b[0].Gates[0].Verdict != "fail" || b[1].State != "pending" || b[2].State != "pending" ||
		!b[3].Rollback || len(b[3].Hosts) != 1 || b[3].Hosts[0].ID != b[0].Hosts[0].ID || b[3].Hosts[0].State != "sealed" {
		t.Errorf("its batches are %+v", b)
	}
	canary := bad.Batches[0].Hosts[0].Name
	if _, err := s.hosts[canary].Command(t.Context(), "test", "-e", "/srv/shop/"+broken).Output(); err != nil {
		t.Errorf("the canary never had the other artifact: %v", err)
	}
	for _, name := range s.names {
		if _, err := s.hosts[name].Command(t.Context(), "test", "-e", "/srv/shop/"+broken).Output(); err == nil && name != canary {
			t.Errorf("%s was deployed to", name)
		}
		s.is(t, name, api.HostSealed)
	}

	// Another job of the same pipeline, which may open deployments, and has no batch open.
	j := s.open(t, broken)
	j.refused(good.ID, 1, canary, http.StatusConflict, "deployment-over")
	j.refused(bad.ID, 4, canary, http.StatusConflict, "deployment-over")
	j.refused(j.id, 1, canary, http.StatusConflict, "batch-not-open")
	j.send("POST", "/"+j.id+"/abort", api.EndInput{Epoch: j.epoch}, nil, http.StatusOK)

	erin := s.signIn(engineer)
	var r api.Request
	erin.call(http.MethodPost, "/requests", api.RequestInput{Host: canary, Login: "admin", Reason: "the canary failed"}, &r, http.StatusCreated)
	s.signIn(approver).call(http.MethodPost, "/requests/"+r.ID+"/decisions", api.DecisionInput{Verdict: api.Approve}, nil, http.StatusOK)
	c := s.come(t, erin, r)
	s.is(t, canary, api.HostOpen)
	c.Close()
	erin.call(http.MethodPost, "/requests/"+r.ID+"/finish", struct{}{}, nil, http.StatusOK)
	s.is(t, canary, api.HostUnknown)
	s.is(t, canary, api.HostSealed)

	// The deployment that was on the host last shows who came to it since: neither the one
	// before it, nor one that ended before it opened a host.
	watcher := s.signIn(operator)
	shown := func(id string) (d api.Deployment) {
		t.Helper()
		watcher.call(http.MethodGet, "/deployments/"+id, nil, &d, http.StatusOK)
		return d
	}
	if v := shown(bad.ID).Visits; len(v) != 1 || v[0].Host != canary || v[0].RequestID != r.ID || v[0].Login != "admin" || v[0].EndedAt == nil {
		t.Errorf("who came since: %+v", v)
	}
	for _, id := range []string{good.ID, j.id} {
		if v := shown(id).Visits; len(v) != 0 {
			t.Errorf("who came since %s: %+v", id, v)
		}
	}

	rows, hosts := s.deployed(t)
	if len(rows) != 3 || rows[good.ID]["result"] != "complete" || rows[good.ID]["tests"] == "" || rows[bad.ID]["result"] != "rolled_back" || rows[j.id]["result"] != "aborted" {
		t.Errorf("the evidence of the deployments: %v", rows)
	}
	if len(hosts) != 10+2 { // all with the first artifact; the canary with the second, and back
		t.Errorf("the evidence of %d hosts: %v", len(hosts), hosts)
	}
	for _, host := range hosts {
		if host["state"] != "sealed" || host["certificates"] == "" || host["sessions"] == "" {
			t.Errorf("the evidence of a host: %v", host)
		}
	}
}

// An agent that has a key and a certificate, and whatever programs it likes, runs what the
// policy has on the one host, as often as that says, while the batch is open, and gets
// nothing else.
func TestAnAgentHasNoOtherWay(t *testing.T) {
	t.Parallel()
	s := newShop(t, 2, "{canary: {hosts: 1}, batches: [{hosts: 1}], on_failure: abort}", 2)
	artifact, digest := s.build(t, "one", http.StatusOK)
	j := s.open(t, digest)
	mine := j.batch(1)[0]
	other := s.names[0]
	if other == mine {
		other = s.names[1]
	}
	j.refused(j.id, 1, other, http.StatusForbidden, "host-of-another-batch")
	j.refused(j.id, 2, other, http.StatusConflict, "batch-not-open")
	_, used := j.certify(1, mine)
	if _, err := dial(s.hosts[other], "deploy", used); err == nil {
		t.Error("the certificate opens another host")
	}
	for _, login := range []string{"admin", "root"} {
		if _, err := dial(s.hosts[mine], login, used); err == nil {
			t.Errorf("the certificate opens the host for %s", login)
		}
	}

	// A connection that deploys, whatever it asks for, and stays. It has no terminal, and
	// leads nowhere.
	c, err := dial(s.hosts[mine], "deploy", used)
	if err != nil {
		t.Fatalf("%v\n%s", err, s.hosts[mine].Log())
	}
	defer c.Close()
	shell, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if shell.RequestPty("xterm", 24, 80, nil) == nil {
		t.Error("it has a terminal")
	}
	if to, err := c.Dial("tcp", s.serves[mine]); err == nil {
		to.Close()
		t.Error("it forwards to the service")
	}
	if l, err := c.Listen("tcp", "127.0.0.1:0"); err == nil {
		l.Close()
		t.Error("it has the host listen")
	}
	file, err := os.Open(artifact)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	shell.Stdin = file
	if out, err := shell.CombinedOutput("rm -rf /srv/shop"); err != nil {
		t.Fatalf("deploying: %v\n%s", err, out)
	}

	// Nor do the programs that people have get anything else of the host.
	taken := filepath.Join(t.TempDir(), "taken")
	for _, args := range [][]string{{"ssh", "host", "cat /etc/passwd"}, {"ssh", "-tt", "host", "cat /etc/passwd"}, {"ssh", "-s", "host", "sftp"},
		{"scp", "host:/etc/passwd", taken}, {"scp", "-O", "host:/etc/passwd", taken}, {"sftp", "host:/etc/passwd", taken},
		{"scp", artifact, "host:/tmp/taken"}, {"scp", "-O", artifact, "host:/tmp/taken"}} {
		if out, err := j.openssh(1, mine, args[0], args[1:]...); strings.Contains(out, "root:") || len(args) == 3 && args[1] == "host" && err != nil {
			t.Errorf("%q: %v\n%s", args, err, out)
		}
	}
	if _, err := os.Stat(taken); err == nil {
		t.Error("a file of the host was copied")
	}
	if err := s.hosts[mine].Command(t.Context(), "test", "-e", "/tmp/taken").Run(); err == nil {
		t.Error("a file was copied to the host")
	}

	// So many connections, and no more: one of the two is still open.
	if !s.works(mine, used) {
		t.Errorf("the certificate opens the host only once\n%s", s.hosts[mine].Log())
	}
	if s.works(mine, used) {
		t.Error("the certificate opens the host a third time")
	}

	_, unused := j.certify(1, mine)
	j.report(1, "ok", mine)
	gone(t, c)
	j.until("the canary to be sealed", func(d api.Deployment) bool { return d.Batches[0].State == "passed" })
	j.refused(j.id, 1, mine, http.StatusConflict, "batch-not-open")
	if s.works(mine, unused) {
		t.Error("a certificate that was never used opens the sealed host")
	}
	j.send("POST", "/"+j.id+"/abort", api.EndInput{Epoch: j.epoch}, nil, http.StatusOK)
	j.until("the end", func(d api.Deployment) bool { return d.State == "aborted" })
	j.refused(j.id, 2, other, http.StatusConflict, "deployment-over")
	for _, key := range []ssh.Signer{used, unused} {
		if s.works(mine, key) {
			t.Error("a certificate opens the host after the end")
		}
	}
	for _, name := range s.names {
		s.is(t, name, api.HostSealed)
	}
}

// works reports whether the key opens a connection that a command runs over: who is let in
// by sshd may yet be turned away by the door.
func (s *shop) works(host string, key ssh.Signer) bool {
	c, err := dial(s.hosts[host], "deploy", key)
	if err != nil {
		return false
	}
	defer c.Close()
	shell, err := c.NewSession()
	if err != nil {
		return false
	}
	return shell.Run("") == nil
}

// gone waits for the end of a connection.
func gone(t testing.TB, c *ssh.Client) {
	t.Helper()
	ended := make(chan struct{})
	go func() {
		_ = c.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Fatal("the connection goes on")
	}
}
