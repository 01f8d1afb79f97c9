package certs_test

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"pgregory.net/rapid"

	"sallyport/audit/receipt"
	"sallyport/broker/certs"
	"sallyport/internal/certtest"
)

func TestDomain(t *testing.T) {
	t.Parallel()
	for origin, want := range map[string]string{
		"sallyport.demo/log": "sallyport.demo", "example.com": "example.com", "a-b.c3.example/x/y": "a-b.c3.example",
		"xn--bcher-kva.example/log": "xn--bcher-kva.example", "1.example/log": "1.example",
		"": "", "/log": "", "localhost": "", "localhost/log": "", "127.0.0.1/log": "", "1.2.3.4": "", "[::1]/log": "",
		"Example.com/log": "", "example.com:8080/log": "", "user@example.com/log": "", "-a.example/log": "", "a-.example/log": "",
		"example.com./log": "", ".example.com": "", "a..example": "", "exa mple.com/log": "", "bücher.example/log": "", "https://example.com/log": "",
		strings.Repeat("a", 64) + ".example":  "",
		strings.Repeat("a.", 124) + "example": "",
	} {
		got, err := certs.Domain(origin)
		if got != want || (err == nil) != (want != "") || err != nil && !errors.Is(err, certs.ErrNoDomain) {
			t.Errorf("the domain of %q is %q, %v; want %q", origin, got, err, want)
		}
		if name, err := certs.ReceiptExtension(origin); err == nil && name != "tlog-proof@"+want {
			t.Errorf("the extension of %q is %q", origin, name)
		}
	}
}

