package main

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"sallyport/api/hostapi"
	"sallyport/audit/event"
	cast "sallyport/audit/recording"
	"sallyport/broker/certs"
	"sallyport/cmd/sally-host/internal/brokertest"
	"sallyport/cmd/sally-host/internal/place"
)

// home writes a file of the login's own.
func (f *filmed) home(name, text string) {
	f.t.Helper()
	cmd := f.Command(f.t.Context(), "sh", "-c", "cat >/home/dba/"+name+" && chown 61100 /home/dba/"+name+" && chmod 755 /home/dba/"+name)
	cmd.Stdin = strings.NewReader(text)
	must(f.t, cmd.Run())
}

// unrecorded waits until a session has ended because it could not be recorded.
func (f *filmed) unrecorded(cert *ssh.Certificate) {
	f.t.Helper()
	if e := f.ended(cert); e.Reason != hostapi.EndUnrecorded || e.Survived != 0 {
		f.t.Errorf("the end says %+v", e)
	}
}

func (f *filmed) alarm(text string) {
	f.t.Helper()
	brokertest.WaitFor(f.broker, hostapi.KindAlarm, "an alarm", func(a hostapi.Alarm) bool {
		return a.Code == "unrecorded" && strings.Contains(a.Detail, text)
	})
}

// A person stops and kills what stands between them and sshd: what is shown is recorded
// all the same, and nothing goes on afterwards.
func TestWhoKillsTheRecorderIsRecorded(t *testing.T) {
	t.Parallel()
	f := film(t)
	cert := f.certificate()
	client := f.open(cert)
	s, in, out := f.shell(client, "")
	f.shows(out, "dba@db-1:~$ ")
	_, err := io.WriteString(in, "kill -STOP $PPID; echo hid''den\n")
	must(t, err)
	f.shows(out, "hidden\r\n")
	_, err = io.WriteString(in, "kill -KILL $PPID; sleep 6661; echo goes on\n")
	must(t, err)
	if err := s.Wait(); err == nil {
		t.Error("the shell ended well")
	}
	f.eventually("the shell to end", func() bool { return len(f.pids("sleep\x006661")) == 0 })
	r, _, events := f.recorded(cert, 1)
	if got := seen(events, cast.Output); !strings.Contains(got, "hidden\r\n") || !strings.Contains(got, "kill -KILL") || r.Cut != "" {
		t.Errorf("the auditor sees %q, %+v", got, r)
	}
}

// The daemon is killed: terminals hang up at once, and what was recorded until then is
// told by the next one, which ends the session.
func TestTheDaemonsEndEndsRecordedSessions(t *testing.T) {
	t.Parallel()
	f := film(t)
	cert := f.certificate()
	client := f.open(cert)
	_, in, out := f.shell(client, "")
	_, err := io.WriteString(in, "nohup sleep 7771 & echo be''fore\n")
	must(t, err)
	f.shows(out, "before\r\n")
	started := f.started(cert)
	f.broker.Wait("a piece of the recording", func() bool { return len(f.broker.Recording(started.Session, 1)) > 600 })
	f.broker.Leave()
	f.killDaemon()
	f.eventually("the terminal to hang up", func() bool { return len(f.pids("-bash")) == 0 })
	if _, err := f.run(client, "echo unrecorded"); err == nil {
		t.Error("without a daemon something begins")
	}
	f.broker.Return()
	f.startDaemon()
	f.unrecorded(cert)
	f.eventually("what nohup left", func() bool { return len(f.pids("sleep\x007771")) == 0 })
	r, _, events := f.recorded(cert, 1)
	if got := seen(events, cast.Output); !strings.Contains(got, "before\r\n") || !strings.Contains(r.Cut, "daemon") {
		t.Errorf("the auditor sees %q, %+v", got, r)
	}
	// And without a daemon no session begins that has to be recorded.
	f.killDaemon()
	if client, err := f.dial(f.certificate()); err == nil {
		if out, err := f.run(client, "echo unrecorded"); err == nil {
			t.Errorf("it began: %q", out)
		}
	}
}

// The login's own files, which its shell reads before anything is recorded, start a shell
// that is not, or leave something that holds the terminal.
func TestStartupFilesHideNothing(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct{ file, alarm string }{
		"another shell":       {"exec sh -c 'sleep 8881; sh'\n", "runs beside what is recorded"},
		"one in the back":     {"setsid sh -c 'while :; do sleep 8882; done' &\n", "runs beside what is recorded"},
		"the recorder as two": {place.Program + " record </dev/null >/dev/null 2>&1 &\nexec sleep 8883\n", "runs beside what is recorded"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			f := film(t)
			f.home(".bashrc", c.file)
			cert := f.certificate()
			client := f.open(cert)
			s, err := client.NewSession()
			must(t, err)
			must(t, s.RequestPty("xterm", 24, 80, nil))
			must(t, s.Start("sleep 8884"))
			f.gone(client)
			f.unrecorded(cert)
			f.alarm(c.alarm)
			if left := f.pids("sleep\x00888"); len(left) > 0 {
				t.Errorf("%d programs go on", len(left))
			}
		})
	}
}

