package certs_test

import (
	"crypto/rand"
	"errors"
	"maps"
	"regexp"
	"testing"

	"golang.org/x/crypto/ssh"

	"sallyport/broker/certs"
	"sallyport/internal/refusal"
)

// What a certificate gives is what its template says, read by the real ssh-keygen,
// and a template that says something else refuses it.
func TestP2_OptionsAreTheTermsOnes(t *testing.T) {
	t.Parallel()
	ca := newKey(t)
	templates := map[string]func(*certs.User){
		"pty":            func(*certs.User) {},
		"nothing":        func(u *certs.User) { u.NoPTY = true },
		"all forwarding": func(u *certs.User) { u.Forwarding = []string{"agent", "port", "x11"} },
		"port alone":     func(u *certs.User) { u.NoPTY, u.Forwarding = true, []string{"port"} },
		"from":           func(u *certs.User) { u.SourceAddress = []string{"192.0.2.0/24"} },
		"verify":         func(u *certs.User) { u.VerifyRequired = true },
		"verify, from":   func(u *certs.User) { u.VerifyRequired, u.SourceAddress = true, []string{"192.0.2.0/24"} },
	}
	says := map[string]string{
		"pty":            `Critical Options: \(none\)\s+Extensions:\s+permit-pty`,
		"nothing":        `Critical Options: \(none\)\s+Extensions:`,
		"all forwarding": `Critical Options: \(none\)\s+Extensions:\s+permit-X11-forwarding\s+permit-agent-forwarding\s+permit-port-forwarding\s+permit-pty`,
		"port alone":     `Critical Options: \(none\)\s+Extensions:\s+permit-port-forwarding`,
		"from":           `Critical Options:\s+source-address 192.0.2.0/24\s+Extensions:\s+permit-pty`,
		"verify":         `Critical Options:\s+verify-required\s+Extensions:\s+permit-pty`,
		"verify, from":   `Critical Options:\s+source-address 192.0.2.0/24\s+verify-required\s+Extensions:\s+permit-pty`,
	}
	key := newSecurityKey(t).public
	of := func(name string) certs.User {
		u := template(key)
		templates[name](&u)
		return u
	}
	for name := range templates {
		cert := issue(t, of(name), ca)
		dir := t.TempDir()
		writeFile(t, dir, "id-cert.pub", certs.Line(cert)+"\n")
		if out := sshKeygen(t, dir, "", "-L", "-f", "id-cert.pub"); !regexp.MustCompile(says[name] + `\s+` + receiptName + ` UNKNOWN OPTION\b.*\s*$`).MatchString(out) {
			t.Errorf("%s: ssh-keygen says\n%s", name, out)
		}
		for other := range templates {
			err := of(other).Check(cert, ca.PublicKey(), issued)
			if (err == nil) != (other == name) {
				t.Errorf("a certificate with %s held against %s: %v", name, other, err)
			}
		}
		if err := certs.CheckUser(cert, ca.PublicKey(), "dba", hostID, issued); err != nil {
			t.Errorf("%s: anybody's check: %v", name, err)
		}
	}
}

// Anybody's check, which knows no terms, refuses what no rule can give.
func TestP2_OptionsThatNoRuleGives(t *testing.T) {
	t.Parallel()
	ca := newKey(t)
	security, plain := newSecurityKey(t).public, newKey(t).PublicKey()
	for name, c := range map[string]struct {
		key    ssh.PublicKey
		change func(*ssh.Certificate)
	}{
		"run rc":                   {plain, func(c *ssh.Certificate) { c.Extensions["permit-user-rc"] = "" }},
		"no touch":                 {security, func(c *ssh.Certificate) { c.Extensions["no-touch-required"] = "" }},
		"extension with a value":   {plain, func(c *ssh.Certificate) { c.Extensions["permit-port-forwarding"] = "22" }},
		"extension in other case":  {plain, func(c *ssh.Certificate) { c.Extensions["permit-x11-forwarding"] = "" }},
		"forced command":           {plain, func(c *ssh.Certificate) { c.CriticalOptions["force-command"] = "id" }},
		"verify with a plain key":  {plain, func(c *ssh.Certificate) { c.CriticalOptions["verify-required"] = "" }},
		"verify with a value":      {security, func(c *ssh.Certificate) { c.CriticalOptions["verify-required"] = "no" }},
		"source that is no list":   {plain, func(c *ssh.Certificate) { c.CriticalOptions["source-address"] = "10.0.0.0/8," }},
		"unknown critical option":  {plain, func(c *ssh.Certificate) { c.CriticalOptions["x"] = "" }},
		"extension among critical": {plain, func(c *ssh.Certificate) { c.CriticalOptions["permit-pty"] = "" }},
	} {
		cert := issue(t, template(c.key), ca)
		cert.Extensions, cert.CriticalOptions = maps.Clone(cert.Extensions), map[string]string{}
		c.change(cert)
		if err := cert.SignCert(rand.Reader, ca); err != nil {
			t.Fatal(err)
		}
		if certs.CheckUser(cert, ca.PublicKey(), "dba", hostID, issued) == nil {
			t.Errorf("%s passes", name)
		}
	}
}

func TestNoCertificateWithOptionsThatMakeNoSense(t *testing.T) {
	t.Parallel()
	ca := newKey(t).PublicKey()
	for name, change := range map[string]func(*certs.User){
		"forwarding of anything":  func(u *certs.User) { u.Forwarding = []string{"*"} },
		"verify with a plain key": func(u *certs.User) { u.VerifyRequired = true },
		"source that is no CIDR":  func(u *certs.User) { u.SourceAddress = []string{"10.0.0.0/8,0.0.0.0/0"} },
	} {
		u := template(newKey(t).PublicKey())
		change(&u)
		if _, err := u.Pre(ca, rand.Reader); err == nil {
			t.Errorf("%s: a pre-certificate was made", name)
		}
	}
}

func TestCheckKeyType(t *testing.T) {
	t.Parallel()
	plain, security := newKey(t).PublicKey(), newSecurityKey(t).public
	onlySecurity := []string{ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256}
	for _, c := range []struct {
		key     ssh.PublicKey
		allowed []string
		ok      bool
	}{
		{plain, nil, true}, {security, nil, true}, {plain, []string{ssh.KeyAlgoED25519}, true},
		{plain, onlySecurity, false}, {security, onlySecurity, true}, {security, []string{ssh.KeyAlgoED25519}, false},
	} {
		err := certs.CheckKeyType(c.key, c.allowed)
		if (err == nil) != c.ok || err != nil && !errors.Is(err, certs.ErrKeyType) {
			t.Errorf("%s of %q: %v", c.key.Type(), c.allowed, err)
		}
		if err != nil && refusal.As(err).Hint == "" {
			t.Error("the refusal has no hint")
		}
	}
}
