package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"

	"filippo.io/age"
	"golang.org/x/crypto/ssh"

	"sallyport/api/hostapi"
	"sallyport/audit/event"
	cast "sallyport/audit/recording"
	"sallyport/broker/certs"
	"sallyport/cmd/sally-host/internal/brokertest"
	"sallyport/cmd/sally-host/internal/session"
)

// filmed is a watched host that records for an auditor.
type filmed struct {
	*watched
	auditor *age.X25519Identity
}

func film(t testing.TB) *filmed {
	t.Helper()
	return filmOn(t, "", session.ByCgroup)
}

func filmOn(t testing.TB, system, isolation string) *filmed {
	t.Helper()
	f := &filmed{}
	var err error
	f.auditor, err = age.GenerateX25519Identity()
	must(t, err)
	f.watched = watchPrepared(t, system, isolation, asks, func(s *hostapi.Settings) { s.AuditorKeys = []string{f.auditor.Recipient().String()} })
	return f
}

// certificate is one whose rule wants a recording.
func (f *filmed) certificate() *ssh.Certificate {
	f.t.Helper()
	return f.grant(func(_ *certs.User, e *event.CertificateIssued) { e.Record = true })
}

// recorded waits for the end of a recording of the certificate's session, and reads it.
func (f *filmed) recorded(cert *ssh.Certificate, number int) (hostapi.SessionRecorded, *cast.Header, []cast.Event) {
	f.t.Helper()
	r := brokertest.WaitFor(f.broker, hostapi.KindSessionRecorded, "the end of a recording", func(r hostapi.SessionRecorded) bool {
		return r.Serial == cert.Serial && r.Number == number
	})
	f.broker.Wait("the recording", func() bool { return int64(len(f.broker.Recording(r.Session, number))) >= r.Bytes })
	text := f.broker.Recording(r.Session, number)
	if sum := sha256.Sum256(text); hex.EncodeToString(sum[:]) != r.SHA256 || int64(len(text)) != r.Bytes {
		f.t.Errorf("the recording is not what the report says: %d bytes of %d", len(text), r.Bytes)
	}
	var plain bytes.Buffer
	must(f.t, cast.Decrypt(&plain, bytes.NewReader(text), f.auditor))
	c, err := cast.ReadCast(&plain)
	must(f.t, err)
	var events []cast.Event
	for {
		e, err := c.Next()
		if errors.Is(err, io.EOF) {
			return r, &c.Header, events
		}
		must(f.t, err)
		events = append(events, e)
	}
}

// seen joins the data of the events of a code.
func seen(events []cast.Event, code string) (all string) {
	for _, e := range events {
		if e.Code == code {
			all += e.Data
		}
	}
	return all
}

// screen is what somebody saw.
type screen struct {
	mu   sync.Mutex
	text []byte
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text = append(s.text, p...)
	return len(p), nil
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return string(s.text)
}

// shows waits until the screen shows the text.
func (f *filmed) shows(s *screen, text string) {
	f.t.Helper()
	f.eventually(fmt.Sprintf("%q on the screen", text), func() bool { return strings.Contains(s.String(), text) })
}

// shell opens a terminal with a shell.
func (f *filmed) shell(client *ssh.Client, command string) (*ssh.Session, io.WriteCloser, *screen) {
	f.t.Helper()
	s, err := client.NewSession()
	must(f.t, err)
	must(f.t, s.RequestPty("xterm", 30, 100, ssh.TerminalModes{ssh.ECHO: 1}))
	in, err := s.StdinPipe()
	must(f.t, err)
	out := &screen{}
	s.Stdout, s.Stderr = out, out
	if command == "" {
		must(f.t, s.Shell())
	} else {
		must(f.t, s.Start(command))
	}
	return s, in, out
}

