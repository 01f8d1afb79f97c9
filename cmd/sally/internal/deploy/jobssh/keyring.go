package jobssh

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// certifyExtension is the request by which ssh's helper asks for a host's certificate
// (draft-ietf-sshm-ssh-agent, 3.8).
const certifyExtension = "certify@sallyport"

// certifyTime is how long the helper waits: the broker logs before it signs.
const certifyTime = time.Minute

var errOnly = errors.New("this agent signs logins with the batch's certificates, and nothing else")

// keyring is the agent: it has one key, and signs logins by certificates of the batch.
type keyring struct{ d *Door }

// List implements agent.Agent.
func (k keyring) List() ([]*agent.Key, error) {
	public := k.d.cfg.Key.PublicKey()
	return []*agent.Key{{Format: public.Type(), Blob: public.Marshal(), Comment: "sallyport"}}, nil
}

// Sign implements agent.Agent.
func (k keyring) Sign(key ssh.PublicKey, data []byte) (*ssh.Signature, error) {
	return k.SignWithFlags(key, data, 0)
}

// SignWithFlags implements agent.ExtendedAgent.
func (k keyring) SignWithFlags(key ssh.PublicKey, data []byte, _ agent.SignatureFlags) (*ssh.Signature, error) {
	if !bytes.Equal(key.Marshal(), k.d.cfg.Key.PublicKey().Marshal()) {
		return nil, errOnly
	}
	blob, err := shown(data)
	if err != nil {
		return nil, err
	}
	k.d.mu.Lock()
	defer k.d.mu.Unlock()
	for _, i := range k.d.issued {
		if bytes.Equal(i.certificate.Marshal(), blob) {
			i.used = true
			return k.d.cfg.Key.Sign(nil, data)
		}
	}
	return nil, errOnly
}

// shown is the key or certificate by which a login is asked for, whose signature is over
// the data (RFC 4252, section 7); an error if it is over anything else.
func shown(data []byte) ([]byte, error) {
	var login struct {
		Session []byte
		Kind    byte
		User    string
		Service string
		Method  string
		Signed  bool
		Name    string
		Key     []byte
		Rest    []byte `ssh:"rest"` // the host's key, with publickey-hostbound-v00@openssh.com
	}
	const userauthRequest = 50
	if err := ssh.Unmarshal(data, &login); err != nil || login.Kind != userauthRequest || !login.Signed ||
		login.Service != "ssh-connection" || login.Method != "publickey" && login.Method != "publickey-hostbound-v00@openssh.com" {
		return nil, errOnly
	}
	return login.Key, nil
}

// Extension implements agent.ExtendedAgent.
func (k keyring) Extension(name string, contents []byte) ([]byte, error) {
	if name != certifyExtension {
		return nil, agent.ErrExtensionUnsupported
	}
	// What fails is answered without a reason; here the reason is in the answer.
	answer := []byte{success}
	if err := k.d.certify(string(contents)); err != nil {
		answer = append(answer, err.Error()...)
	}
	return answer, nil
}

// success is SSH_AGENT_SUCCESS.
const success = 6

// Certify asks the batch's agent to have a certificate for the host.
func Certify(socket, host string) error {
	conn, err := net.DialTimeout("unix", socket, certifyTime)
	if err != nil {
		return fmt.Errorf("the batch is not open any more: %w", err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(certifyTime))
	answer, err := agent.NewClient(conn).Extension(certifyExtension, []byte(host))
	if err != nil {
		return fmt.Errorf("ask for a certificate for %s: %w", host, err)
	}
	if reason := string(answer[1:]); reason != "" {
		return errors.New(reason)
	}
	return nil
}

// What follows would change the agent, which nobody may.

// Add implements agent.Agent.
func (k keyring) Add(agent.AddedKey) error { return errOnly }

// Remove implements agent.Agent.
func (k keyring) Remove(ssh.PublicKey) error { return errOnly }

// RemoveAll implements agent.Agent.
func (k keyring) RemoveAll() error { return errOnly }

// Lock implements agent.Agent.
func (k keyring) Lock([]byte) error { return errOnly }

// Unlock implements agent.Agent.
func (k keyring) Unlock([]byte) error { return errOnly }

// Signers implements agent.Agent.
func (k keyring) Signers() ([]ssh.Signer, error) { return nil, errOnly }
