package main

import (
	"context"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/api/hostapi"
	"sallyport/audit/event"
	"sallyport/broker/certs"
	"sallyport/cmd/sally-host/internal/session"
)

// each runs a test with cgroups and without.
func each(t *testing.T, f func(t *testing.T, w *watched)) {
	for _, isolation := range []string{session.ByCgroup, session.BySession} {
		t.Run(isolation, func(t *testing.T) {
			t.Parallel()
			f(t, watch(t, isolation))
		})
	}
}

// Whoever comes in is reported, with the certificate; and so is that they left.
func TestSessionsAreReported(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *watched) {
		cert := w.grant(nil)
		client := w.open(cert)
		if out, err := w.run(client, "id -un"); err != nil || out != "dba\n" {
			t.Fatalf("%q, %v\n%s", out, err, w.tail())
		}
		s := w.started(cert)
		if s.Login != "dba" || s.Peer != "127.0.0.1" || s.KeyID != cert.KeyId || s.Principal != "dba@"+w.id || s.EndsAt == nil || s.Method != "" ||
			s.Key != ssh.FingerprintSHA256(w.key.PublicKey()) || s.Problem != "" {
			t.Errorf("the start says %+v", s)
		}
		if want := strings.TrimPrefix(t.Name(), "TestSessionsAreReported/"); s.Isolation != want {
			t.Errorf("isolation is %q", s.Isolation)
		}
		client.Close()
		if e := w.ended(cert); e.Session != s.Session || e.Reason != hostapi.EndClosed || e.Killed != 0 || e.Survived != 0 {
			t.Errorf("the end says %+v", e)
		}
	})
}

// Somebody revokes: connection, shell and what it started end, with a word on the
// terminal.
func TestRevocationEndsTheSession(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *watched) {
		cert := w.grant(nil)
		client := w.open(cert)
		shell, err := client.NewSession()
		must(t, err)
		must(t, shell.RequestPty("xterm", 24, 80, nil))
		screen, err := shell.StdoutPipe()
		must(t, err)
		must(t, shell.Start("sleep 3331 & exec sleep 3332"))
		w.eventually("the programs", func() bool { return len(w.pids("sleep\x00333")) == 2 })
		w.started(cert)
		w.broker.End(request(cert), hostapi.EndRevoked)
		w.gone(client)
		seen, _ := io.ReadAll(screen)
		if !strings.Contains(string(seen), "this session ends now: access was revoked") {
			t.Errorf("the terminal said %q", seen)
		}
		if e := w.ended(cert); e.Reason != hostapi.EndRevoked || e.Killed < 2 || e.Survived != 0 {
			t.Errorf("the end says %+v", e)
		}
		if left := w.pids("sleep\x00333"); len(left) > 0 {
			t.Errorf("%d programs go on", len(left))
		}
	})
}

// A connection that detached everything it could, before and after it closed.
func TestNohupAndSetsidSurviveNoEnd(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *watched) {
		cert := w.grant(nil)
		client := w.open(cert)
		_, err := w.run(client, "nohup sleep 4441 >/dev/null 2>&1 & setsid -f sleep 4442 >/dev/null 2>&1; (trap '' TERM HUP; setsid -f sh -c 'trap \"\" TERM HUP; while :; do sleep 4443; done' >/dev/null 2>&1)")
		must(t, err)
		w.eventually("the survivors", func() bool { return len(w.pids("sleep\x00444")) == 3 })
		w.eventually("the daemon's look", func() bool {
			all, _ := session.Store{Place: w.place}.All()
			return len(all) == 1 && (all[0].Isolation == session.ByCgroup || len(all[0].Seen) >= 4)
		})
		client.Close() // the session lasts: it has processes
		w.eventually("sshd to leave", func() bool {
			all, _ := session.Store{Place: w.place}.All()
			return len(all) == 1 && !all[0].ClosedAt.IsZero()
		})
		w.broker.End(request(cert), hostapi.EndFinished)
		if e := w.ended(cert); e.Reason != hostapi.EndFinished || e.Killed < 3 || e.Survived != 0 {
			t.Errorf("the end says %+v", e)
		}
		if left := w.pids("sleep\x00444"); len(left) > 0 {
			t.Errorf("%d programs go on", len(left))
		}
	})
}

// ssh -N opens no channel, and there is no shell to end.
func TestSSHMinusNEnds(t *testing.T) {
	t.Parallel()
	w := watch(t, session.ByCgroup)
	cert := w.grant(nil)
	client := w.open(cert)
	w.started(cert)
	w.broker.Revoke(cert.Serial, request(cert))
	w.gone(client)
	if e := w.ended(cert); e.Reason != hostapi.EndRevoked {
		t.Errorf("the end says %+v", e)
	}
}

// The time of the grant is up, and nobody says anything: the broker is not there.
func TestTheGrantsEndEndsTheSession(t *testing.T) {
	t.Parallel()
	w := watch(t, session.ByCgroup)
	ends := time.Now().Add(4 * time.Second)
	kept := w.grant(func(_ *certs.User, e *event.CertificateIssued) { e.GrantEndsAt, e.AtEnd = ends, "keep" })
	cert := w.grant(func(_ *certs.User, e *event.CertificateIssued) { e.GrantEndsAt = ends })
	stays, goes := w.open(kept), w.open(cert)
	w.started(cert)
	w.broker.Leave()
	w.gone(goes)
	if time.Now().Before(ends) {
		t.Error("it ended too soon")
	}
	if out, err := w.run(stays, "echo here"); err != nil || out != "here\n" {
		t.Errorf("a session that is to be kept: %q, %v", out, err)
	}
	w.broker.Return()
	if e := w.ended(cert); e.Reason != hostapi.EndTime {
		t.Errorf("the end says %+v", e)
	}
}

