package daemon

import (
	"context"
	"fmt"
	"time"

	"sallyport/api/hostapi"
	"sallyport/cmd/sally-host/internal/session"
)

// tellRefused is how long a session that was refused stays, so that its person can read
// why. sshd gives it neither a shell nor a forwarding meanwhile.
const tellRefused = 2 * time.Second

// warnings are how long before its end a session's terminals are told.
var warnings = []time.Duration{5 * time.Minute, time.Minute, 10 * time.Second}

// enforce ends the sessions whose time has come, and tells of those that have ended.
func (d *Daemon) enforce(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		d.lookAtSessions()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-d.ends:
		}
	}
}

func (d *Daemon) lookAtSessions() {
	all, err := d.store.All()
	if d.complain("sessions that cannot be read", err) && err != nil {
		d.alarm("sessions-unreadable", "sessions of this host cannot be ended, because what was written down of them cannot be read: "+err.Error())
	}
	for _, s := range all {
		d.complain("session "+s.ID, d.lookAt(s))
	}
}

// lookAt looks at one session.
func (d *Daemon) lookAt(s session.Session) error {
	d.mu.Lock()
	busy := d.ending[s.ID]
	d.mu.Unlock()
	if busy {
		return nil
	}
	now := d.clock.Now()
	if s.BootID != d.boot {
		return d.ended(s, orNow(s.ClosedAt, now), hostapi.EndReboot, 0, 0)
	}
	moved := d.tree.Follow(&s)
	lives, news, err := d.tree.Lives(&s)
	if err != nil {
		return err
	}
	if moved || news {
		if err := d.store.Update(s.ID, func(to *session.Session) {
			to.Isolation, to.Cgroups, to.Connection, to.Seen = s.Isolation, s.Cgroups, s.Connection, s.Seen
		}); err != nil {
			return err
		}
	}
	if !lives {
		return d.over(s, now)
	}
	at, reason := d.end(s)
	switch {
	case at.IsZero():
	case !now.Before(at):
		d.mu.Lock()
		d.ending[s.ID] = true
		d.mu.Unlock()
		go d.finish(s, reason)
	default:
		d.warn(s, at.Sub(now))
	}
	return nil
}

// over tells of a session of which nothing runs any more.
func (d *Daemon) over(s session.Session, now time.Time) error {
	// sshd may have said so since the session was read.
	if err := d.store.Update(s.ID, func(to *session.Session) { s.ClosedAt = to.ClosedAt }); err != nil {
		return err
	}
	switch {
	case s.Problem != "":
		return d.ended(s, orNow(s.ClosedAt, now), hostapi.EndRefused, 0, 0)
	case s.ClosedAt.IsZero():
		return d.ended(s, now, hostapi.EndLost, 0, 0)
	}
	return d.ended(s, s.ClosedAt, hostapi.EndClosed, 0, 0)
}

// end is when a session ends, and why; the zero time if it does not.
func (d *Daemon) end(s session.Session) (time.Time, hostapi.EndReason) {
	if s.Problem != "" {
		return s.StartedAt.Add(tellRefused), hostapi.EndRefused
	}
	if s.Serial == 0 {
		return time.Time{}, "" // not ours: the broker is told, and alarmed
	}
	if s.Record && d.unrecorded(s) != "" {
		return s.StartedAt, hostapi.EndUnrecorded
	}
	d.mu.Lock()
	list, missed, host := d.list, d.missed, d.settings.HostID
	d.mu.Unlock()
	at, reason := list.End(s.Serial, s.Request, s.GrantEnds)
	if sealed, ok := list.SealedAt(host, s.Deployment, s.IssuedAt); ok {
		at, reason = sealed, hostapi.EndRevoked
	}
	switch {
	case reason == hostapi.EndTime && s.StartedAt.Before(missed):
		return missed, hostapi.EndRevoked // if it was, the list does not say so any more
	case reason == hostapi.EndTime && s.Keep:
		return time.Time{}, ""
	}
	return at, reason
}

// sentences are what the terminal says at the end.
var sentences = map[hostapi.EndReason]string{
	hostapi.EndTime:     "the time of your grant is up",
	hostapi.EndFinished: "the grant was finished",
	hostapi.EndRevoked:  "access was revoked",

	hostapi.EndUnrecorded: "it has to be recorded, and cannot be any more",
}

// warn tells a session's terminals how long it has, at each of the warnings once.
func (d *Daemon) warn(s session.Session, left time.Duration) {
	due := time.Duration(0)
	for _, w := range warnings {
		if left <= w {
			due = w
		}
	}
	d.mu.Lock()
	known := d.warned[s.ID]
	if due != 0 {
		d.warned[s.ID] = due
	}
	d.mu.Unlock()
	if due != 0 && due != known {
		d.tree.Tell(s, fmt.Sprintf("Sallyport: this session ends in %s, with all that runs in it. Extend the grant if you need longer.", left.Round(time.Second)))
	}
}

// finish ends a session and tells of it.
func (d *Daemon) finish(s session.Session, reason hostapi.EndReason) {
	defer func() {
		d.mu.Lock()
		delete(d.ending, s.ID)
		d.mu.Unlock()
	}()
	if sentence := sentences[reason]; sentence != "" {
		d.tree.Tell(s, "Sallyport: this session ends now: "+sentence+".")
	}
	killed, survived, err := d.tree.End(s)
	if err == nil {
		err = d.ended(s, d.clock.Now(), reason, killed, survived)
	}
	d.complain("session "+s.ID, err)
}

// ended writes the end down for the broker, and forgets the session. Killed in between,
// the next daemon finds the report, and forgets the session too.
func (d *Daemon) ended(s session.Session, at time.Time, reason hostapi.EndReason, killed, survived int) error {
	e := s.Ended(at.UTC(), reason)
	e.Killed, e.Survived = killed, survived
	if !s.Told {
		if _, err := d.Spool.Append(hostapi.KindSessionEnded, e); err != nil {
			return err
		}
		d.Log(fmt.Sprintf("the session of %s from %s, certificate %d, ended: %s", s.Login, s.Peer, s.Serial, reason))
	}
	if survived > 0 { // and is tried again
		return d.store.Update(s.ID, func(to *session.Session) { to.Told = true })
	}
	if err := d.store.Remove(s.ID); err != nil {
		return err
	}
	d.mu.Lock()
	delete(d.warned, s.ID)
	delete(d.lost, s.ID)
	d.mu.Unlock()
	nudge(d.look)
	return d.tree.Clean(s)
}

func orNow(t, now time.Time) time.Time {
	if t.IsZero() {
		return now
	}
	return t
}
