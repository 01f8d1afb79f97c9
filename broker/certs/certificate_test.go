package certs_test

import (
	"bytes"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"pgregory.net/rapid"

	"sallyport/broker/certs"
	"sallyport/internal/certtest"
)

func TestP2_OneUserOneHost(t *testing.T) {
	t.Parallel()
	ca := newKey(t)
	u := template(newKey(t).PublicKey())
	cert := issue(t, u, ca)
	if want := []string{"dba@" + hostID}; !slices.Equal(cert.ValidPrincipals, want) {
		t.Errorf("principals %q, want %q", cert.ValidPrincipals, want)
	}
	if cert.KeyId != requestID+":"+personID {
		t.Errorf("key id %q", cert.KeyId)
	}
	receipt := cert.Extensions[receiptName]
	if want := map[string]string{"permit-pty": "", receiptName: receipt}; !maps.Equal(cert.Extensions, want) || receipt == "" {
		t.Errorf("extensions %q, want permit-pty and a receipt", cert.Extensions)
	}
	if len(cert.CriticalOptions) != 0 {
		t.Errorf("critical options %q, want none", cert.CriticalOptions)
	}
	if err := u.Check(cert, ca.PublicKey(), issued); err != nil {
		t.Error(err)
	}

	// It opens this login on this host, and nothing else.
	if err := certs.CheckUser(cert, ca.PublicKey(), "dba", hostID, issued); err != nil {
		t.Error(err)
	}
	for _, other := range []struct{ login, host string }{
		{"root", hostID}, {"dba", "host-000000000000"}, {"", hostID}, {"dba", ""}, {"*", hostID}, {"dba@x", hostID},
	} {
		if certs.CheckUser(cert, ca.PublicKey(), other.login, other.host, issued) == nil {
			t.Errorf("the certificate opens %q on %q", other.login, other.host)
		}
	}

	// And x/crypto, as an independent reader, agrees.
	checker := &ssh.CertChecker{Clock: func() time.Time { return issued }}
	if err := checker.CheckCert("dba@"+hostID, cert); err != nil {
		t.Error(err)
	}
	for _, principal := range []string{"dba", "root", "", "*", "root@" + hostID} {
		if checker.CheckCert(principal, cert) == nil {
			t.Errorf("x/crypto takes the certificate for %q", principal)
		}
	}
}

// Nothing that could mean more than one login, one host, one person or one line
// of a log gets into a certificate.
func TestP2_NamesCannotSayMore(t *testing.T) {
	t.Parallel()
	ca, key := newKey(t).PublicKey(), newKey(t).PublicKey()
	spoil := map[string]func(*certs.User){
		"no key":             func(u *certs.User) { u.Key = nil },
		"weak key":           func(u *certs.User) { u.Key = rsaKey(t, 2048).PublicKey() },
		"certificate as key": func(u *certs.User) { u.Key = issue(t, template(key), newKey(t)) },
		"no serial":          func(u *certs.User) { u.Serial = 0 },
		"no lifetime":        func(u *certs.User) { u.Lifetime = 0 },
		"negative lifetime":  func(u *certs.User) { u.Lifetime = -time.Hour },
		"request":            func(u *certs.User) { u.RequestID = "req-1\nAccepted publickey for root" },
		"person":             func(u *certs.User) { u.PersonID = "per-4f8k2m9qhx1z extra" },
		"person and request": func(u *certs.User) { u.RequestID, u.PersonID = u.PersonID, u.RequestID },
	}
	for _, login := range []string{"", "*", "?", "DBA", "dba,root", "dba root", "dba\n", "dba@", "../x", "$(id)", "%u", "-oProxyCommand",
		"1dba", "dbä", strings.Repeat("a", 33), "dba\x00"} {
		spoil["login "+login] = func(u *certs.User) { u.Login = login }
	}
	for _, host := range []string{"", "*", "host-", "host-*", "host-7k3m9q2x4f8", hostID + "," + hostID, hostID + "\n", "HOST-7k3m9q2x4f8h", requestID} {
		spoil["host "+host] = func(u *certs.User) { u.HostID = host }
	}
	for _, from := range []string{"", "*", "0.0.0.0/33", "10.0.0.1/8", "10.0.0.0/8,0.0.0.0/0", "fe80::1%eth0", "example.com", "!10.0.0.1"} {
		spoil["source "+from] = func(u *certs.User) { u.SourceAddress = []string{from} }
	}
	for name, f := range spoil {
		u := template(key)
		f(&u)
		if _, err := u.Pre(ca, rand.Reader); err == nil {
			t.Errorf("%s: a pre-certificate was made", name)
		}
	}
	if _, err := template(key).Pre(ca, bytes.NewReader(make([]byte, 31))); err == nil {
		t.Error("a pre-certificate was made with a short nonce")
	}
}

