package certs_test

import (
	"bytes"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha512"
	"encoding/pem"
	"errors"
	"strings"
	"testing"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"sallyport/broker/certs"
)

const namespace = "sallyport-certificate"

var message = []byte("sallyport certificate request v1\nhttps://broker.example.com\n" + requestID + "\n")

func prove(t testing.TB, key ssh.Signer, namespace string, message []byte) string {
	t.Helper()
	signature, err := sshsig.Sign(bytes.NewReader(message), key, sshsig.HashSHA512, namespace)
	if err != nil {
		t.Fatal(err)
	}
	return string(sshsig.Armor(signature))
}

// Proofs made by the real ssh-keygen hold, for every type that it can make here.
func TestP6_ProofBySSHKeygen(t *testing.T) {
	t.Parallel()
	for _, c := range [][]string{
		{"ed25519"}, {"ecdsa", "-b", "256"}, {"ecdsa", "-b", "384"}, {"ecdsa", "-b", "521"}, {"rsa", "-b", "3072"},
	} {
		dir := t.TempDir()
		sshKeygen(t, dir, "", append([]string{"-q", "-N", "", "-f", "id", "-t"}, c...)...)
		key, err := certs.ParseKey(withoutComment(readFile(t, dir, "id.pub")))
		if err != nil {
			t.Fatal(err)
		}
		for _, hash := range []string{"sha512", "sha256"} {
			writeFile(t, dir, "message", string(message))
			sshKeygen(t, dir, "y\n", "-Y", "sign", "-q", "-n", namespace, "-O", "hashalg="+hash, "-f", "id", "message")
			proof := readFile(t, dir, "message.sig")
			if err := certs.VerifyProof(key, proof, namespace, message); err != nil {
				t.Errorf("%v %s: %v", c, hash, err)
			}
			if err := certs.VerifyProof(key, strings.ReplaceAll(proof, "\n", "\r\n")+"\r\n", namespace, message); err != nil {
				t.Errorf("%v %s with CRLF: %v", c, hash, err)
			}
		}
	}
}

func TestP6_ProofRefused(t *testing.T) {
	t.Parallel()
	mine, other := newKey(t), newKey(t)
	good := prove(t, mine, namespace, message)
	if err := certs.VerifyProof(mine.PublicKey(), good, namespace, message); err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode([]byte(good))

	// A proof that names my key, signed by another.
	forged, err := sshsig.Sign(bytes.NewReader(message), other, sshsig.HashSHA512, namespace)
	if err != nil {
		t.Fatal(err)
	}
	forged.PublicKey = mine.PublicKey()

	// A true signature over the right bytes, with bytes behind it.
	trailing, err := sshsig.Unarmor([]byte(good))
	if err != nil {
		t.Fatal(err)
	}
	trailing.Signature.Rest = []byte("more")

	for name, proof := range map[string]string{
		"empty":              "",
		"no armor":           "c2lnbmF0dXJl",
		"another key's":      prove(t, other, namespace, message),
		"forged":             string(sshsig.Armor(forged)),
		"trailing bytes":     string(sshsig.Armor(trailing)),
		"another request":    prove(t, mine, namespace, bytes.Replace(message, []byte(requestID), []byte("req-000000000000"), 1)),
		"another broker":     prove(t, mine, namespace, bytes.Replace(message, []byte("broker"), []byte("evil"), 1)),
		"another namespace":  prove(t, mine, "git", message),
		"two proofs":         good + good,
		"text before":        "hello\n" + good,
		"text after":         good + "hello\n",
		"another PEM type":   strings.ReplaceAll(good, "SSH SIGNATURE", "CERTIFICATE"),
		"PEM headers":        string(pem.EncodeToMemory(&pem.Block{Type: block.Type, Headers: map[string]string{"A": "b"}, Bytes: block.Bytes})),
		"cut off":            string(pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes[:len(block.Bytes)-1]})),
		"too large":          good + strings.Repeat("\n", certs.MaxProofSize),
		"unknown hash":       string(pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: bytes.Replace(block.Bytes, []byte("sha512"), []byte("sha999"), 1)})),
		"plain signature":    plainSignature(t, mine),
		"certificate inside": certificateInside(t, mine),
	} {
		if err := certs.VerifyProof(mine.PublicKey(), proof, namespace, message); !errors.Is(err, certs.ErrProof) {
			t.Errorf("%s: error %v, want ErrProof", name, err)
		}
	}
}

