// Package enrol makes a machine a host of Sallyport, and takes that back.
//
// A host has another way in before it is enrolled, and somebody who uses it to enrol
// it. It goes only when the new one is proved; the order of steps is what keeps that
// promise ([Enroller.Enrol]). Each step writes whole files, keeps what was there, and
// can be done again; when one fails, those before it are taken back.
//
// Everything that is added to files of others is marked, so that it can be taken away
// again when they have changed meanwhile.
package enrol

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"sallyport/api/hostapi"
	"sallyport/cmd/sally-host/internal/place"
)

// Ask is what an engineer wants.
type Ask struct {
	URL     string        // of the broker; may be empty on a host that is enrolled
	Token   string        // a join token, or empty: then an operator lets the host in
	Name    string        // proposed, where no token says it
	Address string        // proposed: host or host:port
	Logins  []string      // proposed
	LogKey  string        // of the broker's log, if it is known from elsewhere
	Wait    time.Duration // for an operator
	// KeepOtherAccess leaves every other way in open, for a first stage.
	KeepOtherAccess bool
}

// Enroller enrols this host.
type Enroller struct {
	Place   place.Place
	Server  Server
	HTTP    *http.Client
	Now     func() time.Time
	Out     io.Writer
	Version string // of this program
	// Sure asks whether the other ways in may go now.
	Sure func(question string) bool
}

// ErrWaiting says that no operator has let the host in yet.
var ErrWaiting = errors.New("no operator has let this host in yet: run the same command again later")

// ErrNotSure says that the engineer wants to keep the other ways in.
var ErrNotSure = errors.New("the other ways in stay open: run sally-host enroll again to close them")

// errFirstStage says that SELinux wants two stages: it confines sshd, but not the sshd of
// a rehearsal, so that only a login shows whether it lets the helper do its work.
var errFirstStage = errors.New("SELinux enforces its rules here, and a rehearsal does not see them. Run this with --keep-other-access, log in with a certificate (sally ssh), and then run sally-host enroll again to close the other ways in")

// enforcing reports whether SELinux does (selinux(8)).
func enforcing() bool {
	text, err := os.ReadFile("/sys/fs/selinux/enforce")
	return err == nil && strings.TrimSpace(string(text)) == "1"
}

func (e *Enroller) say(format string, args ...any) { fmt.Fprintf(e.Out, format+"\n", args...) }

// Enrol makes this machine a host. In this order:
//
//  1. sshd's own configuration is good as it is, and a key is found;
//  2. the broker lets the host in, and what it says is written down, the log's key for
//     good;
//  3. the helper is installed, with its account, and its answers are rehearsed: an sshd
//     that nobody else reaches, with the settings that this one is to have, lets a right
//     certificate in to each login, and no wrong one;
//  4. the new way in is opened beside the others, and sshd shows the host's certificate;
//  5. only then do the others go, and that is tried from outside.
//
// When something fails, the files are again what they were before step 3, and so is sshd.
func (e *Enroller) Enrol(ctx context.Context, ask Ask) error {
	if err := e.Server.Test(ctx, e.Server.Config); err != nil {
		return fmt.Errorf("sshd's configuration is not good as it is; nothing was changed: %w", err)
	}
	version, err := e.Server.Version(ctx)
	if err != nil {
		return err
	}
	before, err := e.Server.Effective(ctx, e.Server.Config, "root", "192.0.2.1")
	if err != nil {
		return err
	}
	keyFile, err := hostKey(before)
	if err != nil {
		return err
	}
	s, list, err := e.join(ctx, ask, keyFile, version)
	if err != nil {
		return err
	}
	logins := e.accounts(s.Logins)
	if len(logins) == 0 {
		return fmt.Errorf("none of the logins %q is an account of this host: make one, and run this again", s.Logins)
	}
	if ca := before.one("trustedusercakeys"); ask.KeepOtherAccess && ca != "none" && ca != place.Here.UserCA() {
		return fmt.Errorf("this host trusts the CA in %s, and sshd knows one file only: that way in cannot be kept", ca)
	}
	if enforcing() && !ask.KeepOtherAccess && !exists(DropIn) {
		return errFirstStage
	}
	c := &changes{backup: e.Place.State() + "/backup/" + e.Now().UTC().Format("20060102T150405Z")}
	err = e.change(ctx, c, ask, s, list, logins, Drop{Version: version, Root: slices.Contains(s.Logins, "root")}, before)
	if err != nil && !errors.Is(err, ErrNotSure) {
		return e.takeBack(context.WithoutCancel(ctx), c, before, err)
	}
	return err
}

