package throttle

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"sallyport/internal/clock"
)

const burst = 20

func TestOneKeyIsBoundedAndNoOther(t *testing.T) {
	t.Parallel()
	c := clock.NewManual(time.Now())
	th := New(c, rate.Every(time.Second), burst)
	for i := range burst {
		if !th.Allow("attacker") {
			t.Fatalf("attempt %d of %d was refused", i+1, burst)
		}
	}
	if th.Allow("attacker") {
		t.Error("the attempt after the burst was let through")
	}
	if !th.Allow("other") {
		t.Error("another key was refused with it")
	}
	c.Advance(time.Second)
	if !th.Allow("attacker") {
		t.Error("it was still refused after a second")
	}
	if th.Allow("attacker") {
		t.Error("a second brought more than one attempt back")
	}
}

func TestAnIPv6NetworkIsOneCaller(t *testing.T) {
	t.Parallel()
	th := New(clock.NewManual(time.Now()), rate.Every(time.Second), burst)
	addr := netip.MustParseAddr("2001:db8::1")
	for range burst {
		th.Allow(Network(addr.String()))
		addr = addr.Next()
	}
	if th.Allow(Network(addr.String())) {
		t.Error("one /64 has as many attempts as it has addresses")
	}
}

func TestNetwork(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"192.0.2.7": "192.0.2.7", "::ffff:192.0.2.7": "192.0.2.7", "2001:db8::7": "2001:db8::/64",
		"2001:db8:0:0:1::": "2001:db8::/64", "2001:db8:0:1::7": "2001:db8:0:1::/64", "": "", "pipe": "pipe",
	} {
		if got := Network(address); got != want {
			t.Errorf("Network(%q) = %q, want %q", address, got, want)
		}
	}
}

func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	th := New(clock.NewManual(time.Now()), rate.Every(time.Second), burst)
	for range burst {
		th.Allow("busy")
	}
	for i := range maxKeys + 500 {
		if i%100 == 0 && th.Allow("busy") {
			t.Fatal("a key in use was forgotten before others")
		}
		th.Allow(fmt.Sprint(i))
	}
	if len(th.byKey) != maxKeys || th.recent.Len() != maxKeys {
		t.Errorf("%d and %d keys are remembered, want %d", len(th.byKey), th.recent.Len(), maxKeys)
	}
}