func TestSourceAddress(t *testing.T) {
	t.Parallel()
	ca := newKey(t)
	u := template(newKey(t).PublicKey())
	u.SourceAddress = []string{"10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "::1"}
	cert := issue(t, u, ca)
	const want = "10.0.0.0/8,192.0.2.7/32,2001:db8::/32,::1/128"
	if got := cert.CriticalOptions["source-address"]; got != want {
		t.Errorf("source-address %q, want %q", got, want)
	}
	if err := u.Check(cert, ca.PublicKey(), issued); err != nil {
		t.Error(err)
	}
	u.SourceAddress = nil
	if u.Check(cert, ca.PublicKey(), issued) == nil {
		t.Error("a certificate with source-address passes for one without")
	}
}

// Whatever one changes in a certificate, even signed again by the true CA, the
// check sees it.
func TestP2_CheckSeesEveryChange(t *testing.T) {
	t.Parallel()
	ca := newKey(t)
	u := template(newKey(t).PublicKey())
	for name, change := range map[string]func(*ssh.Certificate){
		"no principal":       func(c *ssh.Certificate) { c.ValidPrincipals = nil },
		"two principals":     func(c *ssh.Certificate) { c.ValidPrincipals = append(c.ValidPrincipals, "root@"+hostID) },
		"same one twice":     func(c *ssh.Certificate) { c.ValidPrincipals = append(c.ValidPrincipals, c.ValidPrincipals[0]) },
		"wildcard":           func(c *ssh.Certificate) { c.ValidPrincipals = []string{"*"} },
		"another login":      func(c *ssh.Certificate) { c.ValidPrincipals = []string{"root@" + hostID} },
		"bare login":         func(c *ssh.Certificate) { c.ValidPrincipals = []string{"dba"} },
		"host certificate":   func(c *ssh.Certificate) { c.CertType = ssh.HostCert },
		"type 0":             func(c *ssh.Certificate) { c.CertType = 0 },
		"another key":        func(c *ssh.Certificate) { c.Key = newKey(t).PublicKey() },
		"weak key":           func(c *ssh.Certificate) { c.Key = rsaKey(t, 2048).PublicKey() },
		"another serial":     func(c *ssh.Certificate) { c.Serial++ },
		"no serial":          func(c *ssh.Certificate) { c.Serial = 0 },
		"another request":    func(c *ssh.Certificate) { c.KeyId = "req-000000000000:" + personID },
		"another person":     func(c *ssh.Certificate) { c.KeyId = requestID + ":per-000000000000" },
		"no key id":          func(c *ssh.Certificate) { c.KeyId = "" },
		"port forwarding":    func(c *ssh.Certificate) { c.Extensions["permit-port-forwarding"] = "" },
		"no pty":             func(c *ssh.Certificate) { delete(c.Extensions, "permit-pty") },
		"value in extension": func(c *ssh.Certificate) { c.Extensions["permit-pty"] = "yes" },
		"forced command":     func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"force-command": "id"} },
		"odd source":         func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"source-address": "*"} },
		"empty source":       func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"source-address": ""} },
		"starts earlier":     func(c *ssh.Certificate) { c.ValidAfter-- },
		"starts at 0":        func(c *ssh.Certificate) { c.ValidAfter = 0 },
		"starts later":       func(c *ssh.Certificate) { c.ValidAfter += 61 },
		"ends later":         func(c *ssh.Certificate) { c.ValidBefore++ },
		"never ends":         func(c *ssh.Certificate) { c.ValidBefore = ssh.CertTimeInfinity },
		"ends past int64":    func(c *ssh.Certificate) { c.ValidBefore = math.MaxInt64 + 1 },
		"ended":              func(c *ssh.Certificate) { c.ValidBefore = uint64(issued.Unix()) },
		"reserved field":     func(c *ssh.Certificate) { c.Reserved = []byte("x") },
	} {
		cert := issue(t, u, ca)
		change(cert)
		if u.Check(cert, ca.PublicKey(), issued) == nil {
			t.Errorf("%s: changed under its signature, it passes", name)
		}
		if err := cert.SignCert(rand.Reader, ca); err != nil {
			t.Fatal(err)
		}
		if u.Check(cert, ca.PublicKey(), issued) == nil {
			t.Errorf("%s: signed anew, it passes", name)
		}
	}

	cert := issue(t, u, ca)
	if u.Check(cert, newKey(t).PublicKey(), issued) == nil {
		t.Error("a certificate passes for one of another CA")
	}
	cert.Signature = nil
	if u.Check(cert, ca.PublicKey(), issued) == nil {
		t.Error("a certificate without signature passes")
	}
	short := issue(t, u, ca)
	short.Nonce = short.Nonce[:16]
	if u.Check(short, ca.PublicKey(), issued) == nil {
		t.Error("a certificate with a short nonce passes")
	}
}

