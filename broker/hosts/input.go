package hosts

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"sallyport/api"
	"sallyport/broker/certs"
	"sallyport/internal/ids"
	"sallyport/internal/names"
	"sallyport/internal/refusal"
)

// reserved are words that stand in the API's paths where a host's name can.
var reserved = []string{"join-tokens", "pending", "labels"}

const (
	maxLabels  = 64
	maxLogins  = 64
	defaultSSH = 22
)

// Refusals of a host's description.
var (
	ErrName = refusal.New(refusal.Invalid, "host-name", "this is not a name for a host",
		"use 1 to 63 of a-z, 0-9, hyphen and dot, beginning and ending with a letter or digit, and not the form of a host's id or an IP address, nor join-tokens, pending or labels").On("name")
	ErrAddress = refusal.New(refusal.Invalid, "host-address", "this is not an address",
		"give an IP address or a DNS name, with :port if it is not 22, such as 10.0.3.7:2222 or [2001:db8::7]:22").On("address")
	ErrLabels = refusal.New(refusal.Invalid, "host-labels", "the labels are not what Kubernetes calls labels",
		"use at most 64, such as class=database and env=prod").On("labels")
	ErrLogins = refusal.New(refusal.Invalid, "host-logins", "the logins are not a list of Unix accounts",
		"name 1 to 64 different logins of the form [a-z_][a-z0-9_-]{0,31}").On("logins")
)

const nameCharacters = "abcdefghijklmnopqrstuvwxyz0123456789.-"

// normal checks a description and returns it in the form in which it is kept:
// address with port, logins sorted, host key without comment.
func normal(in api.HostInput) (api.HostInput, error) {
	if !names.Host(in.Name) || ids.Valid(ids.Host, in.Name) || readsAsAddress(in.Name) || slices.Contains(reserved, in.Name) {
		return in, ErrName
	}
	address, err := normalAddress(in.Address)
	if err != nil {
		return in, err
	}
	in.Address = address
	if err := checkLabels(in.Labels); err != nil {
		return in, err
	}
	if in.Labels == nil {
		in.Labels = map[string]string{}
	}
	if in.Logins, err = normalLogins(in.Logins); err != nil {
		return in, err
	}
	if in.HostKey, err = normalKey(in.HostKey); err != nil {
		return in, err
	}
	return in, nil
}

// readsAsAddress reports whether programs would take the name for an IPv4 address
// in one of its many forms: its last part is a number (WHATWG URL section 3.5,
// "ends in a number"). Such a name could stand for another host's address, in what
// people ask for and in a host certificate.
func readsAsAddress(name string) bool {
	_, err := strconv.ParseUint(name[strings.LastIndex(name, ".")+1:], 0, 64)
	return err == nil
}

// normalAddress splits off the port, if there is one, and puts one on.
func normalAddress(address string) (string, error) {
	host, port := address, strconv.Itoa(defaultSSH)
	if h, p, err := net.SplitHostPort(address); err == nil {
		host, port = h, p
	} else if inner, ok := strings.CutPrefix(address, "["); ok { // an IPv6 address without port
		host = strings.TrimSuffix(inner, "]")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || strconv.FormatUint(n, 10) != port {
		return "", ErrAddress.With("%q is not a port", port)
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		if ip.Zone() != "" || ip.IsUnspecified() || ip.IsMulticast() {
			return "", ErrAddress.With("%q is not the address of one host", host)
		}
		return net.JoinHostPort(ip.Unmap().String(), port), nil
	}
	if len(validation.IsDNS1123Subdomain(host)) > 0 { // also: nothing that ssh could take for an option
		return "", ErrAddress.With("%q is neither an IP address nor a DNS name in lower case", host)
	}
	return net.JoinHostPort(host, port), nil
}

func checkLabels(labels map[string]string) error {
	if len(labels) > maxLabels {
		return ErrLabels.With("there are %d labels, more than %d", len(labels), maxLabels)
	}
	for key, value := range labels {
		if wrong := validation.IsQualifiedName(key); len(wrong) > 0 {
			return ErrLabels.With("%q is not a label's name: %s", key, wrong[0])
		}
		if wrong := validation.IsValidLabelValue(value); len(wrong) > 0 {
			return ErrLabels.With("%q is not a label's value: %s", value, wrong[0])
		}
	}
	return nil
}

func normalLogins(logins []string) ([]string, error) {
	if len(logins) == 0 || len(logins) > maxLogins {
		return nil, ErrLogins.With("there are %d logins, not 1 to %d", len(logins), maxLogins)
	}
	sorted := slices.Sorted(slices.Values(logins))
	for i, login := range sorted {
		if !names.Login(login) {
			return nil, ErrLogins.With("%q is not a login", login)
		}
		if i > 0 && sorted[i-1] == login {
			return nil, ErrLogins.With("login %q is named twice", login)
		}
	}
	return sorted, nil
}

// normalKey reads a host's public key as it stands in its .pub file, whose
// third field is a comment and means nothing.
func normalKey(line string) (string, error) {
	line = strings.TrimSpace(line)
	if line == "" {
		return "", nil
	}
	if fields := strings.Fields(line); len(fields) > 2 && !strings.Contains(line, "\n") {
		line = fields[0] + " " + fields[1]
	}
	key, err := certs.ParseKey(line)
	if err != nil {
		if r := refusal.As(err); r != nil {
			return "", r.On("host_key")
		}
		return "", err
	}
	return certs.Line(key), nil
}
