package main

import (
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	sshagent "golang.org/x/crypto/ssh/agent"

	"sallyport/api/hostapi"
	"sallyport/broker/certs"
	"sallyport/cmd/sally-host/internal/brokertest"
	"sallyport/cmd/sally-host/internal/session"
	"sallyport/internal/ids"
)

// deploying is a host that a deployment has opened.
type deploying struct {
	*watched
	deployment string
}

func deploy(t *testing.T) *deploying {
	t.Helper()
	return &deploying{watch(t, session.ByCgroup), ids.New(ids.Deployment)}
}

// agent is a certificate of the deployment that opens so many sessions; they end with the
// batch.
func (d *deploying) agent(command string, uses int, batch time.Duration) *ssh.Certificate {
	d.t.Helper()
	d.serial++
	now := time.Now()
	return d.log.CertifyAgent(certs.Agent{Serial: d.serial, Key: d.key.PublicKey(), Login: "dba", HostID: d.id, DeploymentID: d.deployment, Batch: 1,
		Epoch: 1, Run: ids.New(ids.Run), Command: command, SourceAddress: []string{"127.0.0.0/8"}, Now: now, Lifetime: 5 * time.Minute,
		Until: now.Add(5 * time.Minute)}, uses, now.Add(batch), d.ca)
}

// An agent runs the command of its certificate, whatever it asks for, and nothing else:
// no other command, no copying of files, no terminal, and no forwarding either way.
func TestAnAgentRunsItsCommandAlone(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	cert := d.agent("id -un", 1, time.Hour)
	client := d.open(cert)
	for _, command := range []string{"id -un", "cat /etc/shadow", "scp -t /tmp/taken", "/usr/lib/openssh/sftp-server", "sh -c 'touch /tmp/taken'"} {
		if out, err := d.run(client, command); err != nil || out != "dba\n" {
			t.Errorf("%s: %q, %v", command, out, err)
		}
	}
	sftp, err := client.NewSession()
	must(t, err)
	out, err := sftp.StdoutPipe()
	must(t, err)
	if err := sftp.RequestSubsystem("sftp"); err == nil {
		text := make([]byte, 64)
		if n, _ := out.Read(text); string(text[:n]) != "dba\n" {
			t.Errorf("sftp answers %q", text[:n])
		}
	}
	shell, err := client.NewSession()
	must(t, err)
	if shell.RequestPty("xterm", 24, 80, nil) == nil {
		t.Error("it has a terminal")
	}
	if sshagent.RequestAgentForwarding(shell) == nil {
		t.Error("it forwards an agent")
	}
	if c, err := client.Dial("tcp", d.Addr()); err == nil {
		c.Close()
		t.Error("it forwards a port")
	}
	if l, err := client.Listen("tcp", "127.0.0.1:0"); err == nil {
		l.Close()
		t.Error("it has the host listen")
	}
	if c, err := client.Dial("unix", "/run/dbus/system_bus_socket"); err == nil {
		c.Close()
		t.Error("it forwards a socket")
	}
	if l, err := client.ListenUnix("/tmp/taken"); err == nil {
		l.Close()
		t.Error("it has the host listen on a socket")
	}
	// A tunnel of layer 3, on any device (PROTOCOL of OpenSSH, section 2.3).
	if ch, _, err := client.OpenChannel("tun@openssh.com", ssh.Marshal(struct{ Mode, Unit uint32 }{1, 0x7fffffff})); err == nil {
		ch.Close()
		t.Error("it has a tunnel")
	}
	if ok, err := shell.SendRequest("x11-req", true, ssh.Marshal(struct {
		Single           bool
		Protocol, Cookie string
		Screen           uint32
	}{false, "MIT-MAGIC-COOKIE-1", strings.Repeat("0", 32), 0})); err != nil || ok {
		t.Error("it forwards X11")
	}
	if shell.Setenv("LD_PRELOAD", "/tmp/taken") == nil {
		t.Error("it sets the command's environment")
	}
	if _, err := os.Stat(d.Path("/tmp/taken")); err == nil {
		t.Error("another command ran")
	}
	if s := d.started(cert); s.Problem != "" || s.Serial != cert.Serial || s.KeyID != cert.KeyId {
		t.Errorf("its session is reported as %+v", s)
	}
}

