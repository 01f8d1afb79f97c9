// Package daemon is what runs on a host all the time. It
//
//   - waits for the broker to say what has ended, and puts that down for the door;
//   - ends sessions whose grant is over, finished or revoked, with all that they started;
//   - tells the broker what the host saw, in order and until it has it (package spool);
//   - records sessions that have to be (package recording);
//   - looks at the host, and tells what it finds (package posture);
//   - renews the host's certificate.
//
// Whatever it has to know after a restart is in files that were written before it acted;
// killed at any time, it goes on where it was. Without the broker it goes on as long as
// what it knows is enough: certificates say themselves until when their sessions last.
package daemon

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/api/hostapi"
	"sallyport/cmd/sally-host/internal/place"
	"sallyport/cmd/sally-host/internal/session"
	"sallyport/cmd/sally-host/internal/spool"
)

// How often the daemon looks.
const (
	// lookEvery is how long a session may go on after its time, or a report wait.
	lookEvery = 500 * time.Millisecond
	// waitForNews is how long one call waits for news of revocations.
	waitForNews = 55 * time.Second
	// tidyEvery is how often it sees to what can wait.
	tidyEvery = 30 * time.Second
	// rememberUsed is for how long certificates for one session stay used up: far longer
	// than any is good, so that setting the clock forth and back brings none back.
	rememberUsed = 7 * 24 * time.Hour
)

// Config is what a daemon needs. All of it must be set.
type Config struct {
	Place place.Place
	Key   ssh.Signer // the host's
	Spool *spool.Spool
	// HTTP makes the calls. Its timeouts are the daemon's own.
	HTTP *http.Client
	Now  func() time.Time
	// Log writes to the journal.
	Log func(line string)
	// Renewed has sshd read its certificate and keys anew.
	Renewed func() error
	// Look looks at the host. It leaves the posture's number to the daemon.
	Look func(ctx context.Context, known Known) hostapi.Posture
}

// Known is what the daemon knows for a look at the host.
type Known struct {
	Settings place.Settings
	List     hostapi.Revocations
	// Skew is how far the broker's clock is ahead of the host's, and negative if it is
	// behind; Heard says whether the broker was heard since the daemon started.
	Skew  time.Duration
	Heard bool
}

// Daemon is a running one.
type Daemon struct {
	Config
	client *hostapi.Client
	store  session.Store
	tree   session.Tree
	boot   string
	clock  *clock

	look chan struct{} // somebody's session ended, or the host was sealed
	ends chan struct{} // the list changed
	back chan struct{} // the broker is there again
	recorder

	mu       sync.Mutex
	settings place.Settings
	notes    []string // that make the list
	list     hostapi.Revocations
	missed   time.Time // sessions of before then: their ends may have been missed
	ending   map[string]bool
	warned   map[string]time.Duration
	said     map[string]string // the last complaint about each thing
}

// ErrRunning says that there is one already.
var ErrRunning = errors.New("another sally-host daemon runs")

// Run runs until ctx ends.
func Run(ctx context.Context, cfg Config) error {
	settings, err := cfg.Place.Read()
	if err != nil {
		return err
	}
	if err := cfg.Place.MakeState(); err != nil {
		return err
	}
	unlock, err := only(ctx, cfg.Place.Lock())
	if err != nil {
		return err
	}
	defer unlock()
	d := &Daemon{Config: cfg, store: session.Store{Place: cfg.Place}, tree: session.Tree{Place: cfg.Place}, settings: settings,
		clock: newClock(cfg.Now), look: make(chan struct{}, 1), ends: make(chan struct{}, 1), back: make(chan struct{}, 1),
		ending: map[string]bool{}, warned: map[string]time.Duration{}, said: map[string]string{}}
	if d.boot, err = cfg.Place.BootID(); err != nil {
		return err
	}
	h := *cfg.HTTP
	h.Transport = dated{h.Transport, d.clock}
	d.client = &hostapi.Client{URL: settings.URL, ID: settings.HostID, Key: cfg.Key, HTTP: &h, Now: d.clock.Calls}
	if err := d.resume(); err != nil {
		return err
	}
	if err := d.openRecorder(); err != nil {
		return err
	}
	var wg sync.WaitGroup
	for _, loop := range []func(context.Context){d.listen, d.report, d.enforce, d.renew, d.tidy, d.examine, d.record, d.bringRecordings} {
		wg.Go(func() { loop(ctx) })
	}
	wg.Wait()
	return nil
}

