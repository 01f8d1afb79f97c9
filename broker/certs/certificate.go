package certs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/crypto/ssh"
)

const (
	// Backdate is how long before now a certificate's validity may start: sshd
	// knows no tolerance, and hosts' clocks differ (P3).
	Backdate = 60 * time.Second
	// MaxLifetime is the most that any user certificate may live, whatever a
	// rule says.
	MaxLifetime = 24 * time.Hour

	nonceSize = 32
)

// ErrNoTimeLeft says that the grant ends before a certificate could be used.
var ErrNoTimeLeft = errors.New("less than a second is left")

// Window is the validity of a certificate (P3): it starts at most Backdate
// before now, and ends at the earliest of the lifetime and the limit, which is
// the grant's end. Certificates count whole seconds, so both ends are rounded
// inwards. sshd takes ValidBefore as the first moment that is too late.
func Window(now time.Time, lifetime time.Duration, limit time.Time) (after, before time.Time, err error) {
	if lifetime <= 0 {
		return after, before, fmt.Errorf("certificate lifetime %s is not positive", lifetime)
	}
	before = now.Add(lifetime)
	if limit.Before(before) {
		before = limit
	}
	before = before.UTC().Truncate(time.Second)
	if !before.After(now) {
		return after, before, ErrNoTimeLeft
	}
	after = now.UTC().Add(-Backdate)
	if whole := after.Truncate(time.Second); whole.Before(after) {
		after = whole.Add(time.Second)
	}
	return after, before, nil
}

// User is what a user certificate is to say. What can be empty says so; all else
// must be set.
type User struct {
	Serial              uint64
	Key                 ssh.PublicKey // the person's
	Login, HostID       string        // become the one principal
	RequestID, PersonID string        // become the key id
	SourceAddress       []string      // CIDRs that it is good from; empty: any
	NoPTY               bool          // no terminal
	Forwarding          []string      // agent, port, x11; empty: none
	VerifyRequired      bool          // Key, a security key, must verify its person at each login
	Now                 time.Time     // when it is issued
	Lifetime            time.Duration // the rule's
	GrantEnds           time.Time
}

// Pre is the certificate but for the receipt and the signature of the CA.
func (u User) Pre(ca ssh.PublicKey, nonce io.Reader) (*PreCertificate, error) {
	principal, err := Principal(u.Login, u.HostID)
	if err != nil {
		return nil, err
	}
	keyID, err := KeyID(u.RequestID, u.PersonID)
	if err != nil {
		return nil, err
	}
	after, before, err := Window(u.Now, min(u.Lifetime, MaxLifetime), u.GrantEnds)
	if err != nil {
		return nil, err
	}
	extensions, err := u.extensions()
	if err != nil {
		return nil, err
	}
	options, err := u.criticalOptions()
	if err != nil {
		return nil, err
	}
	return newPre(ssh.Certificate{
		Serial: u.Serial, CertType: ssh.UserCert, Key: u.Key, KeyId: keyID,
		ValidPrincipals: []string{principal},
		ValidAfter:      uint64(after.Unix()), ValidBefore: uint64(before.Unix()),
		Permissions: ssh.Permissions{Extensions: extensions, CriticalOptions: options},
	}, ca, nonce)
}

// Host is what a host's certificate is to say; all of it must be set.
type Host struct {
	Serial   uint64
	Key      ssh.PublicKey // the host's
	HostID   string        // the key id, and the first principal
	Names    []string      // further principals: name and address
	Now      time.Time
	Lifetime time.Duration
}

// Pre is the certificate but for the receipt and the signature of the CA.
func (h Host) Pre(ca ssh.PublicKey, nonce io.Reader) (*PreCertificate, error) {
	if _, err := Principal("root", h.HostID); err != nil {
		return nil, err
	}
	after, before, err := Window(h.Now, h.Lifetime, h.Now.Add(h.Lifetime))
	if err != nil {
		return nil, err
	}
	principals := []string{h.HostID}
	for _, name := range h.Names {
		if !validHostPrincipal(name) {
			return nil, fmt.Errorf("%q is no name for a host certificate", name)
		}
		principals = append(principals, name)
	}
	return newPre(ssh.Certificate{
		Serial: h.Serial, CertType: ssh.HostCert, Key: h.Key, KeyId: h.HostID,
		ValidPrincipals: principals,
		ValidAfter:      uint64(after.Unix()), ValidBefore: uint64(before.Unix()),
	}, ca, nonce)
}

// PreCertificate is a certificate that lacks only its receipt and its signature.
// Nothing in it can change any more: its bytes are what the log holds.
type PreCertificate struct {
	cert  ssh.Certificate
	bytes []byte
}

