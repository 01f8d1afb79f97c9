package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/api/hostapi"
	"sallyport/audit/event"
	"sallyport/broker/certs"
	"sallyport/cmd/sally-host/internal/brokertest"
	"sallyport/cmd/sally-host/internal/place"
	"sallyport/cmd/sally-host/internal/session"
)

// watched is a guarded host whose sshd and daemon tell a broker of its sessions.
type watched struct {
	*guarded
	broker *brokertest.Broker
	serial uint64
}

const pamLine = "session required pam_exec.so quiet stdout " + place.Program + " session\n"

// watch starts a host with its daemon; with cgroups, if it is to have some.
func watch(t testing.TB, isolation string) *watched {
	t.Helper()
	return watchOn(t, "", isolation, asks)
}

// watchOn is watch on a host with another system's files, and settings.
func watchOn(t testing.TB, system, isolation, settings string) *watched {
	t.Helper()
	return watchPrepared(t, system, isolation, settings, func(*hostapi.Settings) {})
}

// watchPrepared is watchOn for a host that the broker wants something of.
func watchPrepared(t testing.TB, system, isolation, settings string, wants func(*hostapi.Settings)) *watched {
	t.Helper()
	w := &watched{guarded: guardOn(t, system, settings), serial: 100}
	s, err := w.place.Read()
	must(t, err)
	key, err := s.Key(w.place)
	must(t, err)
	w.broker = brokertest.Start(t, w.log, w.id, key.PublicKey(), time.Now)
	s.URL = w.broker.URL
	s.Settings.RenewAt = time.Now().Add(time.Hour)
	wants(&s.Settings)
	w.broker.Enrolment = s.Enrolment
	must(t, w.place.Keep(s))
	must(t, w.place.MakeState())
	pam := w.Path("/etc/pam.d/sshd")
	text, err := os.ReadFile(pam)
	must(t, err)
	must(t, os.WriteFile(pam, []byte(strings.Replace(string(text), "session required pam_unix.so\n", pamLine+"session required pam_unix.so\n", 1)), 0o644))
	if isolation == session.ByCgroup {
		must(t, w.Command(t.Context(), "mkdir", "-p", "/sys/fs/cgroup").Run())
		if out, err := w.Command(t.Context(), "mount", "-t", "cgroup2", "none", "/sys/fs/cgroup").CombinedOutput(); err != nil {
			t.Fatalf("cgroups on the host: %v\n%s", err, out)
		}
	}
	w.startDaemon()
	return w
}

// startDaemon starts the daemon, and waits until it has heard.
func (w *watched) startDaemon() {
	w.t.Helper()
	before := w.broker.Heard()
	cmd := w.Command(w.t.Context(), place.Program, "daemon")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	must(w.t, cmd.Start())
	go func() { _ = cmd.Wait() }()
	w.broker.Wait("the daemon's first question", func() bool { return w.broker.Heard() > before })
}

// killDaemon kills it with SIGKILL.
func (w *watched) killDaemon() {
	w.t.Helper()
	pids := w.pids(place.Program + "\x00daemon")
	if len(pids) != 1 {
		w.t.Fatalf("%d daemons run", len(pids))
	}
	must(w.t, w.Command(w.t.Context(), "kill", "-9", strconv.Itoa(pids[0])).Run())
	w.eventually("the daemon to end", func() bool { return len(w.pids(place.Program+"\x00daemon")) == 0 })
}

// pids are the processes of the host whose command line holds the text.
func (w *watched) pids(text string) (pids []int) {
	found, err := filepath.Glob(w.Path("/proc") + "/[0-9]*/cmdline")
	must(w.t, err)
	for _, file := range found {
		if line, err := os.ReadFile(file); err == nil && strings.Contains(string(line), text) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			pids = append(pids, pid)
		}
	}
	return pids
}

func (w *watched) eventually(what string, is func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(brokertest.Patience); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("waited in vain for %s\n%s", what, w.tail())
		}
	}
}

// grant is a certificate with what it says to the host.
func (w *watched) grant(change func(*certs.User, *event.CertificateIssued)) *ssh.Certificate {
	w.t.Helper()
	u := w.terms()
	w.serial++
	u.Serial = w.serial
	var said event.CertificateIssued
	said.GrantEndsAt = u.GrantEnds
	if change != nil {
		change(&u, &said)
	}
	return w.log.CertifyAs(u, w.ca, func(e *event.CertificateIssued) {
		e.GrantEndsAt, e.AtEnd, e.SingleUse, e.Record = said.GrantEndsAt.UTC(), said.AtEnd, said.SingleUse, said.Record
	})
}

// dial opens a connection with the certificate.
func (w *watched) dial(cert *ssh.Certificate) (*ssh.Client, error) {
	w.t.Helper()
	signer, err := ssh.NewCertSigner(cert, w.key)
	must(w.t, err)
	client, err := ssh.Dial("tcp", w.Addr(), &ssh.ClientConfig{User: "dba", Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyCallback: ssh.InsecureIgnoreHostKey(), Timeout: 30 * time.Second})
	if err == nil {
		w.t.Cleanup(func() { client.Close() })
	}
	return client, err
}

// open is dial for what must succeed.
func (w *watched) open(cert *ssh.Certificate) *ssh.Client {
	w.t.Helper()
	client, err := w.dial(cert)
	if err != nil {
		w.t.Fatalf("%v\n%s", err, w.tail())
	}
	return client
}

// run runs a command in the connection, to its end.
func (w *watched) run(client *ssh.Client, command string) (string, error) {
	w.t.Helper()
	s, err := client.NewSession()
	if err != nil {
		return "", err
	}
	defer s.Close()
	out, err := s.CombinedOutput(command)
	return string(out), err
}

func request(cert *ssh.Certificate) string {
	id, _, _ := strings.Cut(cert.KeyId, ":")
	return id
}

// started waits for the report of the certificate's session.
func (w *watched) started(cert *ssh.Certificate) hostapi.SessionStarted {
	w.t.Helper()
	return brokertest.WaitFor(w.broker, hostapi.KindSessionStarted, "the start of a session", func(s hostapi.SessionStarted) bool { return s.Serial == cert.Serial })
}

// ended waits for the report of its end.
func (w *watched) ended(cert *ssh.Certificate) hostapi.SessionEnded {
	w.t.Helper()
	return brokertest.WaitFor(w.broker, hostapi.KindSessionEnded, "the end of a session", func(s hostapi.SessionEnded) bool { return s.Serial == cert.Serial })
}

// gone waits until a connection has ended.
func (w *watched) gone(client *ssh.Client) {
	w.t.Helper()
	ended := make(chan struct{})
	go func() {
		_ = client.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(brokertest.Patience):
		w.t.Fatalf("the connection goes on\n%s", w.tail())
	}
}

// tail is the end of what the host said, without what is too long to read.
func (w *watched) tail() string {
	var out []string
	for line := range strings.Lines(w.Host.Log()) {
		out = append(out, line[:min(len(line), 300)])
	}
	return strings.Join(out[max(0, len(out)-40):], "\n")
}