// handover is how long the daemon before this one may take to be gone.
const handover = 2 * time.Second

// only holds the lock of the one daemon.
func only(ctx context.Context, name string) (unlock func(), err error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	for late := time.Now().Add(handover); syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil; {
		if time.Now().After(late) || !sleep(ctx, 20*time.Millisecond) {
			f.Close()
			return nil, ErrRunning
		}
	}
	return func() { f.Close() }, nil
}

// resume reads what the daemon before this one left.
func (d *Daemon) resume() error {
	var over []string // their ends were written down, and they were not yet forgotten
	if err := d.Spool.Each(func(r hostapi.Report) bool {
		if id := endOf(r); id != "" {
			over = append(over, id)
		}
		return true
	}); err != nil {
		return err
	}
	for _, id := range over {
		if err := d.store.Remove(id); err != nil {
			return err
		}
	}
	notes, list, err := d.Place.ReadRevocations(d.settings.LogKey)
	if err != nil { // it is asked for anew, and whoever answers sshd refuses meanwhile
		d.alarm("revocations-tampered", "the list of revocations on this host was not what the broker signed: "+err.Error())
		notes, list = nil, hostapi.Revocations{}
	}
	d.notes, d.list = notes, list
	d.clock.Heard(list.MadeAt, false)
	return nil
}

// known is what there is to know, for a look at the host.
func (d *Daemon) known() Known {
	skew, heard := d.clock.Skew()
	d.mu.Lock()
	defer d.mu.Unlock()
	return Known{Settings: d.settings, List: d.list, Skew: skew, Heard: heard}
}

// alarm reports something that must not be. What cannot be written is in the journal.
func (d *Daemon) alarm(code, detail string) {
	d.Log("alarm " + code + ": " + detail)
	if len(detail) > 2000 {
		detail = strings.ToValidUTF8(detail[:2000], "")
	}
	if _, err := d.Spool.Append(hostapi.KindAlarm, hostapi.Alarm{Code: code, Detail: detail}); err != nil {
		d.complain("alarms", err)
	}
}

// complain writes into the journal what goes wrong with something, once; and that it
// goes well again, for nil. It reports whether that is news.
func (d *Daemon) complain(what string, err error) (news bool) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	d.mu.Lock()
	before := d.said[what]
	d.said[what] = text
	d.mu.Unlock()
	switch {
	case text == before:
		return false
	case text == "":
		d.Log(what + ": all is well again")
	default:
		d.Log(what + ": " + text)
	}
	return true
}

// tidy sees to what can wait.
func (d *Daemon) tidy(ctx context.Context) {
	for {
		d.complain("room for reports on a full disk", d.Spool.Reserve())
		d.complain("used certificates", d.store.ForgetUsed(d.Now().Add(-rememberUsed)))
		if !sleep(ctx, tidyEvery) {
			return
		}
	}
}

// sleep waits, and reports whether it was not interrupted.
func sleep(ctx context.Context, t time.Duration) bool {
	return sleepOr(ctx, t, nil)
}

// sleepOr waits, but no longer than until something comes over the channel.
func sleepOr(ctx context.Context, t time.Duration, early <-chan struct{}) bool {
	timer := time.NewTimer(t)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-early:
		return true
	case <-ctx.Done():
		return false
	}
}

// backoff is how long to wait after so many failures: short at first, for a broker that
// is being restarted, and never the same for all hosts.
func backoff(failures int) time.Duration {
	most := min(200*time.Millisecond<<min(failures, 8), 10*time.Second)
	return most/2 + rand.N(most/2+1)
}

func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// problem returns the broker's refusal, if that is what an error is.
func problem(err error) *hostapi.Problem {
	p := (*hostapi.Problem)(nil)
	errors.As(err, &p)
	return p
}

func coded(err error, code string) bool {
	p := problem(err)
	return p != nil && p.Code == code
}

// say is a time for people.
func say(t time.Time) string { return t.UTC().Format("15:04 MST") }