// One recorded shell waits for the terminal of the next, and opens it before the recorder
// has shut it.
func TestTheTerminalBehindIsNobodys(t *testing.T) {
	t.Parallel()
	f := film(t)
	cert := f.certificate()
	client := f.open(cert)
	_, in, out := f.shell(client, "")
	f.shows(out, "dba@db-1:~$ ")
	// Of this session it cannot be opened any more.
	_, err := io.WriteString(in, "echo hidden >/dev/pts/0; ls -l /dev/pts/0\n")
	must(t, err)
	f.shows(out, "Permission denied")
	f.shows(out, "crw------- 1 root root")
	f.home(".bashrc", "[ -t 0 ] && sleep 3\n")
	_, err = io.WriteString(in, "until { exec 9<>/dev/pts/2; } 2>/dev/null; do sleep 0.05; done; echo ha''ve it\n")
	must(t, err)
	_, _, _ = f.shell(client, "sleep 9991")
	f.shows(out, "have it")
	f.gone(client)
	f.unrecorded(cert)
	f.alarm("holds the terminal behind the recorded one")
	if left := f.pids("sleep\x009991"); len(left) > 0 {
		t.Errorf("%d programs go on", len(left))
	}
}

// A person asks at the recorder's socket themselves, with the program and with a copy.
func TestOnlySSHDsChannelsAreRecorded(t *testing.T) {
	t.Parallel()
	f := film(t)
	cert := f.certificate()
	client := f.open(cert)
	const refused = "no session of Sallyport that has to be recorded"
	if out, err := f.run(client, place.Program+" record 2>&1; echo $?"); err != nil || !strings.Contains(out, refused) || !strings.HasSuffix(out, "\n1\n") {
		t.Errorf("the program by hand: %q, %v", out, err)
	}
	if out, err := f.run(client, "cp "+place.Program+" mine && echo 'exec ./mine record' >.bashrc"); err != nil {
		t.Fatalf("%q, %v", out, err)
	}
	if out, err := f.run(client, "echo in"); err == nil || !strings.Contains(out, refused) {
		t.Errorf("a copy of it: %q, %v", out, err)
	}
	// Nor does a session that need not be recorded.
	f.home(".bashrc", "")
	other := f.open(f.grant(nil))
	if out, err := f.run(other, place.Program+" record"); err == nil || !strings.Contains(out, refused) {
		t.Errorf("from another session: %q, %v", out, err)
	}
	brokertest.WaitFor(f.broker, hostapi.KindSessionRecorded, "the recordings", func(r hostapi.SessionRecorded) bool { return r.Number == 2 })
	if n := len(brokertest.Of(f.broker, hostapi.KindSessionRecorded, func(r hostapi.SessionRecorded) bool { return r.Serial != cert.Serial })); n != 0 {
		t.Errorf("%d recordings of others", n)
	}
}

// Somebody on the host holds as many connections to the recorder as they can.
func TestStrangersTakeNobodysPlace(t *testing.T) {
	t.Parallel()
	f := film(t)
	client := f.open(f.certificate())
	for range 400 {
		c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: f.place.Recorder(), Net: "unixpacket"})
		must(t, err)
		defer c.Close()
	}
	if out, err := f.run(client, "echo in"); err != nil || out != "in\n" {
		t.Errorf("%q, %v", out, err)
	}
}

// What cannot be written down does not go on.
func TestAFullDiskEndsRecordedSessions(t *testing.T) {
	t.Parallel()
	f := film(t)
	must(t, f.Command(t.Context(), "mount", "-t", "tmpfs", "-o", "size=256k", "none", "/var/lib/sally-host/recordings").Run())
	cert := f.certificate()
	client := f.open(cert)
	s, err := client.NewSession()
	must(t, err)
	var out screen
	s.Stdout = &out
	must(t, s.Start("yes | head -c 100000000; echo all of it"))
	f.gone(client)
	if strings.Contains(out.String(), "all of it") || len(out.String()) > 1<<20 {
		t.Errorf("it went on: %d bytes", len(out.String()))
	}
	f.unrecorded(cert)
	r, _, events := f.recorded(cert, 1)
	if got := seen(events, cast.Output); len(got) < 100_000 || !strings.Contains(r.Cut, "no space left") {
		t.Errorf("%d bytes are recorded; %+v", len(got), r)
	}
}

// Nothing records what passes through a forwarding, so that there is none.
func TestRecordedSessionsForwardNothing(t *testing.T) {
	t.Parallel()
	f := film(t)
	client := f.open(f.grant(func(u *certs.User, e *event.CertificateIssued) {
		u.Forwarding, e.Record = []string{"port", "agent"}, true
	}))
	if c, err := client.Dial("tcp", f.Addr()); err == nil {
		c.Close()
		t.Error("a port was forwarded")
	}
	if out, err := f.run(client, "echo here"); err != nil || out != "here\n" {
		t.Errorf("%q, %v", out, err)
	}
}

// Without cgroups what is not recorded cannot be told from what is.
func TestRecordingNeedsCgroups(t *testing.T) {
	t.Parallel()
	f := filmOn(t, "", "session")
	cert := f.certificate()
	client, err := f.dial(cert)
	if err == nil {
		_, err = f.run(client, "echo in")
	}
	var exit *ssh.ExitError
	if err == nil || errors.As(err, &exit) && exit.ExitStatus() == 0 {
		t.Fatalf("it began: %v", err)
	}
	if s := f.started(cert); !strings.Contains(s.Problem, "cgroup") {
		t.Errorf("the start says %+v", s)
	}
}

// What waits for the broker is root's alone.
func TestRecordingsAreRootsAlone(t *testing.T) {
	t.Parallel()
	f := film(t)
	f.broker.Leave()
	client := f.open(f.certificate())
	out, _ := f.run(client, "ls "+place.Here.Recordings()+"; rm -f "+place.Here.Recordings()+"/*; ls -ld /run/sally-host; rm -f /run/sally-host/record.sock")
	if strings.Count(out, "Permission denied") < 2 || !strings.Contains(out, "drwxr-xr-x 2 root root") {
		t.Errorf("%q", out)
	}
	if left, err := os.ReadDir(f.place.Recordings()); err != nil || len(left) == 0 {
		t.Errorf("%d files, %v", len(left), err)
	}
}
