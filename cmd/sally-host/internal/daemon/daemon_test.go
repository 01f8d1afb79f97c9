package daemon_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/api/hostapi"
	"sallyport/broker/certs"
	"sallyport/cmd/sally-host/internal/brokertest"
	"sallyport/cmd/sally-host/internal/daemon"
	"sallyport/cmd/sally-host/internal/place"
	"sallyport/cmd/sally-host/internal/session"
	"sallyport/cmd/sally-host/internal/spool"
	"sallyport/internal/certtest"
	"sallyport/internal/clock"
	"sallyport/internal/ids"
)

// host is a daemon in this process, with clocks that the test moves. Its sessions are
// children of the test.
type host struct {
	t       *testing.T
	place   place.Place
	key     ssh.Signer
	clock   *clock.Manual // the host's
	broker  *brokertest.Broker
	brokers *clock.Manual
	spool   *spool.Spool
	boot    string
	stop    func()

	mu   sync.Mutex
	said []string
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func signer(t testing.TB) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	s, err := ssh.NewSignerFromKey(private)
	must(t, err)
	return s
}

func newHost(t *testing.T) *host {
	t.Helper()
	now := time.Now().Truncate(time.Second)
	h := &host{t: t, key: signer(t), clock: clock.NewManual(now), brokers: clock.NewManual(now), stop: func() {}}
	h.place = place.Place{Root: t.TempDir(), Owner: uint32(os.Geteuid())}
	must(t, os.Chmod(h.place.Root, 0o755))
	must(t, os.Symlink("/proc", filepath.Join(h.place.Root, "proc")))
	must(t, h.place.MakeState())
	id, log, ca := ids.New(ids.Host), certtest.NewLog(t, "sallyport.example.com/log"), signer(t)
	h.broker = brokertest.Start(t, log, id, h.key.PublicKey(), h.brokers.Now)
	e := hostapi.Enrolment{HostID: id, Name: "db-1", URL: h.broker.URL, UserCAs: []string{certs.Line(ca.PublicKey())}, LogKey: log.Key,
		Settings: hostapi.Settings{MaxSilenceSeconds: 3600, RenewAt: now.Add(24 * 365 * time.Hour)}}
	h.broker.Enrolment = e
	must(t, h.place.Keep(place.Settings{HostKey: "/key", Enrolment: e}))
	var err error
	h.boot, err = h.place.BootID()
	must(t, err)
	h.spool = spool.Open(h.place.Spool(), h.key, h.boot, h.clock.Now)
	t.Cleanup(func() { h.stop() })
	return h
}

// start starts the daemon.
func (h *host) start() {
	h.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- daemon.Run(ctx, daemon.Config{Place: h.place, Key: h.key, Spool: h.spool, HTTP: &http.Client{Transport: &http.Transport{}}, Now: h.clock.Now,
			Log: h.say, Renewed: func() error { return nil },
			Look: func(_ context.Context, k daemon.Known) hostapi.Posture {
				c := hostapi.Check{ID: "clock", Result: hostapi.Pass}
				if !k.Heard || k.Skew.Abs() > hostapi.MaxSkew {
					c.Result = hostapi.Fail
				}
				return hostapi.Posture{HostID: h.broker.Enrolment.HostID, BootID: h.boot, TakenAt: h.clock.Now(), Checks: []hostapi.Check{c}}
			}})
	}()
	h.stop = func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Error(err)
		}
		h.stop = func() {}
	}
}

func (h *host) say(line string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.said = append(h.said, line)
}

func (h *host) journal() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.Join(h.said, "\n")
}

func (h *host) eventually(what string, is func() bool) {
	h.t.Helper()
	for deadline := time.Now().Add(brokertest.Patience); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			h.t.Fatalf("waited in vain for %s\n%s", what, h.journal())
		}
	}
}

// begin begins a session, as PAM's hook would write it down.
func (h *host) begin(serial uint64, change func(*session.Session)) (s session.Session, ended chan struct{}) {
	h.t.Helper()
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(h.t, cmd.Start())
	ended = make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	h.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	monitor, err := session.ProcessOf(h.place, cmd.Process.Pid)
	must(h.t, err)
	s = session.Session{ID: fmt.Sprintf("%032x", serial), BootID: h.boot, Serial: serial, KeyID: ids.New(ids.Request) + ":" + ids.New(ids.Person), Login: "dba",
		Peer: "192.0.2.7", StartedAt: h.clock.Now(), GrantEnds: h.clock.Now().Add(time.Hour), Isolation: session.BySession, Monitor: monitor}
	s.Request, _, _ = strings.Cut(s.KeyID, ":")
	if change != nil {
		change(&s)
	}
	must(h.t, session.Store{Place: h.place}.Put(s))
	_, err = h.spool.Append(hostapi.KindSessionStarted, s.Started())
	must(h.t, err)
	return s, ended
}

