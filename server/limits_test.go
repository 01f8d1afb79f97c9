package server

import (
	"net/netip"
	"testing"
	"time"

	"sallyport/internal/clock"
)

func TestLimiterBoundsOneAddressOnly(t *testing.T) {
	t.Parallel()
	c := clock.NewManual(time.Now())
	l := newLimiter(c)
	attacker, other := netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("198.51.100.2")
	for i := range signInBurst {
		if !l.allow(attacker) {
			t.Fatalf("attempt %d of %d was refused", i+1, signInBurst)
		}
	}
	if l.allow(attacker) {
		t.Error("the attempt after the burst was let through")
	}
	if !l.allow(other) {
		t.Error("another address was refused with it")
	}
	c.Advance(time.Second)
	if !l.allow(attacker) {
		t.Error("it was still refused after a second")
	}
}

func TestLimiterCountsAnIPv6NetworkOnce(t *testing.T) {
	t.Parallel()
	l := newLimiter(clock.NewManual(time.Now()))
	addr := netip.MustParseAddr("2001:db8::1")
	for range signInBurst {
		l.allow(addr)
		addr = addr.Next()
	}
	if l.allow(addr) {
		t.Error("one /64 has as many attempts as it has addresses")
	}
}

func TestLimiterMemoryIsBounded(t *testing.T) {
	t.Parallel()
	l := newLimiter(clock.NewManual(time.Now()))
	addr := netip.MustParseAddr("10.0.0.0")
	for range limiterSize + 500 {
		l.allow(addr)
		addr = addr.Next()
	}
	if len(l.byAddr) != limiterSize || l.recent.Len() != limiterSize {
		t.Errorf("%d and %d addresses are remembered, want %d", len(l.byAddr), l.recent.Len(), limiterSize)
	}
}