func TestP3_Window(t *testing.T) {
	t.Parallel()
	at := func(s string) time.Time {
		parsed, err := time.Parse(time.RFC3339Nano, "2026-03-01T"+s+"Z")
		if err != nil {
			t.Fatal(err)
		}
		return parsed
	}
	for _, c := range []struct {
		name          string
		now           string
		lifetime      time.Duration
		limit         string
		after, before string // before empty: refused
	}{
		{"on the second", "12:00:00", 5 * time.Minute, "13:00:00", "11:59:00", "12:05:00"},
		{"one microsecond later", "12:00:00.000001", 5 * time.Minute, "13:00:00", "11:59:01", "12:05:00"},
		{"one microsecond before", "11:59:59.999999", 5 * time.Minute, "13:00:00", "11:59:00", "12:04:59"},
		{"the grant ends first", "12:00:00", 5 * time.Minute, "12:03:00.9", "11:59:00", "12:03:00"},
		{"both at once", "12:00:00", 5 * time.Minute, "12:05:00", "11:59:00", "12:05:00"},
		{"one second left", "12:00:00", 5 * time.Minute, "12:00:01", "11:59:00", "12:00:01"},
		{"the next second begins within the grant", "12:00:00.999999", 5 * time.Minute, "12:00:01", "11:59:01", "12:00:01"},
		{"less than a second left", "12:00:00", 5 * time.Minute, "12:00:00.999999", "", ""},
		{"at the end", "12:00:00", 5 * time.Minute, "12:00:00", "", ""},
		{"after the end", "12:00:00", 5 * time.Minute, "11:00:00", "", ""},
		{"no lifetime", "12:00:00", 0, "13:00:00", "", ""},
		{"lifetime below a second", "12:00:00.5", 400 * time.Millisecond, "13:00:00", "", ""},
	} {
		after, before, err := certs.Window(at(c.now), c.lifetime, at(c.limit))
		if c.before == "" {
			if err == nil {
				t.Errorf("%s: %s to %s, want a refusal", c.name, after, before)
			}
			continue
		}
		if err != nil || !after.Equal(at(c.after)) || !before.Equal(at(c.before)) {
			t.Errorf("%s: %s to %s (%v), want %s to %s", c.name, after, before, err, c.after, c.before)
		}
	}
	if _, _, err := certs.Window(at("12:00:00"), time.Hour, at("12:00:00")); !errors.Is(err, certs.ErrNoTimeLeft) {
		t.Errorf("error %v, want ErrNoTimeLeft", err)
	}
}

