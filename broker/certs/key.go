package certs

import (
	"bytes"
	"crypto/rsa"
	"encoding/base64"
	"strings"

	"golang.org/x/crypto/ssh"

	"sallyport/internal/refusal"
)

const (
	// MaxKeySize is the most bytes that a public key's line may have.
	MaxKeySize = 16 << 10
	// MinRSABits is the least that an RSA modulus must have (NIST SP 800-57
	// asks it of keys that are to hold beyond 2030).
	MinRSABits = 3072

	dsa = "ssh-dss" // x/crypto deprecates its name for it
)

// Refusals of keys.
var (
	ErrKeyUnreadable = refusal.New(refusal.Invalid, "key-unreadable", "the public key cannot be read",
		"send exactly one line of two fields, the type and the base64 part of a .pub file, without options or comment").On("public_key")
	ErrKeyTooLarge = refusal.New(refusal.TooLarge, "key-too-large", "the public key has more than 16384 bytes",
		"send one public key in authorized_keys format").On("public_key")
	ErrKeyIsCertificate = refusal.New(refusal.Invalid, "key-is-certificate", "this is a certificate, not a public key",
		"send the .pub file of the key itself, not its -cert.pub").On("public_key")
	ErrKeyWeak = refusal.New(refusal.Invalid, "key-weak", "the key is too weak",
		"make a new one: ssh-keygen -t ed25519").On("public_key")
	ErrKeyType = refusal.New(refusal.Invalid, "key-type", "keys of this type are not accepted",
		"use ed25519, ecdsa, sk-ed25519, sk-ecdsa or RSA of at least 3072 bits: ssh-keygen -t ed25519").On("public_key")
)

// ParseKey reads one public key and holds it against the key policy. The line
// is the type and the base64 of the key and nothing else: what would be ignored
// (options, a comment, further lines) is refused, for whoever wrote it meant
// something by it. A key that can be read and is refused is returned with the refusal.
func ParseKey(line string) (ssh.PublicKey, error) {
	if len(line) > MaxKeySize {
		return nil, ErrKeyTooLarge
	}
	line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
	name, encoded, ok := strings.Cut(line, " ")
	if !ok || strings.ContainsAny(encoded, " \t\r\n") {
		return nil, ErrKeyUnreadable
	}
	if err := checkType(name); err != nil {
		return nil, err
	}
	blob, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return nil, ErrKeyUnreadable.Because(err)
	}
	key, err := ssh.ParsePublicKey(blob)
	if err != nil {
		return nil, ErrKeyUnreadable.Because(err)
	}
	// One key has one form, so that its fingerprint, which grants are bound to,
	// is the only one that it can have.
	if key.Type() != name || !bytes.Equal(key.Marshal(), blob) {
		return nil, ErrKeyUnreadable
	}
	return key, CheckKey(key)
}

// CheckKey holds a key against the key policy.
func CheckKey(key ssh.PublicKey) error {
	if err := checkType(key.Type()); err != nil {
		return err
	}
	if key.Type() != ssh.KeyAlgoRSA {
		return nil
	}
	public, ok := key.(ssh.CryptoPublicKey)
	if !ok {
		return ErrKeyType
	}
	modulus, ok := public.CryptoPublicKey().(*rsa.PublicKey)
	if !ok {
		return ErrKeyType
	}
	if bits := modulus.N.BitLen(); bits < MinRSABits {
		return ErrKeyWeak.With("the RSA key has %d bits, fewer than %d", bits, MinRSABits)
	}
	return nil
}

func checkType(name string) error {
	switch name {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoSKED25519,
		ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoSKECDSA256,
		ssh.KeyAlgoRSA:
		return nil
	case dsa:
		return ErrKeyWeak.With("DSA keys are too weak")
	}
	if strings.Contains(name, "-cert-v0") {
		return ErrKeyIsCertificate
	}
	if !strings.Contains(name, "-") { // not even the shape of a type, such as a comment sign
		return ErrKeyUnreadable
	}
	return ErrKeyType
}

// Line is the key in authorized_keys format, without a line's end.
func Line(key ssh.PublicKey) string { return LineOf(key.Type(), key.Marshal()) }

// LineOf is Line of a key or certificate of the type that has these bytes on the wire.
func LineOf(keyType string, wire []byte) string {
	return string(base64.StdEncoding.AppendEncode([]byte(keyType+" "), wire))
}
