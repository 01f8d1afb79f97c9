package main

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/api/hostapi"
	"sallyport/audit/event"
	"sallyport/broker/certs"
	"sallyport/cmd/sally-host/internal/brokertest"
	"sallyport/cmd/sally-host/internal/session"
	"sallyport/cmd/sally-host/internal/spool"
	"sallyport/internal/certtest"
)

// A connection that others are multiplexed over (ControlMaster) ends with all of them.
func TestControlMasterEndsWithAllOverIt(t *testing.T) {
	t.Parallel()
	w := watch(t, session.BySession)
	cert := w.grant(nil)
	master := w.open(cert)
	for range 3 {
		over, err := master.NewSession()
		must(t, err)
		must(t, over.Start("exec sleep 5551"))
	}
	w.eventually("the programs", func() bool { return len(w.pids("sleep\x005551")) == 3 })
	w.broker.End(request(cert), hostapi.EndRevoked)
	w.gone(master)
	if e := w.ended(cert); e.Killed < 3 || e.Survived != 0 || len(w.pids("sleep\x005551")) > 0 {
		t.Errorf("the end says %+v", e)
	}
	if starts := brokertest.Of(w.broker, hostapi.KindSessionStarted, func(s hostapi.SessionStarted) bool { return true }); len(starts) != 1 {
		t.Errorf("%d starts", len(starts))
	}
	if _, err := w.dial(cert); err == nil {
		t.Error("the revoked certificate opens the host again")
	}
}

// Lists that were good once, and lists of somebody else, change nothing.
func TestReplayedAndForgedRevocationsChangeNothing(t *testing.T) {
	t.Parallel()
	w := watch(t, session.ByCgroup)
	cert := w.grant(nil)
	before := w.broker.Note(0)
	w.broker.Revoke(cert.Serial, request(cert))
	number := func() (uint64, int) {
		_, list, err := w.place.ReadRevocations(w.log.Key)
		must(t, err)
		return list.Number, len(list.Serials)
	}
	w.eventually("the revocation", func() bool { n, serials := number(); return n == 1 && serials == 1 })
	other := brokertest.Start(t, certtest.NewLog(t, "sallyport.example.com/log"), w.id, w.key.PublicKey(), time.Now) // its log has the same name
	for what, c := range map[string]struct {
		note []byte
		says string
	}{
		"an older list": {before, "not newer"}, "another key's": {other.Note(0), "not signed by its log"},
		"no note": {[]byte("{}"), "not signed by its log"},
	} {
		at := len(w.Host.Log())
		w.broker.Replay(c.note)
		w.eventually(what+" to be refused", func() bool { return strings.Contains(w.Host.Log()[at:], c.says) })
		if n, serials := number(); n != 1 || serials != 1 {
			t.Errorf("after %s the list is %d with %d", what, n, serials)
		}
		w.broker.Replay(nil)
		w.eventually("the broker to be heard again", func() bool { return strings.Contains(w.Host.Log()[at:], "hearing from the broker: all is well again") })
	}
	w.refuses(cert, "dba", "(revoked)")
	brokertest.WaitFor(w.broker, hostapi.KindAlarm, "the alarm", func(a hostapi.Alarm) bool { return a.Code == "revocations-refused" })
}

// Root starts sshd anew by hand, in a session. When that ends, the new sshd stays, and so
// do those who came in by it: or else nobody could come in any more.
func TestAnSSHDThatWasStartedInASessionStays(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *watched) {
		root := w.grant(func(u *certs.User, _ *event.CertificateIssued) { u.Login = "root" })
		signer, err := ssh.NewCertSigner(root, w.key)
		must(t, err)
		client, err := ssh.Dial("tcp", w.Addr(), &ssh.ClientConfig{User: "root", Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.InsecureIgnoreHostKey()})
		must(t, err)
		t.Cleanup(func() { client.Close() })
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		other := l.Addr().String()
		l.Close()
		_, port, _ := net.SplitHostPort(other)
		if out, err := w.run(client, "sleep 9991 >/dev/null 2>&1 & /usr/sbin/sshd -o PidFile=none -o Port="+port+" -o ListenAddress="+other+" >/dev/null 2>&1"); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		w.eventually("the second sshd", func() bool { return reachable(other) })
		cert := w.grant(nil)
		theirs, err := ssh.NewCertSigner(cert, w.key)
		must(t, err)
		stays, err := ssh.Dial("tcp", other, &ssh.ClientConfig{User: "dba", Auth: []ssh.AuthMethod{ssh.PublicKeys(theirs)}, HostKeyCallback: ssh.InsecureIgnoreHostKey()})
		must(t, err)
		t.Cleanup(func() { stays.Close() })
		w.started(cert)
		w.broker.End(request(root), hostapi.EndRevoked)
		if e := w.ended(root); e.Survived != 0 {
			t.Errorf("the end says %+v", e)
		}
		w.gone(client)
		if left := w.pids("sleep\x009991"); len(left) > 0 {
			t.Errorf("%d programs go on", len(left))
		}
		if out, err := w.run(stays, "echo here"); err != nil || out != "here\n" {
			t.Errorf("the other session: %q, %v", out, err)
		}
		if !reachable(other) {
			t.Error("the second sshd has ended")
		}
		w.broker.End(request(cert), hostapi.EndRevoked)
		w.gone(stays)
	})
}

