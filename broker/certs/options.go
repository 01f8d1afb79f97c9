package certs

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
)

// Options and extensions of user certificates (PROTOCOL.certkeys). sshd refuses a
// certificate with a critical option that it does not know, and gives nothing for
// which there is no extension.
const (
	permitPTY            = "permit-pty"
	sourceAddressOption  = "source-address"
	verifyRequiredOption = "verify-required" // since OpenSSH 8.4
)

// forwardings are the extensions that permit a kind of forwarding, by the words
// of rules and terms.
var forwardings = map[string]string{
	"agent": "permit-agent-forwarding",
	"port":  "permit-port-forwarding",
	"x11":   "permit-X11-forwarding",
}

// extensions are those that the certificate is to have; none of them has a value.
func (u User) extensions() (map[string]string, error) {
	out := map[string]string{}
	if !u.NoPTY {
		out[permitPTY] = ""
	}
	for _, kind := range u.Forwarding {
		name, known := forwardings[kind]
		if !known {
			return nil, fmt.Errorf("there is no %q forwarding", kind)
		}
		out[name] = ""
	}
	return out, nil
}

// criticalOptions are those that the certificate is to have.
func (u User) criticalOptions() (map[string]string, error) {
	out := map[string]string{}
	from, err := sourceAddress(u.SourceAddress)
	if err != nil {
		return nil, err
	}
	if from != "" {
		out[sourceAddressOption] = from
	}
	if u.VerifyRequired {
		if u.Key == nil || !securityKey(u.Key) {
			return nil, errors.New("only a security key can verify its person")
		}
		out[verifyRequiredOption] = ""
	}
	return out, nil
}

// checkOptions holds a certificate against what any rule can give: a terminal,
// kinds of forwarding, source addresses, and that a security key verifies. What is
// in the receipt, which gives nothing, is CheckReceipt's to verify.
func checkOptions(cert *ssh.Certificate) error {
	for name, value := range ownExtensions(cert) {
		known := name == permitPTY || slices.Contains(slices.Collect(maps.Values(forwardings)), name)
		if !known || value != "" {
			return fmt.Errorf("unexpected extension %q", name)
		}
	}
	for name, value := range cert.CriticalOptions {
		switch name {
		case sourceAddressOption:
			if normal, err := sourceAddress(strings.Split(value, ",")); err != nil || normal != value {
				return fmt.Errorf("critical option %s is %q: not a list of CIDRs", name, value)
			}
		case verifyRequiredOption:
			if value != "" || cert.Key == nil || !securityKey(cert.Key) {
				return fmt.Errorf("critical option %s stands without a security key, or has a value", name)
			}
		default:
			return fmt.Errorf("unexpected critical option %q", name)
		}
	}
	return nil
}

// checkOptions verifies that a certificate gives what the template does, exactly.
func (u User) checkOptions(cert *ssh.Certificate) error {
	extensions, err := u.extensions()
	if err != nil {
		return err
	}
	if own := ownExtensions(cert); !maps.Equal(own, extensions) {
		return fmt.Errorf("extensions are %q, not %q", own, extensions)
	}
	options, err := u.criticalOptions()
	if err != nil {
		return err
	}
	if !maps.Equal(cert.CriticalOptions, options) {
		return fmt.Errorf("critical options are %q, not %q", cert.CriticalOptions, options)
	}
	return nil
}

// securityKey reports whether the key is in a FIDO token.
func securityKey(key ssh.PublicKey) bool { return strings.HasPrefix(key.Type(), "sk-") }

// CheckKeyType refuses a key whose type is not among those allowed. An empty list
// allows every type that CheckKey does.
func CheckKeyType(key ssh.PublicKey, allowed []string) error {
	if len(allowed) == 0 || slices.Contains(allowed, key.Type()) {
		return nil
	}
	err := ErrKeyType.With("the rule does not take keys of type %s", key.Type()).
		Hinting("use one of: %s", strings.Join(allowed, ", "))
	if !slices.ContainsFunc(allowed, func(t string) bool { return !strings.HasPrefix(t, "sk-") }) {
		err = err.Hinting("the rule wants a security key: ssh-keygen -t ed25519-sk")
	}
	return err
}
