// Package throttle bounds how often something happens per key, in bounded
// memory. Every replica counts for itself.
package throttle

import (
	"container/list"
	"net/netip"
	"sync"

	"golang.org/x/time/rate"

	"sallyport/internal/clock"
)

// maxKeys is how many keys are remembered, the latest. A key that comes back
// after it was forgotten has its whole burst again.
const maxKeys = 10_000

// Throttle lets each key happen burst times at once, and then at a rate. It is
// safe for concurrent use.
type Throttle struct {
	clock clock.Clock
	every rate.Limit
	burst int

	mu     sync.Mutex
	byKey  map[string]*list.Element // of counted, guarded by mu
	recent *list.List               // latest first, guarded by mu
}

type counted struct {
	key  string
	rate *rate.Limiter
}

// New returns a throttle that has seen nothing.
func New(c clock.Clock, every rate.Limit, burst int) *Throttle {
	return &Throttle{clock: c, every: every, burst: burst, byKey: map[string]*list.Element{}, recent: list.New()}
}

// Allow counts one occurrence and reports whether it is within bounds.
func (t *Throttle) Allow(key string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	e, ok := t.byKey[key]
	if ok {
		t.recent.MoveToFront(e)
	} else {
		e = t.recent.PushFront(counted{key, rate.NewLimiter(t.every, t.burst)})
		t.byKey[key] = e
		if t.recent.Len() > maxKeys {
			delete(t.byKey, t.recent.Remove(t.recent.Back()).(counted).key)
		}
	}
	return e.Value.(counted).rate.AllowN(t.clock.Now(), 1)
}

// Network is the key of one caller: an IPv4 address, or an IPv6 /64, which one
// machine has to itself. What is no address is a key as it is.
func Network(address string) string {
	addr, err := netip.ParseAddr(address)
	if err != nil {
		return address
	}
	if addr = addr.Unmap(); addr.Is4() {
		return addr.String()
	}
	p, _ := addr.Prefix(64)
	return p.String()
}