// The daemon is killed with SIGKILL, again and again, whatever happens meanwhile: nothing
// is lost, nothing is told twice.
func TestDaemonKilledAndRestarted(t *testing.T) {
	t.Parallel()
	w := watch(t, session.ByCgroup)
	revoked, closed, lives := w.grant(nil), w.grant(nil), w.grant(nil)
	one, two, three := w.open(revoked), w.open(closed), w.open(lives)
	w.started(lives)
	w.killDaemon()
	two.Close()
	w.eventually("sshd to leave", func() bool {
		all, _ := session.Store{Place: w.place}.All()
		for _, s := range all {
			if s.Serial == closed.Serial {
				return !s.ClosedAt.IsZero()
			}
		}
		return false
	})
	late := w.grant(nil)
	four := w.open(late) // nobody hears of it now
	w.broker.End(request(revoked), hostapi.EndRevoked)
	w.startDaemon()
	w.gone(one)
	if e := w.ended(revoked); e.Reason != hostapi.EndRevoked {
		t.Errorf("the revoked one ended: %+v", e)
	}
	if e := w.ended(closed); e.Reason != hostapi.EndClosed {
		t.Errorf("the closed one ended: %+v", e)
	}
	w.started(late)
	for range 3 {
		w.killDaemon()
		w.startDaemon()
	}
	for _, client := range []*ssh.Client{three, four} {
		if out, err := w.run(client, "echo here"); err != nil || out != "here\n" {
			t.Errorf("a session that nobody ended: %q, %v", out, err)
		}
		client.Close()
	}
	w.ended(lives)
	w.ended(late)
	w.once()
}

// once checks that every session was told of once, and numbers have no gap.
func (w *watched) once() {
	w.t.Helper()
	told := map[string]int{}
	for i, r := range w.broker.Reports() {
		if r.Seq != uint64(i+1) {
			w.t.Fatalf("report %d has number %d", i+1, r.Seq)
		}
		var about struct {
			Session string `json:"session"`
		}
		must(w.t, json.Unmarshal(r.Data, &about))
		if about.Session != "" {
			told[string(r.Kind)+" "+about.Session]++
		}
	}
	for what, n := range told {
		if n != 1 {
			w.t.Errorf("%s was told %d times", what, n)
		}
	}
}

// Somebody edits what waits for the broker, and takes some of it away.
func TestTamperedSpoolIsTold(t *testing.T) {
	t.Parallel()
	w := watch(t, session.ByCgroup)
	w.waitCheck("sessions", hostapi.Pass, "")
	w.broker.Leave()
	records := func() (found []string) {
		all, err := filepath.Glob(filepath.Join(w.place.Spool(), "0*.json"))
		must(t, err)
		for _, file := range all {
			if text, err := os.ReadFile(file); err == nil && strings.Contains(string(text), `"session.started"`) {
				found = append(found, file)
			}
		}
		return found
	}
	certs := []*ssh.Certificate{w.grant(nil), w.grant(nil), w.grant(nil)}
	for i, cert := range certs {
		client := w.open(cert)
		w.eventually("the report", func() bool { return len(records()) == i+1 })
		client.Close()
	}
	files := records()
	text, err := os.ReadFile(files[0])
	must(t, err)
	must(t, os.WriteFile(files[0], []byte(strings.Replace(string(text), `"login":"dba"`, `"login":"web"`, 1)), 0o600))
	must(t, os.Remove(files[1]))
	w.broker.Return()
	alarm := func(text string) {
		t.Helper()
		brokertest.WaitFor(w.broker, hostapi.KindAlarm, "an alarm: "+text, func(a hostapi.Alarm) bool { return a.Code == "spool-tampered" && strings.Contains(a.Detail, text) })
	}
	alarm("is not what this host wrote")
	alarm("is gone")
	w.started(certs[2])
	w.ended(certs[0]) // the end says again who it was
	w.ended(certs[1])
	if got := brokertest.Of(w.broker, hostapi.KindSessionStarted, func(s hostapi.SessionStarted) bool { return s.Login == "web" }); len(got) > 0 {
		t.Errorf("the broker was told %+v", got)
	}
	if got := brokertest.Of(w.broker, hostapi.KindAlarm, func(hostapi.Alarm) bool { return true }); len(got) != 2 {
		t.Errorf("alarms: %+v", got)
	}
}

