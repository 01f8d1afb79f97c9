package certs

import (
	"fmt"
	"net/netip"
	"strings"

	"sallyport/internal/ids"
	"sallyport/internal/names"
)

// Principal is the one principal that opens the login on the host,
// "<login>@<host-id>" (P2). It is the only way to make one.
func Principal(login, hostID string) (string, error) {
	if !names.Login(login) {
		return "", fmt.Errorf("login %q has characters that a principal must not have", login)
	}
	if !ids.Valid(ids.Host, hostID) {
		return "", fmt.Errorf("%q is no host's id", hostID)
	}
	return login + "@" + hostID, nil
}

// KeyID is what sshd writes into its log when the certificate is used,
// "<request id>:<person id>", in characters that cannot forge a log line.
func KeyID(requestID, personID string) (string, error) {
	if !ids.Valid(ids.Request, requestID) {
		return "", fmt.Errorf("%q is no request's id", requestID)
	}
	if !ids.Valid(ids.Person, personID) {
		return "", fmt.Errorf("%q is no person's id", personID)
	}
	return requestID + ":" + personID, nil
}

// sourceAddress is the value of the critical option of that name: a list of
// CIDRs. An address by itself stands for itself alone. sshd rejects a prefix
// with host bits, so it is refused here, where somebody reads the error.
func sourceAddress(from []string) (string, error) {
	list := make([]string, 0, len(from))
	for _, s := range from {
		prefix, err := netip.ParsePrefix(s)
		if err != nil {
			addr, addrErr := netip.ParseAddr(s)
			if addrErr != nil || addr.Zone() != "" {
				return "", fmt.Errorf("source address %q is neither an address nor a CIDR", s)
			}
			prefix = netip.PrefixFrom(addr, addr.BitLen())
		}
		if prefix != prefix.Masked() {
			return "", fmt.Errorf("source address %q has bits beyond its prefix", s)
		}
		list = append(list, prefix.String())
	}
	return strings.Join(list, ","), nil
}

// validHostPrincipal reports whether the name may stand in a host certificate.
// ssh expands wildcards there, so none may get in.
func validHostPrincipal(name string) bool {
	if _, err := netip.ParseAddr(name); err == nil {
		return !strings.Contains(name, "%")
	}
	return names.Dotted(name, maxDomain)
}