// change is steps 3 to 5. What it does to files of others, c can take back.
func (e *Enroller) change(ctx context.Context, c *changes, ask Ask, s place.Settings, list string, logins []string, open Drop, before Effective) error {
	if err := e.install(ctx, c, s, list); err != nil {
		return err
	}
	closed := open
	closed.Closed = true
	if err := e.rehearse(ctx, closed, s, logins); err != nil {
		return err
	}
	e.say("rehearsed    a right certificate opens %s; wrong ones do not", strings.Join(logins, ", "))

	isClosed := before.one("authorizedkeysfile") == "none" && before.one("authenticationmethods") == "publickey"
	if ask.KeepOtherAccess || !isClosed {
		if err := e.configure(ctx, c, open, s, logins, before); err != nil {
			return err
		}
		e.say("opened       sshd takes certificates of Sallyport, and what it took before")
	}
	if err := e.startDaemon(ctx, c); err != nil {
		return err
	}
	if ask.KeepOtherAccess {
		e.say("\nThe other ways in are open still. To close them: sally-host enroll")
		return nil
	}
	if !isClosed && !e.Sure("Passwords and authorized keys will not open this host any more. Close them now?") {
		return ErrNotSure
	}
	if err := e.configure(ctx, c, closed, s, logins, before); err != nil {
		return err
	}
	e.say("closed       every other way in; a wrong certificate was refused from outside")
	return nil
}

// takeBack undoes what was changed before something failed.
func (e *Enroller) takeBack(ctx context.Context, c *changes, before Effective, failed error) error {
	if err := c.undo(); err != nil {
		return errors.Join(failed, fmt.Errorf("and not everything could be put back; %s has what was there: %w", c.backup, err))
	}
	if c.reloaded {
		failed = errors.Join(failed, e.Server.Reload(ctx, before))
	}
	return fmt.Errorf("%w\nNothing of sshd's is changed: the ways in are those that there were", failed)
}

// install puts down all that an answer to sshd rests on.
func (e *Enroller) install(ctx context.Context, c *changes, s place.Settings, list string) error {
	group, err := e.account(ctx)
	if err != nil {
		return err
	}
	if err := openState(e.Place, group); err != nil {
		return err
	}
	if err := e.program(c); err != nil {
		return err
	}
	if err := e.Place.Keep(s); err != nil {
		return err
	}
	if _, err := e.Place.KeepRevocations([]string{list}, s.LogKey); err != nil && !errors.Is(err, hostapi.ErrRolledBack) {
		return err // a list that the daemon got meanwhile is as good
	}
	if err := e.Place.Reopen(); err != nil {
		return err
	}
	return e.hook(c)
}

// configure writes sshd's settings, has sshd read them, and looks whether they are what
// is in effect.
func (e *Enroller) configure(ctx context.Context, c *changes, d Drop, s place.Settings, logins []string, before Effective) error {
	if err := c.write(DropIn, []byte(d.Text()), 0o644); err != nil {
		return err
	}
	if err := e.include(c); err != nil {
		return err
	}
	key, err := s.Key(e.Place)
	if err != nil {
		return err
	}
	if err := e.retire(c, key.PublicKey()); err != nil {
		return err
	}
	if err := e.Server.Test(ctx, e.Server.Config); err != nil {
		return err
	}
	for _, login := range append([]string{"root", "nobody"}, logins...) {
		for _, addr := range []string{"127.0.0.1", "192.0.2.1", "2001:db8::1"} {
			effective, err := e.Server.Effective(ctx, e.Server.Config, login, addr)
			if err != nil {
				return err
			}
			if err := d.check(effective); err != nil {
				return fmt.Errorf("for %s from %s: %w", login, addr, err)
			}
		}
	}
	c.reloaded = true
	if err := e.Server.Reload(ctx, before); err != nil {
		return err
	}
	return e.outside(ctx, s, logins[0], before)
}

// accounts are those of the logins that are accounts here.
func (e *Enroller) accounts(logins []string) []string {
	var there []string
	for _, login := range logins {
		if _, err := lookUp(login); err == nil {
			there = append(there, login)
		} else {
			e.say("note         %s is no account of this host yet", login)
		}
	}
	return there
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}
