package main

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"sallyport/api/hostapi"
	"sallyport/audit/event"
	"sallyport/broker/certs"
	"sallyport/cmd/sally-host/internal/brokertest"
	"sallyport/cmd/sally-host/internal/session"
)

// onAll is onEach with this machine's release, too.
func onAll(t *testing.T, f func(t *testing.T, system string)) {
	t.Run("OpenSSH of this machine", func(t *testing.T) {
		t.Parallel()
		f(t, "")
	})
	onEach(t, func(t *testing.T, _ release, system string) { f(t, system) })
}

// look is a posture that is made now.
func (w *watched) look() (p hostapi.Posture) {
	w.t.Helper()
	out, _ := w.Command(w.t.Context(), "/usr/lib/sallyport/sally-host", "posture", "--json").Output() // its code says what it found
	if err := json.Unmarshal(out, &p); err != nil {
		w.t.Fatalf("%v: %s", err, out)
	}
	return p
}

// fill has root and dba each in the host with a connection for everything that one can be
// used for: sshd's processes have a title of another form in each. It returns how many.
func (w *watched) fill() (connections int) {
	w.t.Helper()
	run := func(command string, terminals int) func(*ssh.Client) {
		return func(c *ssh.Client) {
			for range max(1, terminals) {
				s, err := c.NewSession()
				must(w.t, err)
				if terminals > 0 {
					must(w.t, s.RequestPty("xterm", 24, 80, nil))
				}
				must(w.t, s.Start(command))
			}
		}
	}
	for _, login := range []string{"root", "dba"} {
		for _, use := range []func(*ssh.Client){
			func(*ssh.Client) {}, // as for forwarding
			run("exec sleep 7001", 0), run("exec sleep 7001", 1), run("exec sleep 7001", 2),
			func(c *ssh.Client) {
				s, err := c.NewSession()
				must(w.t, err)
				must(w.t, s.Run("true"))
			},
			func(c *ssh.Client) {
				s, err := c.NewSession()
				must(w.t, err)
				must(w.t, s.RequestSubsystem("sftp"))
			},
		} {
			signer, err := ssh.NewCertSigner(w.grant(func(u *certs.User, _ *event.CertificateIssued) { u.Login = login }), w.key)
			must(w.t, err)
			client, err := ssh.Dial("tcp", w.Addr(), &ssh.ClientConfig{User: login, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)},
				HostKeyCallback: ssh.InsecureIgnoreHostKey(), Timeout: brokertest.Patience})
			if err != nil {
				w.t.Fatalf("%v\n%s", err, w.tail())
			}
			w.t.Cleanup(func() { client.Close() })
			use(client)
			connections++
		}
	}
	return connections
}

// Whatever somebody does in a connection that PAM did not report, and whoever they are, the
// posture counts it, once.
func TestASessionThatPAMDidNotReportIsFound(t *testing.T) {
	t.Parallel()
	onAll(t, func(t *testing.T, system string) {
		for how, settings := range map[string]string{"without PAM": asks + "UsePAM no\n", "without the hook": asks} {
			t.Run(how, func(t *testing.T) {
				t.Parallel()
				w := watchOn(t, system, session.BySession, settings+"Subsystem sftp internal-sftp\n")
				pam := w.Path("/etc/pam.d/sshd")
				must(t, os.WriteFile(pam, []byte(strings.Replace(read(t, pam), pamLine, "", 1)), 0o644))
				n := w.fill()
				p := w.look()
				if c := checkOf(p, "sessions"); p.Sessions != n || c.Result != hostapi.Fail ||
					!slices.Equal(c.Findings, []string{"a session of dba that PAM did not report", "a session of root that PAM did not report"}) {
					titles, _ := w.Command(t.Context(), "ps", "-eo", "pid,ppid,comm,args").Output()
					t.Errorf("of %d sessions it counts %d: %q\n%s", n, p.Sessions, c.Findings, titles)
				}
			})
		}
	})
}

// What PAM reported is not counted as what it did not.
func TestASessionThatPAMReportedIsCountedOnce(t *testing.T) {
	t.Parallel()
	onAll(t, func(t *testing.T, system string) {
		w := watchOn(t, system, session.BySession, asks+"Subsystem sftp internal-sftp\n")
		n := w.fill()
		p := w.look()
		if c := checkOf(p, "sessions"); p.Sessions != n || len(c.Findings) != n || slices.ContainsFunc(c.Findings, func(f string) bool { return !strings.Contains(f, "by certificate") }) {
			t.Errorf("of %d sessions it counts %d: %q", n, p.Sessions, c.Findings)
		}
	})
}
