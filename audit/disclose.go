package audit

import (
	"context"
	"crypto/sha256"
	"sync"
	"time"

	"github.com/google/uuid"

	"sallyport/audit/event"
)

const (
	// disclosedFor is how long one event stands for the same being shown again.
	disclosedFor = 10 * time.Minute
	// maxDisclosed is how many of those events a process remembers. One that was
	// forgotten is written again.
	maxDisclosed = 10_000
)

// Disclose commits the event that somebody is shown something which is not theirs,
// before they are. On an error nothing may be shown: whoever reads leaves a trace, or
// reads nothing. An event that differs from one of the last ten minutes in its id and
// time only is that one, so that open pages do not flood the log.
func (l *Log) Disclose(ctx context.Context, e event.Event) error {
	if err := l.known.refused(); err != nil {
		return err // the event from before may be lost with the log's tail
	}
	key, err := sameness(e)
	if err != nil {
		return err
	}
	now := l.cfg.Clock.Now()
	if l.disclosed.has(key, now) {
		return nil
	}
	if err := l.commit(ctx, e); err != nil {
		return unavailable(err)
	}
	l.disclosed.add(key, now)
	l.Kick()
	return nil
}

// sameness is the same for events that differ in id and time only.
func sameness(e event.Event) ([sha256.Size]byte, error) {
	e.ID, e.Time = uuid.Max, time.Time{}
	leaf, err := e.Encode()
	return sha256.Sum256(leaf), err
}

// disclosures are the events of Disclose that still stand for others. The zero
// value has none.
type disclosures struct {
	mu    sync.Mutex
	until map[[sha256.Size]byte]time.Time
}

func (d *disclosures) has(key [sha256.Size]byte, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return now.Before(d.until[key])
}

func (d *disclosures) add(key [sha256.Size]byte, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.until) >= maxDisclosed {
		for k, until := range d.until {
			if !now.Before(until) {
				delete(d.until, k)
			}
		}
	}
	if d.until == nil || len(d.until) >= maxDisclosed {
		d.until = make(map[[sha256.Size]byte]time.Time)
	}
	d.until[key] = now.Add(disclosedFor)
}