// Who has the CA's private key, and every certificate that was ever issued, and
// all that the log publishes, opens nothing that was not issued to them.
func TestStolenCAKeyAloneOpensNothing(t *testing.T) {
	t.Parallel()
	ca, log, thief := newKey(t), certtest.NewLog(t, origin), newKey(t)
	trust := certs.Trust{CAs: []ssh.PublicKey{ca.PublicKey()}, Log: log.Verifier}
	at := issued.Add(time.Minute)
	log.Grow(20)
	var good []*ssh.Certificate
	for range 4 {
		good = append(good, log.Certify(template(newKey(t).PublicKey()), ca))
		log.Grow(5)
	}
	// A certificate of the thief's own, for another host, long ago.
	own := template(thief.PublicKey())
	own.Login, own.Now, own.GrantEnds = "web", issued.Add(-48*time.Hour), issued
	mine := log.Certify(own, ca)
	for _, cert := range good {
		if _, err := certs.Admit(cert.Marshal(), trust, "dba", hostID, at); err != nil {
			t.Fatal(err)
		}
	}
	opens := func(cert *ssh.Certificate) bool {
		login, host, _ := strings.Cut(cert.ValidPrincipals[0], "@")
		_, err := certs.Admit(cert.Marshal(), trust, login, host, at)
		return err == nil
	}

	// With no receipt at all, by the tool that everybody has.
	pre, err := template(thief.PublicKey()).Pre(ca.PublicKey(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	empty := ssh.Marshal(struct{ Signature []byte }{ssh.Marshal(ssh.Signature{Format: ssh.KeyAlgoED25519, Blob: make([]byte, 64)})})
	parsed, err := ssh.ParsePublicKey(append(pre.Bytes(), empty...))
	if err != nil {
		t.Fatal(err)
	}
	bare := parsed.(*ssh.Certificate)
	if err := bare.SignCert(rand.Reader, ca); err != nil {
		t.Fatal(err)
	}
	if err := certs.CheckUser(bare, ca.PublicKey(), "dba", hostID, at); err != nil {
		t.Fatalf("the forgery is not even good enough for sshd: %v", err)
	}
	if opens(bare) {
		t.Error("a certificate without receipt opens the host")
	}
	// With a receipt that is somebody else's, and with one of a log of one's own.
	for _, from := range append(slices.Clone(good), mine, certtest.NewLog(t, origin).Certify(template(thief.PublicKey()), ca)) {
		if opens(certtest.Resign(t, bare, ca, func(c *ssh.Certificate) {
			c.Extensions = map[string]string{"permit-pty": "", receiptName: from.Extensions[receiptName]}
		})) {
			t.Error("a certificate with another's receipt opens the host")
		}
	}
	// And any of the good ones, changed in any way.
	rapid.Check(t, func(t *rapid.T) {
		cert := rapid.SampledFrom(append(slices.Clone(good), mine)).Draw(t, "certificate")
		forged := certtest.Resign(&quiet{}, cert, ca, func(c *ssh.Certificate) {
			for _, change := range rapid.SliceOfNDistinct(rapid.IntRange(0, 9), 1, 4, rapid.ID).Draw(t, "changes") {
				switch change {
				case 0:
					c.Key = thief.PublicKey()
				case 1:
					c.ValidPrincipals = []string{rapid.SampledFrom([]string{"root", "dba", "web"}).Draw(t, "login") + "@" + hostID}
				case 2:
					c.ValidBefore += uint64(rapid.IntRange(1, 1e5).Draw(t, "seconds"))
				case 3:
					c.ValidAfter -= uint64(rapid.IntRange(1, 1e5).Draw(t, "seconds"))
				case 4:
					c.Serial = rapid.Uint64().Draw(t, "serial")
				case 5:
					c.KeyId = requestID + ":per-000000000000"
				case 6:
					c.Extensions["permit-port-forwarding"] = ""
				case 7:
					delete(c.Extensions, "permit-pty")
				case 8:
					c.Nonce = rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "nonce")
				case 9:
					c.CriticalOptions = map[string]string{"source-address": "192.0.2.7/32"}
				}
			}
		})
		same := slices.ContainsFunc(append(slices.Clone(good), mine), func(c *ssh.Certificate) bool { return bytes.Equal(c.Marshal(), forged.Marshal()) })
		if opens(forged) && !same {
			t.Fatalf("%+v opens a host", forged)
		}
	})
}

// quiet is a testing.TB for helpers within rapid, where nothing can fail.
type quiet struct{ testing.TB }

func (*quiet) Helper()           {}
func (*quiet) Fatal(args ...any) { panic(args) }

// What the check says of a certificate is what was logged.
func TestCheckReceiptTellsTheStory(t *testing.T) {
	t.Parallel()
	ca, log := newKey(t), certtest.NewLog(t, origin)
	log.Grow(11)
	u := template(newKey(t).PublicKey())
	cert := log.Certify(u, ca)
	got, err := certs.CheckReceipt(cert.Marshal(), log.Verifier)
	if err != nil {
		t.Fatal(err)
	}
	if got.Index != 11 || got.Size != 12 || got.Type != "certificate.issued" || got.ActorID != personID || got.ActorName != "Erin Engineer" ||
		got.RequestID != requestID || got.HostID != hostID || got.Login != "dba" || got.Host != "db-1" || !got.Time.Equal(issued) ||
		got.PolicyVersion != "3" || len(got.PolicyHash) != 64 || len(got.TermsHash) != 64 || len(got.Decisions) != 1 || got.Source != "192.0.2.7" {
		t.Errorf("it says %+v", got)
	}
	if !bytes.Equal(got.Leaf, log.Leaf(11)) {
		t.Error("the leaf is another one")
	}
	// A verifier that remembers says the same, also when asked again.
	line, err := certs.ReadLine(certs.Line(cert) + " erin@laptop\n")
	if err != nil || !bytes.Equal(line, cert.Marshal()) {
		t.Errorf("read from its line: %v", err)
	}
}

func TestReadLineTakesOneCertificate(t *testing.T) {
	t.Parallel()
	cert := issue(t, template(newKey(t).PublicKey()), newKey(t))
	good := certs.Line(cert)
	kind, encoded, _ := strings.Cut(good, " ")
	for name, line := range map[string]string{
		"nothing": "", "type alone": kind, "base64 alone": encoded, "another type": "ssh-ed25519 " + encoded, "two lines": good + "\n" + good,
		"a key": certs.Line(newKey(t).PublicKey()), "cut off": good[:len(good)-4], "no base64": kind + " ####",
		"too long": good + " " + strings.Repeat("x", 3*certs.MaxCertificateSize), "null": good + " \x00",
	} {
		if _, err := certs.ReadLine(line); err == nil || certs.ReasonOf(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// However the bytes of a certificate are changed, the check neither fails in
// another way nor takes what is not the same certificate.
func FuzzCheckReceipt(f *testing.F) {
	list, trust, _ := published(f)
	good := map[string]bool{}
	for _, v := range list {
		wire, err := base64.StdEncoding.DecodeString(v.Certificate)
		if err != nil {
			f.Fatal(err)
		}
		if len(wire) < 8<<10 {
			f.Add(wire)
		}
		good[string(wire)] = v.Verdict == "valid" || v.Verdict == "not-here" || v.Verdict == "other-ca"
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		logged, err := certs.CheckReceipt(wire, trust.Log)
		if err != nil {
			if certs.ReasonOf(err) == "" {
				t.Errorf("%v has no reason", err)
			}
			return
		}
		if !good[string(wire)] || !bytes.Equal(logged.Certificate.Marshal(), wire) {
			t.Errorf("a certificate passes that was never made: %x", wire)
		}
	})
}

// BenchmarkCheckReceipt is what a login costs a host more, and BenchmarkSign what
// a certificate costs the broker.
func BenchmarkCheckReceipt(b *testing.B) {
	log := certtest.NewLog(b, origin)
	log.Grow(1000)
	wire := log.Certify(template(newKey(b).PublicKey()), newKey(b)).Marshal()
	for b.Loop() {
		if _, err := certs.CheckReceipt(wire, log.Verifier); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSign(b *testing.B) {
	ca, log := newKey(b), certtest.NewLog(b, origin)
	log.Grow(1000)
	u := template(newKey(b).PublicKey())
	pre, err := u.Pre(ca.PublicKey(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	r := log.Log(certtest.Issued(u, pre, ca.PublicKey()))
	r.Log = receipt.Remember(r.Log)
	for b.Loop() {
		if _, err := pre.Sign(rand.Reader, ca, r); err != nil {
			b.Fatal(err)
		}
	}
}