func newPre(cert ssh.Certificate, ca ssh.PublicKey, nonce io.Reader) (*PreCertificate, error) {
	if cert.Key == nil {
		return nil, errors.New("a certificate needs a key")
	}
	if err := CheckKey(cert.Key); err != nil {
		return nil, err
	}
	if err := CheckKey(ca); err != nil {
		return nil, fmt.Errorf("the CA's key: %w", err)
	}
	if cert.Serial == 0 { // the value of certificates without a serial
		return nil, errors.New("a certificate needs a serial")
	}
	cert.Nonce = make([]byte, nonceSize)
	if _, err := io.ReadFull(nonce, cert.Nonce); err != nil {
		return nil, fmt.Errorf("reading the nonce: %w", err)
	}
	cert.SignatureKey = ca
	return &PreCertificate{cert: cert, bytes: unsigned(&cert)}, nil
}

// Bytes are all fields of the certificate from its type up to and including
// the CA's key (PROTOCOL.certkeys), its extensions without the receipt. The
// message that the CA signs is the same with the receipt among the extensions.
func (p *PreCertificate) Bytes() []byte { return bytes.Clone(p.bytes) }

// KeyID, Principals, ValidAfter and ValidBefore are what the certificate says.
func (p *PreCertificate) KeyID() string          { return p.cert.KeyId }
func (p *PreCertificate) Principals() []string   { return p.cert.ValidPrincipals }
func (p *PreCertificate) ValidAfter() time.Time  { return unix(p.cert.ValidAfter) }
func (p *PreCertificate) ValidBefore() time.Time { return unix(p.cert.ValidBefore) }

// Sign makes the certificate, with the receipt of the event that holds this
// pre-certificate: without one there is no certificate (P1). The signer must be the
// CA that Pre was given. It signs the bytes themselves, rather than leave that to
// ssh.Certificate.SignCert, which would choose another nonce.
func (p *PreCertificate) Sign(random io.Reader, ca ssh.Signer, r Receipt) (*ssh.Certificate, error) {
	cert, _, err := p.SignWire(random, ca, r)
	return cert, err
}

// SignWire is Sign, and also returns the certificate's bytes on the wire.
func (p *PreCertificate) SignWire(random io.Reader, ca ssh.Signer, r Receipt) (cert *ssh.Certificate, wire []byte, err error) {
	if !bytes.Equal(ca.PublicKey().Marshal(), p.cert.SignatureKey.Marshal()) {
		return nil, nil, errors.New("signing a certificate: this is not the CA that it names")
	}
	name, value, err := r.extension(p.bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("signing a certificate: its receipt: %w", err)
	}
	whole := p.with(name, value)
	message := unsigned(whole)
	if whole.Signature, err = sign(random, ca, message); err != nil {
		return nil, nil, fmt.Errorf("signing a certificate: %w", err)
	}

	// What leaves is what a reader of the wire sees, not what this process
	// believes to have built: without receipt and signature it is what was logged.
	signature := ssh.Marshal(whole.Signature)
	wire = binary.BigEndian.AppendUint32(bytes.Clone(message), uint32(len(signature)))
	wire = append(wire, signature...)
	if cert, err = ParseCertificate(wire); err != nil {
		return nil, nil, fmt.Errorf("reading the certificate back: %w", err)
	}
	if !bytes.Equal(withoutReceipt(cert), p.bytes) || cert.Extensions[name] != value {
		return nil, nil, errors.New("the signed certificate is not the one that was logged")
	}
	if err := checkSignatureOver(message, cert, ca.PublicKey()); err != nil {
		return nil, nil, err
	}
	return cert, wire, nil
}

// sign uses SHA-2 with RSA, where the default would be SHA-1.
func sign(random io.Reader, ca ssh.Signer, message []byte) (*ssh.Signature, error) {
	if ca.PublicKey().Type() != ssh.KeyAlgoRSA {
		return ca.Sign(random, message)
	}
	signer, ok := ca.(ssh.AlgorithmSigner)
	if !ok {
		return nil, errors.New("this RSA signer knows no SHA-2")
	}
	return signer.SignWithAlgorithm(random, message, ssh.KeyAlgoRSASHA512)
}

// unsigned is the certificate without its last field: what the CA signs.
func unsigned(cert *ssh.Certificate) []byte {
	c := *cert
	c.Signature = nil
	out := c.Marshal()
	return out[:len(out)-4] // the length of an empty signature
}

func unix(seconds uint64) time.Time { return time.Unix(int64(seconds), 0).UTC() }
