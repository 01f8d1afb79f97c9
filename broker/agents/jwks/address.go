package jwks

import (
	"net/netip"
	"slices"
)

// special are blocks within what is otherwise public that lead inwards, to somebody
// else by way of a tunnel, or nowhere (IANA's registries of special-purpose addresses).
var special = prefixes(
	"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15",
	"198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
	"2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
)

// public6 is all that is public of IPv6: what translates to IPv4 is outside of it.
var public6 = netip.MustParsePrefix("2000::/3")

func prefixes(list ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(list))
	for i, s := range list {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}

// permitted reports whether the broker may connect to the address: a public one, or
// one in the blocks that the policy has for the issuer.
func permitted(addr netip.Addr, allowed []netip.Prefix) bool {
	in := func(list []netip.Prefix) bool {
		return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(addr) })
	}
	addr = addr.Unmap()
	switch {
	case addr.Zone() != "":
		return false
	case in(allowed):
		return true
	case !addr.IsGlobalUnicast() || addr.IsPrivate() || in(special):
		return false
	}
	return addr.Is4() || public6.Contains(addr)
}
