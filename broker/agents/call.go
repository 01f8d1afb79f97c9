package agents

import (
	"encoding/base64"
	"encoding/pem"
	"strings"
	"time"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"sallyport/api"
	"sallyport/approvals/claims"
	"sallyport/broker/certs"
)

const (
	// Skew is how far a job's clock may be from the broker's.
	Skew = claims.Skew
	// callMemory is for how long a call is remembered: longer than it is good.
	callMemory = 5 * time.Minute
	nonceBytes = 32
	timeForm   = "2006-01-02T15:04:05Z"
)

// Call is one HTTP call of an agent: what its signature covers, and the signature. All
// but Source is as the caller sent it; see api.AgentMessage for the forms.
type Call struct {
	Method    string
	URL       string // the broker's URL, with path and query exactly as sent
	Body      []byte
	Time      string
	Nonce     string
	Key       string
	Signature string
	Source    string // the caller's IP address
}

// signer is the key that signed the call, now: it holds the private half, and says how
// the call is meant. token is the one that came with it, or empty.
func (s *Service) signer(call Call, token string) (ssh.PublicKey, error) {
	nonce, err := base64.RawURLEncoding.Strict().DecodeString(call.Nonce)
	if err != nil || len(nonce) != nonceBytes || base64.RawURLEncoding.EncodedLen(nonceBytes) != len(call.Nonce) {
		return nil, ErrProof.With("the nonce is not %d bytes in base64url without padding", nonceBytes)
	}
	at, err := time.Parse(timeForm, call.Time)
	if err != nil {
		return nil, ErrProof.With("the time of the call is not RFC 3339 in UTC, in whole seconds")
	}
	if off := s.cfg.Clock.Now().Sub(at); off.Abs() > Skew {
		return nil, ErrProof.With("the call was signed more than %s ago, or as long from now", Skew).Hinting("see that the clock is right, and sign the call anew")
	}
	key, err := certs.ParseKey(call.Key)
	if err != nil {
		return nil, err
	}
	blob, err := base64.StdEncoding.Strict().DecodeString(call.Signature)
	if err != nil || len(blob) == 0 || strings.ContainsAny(call.Signature, "\r\n") { // which the decoder skips
		return nil, ErrProof.With("the signature is not base64 of an SSHSIG")
	}
	armored := pem.EncodeToMemory(&pem.Block{Type: sshsig.PEMType, Bytes: blob})
	message := api.AgentMessage(call.Method, call.URL, call.Body, token, call.Time, call.Nonce)
	if err := certs.VerifyProof(key, string(armored), api.AgentNamespace, message); err != nil {
		return nil, ErrProof.Because(err)
	}
	return key, nil
}
