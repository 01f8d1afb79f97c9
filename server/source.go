package server

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// sourceAddress puts the caller's own address into RemoteAddr. X-Forwarded-For
// is believed only as far as trusted proxies wrote it: the address that counts is
// the last one that is not a trusted proxy's. Everything left of it is the
// caller's own claim.
func sourceAddress(trusted []netip.Prefix) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.RemoteAddr = net.JoinHostPort(forwarded(r, trusted), "0")
			next.ServeHTTP(w, r)
		})
	}
}

func forwarded(r *http.Request, trusted []netip.Prefix) string {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return "0.0.0.0" // not TCP; no rule about addresses can match it
	}
	addr := peer.Addr().Unmap()
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0 && within(trusted, addr); i-- {
		hop, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		addr = hop.Unmap().WithZone("")
	}
	return addr.String()
}

func within(prefixes []netip.Prefix, a netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