// So many connections as the certificate opens, and no more, at whatever speed they come.
func TestAnAgentsUsesAreCounted(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	cert := d.agent("id -un", 2, time.Hour)
	const tries = 5
	done := make(chan bool, tries)
	for range tries {
		go func() {
			signer, err := ssh.NewCertSigner(cert, d.key)
			if err != nil {
				done <- false
				return
			}
			client, err := ssh.Dial("tcp", d.Addr(), &ssh.ClientConfig{User: "dba", Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)},
				HostKeyCallback: ssh.InsecureIgnoreHostKey(), Timeout: brokertest.Patience})
			if err != nil {
				done <- false
				return
			}
			defer client.Close()
			s, err := client.NewSession()
			if err != nil {
				done <- false
				return
			}
			out, err := s.Output("")
			done <- err == nil && strings.Contains(string(out), "dba")
		}()
	}
	in := 0
	for range tries {
		if <-done {
			in++
		}
	}
	if in != 2 {
		t.Errorf("%d came in, want 2\n%s", in, d.tail())
	}
}

// Sealing ends what an agent has open, however it holds on to it, and lets none of the
// certificates in that were issued before; one of a batch that is opened anew enters.
func TestSealingShutsAgentsOut(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	held := d.agent("setsid -f sleep 5551; exec sleep 5552", 1, time.Hour)
	unused := d.agent("id -un", 1, time.Hour)
	client := d.open(held)
	s, err := client.NewSession()
	must(t, err)
	must(t, s.Start(""))
	d.eventually("the programs", func() bool { return len(d.pids("sleep\x00555")) == 2 })
	d.started(held)
	d.broker.Seal(ids.New(ids.Deployment)) // another one
	number := d.broker.Seal(d.deployment)
	d.gone(client)
	if e := d.ended(held); e.Reason != hostapi.EndRevoked || e.Survived != 0 {
		t.Errorf("the end says %+v", e)
	}
	if left := d.pids("sleep\x00555"); len(left) > 0 {
		t.Errorf("%d programs go on", len(left))
	}
	d.refuses(unused, "dba", "sealed this host")
	settings, err := d.place.Read()
	must(t, err)
	key, err := settings.Key(d.place)
	must(t, err)
	brokertest.WaitFor(d.broker, hostapi.KindPosture, "a look at the host since it was sealed", func(r hostapi.PostureReport) bool {
		p, err := hostapi.VerifyPosture(r, key.PublicKey())
		return err == nil && p.List >= number && p.Ports != nil
	})
	d.opens(d.grant(nil), "dba") // a person
	if out, err := d.run(d.open(d.agent("id -un", 1, time.Hour)), ""); err != nil || out != "dba\n" {
		t.Errorf("of a batch that is opened anew: %q, %v", out, err)
	}
}

// Whatever happens to the broker, an agent's session is over when its batch is.
func TestAnAgentsSessionEndsWithItsBatch(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	cert := d.agent("exec sleep 6661", 1, 3*time.Second)
	client := d.open(cert)
	s, err := client.NewSession()
	must(t, err)
	must(t, s.Start(""))
	d.gone(client)
	if e := d.ended(cert); e.Reason != hostapi.EndTime {
		t.Errorf("the end says %+v", e)
	}
}

// sshd itself holds the certificate to its addresses.
func TestAnAgentEntersFromItsAddressesOnly(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	now := time.Now()
	cert := d.log.CertifyAgent(certs.Agent{Serial: 1, Key: d.key.PublicKey(), Login: "dba", HostID: d.id, DeploymentID: d.deployment, Batch: 1,
		Epoch: 1, Run: ids.New(ids.Run), Command: "id -un", SourceAddress: []string{"192.0.2.0/24"}, Now: now, Lifetime: time.Minute, Until: now.Add(time.Minute)},
		1, now.Add(time.Hour), d.ca)
	if _, err := d.dial(cert); err == nil {
		t.Errorf("it came in from elsewhere\n%s", d.tail())
	}
}
