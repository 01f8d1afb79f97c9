package certs_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/broker/certs"
	"sallyport/internal/certtest"
)

// issued is a moment with a fraction of a second, because certificates have none.
var issued = time.Date(2026, 3, 1, 12, 0, 0, 250_000_000, time.UTC)

const (
	hostID    = "host-7k3m9q2x4f8h"
	requestID = "req-4f8k2m9qhx1z"
	personID  = "per-4f8k2m9qhx1z"
)

func signer(t testing.TB, key crypto.Signer) ssh.Signer {
	t.Helper()
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newKey(t testing.TB) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return signer(t, private)
}

func ecdsaKey(t testing.TB, curve elliptic.Curve) ssh.Signer {
	t.Helper()
	private, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return signer(t, private)
}

// rsaKeys are slow to make, so tests share them by size.
var rsaKeys sync.Map

func rsaKey(t testing.TB, bits int) ssh.Signer {
	t.Helper()
	make := sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, bits) })
	once, _ := rsaKeys.LoadOrStore(bits, make)
	private, err := once.(func() (*rsa.PrivateKey, error))()
	if err != nil {
		t.Fatal(err)
	}
	return signer(t, private)
}

// securityKey plays a FIDO token with an Ed25519 key (PROTOCOL.u2f).
type securityKey struct {
	private ed25519.PrivateKey
	public  ssh.PublicKey
	touched bool
}

func newSecurityKey(t testing.TB) *securityKey {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return securityKeyOf(t, private)
}

func securityKeyOf(t testing.TB, private ed25519.PrivateKey) *securityKey {
	t.Helper()
	key, err := ssh.ParsePublicKey(ssh.Marshal(struct {
		Name        string
		Public      []byte
		Application string
	}{ssh.KeyAlgoSKED25519, private.Public().(ed25519.PublicKey), "ssh:"}))
	if err != nil {
		t.Fatal(err)
	}
	return &securityKey{private: private, public: key, touched: true}
}

func (k *securityKey) sign(message []byte) *ssh.Signature {
	application, digest := sha256.Sum256([]byte("ssh:")), sha256.Sum256(message)
	var flags byte
	if k.touched {
		flags = 1
	}
	counter := []byte{0, 0, 0, 7}
	signed := append(append(append(bytes.Clone(application[:]), flags), counter...), digest[:]...)
	return &ssh.Signature{
		Format: ssh.KeyAlgoSKED25519,
		Blob:   ed25519.Sign(k.private, signed),
		Rest:   append([]byte{flags}, counter...),
	}
}

func template(key ssh.PublicKey) certs.User {
	return certs.User{
		Serial: 42, Key: key, Login: "dba", HostID: hostID, RequestID: requestID, PersonID: personID,
		Now: issued, Lifetime: 5 * time.Minute, GrantEnds: issued.Add(30 * time.Minute),
	}
}

// issue makes a certificate with a receipt of a log of its own.
func issue(t testing.TB, u certs.User, ca ssh.Signer) *ssh.Certificate {
	t.Helper()
	return certtest.NewLog(t, origin).Certify(u, ca)
}

const (
	origin      = "sallyport.example.com/log"
	receiptName = "tlog-proof@sallyport.example.com"
)

// sshKeygen runs the real one in a folder and returns what it printed.
func sshKeygen(t testing.TB, dir, stdin string, args ...string) string {
	t.Helper()
	cmd := exec.Command("ssh-keygen", args...)
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("ssh-keygen %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func writeFile(t testing.TB, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func readFile(t testing.TB, dir, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// withoutComment is what is left of a .pub file for ParseKey.
func withoutComment(line string) string { return strings.Join(strings.Fields(line)[:2], " ") }
