package keys

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// agentTimeout bounds one conversation with the agent, which may be waiting for
// somebody to confirm the use of the key.
const agentTimeout = 10 * time.Second

// agentSigner signs with a key that an ssh-agent holds. It dials for each
// signature, so it survives an agent that is started anew: a connection to a
// socket of the same machine costs nothing beside the signature's way into the log.
type agentSigner struct {
	socket, name string
	public       ssh.PublicKey
}

func newAgentSigner(socket, name string, public ssh.PublicKey) (Signer, error) {
	s := &agentSigner{socket: socket, name: name, public: public}
	return s, s.converse(s.holdsKey)
}

// PublicKey implements ssh.Signer.
func (s *agentSigner) PublicKey() ssh.PublicKey { return s.public }

// Sign implements ssh.Signer.
func (s *agentSigner) Sign(random io.Reader, data []byte) (*ssh.Signature, error) {
	return s.SignWithAlgorithm(random, data, "")
}

// SignWithAlgorithm implements ssh.AlgorithmSigner, for CAs with an RSA key.
func (s *agentSigner) SignWithAlgorithm(_ io.Reader, data []byte, algorithm string) (*ssh.Signature, error) {
	var flags agent.SignatureFlags
	switch algorithm {
	case "", s.public.Type():
	case ssh.KeyAlgoRSASHA256:
		flags = agent.SignatureFlagRsaSha256
	case ssh.KeyAlgoRSASHA512:
		flags = agent.SignatureFlagRsaSha512
	default:
		return nil, fmt.Errorf("the agent cannot sign with %s", algorithm)
	}
	var signature *ssh.Signature
	err := s.converse(func(a agent.ExtendedAgent) (err error) {
		if signature, err = a.SignWithFlags(s.public, data, flags); err != nil {
			if missing := s.holdsKey(a); missing != nil {
				return missing
			}
			return ErrAgent.With("the ssh-agent refuses to sign with %s", s.name).Because(err)
		}
		return nil
	})
	return signature, err
}

func (s *agentSigner) holdsKey(a agent.ExtendedAgent) error {
	held, err := a.List()
	if err != nil {
		return ErrAgent.Because(err)
	}
	for _, key := range held {
		if bytes.Equal(key.Blob, s.public.Marshal()) {
			return nil
		}
	}
	return ErrNotInAgent.With("the ssh-agent does not hold %s (%s)", s.name, ssh.FingerprintSHA256(s.public))
}

func (s *agentSigner) converse(talk func(agent.ExtendedAgent) error) error {
	conn, err := net.DialTimeout("unix", s.socket, agentTimeout)
	if err != nil {
		return ErrAgent.Because(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(agentTimeout)); err != nil {
		return ErrAgent.Because(err)
	}
	return talk(agent.NewClient(conn))
}
