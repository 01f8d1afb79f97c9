package grantkey

import (
	"crypto/ed25519"
	"errors"
	"io"
	"net"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// agentPatience is how long the agent may take to answer: enough for one that
// asks its owner, short enough not to look hung.
const agentPatience = 30 * time.Second

// dial connects to the agent, or returns nil: an agent that is not there is as
// good as none.
func (r *Ring) dial() (agent.ExtendedAgent, net.Conn) {
	if r.cfg.Agent == "" {
		return nil, nil
	}
	conn, err := net.DialTimeout("unix", r.cfg.Agent, agentPatience)
	if err != nil {
		return nil, nil
	}
	conn.SetDeadline(time.Now().Add(agentPatience))
	return agent.NewClient(conn), conn
}

// intoAgent gives the agent a key for as long as it may be needed, and returns a
// signer that uses it there; or nil.
func (r *Ring) intoAgent(private ed25519.PrivateKey, k *Key) ssh.Signer {
	client, conn := r.dial()
	if client == nil {
		return nil
	}
	defer conn.Close()
	lifetime := k.grant.KeyUntil.Sub(r.cfg.Clock.Now())
	err := client.Add(agent.AddedKey{
		PrivateKey: private,
		Comment:    comment(k.grant.RequestID),
		// Rounded up: 0 would mean for ever.
		LifetimeSecs: uint32((lifetime + time.Second - 1) / time.Second),
	})
	if err != nil {
		return nil
	}
	return r.fromAgent(k.Fingerprint())
}

// fromAgent returns a signer that uses a key in the agent; or nil.
func (r *Ring) fromAgent(fingerprint string) ssh.Signer {
	client, conn := r.dial()
	if client == nil {
		return nil
	}
	defer conn.Close()
	listed, err := client.List()
	if err != nil {
		return nil
	}
	for _, l := range listed {
		key, err := ssh.ParsePublicKey(l.Blob)
		if err == nil && ssh.FingerprintSHA256(key) == fingerprint {
			return agentSigner{r, key}
		}
	}
	return nil
}

// agentSigner signs in the agent, over a connection for each signature.
type agentSigner struct {
	ring *Ring
	key  ssh.PublicKey
}

func (s agentSigner) PublicKey() ssh.PublicKey { return s.key }

func (s agentSigner) Sign(_ io.Reader, data []byte) (*ssh.Signature, error) {
	client, conn := s.ring.dial()
	if client == nil {
		return nil, errors.New("the ssh-agent does not answer any more")
	}
	defer conn.Close()
	return client.Sign(s.key, data)
}

// outOfAgent removes a key from the agent, if it is there.
func (r *Ring) outOfAgent(key ssh.PublicKey) {
	if client, conn := r.dial(); client != nil {
		client.Remove(key) // most often it is gone already, at its lifetime's end
		conn.Close()
	}
}
