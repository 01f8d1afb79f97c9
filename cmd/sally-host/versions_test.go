package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/api/hostapi"
	cast "sallyport/audit/recording"
	"sallyport/broker/certs"
	"sallyport/cmd/sally-host/internal/session"
	"sallyport/internal/certtest"
	"sallyport/internal/ids"
	"sallyport/internal/sshd"
)

// release is one of Debian with an OpenSSH that is not this machine's. docs/hosts.md
// names them all.
type release struct {
	debian  int
	openssh string
	// penalties says that it shuts out addresses that are refused too often.
	penalties bool
}

var releases = []release{
	{debian: 11, openssh: "8.4p1"},
	{debian: 13, openssh: "10.0p2", penalties: true},
}

// onEach runs a test on each release. Whatever sshd a host has, it is looked at that it is
// that one.
func onEach(t *testing.T, f func(t *testing.T, r release, system string)) {
	for _, r := range releases {
		t.Run("OpenSSH "+r.openssh, func(t *testing.T) {
			t.Parallel()
			system, err := sshd.Debian(r.debian)
			must(t, err)
			f(t, r, system)
		})
	}
}

// is fails unless the host's sshd is of the release.
func (r release) is(g *guarded) {
	g.t.Helper()
	out, _ := g.Command(g.t.Context(), "/usr/sbin/sshd", "-V").CombinedOutput() // before 9.2 it is a usage
	if !strings.Contains(string(out), fmt.Sprintf("OpenSSH_%s Debian", r.openssh)) {
		g.t.Fatalf("this is not OpenSSH %s of Debian: %s", r.openssh, out)
	}
}

func TestOtherVersionsOpenWhatIsLoggedAndNothingElse(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, r release, system string) {
		settings := asks
		if r.penalties { // this one is refused again and again
			settings += "PerSourcePenaltyExemptList 127.0.0.0/8\n"
		}
		g := guardOn(t, system, settings)
		r.is(g)
		cert := g.issue(nil)
		g.opens(cert, "dba")
		g.opens(g.issue(func(u *certs.User) { u.Login = "root" }), "root")
		stolen := func(change func(*ssh.Certificate)) *ssh.Certificate {
			return certtest.Resign(t, g.issue(nil), g.ca, change)
		}
		for _, c := range []struct {
			login, why string
			cert       *ssh.Certificate
		}{
			{"dba", "(no-receipt)", stolen(func(c *ssh.Certificate) { delete(c.Extensions, receiptOfTests) })},
			{"root", "(not-included)", stolen(func(c *ssh.Certificate) { c.ValidPrincipals = []string{"root@" + g.id} })},
			{"dba", "(not-included)", stolen(func(c *ssh.Certificate) { c.ValidPrincipals = append(c.ValidPrincipals, "root@"+g.id) })},
			{"dba", "(not-included)", stolen(func(c *ssh.Certificate) { c.KeyId = strings.Repeat("A\x1b[2J\n", 1667) })},
			{"dba", "(bad-checkpoint)", certtest.NewLog(t, "sallyport.example.com/log").Certify(g.terms(), g.ca)},
			{"dba", "not-here", g.issue(func(u *certs.User) { u.HostID = ids.New(ids.Host) })},
			{"root", "not-here", cert},
			{"dba", "not-here", g.issue(func(u *certs.User) { u.Now = u.Now.Add(-10 * time.Minute) })},
			{"dba", "", g.log.Certify(g.terms(), newSigner(t))}, // of another CA: sshd does not ask
		} {
			g.refuses(c.cert, c.login, c.why)
		}
		g.list = hostapi.Revocations{Number: 1, Serials: []hostapi.RevokedSerial{{Serial: cert.Serial, Until: time.Now().Add(time.Hour)}}}
		g.hear(time.Now())
		g.refuses(cert, "dba", "certificate 42 was revoked")
		g.opens(g.issue(func(u *certs.User) { u.Serial = 43 }), "dba")
	})
}

// Without the helper, in the way of docs/hosts.md, there is no other way in either.
func TestOtherVersionsNeedNoHelper(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, r release, system string) {
		g := guardOn(t, system, "")
		must(t, os.RemoveAll(g.Path("/usr/lib/sallyport")))
		g.opens(g.issue(nil), "dba")
		g.refuses(g.issue(func(u *certs.User) { u.HostID = ids.New(ids.Host) }), "dba", "authorized principal")
		out, err := g.Command(t.Context(), "/usr/sbin/sshd", "-T", "-C", "user=dba,host=x,addr=192.0.2.1").CombinedOutput()
		for _, closed := range []string{"kbdinteractiveauthentication no\n", "passwordauthentication no\n", "authorizedkeysfile none\n", "authenticationmethods publickey\n"} {
			if err != nil || !strings.Contains(string(out), closed) {
				t.Errorf("%v: sshd does not say %q:\n%s", err, closed, out)
			}
		}
	})
}

// stockOf is a host with sshd_config and PAM as the release brings them.
func stockOf(t *testing.T, system string) *joining {
	t.Helper()
	j := joinOn(t, system, read(t, filepath.Join(system, "/usr/share/openssh/sshd_config")))
	must(t, os.WriteFile(j.Path("/etc/pam.d/sshd"), []byte(read(t, filepath.Join(system, "/etc/pam.d/sshd"))), 0o644))
	j.byKey("root")
	return j
}