func (h *host) ended(s session.Session) hostapi.SessionEnded {
	h.t.Helper()
	return brokertest.WaitFor(h.broker, hostapi.KindSessionEnded, "the end of "+s.ID, func(e hostapi.SessionEnded) bool { return e.Session == s.ID })
}

func over(t *testing.T, ended chan struct{}, want bool) {
	t.Helper()
	select {
	case <-ended:
		if !want {
			t.Fatal("the session has ended")
		}
	case <-time.After(map[bool]time.Duration{true: brokertest.Patience, false: time.Second}[want]):
		if want {
			t.Fatal("the session goes on")
		}
	}
}

// For a day there is no broker. Sessions end as their certificates say, what happened is
// kept, and told in order when the broker is there again, each thing once.
func TestBrokerUnreachableForADay(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.start()
	h.broker.Wait("the daemon", func() bool { return h.broker.Heard() > 0 })
	h.broker.Leave()
	for hour := range 24 {
		s, ended := h.begin(uint64(hour+1), nil)
		if hour%6 == 0 { // the daemon is restarted, too
			h.stop()
			h.start()
		}
		h.clock.Advance(time.Hour + time.Second)
		over(t, ended, true)
		h.eventually("the end to be written down", func() bool {
			all, _ := session.Store{Place: h.place}.All()
			return len(all) == 0
		})
		_ = s
	}
	h.brokers.Advance(24*time.Hour + 24*time.Second)
	h.broker.Return()
	h.broker.Wait("24 ends", func() bool {
		return len(brokertest.Of(h.broker, hostapi.KindSessionEnded, func(e hostapi.SessionEnded) bool { return e.Reason == hostapi.EndTime })) == 24
	})
	if starts := brokertest.Of(h.broker, hostapi.KindSessionStarted, func(hostapi.SessionStarted) bool { return true }); len(starts) != 24 {
		t.Errorf("%d starts", len(starts))
	}
	for i, r := range h.broker.Reports() {
		if r.Seq != uint64(i+1) {
			t.Fatalf("report %d has number %d", i+1, r.Seq)
		}
	}
}

// The host's clock is set an hour back: the broker says what time it is, and signs it, so
// sessions end when they have to, and the posture says that the clock is wrong.
func TestClockAnHourBackProlongsNothing(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.start()
	h.broker.Wait("the daemon", func() bool { return h.broker.Heard() > 0 })
	s, ended := h.begin(1, func(s *session.Session) { s.GrantEnds = h.clock.Now().Add(10 * time.Minute) })
	h.clock.Advance(-time.Hour)
	over(t, ended, false)
	h.stop()
	h.start() // and what the broker said lasts over a restart
	over(t, ended, false)
	h.brokers.Advance(11 * time.Minute)
	h.broker.End("req-000000000000", hostapi.EndRevoked) // anything
	over(t, ended, true)
	if e := h.ended(s); e.Reason != hostapi.EndTime || e.EndedAt.Before(s.GrantEnds) {
		t.Errorf("the end says %+v; the grant ended at %s", e, s.GrantEnds)
	}
	if !strings.Contains(strings.Join(h.broker.Refused(), " "), hostapi.CodeClock) {
		t.Error("the broker did not mind the clock")
	}
	h.eventually("a posture that says so", func() bool {
		for _, r := range h.broker.Reports() {
			if r.Kind == hostapi.KindPosture && strings.Contains(string(r.Data), `\"result\":\"fail\"`) {
				return true
			}
		}
		return false
	})
}

// An hour ahead, sessions end early, and nothing is open longer than it should be.
func TestClockAnHourAheadEndsSessions(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.start()
	s, ended := h.begin(1, nil)
	over(t, ended, false)
	h.clock.Advance(61 * time.Minute)
	over(t, ended, true)
	if e := h.ended(s); e.Reason != hostapi.EndTime {
		t.Errorf("the end says %+v", e)
	}
}

// The host was away for so long that the broker has forgotten what ended meanwhile.
func TestAMissedRevocationEndsWhatMayHaveEnded(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.broker.End("req-000000000000", hostapi.EndRevoked) // so that the list has a number
	h.start()
	h.eventually("the list", func() bool {
		_, list, err := h.place.ReadRevocations(h.broker.Log.Key)
		return err == nil && list.Number == 1
	})
	h.broker.Leave()
	s, ended := h.begin(1, func(s *session.Session) { s.Keep, s.GrantEnds = true, h.clock.Now().Add(time.Minute) })
	h.clock.Advance(8 * 24 * time.Hour)
	h.brokers.Advance(8 * 24 * time.Hour)
	over(t, ended, false)
	h.broker.Oldest(h.brokers.Now().Add(-7 * 24 * time.Hour))
	h.broker.Return()
	over(t, ended, true)
	if e := h.ended(s); e.Reason != hostapi.EndRevoked {
		t.Errorf("the end says %+v", e)
	}
}

