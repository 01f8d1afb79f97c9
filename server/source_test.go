package server

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
)

func TestForwardedForOnlyFromTrustedProxies(t *testing.T) {
	t.Parallel()
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	for _, c := range []struct {
		name, peer string
		forwarded  []string
		want       string
	}{
		{"no proxy", "203.0.113.7:999", nil, "203.0.113.7"},
		{"a stranger claims another address", "203.0.113.7:999", []string{"198.51.100.1"}, "203.0.113.7"},
		{"one proxy", "10.0.0.1:999", []string{"198.51.100.1"}, "198.51.100.1"},
		{"two proxies", "10.0.0.1:999", []string{"198.51.100.1, 10.2.2.2"}, "198.51.100.1"},
		{"the caller's own claim is left of the proxy's", "10.0.0.1:999", []string{"127.0.0.1, 198.51.100.1"}, "198.51.100.1"},
		{"several headers are one list", "10.0.0.1:999", []string{"127.0.0.1", "198.51.100.1", "10.2.2.2"}, "198.51.100.1"},
		{"claiming to be a trusted proxy", "10.0.0.1:999", []string{"9.9.9.9, 10.9.9.9, 198.51.100.1"}, "198.51.100.1"},
		{"nonsense ends the list", "10.0.0.1:999", []string{"198.51.100.1, evil, 10.2.2.2"}, "10.2.2.2"},
		{"a proxy without header", "10.0.0.1:999", nil, "10.0.0.1"},
		{"empty header", "10.0.0.1:999", []string{""}, "10.0.0.1"},
		{"IPv6", "[fd00::1]:999", []string{"2001:db8::5"}, "2001:db8::5"},
		{"IPv4 in IPv6", "[::ffff:10.0.0.1]:999", []string{"::ffff:198.51.100.1"}, "198.51.100.1"},
		{"no address at all", "@", []string{"198.51.100.1"}, "0.0.0.0"},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = c.peer
		for _, v := range c.forwarded {
			r.Header.Add("X-Forwarded-For", v)
		}
		var got string
		sourceAddress(trusted)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			got = sourceOf(r)
		})).ServeHTTP(httptest.NewRecorder(), r)
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}