// A person works at a terminal: they see what they would, the broker gets it encrypted,
// and the auditor sees what they saw.
func TestATerminalIsRecorded(t *testing.T) {
	t.Parallel()
	f := film(t)
	cert := f.certificate()
	client := f.open(cert)
	s, in, out := f.shell(client, "")
	f.shows(out, "dba@db-1:~$ ")
	must(t, s.WindowChange(40, 120))
	_, err := io.WriteString(in, "until [ \"$(stty size)\" = '40 120' ]; do sleep 0.1; done; echo w''ide\n")
	must(t, err)
	f.shows(out, "wide\r")
	_, err = io.WriteString(in, "stty size; tty; echo $SSH_TTY; echo grüße-$((6*7)); exit 3\n")
	must(t, err)
	var exit *ssh.ExitError
	if err := s.Wait(); !errors.As(err, &exit) || exit.ExitStatus() != 3 {
		t.Errorf("the shell ended with %v\n%s", err, out)
	}
	if !strings.Contains(out.String(), "grüße-42\r\n") {
		t.Errorf("the person saw %q", out)
	}
	r, h, events := f.recorded(cert, 1)
	if got := seen(events, cast.Output); !strings.Contains(got, "grüße-42\r\n") || !strings.Contains(got, "exit 3") || strings.Count(got, "/dev/pts/") != 2 {
		t.Errorf("the auditor sees %q", got)
	}
	if h.Width != 100 || h.Height != 30 || h.Sallyport.Serial != cert.Serial || h.Sallyport.Host != f.id || h.Env["TERM"] != "xterm" || h.Command != "" || !h.Sallyport.Terminal {
		t.Errorf("the recording says %+v", h)
	}
	if seen(events, cast.Resize) != "120x40" || seen(events, cast.Input) != "" {
		t.Errorf("sizes %q, input %q", seen(events, cast.Resize), seen(events, cast.Input))
	}
	if r.Cut != "" || !r.Terminal || r.Request != request(cert) || len(r.Recipients) != 1 {
		t.Errorf("the report says %+v", r)
	}
	if bytes.Contains(f.broker.Recording(r.Session, 1), []byte("grüße")) {
		t.Error("it is not encrypted")
	}
	f.eventually("the host to forget it", func() bool {
		left, err := os.ReadDir(f.place.Recordings())
		return err == nil && len(left) == 0
	})
	client.Close()
	if e := f.ended(cert); e.Reason != hostapi.EndClosed {
		t.Errorf("the end says %+v", e)
	}
}

// A command without a terminal is recorded with what it read and wrote, byte for byte; and
// so is each of several in one connection.
func TestCommandsAreRecorded(t *testing.T) {
	t.Parallel()
	f := film(t)
	cert := f.certificate()
	client := f.open(cert)
	s, err := client.NewSession()
	must(t, err)
	s.Stdin = strings.NewReader("line\n\xff\x00")
	var stdout, stderr bytes.Buffer
	s.Stdout, s.Stderr = &stdout, &stderr
	err = s.Run("cat; echo wrong >&2; exit 5")
	var exit *ssh.ExitError
	if !errors.As(err, &exit) || exit.ExitStatus() != 5 || stdout.String() != "line\n\xff\x00" || stderr.String() != "wrong\n" {
		t.Errorf("%v, %q, %q", err, stdout.String(), stderr.String())
	}
	if out, err := f.run(client, "echo second"); err != nil || out != "second\n" {
		t.Errorf("%q, %v", out, err)
	}
	_, h, events := f.recorded(cert, 1)
	if h.Command != "cat; echo wrong >&2; exit 5" || h.Sallyport.Terminal || seen(events, cast.InputBytes) != "bGluZQr/AA==" ||
		seen(events, cast.OutputBytes) != "bGluZQr/AA==" || seen(events, cast.Output) != "wrong\n" {
		t.Errorf("%+v, %+v", h, events)
	}
	if _, _, events := f.recorded(cert, 2); seen(events, cast.Output) != "second\n" {
		t.Errorf("%+v", events)
	}
}

// A client goes away in the middle of what a command writes: it learns that nobody reads
// any more, as it would without a recording.
func TestACommandLearnsThatNobodyReads(t *testing.T) {
	t.Parallel()
	f := film(t)
	cert := f.certificate()
	s, err := f.open(cert).NewSession()
	must(t, err)
	out, err := s.StdoutPipe()
	must(t, err)
	must(t, s.Start("exec yes nobody"))
	_, err = io.ReadFull(out, make([]byte, 4096))
	must(t, err)
	must(t, s.Close())
	f.eventually("the command to end", func() bool { return len(f.pids("yes\x00nobody")) == 0 })
	if _, _, events := f.recorded(cert, 1); !strings.HasPrefix(seen(events, cast.Output), "nobody\n") {
		t.Error("what it wrote is not recorded")
	}
}