// The machine was put back to a state of before: its numbers are given again. The broker
// minds, and everything since is told under new ones, with an alarm.
func TestAMachinePutBackTellsWhatItSees(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.start()
	first, _ := h.begin(1, func(s *session.Session) { s.GrantEnds = h.clock.Now() })
	h.ended(first)
	h.stop()
	must(t, os.RemoveAll(h.place.Spool()))
	must(t, h.place.MakeState())
	second, _ := h.begin(2, func(s *session.Session) { s.GrantEnds = h.clock.Now() })
	h.start()
	h.ended(second)
	brokertest.WaitFor(h.broker, hostapi.KindAlarm, "the alarm", func(a hostapi.Alarm) bool { return a.Code == "reports-renumbered" })
}

// The list on the disk was exchanged for garbage: it is fetched anew, and told.
func TestATamperedListIsFetchedAnewAndTold(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.broker.End("req-000000000000", hostapi.EndRevoked)
	must(t, os.WriteFile(h.place.Revocations(), []byte("[]"), 0o640))
	must(t, os.WriteFile(h.place.Revocations(), []byte(`["sallyport vouches for nothing"]`), 0o640))
	h.start()
	brokertest.WaitFor(h.broker, hostapi.KindAlarm, "the alarm", func(a hostapi.Alarm) bool { return a.Code == "revocations-tampered" })
	h.eventually("the list", func() bool {
		_, list, err := h.place.ReadRevocations(h.broker.Log.Key)
		return err == nil && list.Number == 1
	})
}

// Many lists follow each other: the file stays small, and says all.
func TestTheListStaysSmall(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.start()
	for i := range 80 {
		h.broker.Revoke(uint64(i+1), ids.New(ids.Request))
		h.eventually("the next list", func() bool {
			_, list, err := h.place.ReadRevocations(h.broker.Log.Key)
			return err == nil && list.Number == uint64(i+1)
		})
	}
	notes, list, err := h.place.ReadRevocations(h.broker.Log.Key)
	must(t, err)
	if len(notes) > 40 || len(list.Serials) != 80 {
		t.Errorf("%d notes, %d serials", len(notes), len(list.Serials))
	}
}

// A broker that does not know the host any more: it takes no certificates until it does.
func TestAForgottenHostCloses(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.start()
	h.broker.Wait("the daemon", func() bool { return h.broker.Heard() > 0 })
	h.broker.Forget(true)
	h.eventually("the host to close", func() bool { why, _ := h.place.WhyClosed(); return why != "" })
	h.broker.Forget(false)
	h.eventually("the host to open", func() bool { why, err := h.place.WhyClosed(); return why == "" && err == nil })
}

// The host's certificate is renewed when it is time; another log's key is never taken.
func TestRenewal(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.broker.Enrolment.HostCertificate, h.broker.Enrolment.Logins = "a certificate", []string{"dba"}
	s, err := h.place.Read()
	must(t, err)
	s.Settings.RenewAt = h.clock.Now().Add(-time.Minute)
	must(t, h.place.Keep(s))
	h.start()
	h.eventually("the certificate", func() bool {
		text, err := os.ReadFile(h.place.HostCert())
		return err == nil && string(text) == "a certificate\n"
	})
	h.stop()
	h.broker.Enrolment.LogKey = certtest.NewLog(t, "sallyport.example.com/log").Key
	s.Settings.RenewAt = h.clock.Now().Add(-time.Minute)
	must(t, h.place.Keep(s))
	h.start()
	h.eventually("the refusal", func() bool { return strings.Contains(h.journal(), "another key than the one") })
	if s, err := h.place.Read(); err != nil || s.LogKey != h.broker.Log.Key {
		t.Errorf("the log's key is %q, %v", s.LogKey, err)
	}
}

// What was written down of a session is garbage now: nobody can end it, and that is told.
func TestASessionThatCannotBeReadIsTold(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.start()
	must(t, os.WriteFile(filepath.Join(h.place.Sessions(), strings.Repeat("ab", 16)+".json"), []byte("{"), 0o600))
	brokertest.WaitFor(h.broker, hostapi.KindAlarm, "the alarm", func(a hostapi.Alarm) bool { return a.Code == "sessions-unreadable" })
}

// There is one daemon.
func TestOneDaemon(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.start()
	h.broker.Wait("the daemon", func() bool { return h.broker.Heard() > 0 })
	err := daemon.Run(t.Context(), daemon.Config{Place: h.place, Key: h.key, Spool: h.spool, HTTP: http.DefaultClient, Now: h.clock.Now, Log: h.say})
	if err != daemon.ErrRunning {
		t.Errorf("a second daemon: %v", err)
	}
}
