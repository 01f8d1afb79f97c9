package e2e

import (
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"

	"sallyport/broker/certs"
	"sallyport/internal/certtest"
)

// proves checks the certificate that `sally cert` wrote as an auditor does, with
// the public keys and nothing else; and then what a thief makes of it who has the
// CA's private key.
func (e *terminal) proves(h *house, dir string, cert *ssh.Certificate) {
	e.t.Helper()
	keys := []string{"--vkey", filepath.Join(h.keys, "log.vkey"), "--ca", filepath.Join(h.keys, "user_ca.pub")}
	check := func(file string) (string, error) {
		return e.run(append([]string{"audit", "check-certificate", file, "--url", "http://127.0.0.1:1"}, keys...)...)
	}
	out, err := check(filepath.Join(dir, "id-cert.pub"))
	if err != nil || !strings.Contains(out, "PROVED: certificate ") || !strings.Contains(out, "Erin Engineer") ||
		!strings.Contains(out, h.hostID(e.t, "db-1")) || !strings.Contains(out, "decision ") {
		e.t.Errorf("the certificate's story: %v\n%s", err, out)
	}
	stolen, err := os.ReadFile(filepath.Join(h.keys, "user_ca"))
	if err != nil {
		e.t.Fatal(err)
	}
	ca, err := ssh.ParsePrivateKey(stolen)
	if err != nil {
		e.t.Fatal(err)
	}
	forged := certtest.Resign(e.t, cert, ca, func(c *ssh.Certificate) { c.ValidBefore += 3600 })
	if err := os.WriteFile(filepath.Join(e.home, "forged-cert.pub"), []byte(certs.Line(forged)+"\n"), 0o600); err != nil {
		e.t.Fatal(err)
	}
	if out, err := check("forged-cert.pub"); err == nil || !strings.Contains(out, "NOT PROVED") || !strings.Contains(out, "not-included") {
		e.t.Errorf("what the stolen key prolonged: %v\n%s", err, out)
	}
}
