package certs

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/internal/ids"
)

// MaxAgentLifetime is the most that a certificate of an agent may live.
const MaxAgentLifetime = 5 * time.Minute

const (
	forceCommandOption = "force-command"
	maxCommand         = 2000 // bytes, with the digest put in
)

// Agent is what a certificate of a deploy agent is to say. All of it must be set: it
// has no terminal and no forwarding, runs one command, and is good from some addresses
// only.
type Agent struct {
	Serial        uint64
	Key           ssh.PublicKey
	Login, HostID string // become the one principal
	DeploymentID  string // this and the next three become the key id
	Batch         int
	Epoch         uint64
	Run           string
	Command       string // forced
	SourceAddress []string
	Now           time.Time
	Lifetime      time.Duration
	Until         time.Time // it ends by then in any case
}

// AgentKeyID is what sshd writes into its log when an agent's certificate is used,
// "<deployment>/<batch>/<epoch>/<run>", in characters that cannot forge a log line.
func AgentKeyID(deployment string, batch int, epoch uint64, run string) (string, error) {
	switch {
	case !ids.Valid(ids.Deployment, deployment):
		return "", fmt.Errorf("%q is no deployment's id", deployment)
	case !ids.Valid(ids.Run, run):
		return "", fmt.Errorf("%q is no run's id", run)
	case batch < 1 || epoch < 1:
		return "", fmt.Errorf("batch %d of epoch %d is none", batch, epoch)
	}
	return fmt.Sprintf("%s/%d/%d/%s", deployment, batch, epoch, run), nil
}

// agentKeyID reads a key id in its only form.
func agentKeyID(text string) (deployment string, batch int, epoch uint64, run string, err error) {
	parts := strings.Split(text, "/")
	if len(parts) != 4 {
		return "", 0, 0, "", fmt.Errorf("%q is no key id of an agent", text)
	}
	batch, batchErr := strconv.Atoi(parts[1])
	epoch, epochErr := strconv.ParseUint(parts[2], 10, 64)
	again, err := AgentKeyID(parts[0], batch, epoch, parts[3])
	if batchErr != nil || epochErr != nil || err != nil || again != text {
		return "", 0, 0, "", fmt.Errorf("%q is no key id of an agent", text)
	}
	return parts[0], batch, epoch, parts[3], nil
}

// Pre is the certificate but for the receipt and the signature of the CA.
func (a Agent) Pre(ca ssh.PublicKey, nonce io.Reader) (*PreCertificate, error) {
	principal, err := Principal(a.Login, a.HostID)
	if err != nil {
		return nil, err
	}
	keyID, err := AgentKeyID(a.DeploymentID, a.Batch, a.Epoch, a.Run)
	if err != nil {
		return nil, err
	}
	after, before, err := Window(a.Now, min(a.Lifetime, MaxAgentLifetime), a.Until)
	if err != nil {
		return nil, err
	}
	options, err := a.options()
	if err != nil {
		return nil, err
	}
	return newPre(ssh.Certificate{
		Serial: a.Serial, CertType: ssh.UserCert, Key: a.Key, KeyId: keyID,
		ValidPrincipals: []string{principal},
		ValidAfter:      uint64(after.Unix()), ValidBefore: uint64(before.Unix()),
		Permissions: ssh.Permissions{Extensions: map[string]string{}, CriticalOptions: options},
	}, ca, nonce)
}

func (a Agent) options() (map[string]string, error) {
	if err := checkCommand(a.Command); err != nil {
		return nil, err
	}
	from, err := sourceAddress(a.SourceAddress)
	if err != nil {
		return nil, err
	}
	if from == "" {
		return nil, errors.New("an agent's certificate must say from where it is good")
	}
	return map[string]string{forceCommandOption: a.Command, sourceAddressOption: from}, nil
}

// checkCommand takes one line of printable ASCII.
func checkCommand(command string) error {
	if command == "" || len(command) > maxCommand || strings.TrimSpace(command) != command ||
		strings.ContainsFunc(command, func(c rune) bool { return c < ' ' || c > '~' }) {
		return fmt.Errorf("%q is no command for a certificate", command)
	}
	return nil
}

// CheckContent verifies that a certificate, whose signature has just been verified, says
// what the template does, at the time given.
func (a Agent) CheckContent(cert *ssh.Certificate, at time.Time) error {
	if err := checkUser(cert, a.Login, a.HostID, at); err != nil {
		return err
	}
	if err := sameKeyAndSerial(cert, a.Key, a.Serial); err != nil {
		return err
	}
	if keyID, err := AgentKeyID(a.DeploymentID, a.Batch, a.Epoch, a.Run); err != nil || cert.KeyId != keyID {
		return fmt.Errorf("key id is %q, not %q", cert.KeyId, keyID)
	}
	options, err := a.options()
	if err != nil {
		return err
	}
	for name, want := range options {
		if cert.CriticalOptions[name] != want {
			return fmt.Errorf("critical option %s is %q, not %q", name, cert.CriticalOptions[name], want)
		}
	}
	after, before := unix(cert.ValidAfter), unix(cert.ValidBefore)
	switch {
	case after.Before(a.Now.Add(-Backdate)):
		return fmt.Errorf("validity starts at %s, more than %s before %s", after, Backdate, a.Now)
	case before.After(a.Now.Add(a.Lifetime)) || before.After(a.Until):
		return fmt.Errorf("validity ends at %s, later than it may", before)
	}
	return nil
}

// checkAgent holds a certificate whose key id is an agent's against what any can be: it
// runs one command from some addresses, and has neither a terminal nor forwarding.
func checkAgent(cert *ssh.Certificate) error {
	if own := ownExtensions(cert); len(own) != 0 {
		return fmt.Errorf("an agent's certificate has the extensions %q", own)
	}
	if len(cert.CriticalOptions) != 2 {
		return fmt.Errorf("an agent's certificate has the critical options %q", cert.CriticalOptions)
	}
	if err := checkCommand(cert.CriticalOptions[forceCommandOption]); err != nil {
		return err
	}
	from := cert.CriticalOptions[sourceAddressOption]
	if normal, err := sourceAddress(strings.Split(from, ",")); err != nil || normal != from {
		return fmt.Errorf("critical option %s is %q: not a list of CIDRs", sourceAddressOption, from)
	}
	if life := unix(cert.ValidBefore).Sub(unix(cert.ValidAfter)); life > MaxAgentLifetime+Backdate {
		return fmt.Errorf("validity of %s is longer than any agent's certificate's", life)
	}
	return nil
}