// The disk is full: the reserve lets some in, to make room; then nobody enters unseen.
func TestDiskFullLetsNobodyInUnseen(t *testing.T) {
	t.Parallel()
	w := watch(t, session.ByCgroup)
	w.broker.Leave() // so that nothing makes room
	state := w.place.State()
	w.eventually("the reserve", func() bool {
		info, err := os.Stat(filepath.Join(state, "spool", "reserve"))
		return err == nil && info.Size() == spool.ReserveSize
	})
	w.killDaemon()
	if out, err := w.Command(t.Context(), "sh", "-c", "cd /var/lib && cp -a sally-host keep && mount -t tmpfs -o size=1536k,mode=2750 none sally-host && chgrp _sallyport sally-host && cp -a keep/. sally-host/ && cat /dev/zero >sally-host/filler; ls -la sally-host/spool").CombinedOutput(); err != nil && !strings.Contains(string(out), "No space") {
		t.Fatalf("%v\n%s", err, out)
	}
	if _, err := os.Stat(filepath.Join(state, "spool", "reserve")); err != nil {
		t.Fatal(err)
	}
	client := w.open(w.grant(nil))
	if out, err := w.run(client, "echo here"); err != nil || out != "here\n" {
		t.Fatalf("out of the reserve: %q, %v\n%s", out, err, w.tail())
	}
	must(t, w.Command(t.Context(), "sh", "-c", "cat /dev/zero >>/var/lib/sally-host/filler || true").Run())
	client = w.open(w.grant(nil))
	out, err := w.run(client, "echo here")
	if err == nil || strings.Contains(out, "here\n") || !strings.Contains(out, "cannot write down who comes") {
		t.Errorf("without the reserve: %q, %v\n%s", out, err, w.tail())
	}
	must(t, os.Remove(filepath.Join(state, "filler")))
	client = w.open(w.grant(nil))
	if out, err := w.run(client, "echo here"); err != nil || out != "here\n" {
		t.Errorf("with room again: %q, %v", out, err)
	}
}

// sshd lets somebody in without a certificate: the broker is told at once, and alarmed.
func TestASessionWithoutACertificateIsTold(t *testing.T) {
	t.Parallel()
	w := watchOn(t, "", session.ByCgroup, "AuthorizedKeysFile /etc/ssh/planted\n"+asks)
	must(t, os.WriteFile(w.Path("/etc/ssh/planted"), ssh.MarshalAuthorizedKey(w.key.PublicKey()), 0o644))
	client, err := ssh.Dial("tcp", w.Addr(), &ssh.ClientConfig{User: "dba", Auth: []ssh.AuthMethod{ssh.PublicKeys(w.key)},
		HostKeyCallback: ssh.InsecureIgnoreHostKey()})
	must(t, err)
	defer client.Close()
	s := brokertest.WaitFor(w.broker, hostapi.KindSessionStarted, "the session", func(s hostapi.SessionStarted) bool { return s.Serial == 0 })
	if s.Method != "publickey ssh-ed25519" || s.Login != "dba" || s.Key != ssh.FingerprintSHA256(w.key.PublicKey()) {
		t.Errorf("the start says %+v", s)
	}
	p := w.waitCheck("sshd", hostapi.Fail, `authorizedkeysfile is "/etc/ssh/planted", not "none"`)
	if c := checkOf(p, "keys"); c.Result != hostapi.Fail || !strings.Contains(strings.Join(c.Findings, " "), "there is /etc/ssh/planted") {
		t.Errorf("keys: %+v", c)
	}
}

// sshd is set up to pass by the door; the hook is there still.
func TestTheHookRefusesWhatTheDoorWould(t *testing.T) {
	t.Parallel()
	w := watchOn(t, "", session.ByCgroup, "PidFile /run/sshd.pid\n") // principals from a file
	for what, c := range map[string]struct {
		cert *ssh.Certificate
		says string
	}{
		"not logged": {certtest.Resign(t, w.grant(nil), w.ca, func(c *ssh.Certificate) { delete(c.Extensions, receiptOfTests) }), "no-receipt"},
		"recorded":   {w.grant(func(_ *certs.User, e *event.CertificateIssued) { e.Record = true }), "record"},
	} {
		client, err := w.dial(c.cert)
		if err != nil {
			t.Fatalf("%s: %v\n%s", what, err, w.tail())
		}
		if out, err := w.run(client, "echo here"); err == nil || strings.Contains(out, "here\n") {
			t.Errorf("%s: %q, %v", what, out, err)
		}
		s := brokertest.WaitFor(w.broker, hostapi.KindSessionStarted, what, func(s hostapi.SessionStarted) bool {
			return s.Certificate != "" && s.Problem != "" && strings.Contains(s.Problem, c.says)
		})
		w.gone(client)
		brokertest.WaitFor(w.broker, hostapi.KindSessionEnded, what+" to end", func(e hostapi.SessionEnded) bool { return e.Session == s.Session && e.Reason == hostapi.EndRefused })
	}
}