// A certificate for single use opens one session, even of two at once.
func TestSingleUseOpensOneSession(t *testing.T) {
	t.Parallel()
	w := watch(t, session.ByCgroup)
	cert := w.grant(func(_ *certs.User, e *event.CertificateIssued) { e.SingleUse = true })
	type answer struct {
		out string
		err error
	}
	answers := make(chan answer, 2)
	for range 2 {
		go func() {
			client, err := w.dial(cert)
			if err != nil {
				answers <- answer{"", err}
				return
			}
			out, err := w.run(client, "echo in")
			answers <- answer{out, err}
		}()
	}
	first, second := <-answers, <-answers
	if first.err != nil {
		first, second = second, first
	}
	if first.err != nil || first.out != "in\n" || second.err == nil || strings.Contains(second.out, "in\n") {
		t.Fatalf("one: %q, %v; the other: %q, %v\n%s", first.out, first.err, second.out, second.err, w.tail())
	}
	if !strings.Contains(second.out, "it was used before") {
		t.Errorf("the second was told %q", second.out)
	}
	w.broker.Wait("the end of the second", func() bool {
		return strings.Contains(reportsOf(w), `"reason":"refused"`) && strings.Contains(reportsOf(w), `used before`)
	})
}

func reportsOf(w *watched) string {
	var all strings.Builder
	for _, r := range w.broker.Reports() {
		all.Write(r.Data)
	}
	return all.String()
}

// systemd-logind moves the connection to a cgroup of its own after our hook, and a program
// is handed to the person's own systemd. Both end.
func TestWhatLogindMovedEnds(t *testing.T) {
	t.Parallel()
	w := watch(t, session.ByCgroup)
	cert := w.grant(nil)
	client := w.open(cert)
	w.started(cert)
	all, err := session.Store{Place: w.place}.All()
	must(t, err)
	slice := "/sys/fs/cgroup/user.slice/user-" + all[0].ID + ".slice" // the test's alone: all hosts share the machine's cgroups
	inside := func(script string) {
		t.Helper()
		if out, err := w.Command(t.Context(), "sh", "-ec", script).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	inside("mkdir -p " + slice + "/session-1.scope " + slice + "/user@1.service/app.slice && echo " + strconv.Itoa(all[0].Monitor.PID) + " >" + slice + "/session-1.scope/cgroup.procs")
	t.Cleanup(func() {
		_ = w.Command(context.Background(), "sh", "-c", "cd "+slice+" && rmdir user@1.service/app.slice user@1.service session-1.scope . ; rmdir "+slice).Run()
	})
	w.eventually("the daemon to follow", func() bool {
		all, _ := session.Store{Place: w.place}.All()
		return len(all) == 1 && len(all[0].Cgroups) == 2
	})
	s, err := client.NewSession()
	must(t, err)
	must(t, s.Start("setsid -f sleep 6661; exec sleep 6662"))
	inside("sleep 6663 >/dev/null 2>&1 & echo $! >" + slice + "/user@1.service/app.slice/cgroup.procs")
	w.eventually("the programs", func() bool { return len(w.pids("sleep\x00666")) == 3 })
	w.broker.End(request(cert), hostapi.EndRevoked)
	w.gone(client)
	if e := w.ended(cert); e.Killed < 3 || e.Survived != 0 || len(w.pids("sleep\x00666")) > 0 {
		t.Errorf("the end says %+v", e)
	}
}

// Root moves the connection out of its cgroup: the session goes on, is brought back, and
// ends like any other.
func TestWhatRootMovedOutOfItsCgroupEnds(t *testing.T) {
	t.Parallel()
	w := watch(t, session.ByCgroup)
	cert := w.grant(nil)
	client := w.open(cert)
	w.started(cert)
	all, err := session.Store{Place: w.place}.All()
	must(t, err)
	inside := all[0].Cgroups[0] + "/cgroup.procs"
	out, err := w.Command(t.Context(), "sh", "-ec", "for pid in $(cat "+inside+"); do echo $pid >/sys/fs/cgroup/cgroup.procs; done").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	w.eventually("the connection to be brought back", func() bool {
		text, err := os.ReadFile(w.Path(inside))
		must(t, err)
		return len(text) > 0
	})
	if out, err := w.run(client, "echo here"); err != nil || out != "here\n" {
		t.Errorf("the session: %q, %v", out, err)
	}
	w.broker.End(request(cert), hostapi.EndRevoked)
	w.gone(client)
	if e := w.ended(cert); e.Reason != hostapi.EndRevoked || e.Survived != 0 {
		t.Errorf("the end says %+v", e)
	}
}

// A chain of processes, each of which detaches the next and ends: without a cgroup it is
// chased until nothing is left.
func TestAChainThatDetachesItselfEnds(t *testing.T) {
	t.Parallel()
	w := watch(t, session.BySession)
	cert := w.grant(nil)
	client := w.open(cert)
	s, err := client.NewSession()
	must(t, err)
	must(t, s.Start(`export F='trap "" TERM HUP; sleep 0.03; setsid -f sh -c "$F" sh sleep-8881; sleep 0.03'; exec sh -c "$F" sh sleep-8881`))
	w.eventually("it to spread", func() bool { return len(w.pids("sleep-8881")) > 0 })
	w.broker.End(request(cert), hostapi.EndRevoked)
	if e := w.ended(cert); e.Survived != 0 {
		t.Errorf("the end says %+v", e)
	}
	if left := w.pids("sleep-8881"); len(left) > 0 {
		t.Errorf("%d go on", len(left))
	}
}
