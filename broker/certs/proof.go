package certs

import (
	"bytes"
	"encoding/pem"
	"strings"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"sallyport/internal/refusal"
)

// MaxProofSize is the most bytes that an armored proof may have.
const MaxProofSize = 16 << 10

// ErrProof refuses a proof of possession.
var ErrProof = refusal.New(refusal.Denied, "proof-invalid", "the proof of possession does not hold",
	"sign the message of this broker and this request with the key itself: ssh-keygen -Y sign -n sallyport-certificate -f KEY").On("proof")

// VerifyProof checks that whoever holds the private half of key signed the
// message for the namespace (P6). The proof is an armored SSHSIG
// (PROTOCOL.sshsig) and nothing beside it. Keys in security keys (sk-) must
// have been touched.
func VerifyProof(key ssh.PublicKey, proof, namespace string, message []byte) error {
	if len(proof) > MaxProofSize {
		return ErrProof.With("the proof has more than %d bytes", MaxProofSize)
	}
	proof = strings.TrimSpace(proof)
	block, rest := pem.Decode([]byte(proof))
	if block == nil || len(rest) > 0 || len(block.Headers) > 0 ||
		!strings.HasPrefix(proof, "-----BEGIN "+sshsig.PEMType+"-----") {
		return ErrProof.With("the proof is not one armored SSH signature")
	}
	signature, err := sshsig.ParseSignature(block.Bytes)
	if err != nil {
		return ErrProof.With("the proof cannot be read").Because(err)
	}
	if !bytes.Equal(signature.PublicKey.Marshal(), key.Marshal()) {
		return ErrProof.With("the proof is by another key than the one to be certified")
	}
	if signature.Namespace != namespace {
		return ErrProof.With("the proof is for another purpose: its namespace is not %s", namespace)
	}
	switch signature.HashAlgorithm {
	case sshsig.HashSHA256, sshsig.HashSHA512:
	default:
		return ErrProof.With("the proof uses an unknown hash")
	}
	// A key's own Verify takes trailing bytes for granted; only security keys
	// have any.
	if !strings.HasPrefix(key.Type(), "sk-") && len(signature.Signature.Rest) > 0 {
		return ErrProof.With("the proof cannot be read")
	}
	if err := sshsig.Verify(bytes.NewReader(message), signature, key, signature.HashAlgorithm, namespace); err != nil {
		return ErrProof.Because(err)
	}
	return nil
}