// P2 and P3 hold for every template that a certificate can be made from.
func TestP3_ShortForEveryTemplate(t *testing.T) {
	t.Parallel()
	ca, key, log := newKey(t), newKey(t).PublicKey(), certtest.NewLog(t, origin)
	rapid.Check(t, func(t *rapid.T) {
		u := template(key)
		u.Serial = rapid.Uint64Min(1).Draw(t, "serial")
		u.Login = rapid.StringMatching(`[a-z_][a-z0-9_-]{0,31}`).Draw(t, "login")
		u.Now = issued.Add(time.Duration(rapid.Int64Range(0, 1e15).Draw(t, "now")) * time.Microsecond)
		u.Lifetime = time.Duration(rapid.Int64Range(1, int64(72*time.Hour)).Draw(t, "lifetime"))
		u.GrantEnds = u.Now.Add(time.Duration(rapid.Int64Range(-1e6, int64(48*time.Hour)).Draw(t, "left")))
		pre, err := u.Pre(ca.PublicKey(), rand.Reader)
		if err != nil {
			if !errors.Is(err, certs.ErrNoTimeLeft) {
				t.Fatal(err)
			}
			return
		}
		cert, err := pre.Sign(rand.Reader, ca, log.Log(certtest.Issued(u, pre, ca.PublicKey())))
		if err != nil {
			t.Fatal(err)
		}
		after, before := time.Unix(int64(cert.ValidAfter), 0), time.Unix(int64(cert.ValidBefore), 0)
		if after.Before(u.Now.Add(-time.Minute)) || after.After(u.Now) {
			t.Fatalf("starts at %s for %s", after, u.Now)
		}
		if before.After(u.GrantEnds) || before.After(u.Now.Add(u.Lifetime)) || before.After(u.Now.Add(24*time.Hour)) {
			t.Fatalf("ends at %s: lifetime %s, grant's end %s", before, u.Lifetime, u.GrantEnds)
		}
		if err := u.Check(cert, ca.PublicKey(), u.Now); err != nil {
			t.Fatal(err)
		}
		if u.Check(cert, ca.PublicKey(), before) == nil || u.Check(cert, ca.PublicKey(), before.Add(-time.Microsecond)) != nil {
			t.Fatalf("the end at %s is not exact", before)
		}
		logged, err := certs.CheckReceipt(cert.Marshal(), log.Verifier)
		if err != nil || !bytes.Equal(logged.PreCertificate, pre.Bytes()) {
			t.Fatalf("the certificate is not the pre-certificate and its receipt: %v", err)
		}
	})
}

