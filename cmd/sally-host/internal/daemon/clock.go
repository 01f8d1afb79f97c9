package daemon

import (
	"net/http"
	"sync"
	"time"

	"sallyport/api/hostapi"
)

// clock is the host's clock, and what is known of the broker's.
//
// The broker signs when it made a list of revocations. That time has come, so [clock.Now]
// is never before it: setting the host's clock back prolongs no session.
type clock struct {
	here func() time.Time

	mu      sync.Mutex
	floor   time.Time // what the broker's clock showed
	at      time.Time // when that was heard; it has the kernel's monotonic time
	skew    time.Duration
	heard   bool
	correct bool // calls are to be signed with the broker's time
	offset  time.Duration
}

func newClock(here func() time.Time) *clock { return &clock{here: here} }

// Heard notes when the broker made something that it signed. now says that it was made
// just now, as far as one can tell.
func (c *clock) Heard(made time.Time, now bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if made.After(c.floor) {
		c.floor, c.at = made, time.Now()
	}
	if now {
		c.skew, c.heard = made.Sub(c.here()), true
	}
}

// Now is the time by which sessions end.
func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.here().UTC()
	if c.floor.IsZero() {
		return now
	}
	if least := c.floor.Add(time.Since(c.at)); least.After(now) {
		return least
	}
	return now
}

// Skew is how far the broker's clock is ahead, and whether that is known.
func (c *clock) Skew() (time.Duration, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.skew, c.heard
}

// Calls is the time to sign calls with: the host's own, until the broker says that it is
// wrong.
func (c *clock) Calls() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.correct {
		return c.here().Add(c.offset)
	}
	return c.here()
}

// Correct has calls signed with the time that the broker's answers say.
func (c *clock) Correct() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.correct, c.skew, c.heard = true, c.offset, true
}

// dated notes the time in the broker's answers (RFC 9110, 6.6.1).
type dated struct {
	next  http.RoundTripper
	clock *clock
}

func (d dated) RoundTrip(r *http.Request) (*http.Response, error) {
	next := d.next
	if next == nil {
		next = http.DefaultTransport
	}
	resp, err := next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		d.clock.mu.Lock()
		if d.clock.offset = date.Sub(d.clock.here()); d.clock.offset.Abs() < hostapi.MaxSkew {
			d.clock.correct = false
		}
		d.clock.mu.Unlock()
	}
	return resp, nil
}
