// Package cosignature is what a witness says of a checkpoint: that at some time it had
// seen this head, and none before that contradicts it (c2sp.org/tlog-cosignature); and
// how many of which witnesses somebody wants (c2sp.org/tlog-policy). It is pure, for
// the broker, for witnesses and for verifiers alike.
package cosignature

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"golang.org/x/mod/sumdb/note"
)

// The algorithm bytes of keys: c2sp.org/tlog-cosignature, and notes' own Ed25519.
const (
	cosignatureV1 = 4
	plainEd25519  = 1
)

// Verifier verifies a witness's cosignatures: eight bytes of time, then Ed25519 over
// the time and the note's text. It is a note.Verifier.
type Verifier struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

// NewVerifier reads a key as "name+hash+base64" (c2sp.org/signed-note).
func NewVerifier(vkey string) (Verifier, error) {
	name, rest, _ := strings.Cut(vkey, "+")
	hash, encoded, _ := strings.Cut(rest, "+")
	key, err := base64.StdEncoding.DecodeString(encoded)
	id, idErr := strconv.ParseUint(hash, 16, 32)
	if err != nil || idErr != nil || len(hash) != 8 || !validName(name) || len(key) != 1+ed25519.PublicKeySize || key[0] != cosignatureV1 {
		return Verifier{}, errors.New("it is no key of a witness (Ed25519, cosignature/v1)")
	}
	if keyHash(name, key) != uint32(id) {
		return Verifier{}, errors.New("its hash is not its own")
	}
	return Verifier{name, uint32(id), key[1:]}, nil
}

func validName(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool { return unicode.IsSpace(r) || r == '+' || r == unicode.ReplacementChar })
}

func keyHash(name string, key []byte) uint32 {
	sum := sha256.Sum256(append([]byte(name+"\n"), key...))
	return binary.BigEndian.Uint32(sum[:])
}

func (v Verifier) Name() string    { return v.name }
func (v Verifier) KeyHash() uint32 { return v.hash }

// Verify implements note.Verifier.
func (v Verifier) Verify(msg, sig []byte) bool {
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	at := binary.BigEndian.Uint64(sig)
	return ed25519.Verify(v.key, message(at, msg), sig[8:])
}

// At is when a cosignature was made, by the witness's clock.
func At(s note.Signature) (time.Time, error) {
	sig, err := base64.StdEncoding.DecodeString(s.Base64)
	if err != nil || len(sig) != 4+8+ed25519.SignatureSize {
		return time.Time{}, errors.New("it is no cosignature")
	}
	return time.Unix(int64(binary.BigEndian.Uint64(sig[4:])), 0).UTC(), nil
}

func message(at uint64, msg []byte) []byte {
	return fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", at, msg)
}

// Signer makes cosignatures. It is a note.Signer.
type Signer struct {
	Verifier
	key ed25519.PrivateKey
	now func() time.Time
}

// NewKey makes the key of a witness, both halves in note format. The private one is of
// the same kind as the public one.
func NewKey(name string) (skey, vkey string, err error) {
	if !validName(name) {
		return "", "", fmt.Errorf("%q is no name of a witness: it has neither spaces nor +", name)
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", "", err
	}
	key := append([]byte{cosignatureV1}, public...)
	hash := keyHash(name, key)
	encode := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("PRIVATE+KEY+%s+%08x+%s", name, hash, encode(append([]byte{cosignatureV1}, private.Seed()...))),
		fmt.Sprintf("%s+%08x+%s", name, hash, encode(key)), nil
}

// NewSigner reads a private key in note format, of a witness or of any Ed25519 kind
// that other witnesses' tools make.
func NewSigner(skey string, now func() time.Time) (Signer, error) {
	wrong := errors.New("it is no private key of a witness, as sallyportd witness init makes it")
	rest, ok := strings.CutPrefix(strings.TrimSpace(skey), "PRIVATE+KEY+")
	name, rest, _ := strings.Cut(rest, "+")
	hash, encoded, _ := strings.Cut(rest, "+")
	seed, err := base64.StdEncoding.DecodeString(encoded)
	id, idErr := strconv.ParseUint(hash, 16, 32)
	if !ok || err != nil || idErr != nil || len(hash) != 8 || !validName(name) || len(seed) != 1+ed25519.SeedSize ||
		seed[0] != cosignatureV1 && seed[0] != plainEd25519 {
		return Signer{}, wrong
	}
	key := ed25519.NewKeyFromSeed(seed[1:])
	public := key.Public().(ed25519.PublicKey)
	if keyHash(name, append([]byte{seed[0]}, public...)) != uint32(id) {
		return Signer{}, wrong
	}
	return Signer{Verifier{name, keyHash(name, append([]byte{cosignatureV1}, public...)), public}, key, now}, nil
}

// Sign implements note.Signer.
func (s Signer) Sign(msg []byte) ([]byte, error) {
	at := uint64(s.now().Unix())
	sig := binary.BigEndian.AppendUint64(nil, at)
	return append(sig, ed25519.Sign(s.key, message(at, msg))...), nil
}
