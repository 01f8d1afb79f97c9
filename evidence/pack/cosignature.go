package pack

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// cosignatureV1 is the algorithm byte of c2sp.org/tlog-cosignature.
const cosignatureV1 = 4

// witnessKey verifies a witness's cosignatures (c2sp.org/tlog-cosignature: eight
// bytes of time, then Ed25519 over the time and the note's text). It is a
// note.Verifier.
type witnessKey struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

// parseWitnessKey reads a key as "name+hash+base64" (c2sp.org/signed-note).
func parseWitnessKey(vkey string) (witnessKey, error) {
	name, rest, _ := strings.Cut(vkey, "+")
	hash, encoded, _ := strings.Cut(rest, "+")
	key, err := base64.StdEncoding.DecodeString(encoded)
	id, idErr := strconv.ParseUint(hash, 16, 32)
	if err != nil || idErr != nil || len(hash) != 8 || name == "" || len(key) != 1+ed25519.PublicKeySize || key[0] != cosignatureV1 {
		return witnessKey{}, errors.New("it is no key of a witness (Ed25519, cosignature/v1)")
	}
	sum := sha256.Sum256(append([]byte(name+"\n"), key...))
	if uint64(binary.BigEndian.Uint32(sum[:4])) != id {
		return witnessKey{}, errors.New("its hash is not its own")
	}
	return witnessKey{name, uint32(id), key[1:]}, nil
}

func (w witnessKey) Name() string    { return w.name }
func (w witnessKey) KeyHash() uint32 { return w.hash }

func (w witnessKey) Verify(msg, sig []byte) bool {
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	at := binary.BigEndian.Uint64(sig[:8])
	return ed25519.Verify(w.key, fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", at, msg), sig[8:])
}
