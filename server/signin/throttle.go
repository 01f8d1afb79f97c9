package signin

import (
	"net/netip"
	"sync"

	"golang.org/x/time/rate"

	"sallyport/internal/clock"
)

// throttle bounds how often something happens per key, in bounded memory. Every
// replica counts for itself.
type throttle struct {
	clock clock.Clock
	every rate.Limit
	burst int

	mu   sync.Mutex
	keys map[string]*rate.Limiter // guarded by mu
}

// maxKeys is how many keys are remembered. Beyond it those that are at rest are
// forgotten, and if none is, all.
const maxKeys = 10_000

func newThrottle(c clock.Clock, every rate.Limit, burst int) *throttle {
	return &throttle{clock: c, every: every, burst: burst, keys: map[string]*rate.Limiter{}}
}

// allow counts one occurrence and reports whether it is within bounds.
func (t *throttle) allow(key string) bool {
	now := t.clock.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	l, ok := t.keys[key]
	if !ok {
		if len(t.keys) >= maxKeys {
			for k, l := range t.keys {
				if l.TokensAt(now) >= float64(t.burst) {
					delete(t.keys, k)
				}
			}
			if len(t.keys) >= maxKeys {
				clear(t.keys)
			}
		}
		l = rate.NewLimiter(t.every, t.burst)
		t.keys[key] = l
	}
	return l.AllowN(now, 1)
}

// network is what counts as one caller: an IPv4 address, or an IPv6 /64, which
// one machine has to itself.
func network(source string) string {
	addr, err := netip.ParseAddr(source)
	if err != nil || addr.Unmap().Is4() {
		return source
	}
	p, _ := addr.Prefix(64)
	return p.String()
}
