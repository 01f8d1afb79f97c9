package hostapi

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"
)

// Namespaces of SSHSIG signatures (PROTOCOL.sshsig): none can be taken for another.
const (
	Namespace      = "sallyport-host"       // of calls, by a host key
	EnrolNamespace = "sallyport-host-enrol" // of enrolments, by a host key
	KRLNamespace   = "sallyport-krl"        // of revocation lists, by the user CA

	PostureNamespace = "sallyport-posture" // of what a host found on itself, by its key
)

// Scheme begins the Authorization header of a host's calls.
const Scheme = "Sallyport-Host"

// MaxSkew is how far a host's clock may be off the broker's.
const MaxSkew = 5 * time.Minute

const (
	nonceSize     = 16 // bytes
	maxSignature  = 8 << 10
	maxCredential = maxSignature*4/3 + 256
)

// Credential is what a host's Authorization header says:
//
//	Sallyport-Host <id> <unix seconds> <nonce, hex> <SSHSIG, base64>
type Credential struct {
	ID        string // of the host, or of the enrolment that waits
	Time      time.Time
	Nonce     string // 128 bits, lower-case hex
	signature []byte
}

// message is what a call's signature signs. target is the path with its query, as
// it stands in the request line.
func (c Credential) message(method, target string, body []byte) []byte {
	sum := sha256.Sum256(body)
	return []byte(strings.Join([]string{
		method, target, strconv.FormatInt(c.Time.Unix(), 10), c.Nonce, hex.EncodeToString(sum[:]), "",
	}, "\n"))
}

// Sign signs a call of a host whose body is given, and sets its Authorization
// header. random gives the nonce.
func Sign(req *http.Request, id string, key ssh.Signer, body []byte, now time.Time, random io.Reader) error {
	nonce := make([]byte, nonceSize)
	if _, err := io.ReadFull(random, nonce); err != nil {
		return fmt.Errorf("signing a call: %w", err)
	}
	c := Credential{ID: id, Time: now, Nonce: hex.EncodeToString(nonce)}
	message := c.message(req.Method, req.URL.RequestURI(), body)
	signature, err := sshsig.Sign(bytes.NewReader(message), key, sshsig.HashSHA512, Namespace)
	if err != nil {
		return fmt.Errorf("signing a call: %w", err)
	}
	req.Header.Set("Authorization", strings.Join([]string{
		Scheme, id, strconv.FormatInt(now.Unix(), 10), c.Nonce, base64.StdEncoding.EncodeToString(signature.Marshal()),
	}, " "))
	return nil
}

// Signed reports whether the header is one of a host, good or not.
func Signed(authorization string) bool { return strings.HasPrefix(authorization, Scheme+" ") }

// ParseCredential reads an Authorization header. What it says is not verified.
func ParseCredential(authorization string) (Credential, error) {
	if len(authorization) > maxCredential {
		return Credential{}, errors.New("the signature of the call is too long")
	}
	f := strings.Split(authorization, " ")
	if len(f) != 5 || f[0] != Scheme || f[1] == "" {
		return Credential{}, errors.New("the call is not signed as a host's calls are")
	}
	seconds, err := strconv.ParseInt(f[2], 10, 64)
	if err != nil || strconv.FormatInt(seconds, 10) != f[2] {
		return Credential{}, errors.New("the time of the call cannot be read")
	}
	if nonce, err := hex.DecodeString(f[3]); err != nil || len(nonce) != nonceSize || f[3] != hex.EncodeToString(nonce) {
		return Credential{}, errors.New("the nonce of the call cannot be read")
	}
	signature, err := base64.StdEncoding.Strict().DecodeString(f[4])
	if err != nil {
		return Credential{}, errors.New("the signature of the call cannot be read")
	}
	return Credential{ID: f[1], Time: time.Unix(seconds, 0).UTC(), Nonce: f[3], signature: signature}, nil
}

// InTime reports whether the call was signed about now.
func (c Credential) InTime(now time.Time) bool {
	return c.Time.Add(MaxSkew).After(now) && now.Add(MaxSkew).After(c.Time)
}

// Verify checks that the key signed this call. Whether it is in time and new is for
// the caller to say.
func (c Credential) Verify(key ssh.PublicKey, method, target string, body []byte) error {
	return verify(key, Namespace, c.message(method, target, body), c.signature)
}

// verify checks an SSHSIG in wire format.
func verify(key ssh.PublicKey, namespace string, message, blob []byte) error {
	if len(blob) > maxSignature {
		return errors.New("the signature is too long")
	}
	signature, err := sshsig.ParseSignature(blob)
	if err != nil {
		return errors.New("the signature cannot be read")
	}
	switch {
	case !bytes.Equal(signature.PublicKey.Marshal(), key.Marshal()):
		return errors.New("the signature is by another key")
	case signature.Namespace != namespace:
		return errors.New("the signature is for another purpose")
	case signature.HashAlgorithm != sshsig.HashSHA256 && signature.HashAlgorithm != sshsig.HashSHA512:
		return errors.New("the signature uses an unknown hash")
	case len(signature.Signature.Rest) > 0:
		return errors.New("the signature cannot be read")
	}
	if err := sshsig.Verify(bytes.NewReader(message), signature, key, signature.HashAlgorithm, namespace); err != nil {
		return errors.New("the signature does not hold")
	}
	return nil
}

func armoredSignature(key ssh.Signer, namespace string, message []byte) (string, error) {
	signature, err := sshsig.Sign(bytes.NewReader(message), key, sshsig.HashSHA512, namespace)
	if err != nil {
		return "", fmt.Errorf("signing for %s: %w", namespace, err)
	}
	return string(sshsig.Armor(signature)), nil
}

func verifyArmored(key ssh.PublicKey, namespace string, message []byte, armored string) error {
	armored = strings.TrimSpace(armored)
	block, rest := pem.Decode([]byte(armored))
	if block == nil || len(rest) > 0 || len(block.Headers) > 0 ||
		!strings.HasPrefix(armored, "-----BEGIN "+sshsig.PEMType+"-----") {
		return errors.New("the proof is not one armored SSH signature")
	}
	return verify(key, namespace, message, block.Bytes)
}

// SignKRL makes the detached signature of a revocation list.
func SignKRL(krl []byte, ca ssh.Signer) (string, error) {
	return armoredSignature(ca, KRLNamespace, krl)
}

// VerifyKRL checks it. Without this package:
//
//	ssh-keygen -Y verify -f allowed_signers -I sallyport -n sallyport-krl -s krl.sig <krl
//
// where allowed_signers is "sallyport " and the user CA's key.
func VerifyKRL(krl []byte, signature string, ca ssh.PublicKey) error {
	return verifyArmored(ca, KRLNamespace, krl, signature)
}
