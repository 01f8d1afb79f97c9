package posture

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
)

// maxAddresses is how many addresses of one name are tried.
const maxAddresses = 4

// embedded are networks in which an IPv6 address says an IPv4 one, by which it could mean
// anything (RFC 4291 section 2.5.5.1, RFC 6052, RFC 3056).
var embedded = []netip.Prefix{netip.MustParsePrefix("::/96"), netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("2002::/16")}

// Elsewhere reports whether an address may be another machine's, wherever one stands. Those
// that are not mean this machine, or its link, where services listen that trust whoever
// reaches them, such as a cloud's that gives out credentials (169.254.169.254).
func Elsewhere(ip netip.Addr) bool {
	ip = ip.Unmap()
	for _, p := range embedded {
		if p.Contains(ip) {
			return false
		}
	}
	if ip.Is4() && (ip.As4()[0] == 0 || ip.As4()[0] >= 240) { // this network; reserved, and broadcast
		return false
	}
	return ip.IsValid() && ip.Zone() == "" && !ip.IsLoopback() && !ip.IsUnspecified() && !ip.IsMulticast() && !ip.IsLinkLocalUnicast()
}

var (
	errUnreachable = errors.New("sshd cannot be reached from the broker")
	errHere        = errors.New("the address that the host proposed leads to the broker's own machine or link; an operator has to say where it is")
)

// dial connects to where the host's sshd is said to be.
func dial(ctx context.Context, d Door) (net.Conn, netip.AddrPort, error) {
	host, text, err := net.SplitHostPort(d.Address)
	if err != nil {
		return nil, netip.AddrPort{}, errUnreachable
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return nil, netip.AddrPort{}, errUnreachable
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, netip.AddrPort{}, errUnreachable
	}
	failed := errUnreachable
	for _, ip := range ips[:min(len(ips), maxAddresses)] {
		if d.Proposed && !Elsewhere(ip) {
			failed = errHere
			continue
		}
		at := netip.AddrPortFrom(ip.Unmap(), uint16(port))
		dialer := net.Dialer{Timeout: dialTimeout}
		if conn, err := dialer.DialContext(ctx, "tcp", at.String()); err == nil {
			return conn, at, nil
		}
	}
	return nil, netip.AddrPort{}, failed
}