func TestOtherVersionsEnroll(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, r release, system string) {
		j := stockOf(t, system)
		r.is(j.guarded)
		before := j.files()
		j.enroll("--token", j.token, "--keep-other-access")
		j.byKey("root")
		j.opens(j.issue(nil), "dba")
		j.enroll()
		after := j.files()
		j.notByKey("root")
		j.notByKey("dba")
		j.opens(j.issue(nil), "dba")
		j.opens(j.issue(func(u *certs.User) { u.Login = "root" }), "root")
		j.refuses(j.issue(func(u *certs.User) { u.HostID = ids.New(ids.Host) }), "dba", "not-here")
		if told := j.asked[0].Facts.OpenSSH; !strings.HasPrefix("OpenSSH_"+r.openssh, told+"p") {
			t.Errorf("the broker was told of %s", told)
		}
		posture, _ := j.Command(t.Context(), "/usr/lib/sallyport/sally-host", "posture").Output()
		for _, says := range []string{"pass     sshd\n", "pass     running\n", "there is /root/.ssh/authorized_keys"} {
			if !strings.Contains(string(posture), says) {
				t.Errorf("the posture does not say %q:\n%s", says, posture)
			}
		}
		if r.penalties {
			// This address is shut out: the enrolment, which has a certificate refused from
			// there, is not stuck, and has sshd forget it.
			wait(t, "the address to be shut out", func() bool {
				j.notByKey("root")
				return strings.Contains(j.Log(), "penalty: failed authentication")
			})
		}
		if again := j.enroll(); !maps.Equal(after, j.files()) {
			t.Errorf("enrolling again changed files:\n%s", again)
		}
		j.opens(j.issue(nil), "dba")
		if out, code := j.run("unenroll"); code != exitDone {
			t.Fatalf("unenroll ended with %d\n%s", code, out)
		}
		if now := j.files(); !maps.Equal(before, now) {
			t.Errorf("unenrolling left %v, before it was %v", now, before)
		}
		wait(t, "the administrator's key opens again", func() bool { return j.asAdmin("root") == nil && j.asAdmin("dba") == nil })
	})
}

// Sessions are seen to open and close; and a revocation ends one with all that hid, while
// others come in at once.
func TestOtherVersionsReportAndEndSessions(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, r release, system string) {
		for _, isolation := range []string{session.ByCgroup, session.BySession} {
			t.Run(isolation, func(t *testing.T) {
				t.Parallel()
				w := watchOn(t, system, isolation, asks)
				r.is(w.guarded)
				cert := w.grant(nil)
				client := w.open(cert)
				s := w.started(cert)
				if s.Isolation != isolation || s.Login != "dba" || s.Peer != "127.0.0.1" || s.KeyID != cert.KeyId || s.Problem != "" {
					t.Errorf("the start says %+v", s)
				}
				client.Close()
				if e := w.ended(cert); e.Reason != hostapi.EndClosed || e.Killed != 0 || e.Survived != 0 {
					t.Errorf("the end says %+v", e)
				}

				cert = w.grant(nil)
				client = w.open(cert)
				_, err := w.run(client, "nohup sleep 7771 >/dev/null 2>&1 & setsid -f sleep 7772 >/dev/null 2>&1; (trap '' TERM HUP; setsid -f sh -c 'trap \"\" TERM HUP; while :; do sleep 7773; done' >/dev/null 2>&1)")
				must(t, err)
				shell, err := client.NewSession()
				must(t, err)
				must(t, shell.RequestPty("xterm", 24, 80, nil))
				screen, err := shell.StdoutPipe()
				must(t, err)
				must(t, shell.Start("exec sleep 7774"))
				w.eventually("the programs", func() bool { return len(w.pids("sleep\x00777")) == 4 })
				w.broker.End(request(cert), hostapi.EndRevoked)
				w.gone(client)
				if seen, _ := io.ReadAll(screen); !strings.Contains(string(seen), "this session ends now: access was revoked") {
					t.Errorf("the terminal said %q", seen)
				}
				if e := w.ended(cert); e.Reason != hostapi.EndRevoked || e.Killed < 5 || e.Survived != 0 || len(w.pids("sleep\x00777")) > 0 {
					t.Errorf("the end says %+v", e)
				}
				w.opens(w.grant(nil), "dba")
				w.eventually("sshd's processes for it to end", func() bool { return len(w.pids("sshd: dba"))+len(w.pids("sshd-session")) == 0 })
			})
		}
	})
}

// What goes on at a terminal is recorded for the auditor, and so is a command without one.
func TestOtherVersionsRecord(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, r release, system string) {
		f := filmOn(t, system, session.ByCgroup)
		r.is(f.guarded)
		cert := f.certificate()
		client := f.open(cert)
		s, in, out := f.shell(client, "")
		f.shows(out, "dba@db-1:~$ ")
		_, err := io.WriteString(in, "echo at-$((6*7)); exit\n")
		must(t, err)
		must(t, s.Wait())
		if said, err := f.run(client, "echo second"); err != nil || said != "second\n" {
			t.Errorf("%q, %v", said, err)
		}
		for number, want := range []string{"at-42\r\n", "second\n"} {
			if _, _, events := f.recorded(cert, number+1); !strings.Contains(seen(events, cast.Output), want) {
				t.Errorf("the auditor does not see %q in %+v", want, events)
			}
		}
		client.Close()
		if e := f.ended(cert); e.Reason != hostapi.EndClosed {
			t.Errorf("the end says %+v", e)
		}
	})
}
