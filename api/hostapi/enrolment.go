package hostapi

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// Facts are what a host says of its software, for people who look.
type Facts struct {
	OS      string `json:"os,omitempty"`      // PRETTY_NAME of /etc/os-release
	OpenSSH string `json:"openssh,omitempty"` // what sshd -V says
	Kernel  string `json:"kernel,omitempty"`
	Helper  string `json:"helper,omitempty"` // version of sally-host
}

// EnrolmentInput asks to become a host, or to take up again what one was.
type EnrolmentInput struct {
	// Token is a join token, of which the operator who made it fixed name, labels and
	// logins. Without one the host waits until an operator lets it in.
	Token string `json:"token,omitempty"`
	// Name, Address and Logins are what the host proposes where no token says
	// otherwise. Address is host or host:port, where ssh reaches it; with neither, the
	// broker takes the address that the call came from and port 22.
	Name    string   `json:"name,omitempty"`
	Address string   `json:"address,omitempty"`
	Logins  []string `json:"logins,omitempty"`
	// HostKey is the public key, "type base64", without a comment.
	HostKey string `json:"host_key"`
	Facts   Facts  `json:"facts"`
	// Time is the host's clock, at most MaxSkew off.
	Time time.Time `json:"time"`
	// Proof is an armored SSHSIG by the host key over Message, namespace
	// EnrolNamespace; SignEnrolment makes it.
	Proof string `json:"proof"`
}

// Message is what the proof signs: all that the input says, for one broker.
func (in EnrolmentInput) Message(brokerURL string) []byte {
	lines := []string{
		"sallyport host enrolment v1", strings.TrimRight(brokerURL, "/"), TokenHash(in.Token), in.HostKey,
		strconv.FormatInt(in.Time.Unix(), 10), in.Name, in.Address, strings.Join(in.Logins, ","),
		in.Facts.OS, in.Facts.OpenSSH, in.Facts.Kernel, in.Facts.Helper,
	}
	for i, line := range lines {
		lines[i] = strings.NewReplacer("\\", `\\`, "\n", `\n`).Replace(line) + "\n"
	}
	return []byte(strings.Join(lines, ""))
}

// SignEnrolment sets host key, time and proof of the input.
func SignEnrolment(in *EnrolmentInput, brokerURL string, key ssh.Signer, now time.Time) error {
	in.HostKey = strings.TrimSuffix(string(ssh.MarshalAuthorizedKey(key.PublicKey())), "\n")
	in.Time = now.UTC().Truncate(time.Second)
	proof, err := armoredSignature(key, EnrolNamespace, in.Message(brokerURL))
	in.Proof = proof
	return err
}

// VerifyEnrolment returns the host key, if the proof holds.
func VerifyEnrolment(in EnrolmentInput, brokerURL string) (ssh.PublicKey, error) {
	key, comment, options, rest, err := ssh.ParseAuthorizedKey([]byte(in.HostKey))
	if err != nil || comment != "" || len(options) > 0 || len(rest) > 0 {
		return nil, errors.New("the host key is not one line of type and base64")
	}
	if _, ok := key.(*ssh.Certificate); ok {
		return nil, errors.New("the host key is a certificate, not a key")
	}
	return key, verifyArmored(key, EnrolNamespace, in.Message(brokerURL), in.Proof)
}

// TokenHash is the SHA-256 of a join token in hex, which is all that the broker
// keeps of it; of no token it is empty.
func TokenHash(token string) string {
	if token == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// Pending is an enrolment that waits for an operator (202 Accepted), who compares
// the fingerprint with the host's own: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub
type Pending struct {
	ID          string    `json:"id"`          // enr-…; the host's id in calls that it signs meanwhile
	Fingerprint string    `json:"fingerprint"` // of the host key, SHA256:…
	ExpiresAt   time.Time `json:"expires_at"`  // when nobody lets it in any more
}

// Enrolment is what a host is and whom it trusts. It answers an enrolment with a
// token, the question about one that was let in, and every renewal.
type Enrolment struct {
	HostID string            `json:"host_id"` // host-…; stands in principals
	Name   string            `json:"name"`
	Labels map[string]string `json:"labels"`
	Logins []string          `json:"logins"`
	// Principals says of each login which one principal opens it: the lines of
	// AuthorizedPrincipalsFile where no helper may be installed.
	Principals map[string]string `json:"principals"`
	// URL is the broker's own name for itself, which proofs name.
	URL string `json:"url"`
	// UserCAs are lines for TrustedUserCAKeys.
	UserCAs []string `json:"user_cas"`
	// LogKey verifies receipts and lists of revocations (signed-note format). A host
	// pins the first one that it gets and refuses another.
	LogKey string `json:"log_key"`
	// HostCertificate is for sshd's HostCertificate, one line.
	HostCertificate string    `json:"host_certificate"`
	ValidBefore     time.Time `json:"valid_before"` // of the host certificate
	// HostCA is the key that signed it, for known_hosts, "type base64".
	HostCA string `json:"host_ca"`
	// LastReport is the highest number of a report that the broker has of this host;
	// the next is at least one more.
	LastReport uint64   `json:"last_report"`
	Settings   Settings `json:"settings"`
}
