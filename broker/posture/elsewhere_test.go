package posture_test

import (
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/api/hostapi"
	"sallyport/broker/certs"
	"sallyport/broker/posture"
)

func TestElsewhere(t *testing.T) {
	t.Parallel()
	for ip, want := range map[string]bool{
		"10.0.3.7": true, "192.168.1.1": true, "100.64.0.1": true, "203.0.113.9": true, "2001:db8::7": true, "fd00::7": true, "::ffff:10.0.3.7": true,
		"127.0.0.1": false, "127.255.255.254": false, "0.0.0.0": false, "0.1.2.3": false, "169.254.169.254": false, "224.0.0.1": false, "239.1.1.1": false,
		"240.0.0.1": false, "255.255.255.255": false, "::": false, "::1": false, "::127.0.0.1": false, "::ffff:127.0.0.1": false, "::ffff:169.254.169.254": false,
		"64:ff9b::7f00:1": false, "2002:7f00:1::1": false, "fe80::1": false, "fe80::1%eth0": false, "fd00::1%eth0": false, "ff02::1": false, "ff05::2": false,
	} {
		if got := posture.Elsewhere(netip.MustParseAddr(ip)); got != want {
			t.Errorf("%s: %v", ip, got)
		}
	}
	if posture.Elsewhere(netip.Addr{}) {
		t.Error("no address at all is elsewhere")
	}
}

// A name that was the host's own word leads to the broker itself, since whoever keeps the
// name can let it lead anywhere.
func TestANameThatLeadsToTheBrokerIsNotFollowed(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { l.Close() })
	var calls atomic.Int32
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			calls.Add(1)
			conn.Close()
		}
	}()
	_, port, err := net.SplitHostPort(l.Addr().String())
	must(t, err)
	key := newSigner(t)
	for _, host := range []string{"localhost", "127.0.0.1", "::ffff:127.0.0.1"} {
		d := posture.Door{HostID: "host-1", Address: net.JoinHostPort(host, port), HostKey: certs.Line(key.PublicKey()), Proposed: true}
		p := posture.Look(t.Context(), d, "root", key.PublicKey(), nil, time.Now)
		if p.Result != hostapi.Unknown || len(p.Findings) != 1 || calls.Load() != 0 {
			t.Errorf("%s: %+v, after %d calls", host, p, calls.Load())
		}
	}
	// An operator's word is followed.
	d := posture.Door{HostID: "host-1", Address: net.JoinHostPort("localhost", port), HostKey: certs.Line(key.PublicKey())}
	if p := posture.Look(t.Context(), d, "root", key.PublicKey(), nil, time.Now); calls.Load() != 1 {
		t.Errorf("%+v, after %d calls", p, calls.Load())
	}
}
