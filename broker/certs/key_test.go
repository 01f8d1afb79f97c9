package certs_test

import (
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"math/big"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"sallyport/broker/certs"
	"sallyport/internal/refusal"
)

func TestParseKeyAccepts(t *testing.T) {
	t.Parallel()
	for name, key := range map[string]ssh.PublicKey{
		"ed25519":    newKey(t).PublicKey(),
		"ecdsa-256":  ecdsaKey(t, elliptic.P256()).PublicKey(),
		"ecdsa-384":  ecdsaKey(t, elliptic.P384()).PublicKey(),
		"ecdsa-521":  ecdsaKey(t, elliptic.P521()).PublicKey(),
		"rsa-3072":   rsaKey(t, 3072).PublicKey(),
		"sk-ed25519": newSecurityKey(t).public,
		"sk-ecdsa":   skECDSA(t),
	} {
		for _, end := range []string{"", "\n", "\r\n"} {
			got, err := certs.ParseKey(certs.Line(key) + end)
			if err != nil {
				t.Errorf("%s: %v", name, err)
			} else if string(got.Marshal()) != string(key.Marshal()) {
				t.Errorf("%s: came back as another key", name)
			}
		}
	}
}

func skECDSA(t *testing.T) ssh.PublicKey {
	t.Helper()
	var plain struct {
		Name, Curve string
		Point       []byte
	}
	if err := ssh.Unmarshal(ecdsaKey(t, elliptic.P256()).PublicKey().Marshal(), &plain); err != nil {
		t.Fatal(err)
	}
	key, err := ssh.ParsePublicKey(ssh.Marshal(struct {
		Name, Curve string
		Point       []byte
		Application string
	}{ssh.KeyAlgoSKECDSA256, plain.Curve, plain.Point, "ssh:"}))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestParseKeyRefuses(t *testing.T) {
	t.Parallel()
	good := certs.Line(newKey(t).PublicKey())
	kind, encoded, _ := strings.Cut(good, " ")
	blob, _ := base64.StdEncoding.DecodeString(encoded)
	line := func(kind string, blob []byte) string { return kind + " " + base64.StdEncoding.EncodeToString(blob) }

	// The point at infinity, and a point that is not on the curve.
	p256 := func(point []byte) string {
		return line(ssh.KeyAlgoECDSA256, ssh.Marshal(struct {
			Name, Curve string
			Point       []byte
		}{ssh.KeyAlgoECDSA256, "nistp256", point}))
	}
	offCurve := make([]byte, 65)
	offCurve[0], offCurve[64] = 4, 1

	// As DSA keys are no longer made, this one has the shape and no security.
	dsa := line("ssh-dss", ssh.Marshal(struct {
		Name       string
		P, Q, G, Y *big.Int
	}{"ssh-dss", big.NewInt(23), big.NewInt(11), big.NewInt(4), big.NewInt(8)}))

	for _, c := range []struct {
		name, line string
		want       *refusal.Error
	}{
		{"empty", "", certs.ErrKeyUnreadable},
		{"type only", kind, certs.ErrKeyUnreadable},
		{"no type", encoded, certs.ErrKeyUnreadable},
		{"comment", good + " erin@laptop", certs.ErrKeyUnreadable},
		{"two spaces", kind + "  " + encoded, certs.ErrKeyUnreadable},
		{"leading space", " " + good, certs.ErrKeyUnreadable},
		{"tab", kind + "\t" + encoded, certs.ErrKeyUnreadable},
		{"options", `command="/bin/sh" ` + good, certs.ErrKeyUnreadable},
		{"one option", "restrict " + good, certs.ErrKeyUnreadable},
		{"cert-authority", "cert-authority " + good, certs.ErrKeyUnreadable},
		{"commented out", "# " + good, certs.ErrKeyUnreadable},
		{"line before", "# a key\n" + good, certs.ErrKeyUnreadable},
		{"two keys", good + "\n" + good, certs.ErrKeyUnreadable},
		{"two line ends", good + "\n\n", certs.ErrKeyUnreadable},
		{"line end within", good[:40] + "\n" + good[40:], certs.ErrKeyUnreadable},
		{"carriage return within", good[:40] + "\r" + good[40:], certs.ErrKeyUnreadable},
		{"NUL", good + "\x00", certs.ErrKeyUnreadable},
		{"cut off", good[:len(good)-8], certs.ErrKeyUnreadable},
		{"no padding", strings.TrimRight(line(kind, append(blob, 0)), "="), certs.ErrKeyUnreadable},
		{"trailing bytes", line(kind, append(blob, 0, 0, 0)), certs.ErrKeyUnreadable},
		{"short key", line(kind, ssh.Marshal(struct{ Name, Key string }{kind, "short"})), certs.ErrKeyUnreadable},
		{"one type in the text, another in the bytes", line(ssh.KeyAlgoECDSA256, blob), certs.ErrKeyUnreadable},
		{"infinity", p256([]byte{0}), certs.ErrKeyUnreadable},
		{"off the curve", p256(offCurve), certs.ErrKeyUnreadable},
		{"private key", "-----BEGIN OPENSSH PRIVATE KEY-----", certs.ErrKeyUnreadable},
		{"too large", kind + " " + strings.Repeat("A", certs.MaxKeySize), certs.ErrKeyTooLarge},
		{"certificate", certs.Line(issue(t, template(newKey(t).PublicKey()), newKey(t))), certs.ErrKeyIsCertificate},
		{"certificate under another name", kind + " " +
			strings.Fields(certs.Line(issue(t, template(newKey(t).PublicKey()), newKey(t))))[1], certs.ErrKeyUnreadable},
		{"DSA", dsa, certs.ErrKeyWeak},
		{"RSA 2048", certs.Line(rsaKey(t, 2048).PublicKey()), certs.ErrKeyWeak},
		{"RSA 3071", certs.Line(rsaWithBits(t, 3071)), certs.ErrKeyWeak},
		{"RSA under the name of a signature", line(ssh.KeyAlgoRSASHA512, rsaKey(t, 3072).PublicKey().Marshal()), certs.ErrKeyType},
		{"unknown", line("ssh-frodo", blob), certs.ErrKeyType},
		{"webauthn", line("webauthn-sk-ecdsa-sha2-nistp256@openssh.com", blob), certs.ErrKeyType},
	} {
		_, err := certs.ParseKey(c.line)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: error %v, want %v", c.name, err, c.want)
			continue
		}
		if r := refusal.As(err); r.Hint == "" || r.Field != "public_key" {
			t.Errorf("%s: the refusal has no hint or names no field: %+v", c.name, r)
		}
	}
}