// ssh-keygen reads what we make, whatever the key, whatever the CA.
func TestSSHKeygenReadsCertificates(t *testing.T) {
	t.Parallel()
	keys := map[string]ssh.PublicKey{
		"ED25519":    newKey(t).PublicKey(),
		"ECDSA":      ecdsaKey(t, elliptic.P384()).PublicKey(),
		"RSA":        rsaKey(t, 3072).PublicKey(),
		"ED25519-SK": newSecurityKey(t).public,
	}
	for caName, ca := range map[string]ssh.Signer{"ed25519": newKey(t), "ecdsa": ecdsaKey(t, elliptic.P256()), "rsa": rsaKey(t, 3072)} {
		for kind, key := range keys {
			u := template(key)
			u.SourceAddress = []string{"127.0.0.1"}
			dir := t.TempDir()
			cert := issue(t, u, ca)
			writeFile(t, dir, "id-cert.pub", certs.Line(cert)+"\n")
			out := sshKeygen(t, dir, "", "-L", "-f", "id-cert.pub")
			for _, want := range []string{
				`Type: \S+-cert-v01@openssh.com user certificate`,
				`Public key: ` + kind + `-CERT ` + regexp.QuoteMeta(ssh.FingerprintSHA256(key)),
				`Signing CA: \S+ ` + regexp.QuoteMeta(ssh.FingerprintSHA256(ca.PublicKey())),
				fmt.Sprintf(`Key ID: "%s:%s"`, requestID, personID),
				`Serial: 42`,
				`Principals:\s+dba@` + hostID + `\s+Critical Options:\s+source-address 127.0.0.1/32\s+Extensions:\s+permit-pty\s+` + receiptName + ` UNKNOWN OPTION\b.*\s*$`,
			} {
				if !regexp.MustCompile(want).MatchString(out) {
					t.Errorf("%s by %s: ssh-keygen does not say %s:\n%s", kind, caName, want, out)
				}
			}
			if err := u.Check(cert, ca.PublicKey(), issued); err != nil {
				t.Errorf("%s by %s: %v", kind, caName, err)
			}
		}
	}
}

func TestHostCertificate(t *testing.T) {
	t.Parallel()
	ca := newKey(t)
	h := certs.Host{Serial: 7, Key: newKey(t).PublicKey(), HostID: hostID, Names: []string{"db-1", "10.0.3.7", "2001:db8::1"},
		Now: issued, Lifetime: 30 * 24 * time.Hour}
	pre, err := h.Pre(ca.PublicKey(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := pre.Sign(rand.Reader, ca, certtest.NewLog(t, origin).Log(certtest.HostIssued(h, pre, ca.PublicKey())))
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Check(cert, ca.PublicKey(), issued); err != nil {
		t.Error(err)
	}
	if certs.CheckUser(cert, ca.PublicKey(), "root", hostID, issued) == nil {
		t.Error("a host certificate passes for a user's")
	}
	dir := t.TempDir()
	writeFile(t, dir, "host-cert.pub", certs.Line(cert)+"\n")
	out := sshKeygen(t, dir, "", "-L", "-f", "host-cert.pub")
	if !regexp.MustCompile(`host certificate[\s\S]*Principals:\s+` + hostID + `\s+db-1\s+10.0.3.7\s+2001:db8::1\s+Critical Options: \(none\)\s+Extensions:\s+` + receiptName + ` UNKNOWN OPTION`).MatchString(out) {
		t.Errorf("ssh-keygen reads:\n%s", out)
	}

	for name, change := range map[string]func(*ssh.Certificate){
		"no principals": func(c *ssh.Certificate) { c.ValidPrincipals = nil },
		"another host":  func(c *ssh.Certificate) { c.ValidPrincipals[1] = "web-1" },
		"one more":      func(c *ssh.Certificate) { c.ValidPrincipals = append(c.ValidPrincipals, "*") },
		"user type":     func(c *ssh.Certificate) { c.CertType = ssh.UserCert },
		"longer":        func(c *ssh.Certificate) { c.ValidBefore += 3600 },
		"an extension":  func(c *ssh.Certificate) { c.Extensions = map[string]string{"permit-pty": ""} },
	} {
		changed := *cert
		changed.ValidPrincipals = slices.Clone(cert.ValidPrincipals)
		change(&changed)
		if err := changed.SignCert(rand.Reader, ca); err != nil {
			t.Fatal(err)
		}
		if h.Check(&changed, ca.PublicKey(), issued) == nil {
			t.Errorf("%s: it passes", name)
		}
	}
	for _, name := range []string{"", "*", "*.example.com", "db-1,web-1", "DB-1", "db 1", "-db", "db_1", "fe80::1%eth0", "db\n1"} {
		bad := h
		bad.Names = []string{name}
		if _, err := bad.Pre(ca.PublicKey(), rand.Reader); err == nil {
			t.Errorf("%q became a principal", name)
		}
	}
}
