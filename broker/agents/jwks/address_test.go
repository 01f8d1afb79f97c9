package jwks

import (
	"net/netip"
	"testing"
)

func TestPermitted(t *testing.T) {
	t.Parallel()
	inside := []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00::/8")}
	for address, want := range map[string]bool{
		"140.82.112.3": true, "8.8.8.8": true, "2606:50c0:8000::153": true, "::ffff:140.82.112.3": true, "10.1.2.3": true, "fd00::1": true,
		"::ffff:10.1.2.3": true,
		"10.2.0.1":        false, "127.0.0.1": false, "::1": false, "169.254.169.254": false, "fe80::1": false, "fe80::1%eth0": false, "192.168.1.1": false,
		"172.16.0.1": false, "100.64.0.1": false, "0.0.0.0": false, "::": false, "224.0.0.1": false, "ff02::1": false, "255.255.255.255": false, "240.0.0.1": false,
		"192.0.2.1": false, "198.18.0.1": false, "198.51.100.1": false, "203.0.113.1": false, "2001:db8::1": false, "2001::1": false, "2002:0a00:0001::1": false,
		"64:ff9b::a00:1": false, "64:ff9b:1::1": false, "::ffff:127.0.0.1": false, "::ffff:0:127.0.0.1": false, "::127.0.0.1": false, "fec0::1": false, "192.88.99.1": false,
	} {
		if got := permitted(netip.MustParseAddr(address), inside); got != want {
			t.Errorf("%s: %v", address, got)
		}
	}
}