// rsaWithBits has a modulus of exactly that size, and no private half.
func rsaWithBits(t *testing.T, bits int) ssh.PublicKey {
	t.Helper()
	n, err := rand.Prime(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.ParsePublicKey(ssh.Marshal(struct {
		Name string
		E, N *big.Int
	}{ssh.KeyAlgoRSA, big.NewInt(65537), n}))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// What ParseKey lets through is strong, has one form only, and can be certified.
func FuzzParseKey(f *testing.F) {
	good := certs.Line(newKey(f).PublicKey())
	f.Add(good)
	f.Add(good + "\n")
	f.Add(good + " comment")
	f.Add("restrict " + good)
	f.Add("# " + good + "\n" + good)
	f.Add(certs.Line(ecdsaKey(f, elliptic.P256()).PublicKey()))
	f.Add(certs.Line(rsaKey(f, 3072).PublicKey()))
	f.Add(certs.Line(rsaKey(f, 2048).PublicKey()))
	f.Add(certs.Line(newSecurityKey(f).public))
	f.Add(certs.Line(issue(f, template(newKey(f).PublicKey()), newKey(f))))
	ca := newKey(f)
	f.Fuzz(func(t *testing.T, line string) {
		key, err := certs.ParseKey(line)
		if err != nil {
			if refusal.As(err) == nil {
				t.Fatalf("the error is no refusal: %v", err)
			}
			return
		}
		if certs.Line(key) != strings.TrimRight(line, "\r\n") {
			t.Fatalf("%q was read as %q", line, certs.Line(key))
		}
		if err := certs.CheckKey(key); err != nil {
			t.Fatal(err)
		}
		issue(t, template(key), ca)
	})
}