// plainSignature is over the message itself, without SSHSIG's frame: what
// somebody could get from an agent by another protocol.
func plainSignature(t *testing.T, key ssh.Signer) string {
	t.Helper()
	signature, err := key.Sign(rand.Reader, message)
	if err != nil {
		t.Fatal(err)
	}
	return string(sshsig.Armor(&sshsig.Signature{Version: 1, PublicKey: key.PublicKey(), Namespace: namespace,
		HashAlgorithm: sshsig.HashSHA512, Signature: signature}))
}

// certificateInside names a certificate for the key instead of the key.
func certificateInside(t *testing.T, key ssh.Signer) string {
	t.Helper()
	signature, err := sshsig.Sign(bytes.NewReader(message), key, sshsig.HashSHA512, namespace)
	if err != nil {
		t.Fatal(err)
	}
	signature.PublicKey = issue(t, template(key.PublicKey()), newKey(t))
	return string(sshsig.Armor(signature))
}

func TestP6_RSAProofNeedsSHA2(t *testing.T) {
	t.Parallel()
	key := rsaKey(t, 3072)
	frame := sshsigFrame(message)
	signature, err := key.(ssh.AlgorithmSigner).SignWithAlgorithm(rand.Reader, frame, ssh.KeyAlgoRSA) // SHA-1
	if err != nil {
		t.Fatal(err)
	}
	proof := sshsig.Armor(&sshsig.Signature{Version: 1, PublicKey: key.PublicKey(), Namespace: namespace,
		HashAlgorithm: sshsig.HashSHA512, Signature: signature})
	if err := certs.VerifyProof(key.PublicKey(), string(proof), namespace, message); !errors.Is(err, certs.ErrProof) {
		t.Errorf("error %v, want ErrProof", err)
	}
}

// A security key proves possession by a touch, and only by one.
func TestP6_SecurityKeyMustBeTouched(t *testing.T) {
	t.Parallel()
	key := newSecurityKey(t)
	proof := func() string {
		return string(sshsig.Armor(&sshsig.Signature{Version: 1, PublicKey: key.public, Namespace: namespace,
			HashAlgorithm: sshsig.HashSHA512, Signature: key.sign(sshsigFrame(message))}))
	}
	if err := certs.VerifyProof(key.public, proof(), namespace, message); err != nil {
		t.Error(err)
	}
	key.touched = false
	if err := certs.VerifyProof(key.public, proof(), namespace, message); !errors.Is(err, certs.ErrProof) {
		t.Errorf("untouched: error %v, want ErrProof", err)
	}
}

// sshsigFrame is what SSHSIG signs (PROTOCOL.sshsig, section 3).
func sshsigFrame(message []byte) []byte {
	digest := sha512.Sum512(message)
	return append([]byte("SSHSIG"), ssh.Marshal(struct{ Namespace, Reserved, Hash, Digest string }{
		namespace, "", "sha512", string(digest[:])})...)
}

func FuzzVerifyProof(f *testing.F) {
	key := newKey(f)
	f.Add(prove(f, key, namespace, message))
	f.Add(prove(f, newKey(f), namespace, message))
	f.Add(prove(f, ecdsaKey(f, elliptic.P256()), namespace, message))
	other := newKey(f).PublicKey() // of which nobody has the private half
	f.Fuzz(func(t *testing.T, proof string) {
		if certs.VerifyProof(other, proof, namespace, message) == nil {
			t.Fatal("a proof holds without the key")
		}
	})
}
