package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"sallyport/api/hostapi"
	"sallyport/audit/vouch"
)

// maxNotes is how many notes make the list, at most: then the daemon asks for one note
// that says it all.
const maxNotes = 32

// listen waits for news of what has ended.
func (d *Daemon) listen(ctx context.Context) {
	wait := time.Duration(0) // at first, whatever there is
	for failures := 0; ctx.Err() == nil; {
		err := d.hear(ctx, wait)
		if ctx.Err() != nil {
			return
		}
		if d.complain("hearing from the broker", err) && errors.Is(err, errList) {
			d.alarm("revocations-refused", err.Error())
		}
		if err == nil {
			if failures > 0 {
				nudge(d.back)
			}
			failures, wait = 0, waitForNews
			continue
		}
		if wait = 0; !sleep(ctx, backoff(failures)) {
			return
		}
		failures++
	}
}

// hear makes one call, and takes what it brings.
func (d *Daemon) hear(ctx context.Context, wait time.Duration) error {
	d.mu.Lock()
	after, whole := d.list.Number, len(d.notes) > maxNotes
	d.mu.Unlock()
	if whole {
		after = 0
	}
	note, err := d.client.Revocations(ctx, after, wait)
	if err != nil {
		d.refused(err)
		return err
	}
	if err := d.take(string(note)); err != nil {
		return err
	}
	if why, err := d.Place.WhyClosed(); err == nil && why == forgotten {
		return d.Place.Reopen()
	}
	return nil
}

// errList says that what came as a list of revocations is none that a broker of this
// host's would send: somebody may stand in between.
var errList = errors.New("the list of revocations that the broker sent is refused")

// forgotten is why a host is closed that the broker does not know.
const forgotten = "the broker does not know it any more: enrol it again (sally-host enroll)"

// refused acts on what the broker says when it refuses a call.
func (d *Daemon) refused(err error) {
	switch {
	case coded(err, hostapi.CodeClock):
		d.clock.Correct()
	case coded(err, hostapi.CodeUnknownHost):
		d.complain("closing the host", d.Place.Close(forgotten))
	}
}

// take verifies a note, joins it to the list, writes that down for the door, and has
// sessions ended. A list that cannot be written down ends sessions all the same.
func (d *Daemon) take(note string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	text, err := vouch.Open(hostapi.RevocationsKind, []byte(note), d.settings.LogKey)
	if err != nil {
		return fmt.Errorf("%w: it is not signed by its log: %w", errList, err)
	}
	news, err := hostapi.ParseRevocations(text)
	if err != nil {
		return fmt.Errorf("%w: %w", errList, err)
	}
	joined, err := d.list.Join(news, d.lives())
	if err != nil {
		return fmt.Errorf("%w: %w", errList, err)
	}
	if news.Number == d.list.Number && news.MadeAt.Before(d.list.MadeAt) {
		return nil // of another replica, or played again: the one that is there is newer
	}
	if d.list.Number > 0 && d.list.MadeAt.Before(news.Oldest) {
		d.missed = news.Oldest
	}
	changed := news.Number > d.list.Number || news.Since == 0
	sealed := slices.ContainsFunc(news.Sealed, func(s hostapi.SealedHost) bool {
		_, known := d.list.SealedAt(s.Host, s.Deployment, s.At)
		return s.Host == d.settings.HostID && !known
	})
	d.notes = following(d.notes, note, news, d.settings.LogKey)
	d.list = joined
	d.clock.Heard(news.MadeAt, true)
	_, err = d.Place.KeepRevocations(d.notes, d.settings.LogKey)
	if changed {
		nudge(d.ends)
	}
	if sealed {
		nudge(d.look)
	}
	if errors.Is(err, hostapi.ErrRolledBack) {
		return err
	}
	if err != nil {
		return fmt.Errorf("the list of revocations cannot be written down: %w", err)
	}
	return nil
}

// following are the notes that make the list once one more has come. One that says that
// there was no news gives way to the next.
func following(notes []string, note string, news hostapi.Revocations, logKey string) []string {
	if news.Since == 0 {
		return []string{note}
	}
	if n := len(notes); n > 1 && bare(notes[n-1], logKey) {
		notes = notes[:n-1]
	}
	return append(notes[:len(notes):len(notes)], note)
}

// bare reports whether a note says that there is no news.
func bare(note, logKey string) bool {
	text, err := vouch.Open(hostapi.RevocationsKind, []byte(note), logKey)
	if err != nil {
		return false
	}
	r, err := hostapi.ParseRevocations(text)
	return err == nil && r.Since == r.Number
}

// lives says of a grant whether a session of it is on the host.
func (d *Daemon) lives() func(request string) bool {
	all, _ := d.store.All() // what cannot be read is complained about elsewhere
	open := map[string]bool{}
	for _, s := range all {
		open[s.Request] = true
	}
	return func(request string) bool { return open[request] }
}
