// Package certtest makes certificates with receipts of a log in memory, as the
// broker makes them with its own, for the tests of those who check them.
package certtest

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/crypto/ssh"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"sallyport/audit/checkpoint"
	"sallyport/audit/event"
	"sallyport/audit/receipt"
	"sallyport/broker/certs"
)

// Log is a log in memory.
type Log struct {
	Signer   note.Signer
	Verifier note.Verifier
	Key      string // Verifier's, in note format

	t      testing.TB
	mu     sync.Mutex
	hashes []tlog.Hash
	leaves [][]byte
}

// NewLog begins an empty log with a key of its own.
func NewLog(t testing.TB, origin string) *Log {
	t.Helper()
	seed := make([]byte, ed25519.SeedSize)
	rand.Read(seed)
	return SeededLog(t, origin, seed)
}

// SeededLog begins an empty log whose key comes from the seed (c2sp.org/signed-note,
// "Signatures": a key id is of the name, the type and the public key).
func SeededLog(t testing.TB, origin string, seed []byte) *Log {
	t.Helper()
	const ed25519Type = 1
	public := ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)
	sum := sha256.Sum256(append([]byte(origin+"\n\x01"), public...))
	id := binary.BigEndian.Uint32(sum[:])
	private := base64.StdEncoding.EncodeToString(append([]byte{ed25519Type}, seed...))
	signer, err := note.NewSigner(fmt.Sprintf("PRIVATE+KEY+%s+%08x+%s", origin, id, private))
	must(t, err)
	key, err := note.NewEd25519VerifierKey(origin, public)
	must(t, err)
	verifier, err := note.NewVerifier(key)
	must(t, err)
	return &Log{Signer: signer, Verifier: verifier, Key: key, t: t}
}

// ReadHashes implements tlog.HashReader. The caller holds the lock.
func (l *Log) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	var found []tlog.Hash
	for _, i := range indexes {
		found = append(found, l.hashes[i])
	}
	return found, nil
}

// Append adds leaves and returns the index of the last.
func (l *Log) Append(leaves ...[]byte) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, leaf := range leaves {
		added, err := tlog.StoredHashes(int64(len(l.leaves)), leaf, l)
		must(l.t, err)
		l.hashes, l.leaves = append(l.hashes, added...), append(l.leaves, leaf)
	}
	return int64(len(l.leaves)) - 1
}

// Grow adds so many leaves that mean nothing.
func (l *Log) Grow(n int) {
	for range n {
		l.Append(fmt.Appendf(nil, "leaf %d", len(l.leaves)))
	}
}

// Leaf is one of the leaves.
func (l *Log) Leaf(index int64) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.leaves[index]
}

// Tree is the whole log's head.
func (l *Log) Tree() tlog.Tree {
	l.mu.Lock()
	defer l.mu.Unlock()
	root, err := tlog.TreeHash(int64(len(l.leaves)), l)
	must(l.t, err)
	return tlog.Tree{N: int64(len(l.leaves)), Hash: root}
}

// Prove is the receipt of a leaf under the whole log's head.
func (l *Log) Prove(index int64) receipt.Receipt {
	tree := l.Tree()
	msg, err := checkpoint.Sign(tree, l.Signer)
	must(l.t, err)
	l.mu.Lock()
	defer l.mu.Unlock()
	proof, err := tlog.ProveRecord(tree.N, index, l)
	must(l.t, err)
	return receipt.Receipt{Index: index, Proof: proof, Checkpoint: msg}
}

// Log puts an event into the log and returns what it says of it.
func (l *Log) Log(e event.Event) certs.Receipt {
	l.t.Helper()
	leaf, err := e.Encode()
	must(l.t, err)
	return certs.Receipt{Leaf: leaf, Text: l.Prove(l.Append(leaf)).Format(), Log: l.Verifier}
}

// Certify makes a certificate and puts its event into the log.
func (l *Log) Certify(u certs.User, ca ssh.Signer) *ssh.Certificate {
	l.t.Helper()
	return l.CertifyWith(u, ca, rand.Reader)
}

// CertifyWith is Certify with a nonce of one's own.
func (l *Log) CertifyWith(u certs.User, ca ssh.Signer, nonce io.Reader) *ssh.Certificate {
	l.t.Helper()
	pre, err := u.Pre(ca.PublicKey(), nonce)
	must(l.t, err)
	cert, err := pre.Sign(rand.Reader, ca, l.Log(Issued(u, pre, ca.PublicKey())))
	must(l.t, err)
	return cert
}

// CertifyAs is Certify with a changed event, which says what hosts make of it.
func (l *Log) CertifyAs(u certs.User, ca ssh.Signer, change func(*event.CertificateIssued)) *ssh.Certificate {
	l.t.Helper()
	pre, err := u.Pre(ca.PublicKey(), rand.Reader)
	must(l.t, err)
	e := Issued(u, pre, ca.PublicKey())
	data := e.Data.(event.CertificateIssued)
	change(&data)
	e.Data = data
	cert, err := pre.Sign(rand.Reader, ca, l.Log(e))
	must(l.t, err)
	return cert
}

// CertifyHost makes a host's certificate and puts its event into the log.
func (l *Log) CertifyHost(h certs.Host, ca ssh.Signer, nonce io.Reader) *ssh.Certificate {
	l.t.Helper()
	pre, err := h.Pre(ca.PublicKey(), nonce)
	must(l.t, err)
	cert, err := pre.Sign(rand.Reader, ca, l.Log(HostIssued(h, pre, ca.PublicKey())))
	must(l.t, err)
	return cert
}

// CertifyAgent makes an agent's certificate, which opens so many sessions, and puts its
// event into the log.
func (l *Log) CertifyAgent(a certs.Agent, uses int, batchEnds time.Time, ca ssh.Signer) *ssh.Certificate {
	l.t.Helper()
	pre, err := a.Pre(ca.PublicKey(), rand.Reader)
	must(l.t, err)
	cert, err := pre.Sign(rand.Reader, ca, l.Log(AgentIssued(a, uses, batchEnds, pre, ca.PublicKey())))
	must(l.t, err)
	return cert
}

// AgentIssued is the event of an agent's pre-certificate.
func AgentIssued(a certs.Agent, uses int, batchEnds time.Time, pre *certs.PreCertificate, ca ssh.PublicKey) event.Event {
	e := event.New(a.Now, event.Actor{Kind: event.Agent, ID: a.Run, Name: "repo:acme/api"}, "192.0.2.8", event.Subject{HostID: a.HostID},
		event.DeploymentCertificateIssued{Serial: a.Serial, DeploymentID: a.DeploymentID, Batch: a.Batch, Epoch: a.Epoch,
			Digest: "sha256:" + strings.Repeat("ab", 32), KeyID: pre.KeyID(), Principal: pre.Principals()[0], Login: a.Login, Host: "db-1",
			Key: ssh.FingerprintSHA256(a.Key), Command: a.Command, Uses: uses, BatchEndsAt: batchEnds.UTC(), PreCertificate: pre.Bytes(),
			CA: ssh.FingerprintSHA256(ca), ValidAfter: pre.ValidAfter(), ValidBefore: pre.ValidBefore(),
			TermsHash: strings.Repeat("a1", 32), TokenHash: strings.Repeat("b2", 32), Decisions: []string{},
		}).Under(event.PolicyRef{Version: 3, Hash: strings.Repeat("c3", 32)})
	e.ID = uuid.NewSHA1(uuid.Nil, pre.Bytes())
	return e
}

// Issued is the event of a pre-certificate. Its id comes from the pre-certificate.
func Issued(u certs.User, pre *certs.PreCertificate, ca ssh.PublicKey) event.Event {
	e := event.New(u.Now, event.Actor{Kind: event.Person, ID: u.PersonID, Name: "Erin Engineer"}, "192.0.2.7",
		event.Subject{RequestID: u.RequestID, HostID: u.HostID}, event.CertificateIssued{
			Serial: u.Serial, KeyID: pre.KeyID(), Principal: pre.Principals()[0], Login: u.Login, Host: "db-1",
			Key: ssh.FingerprintSHA256(u.Key), PreCertificate: pre.Bytes(), CA: ssh.FingerprintSHA256(ca),
			ValidAfter: pre.ValidAfter(), ValidBefore: pre.ValidBefore(),
			TermsHash: strings.Repeat("a1", 32), Decisions: []string{strings.Repeat("d1", 32)},
		}).Under(event.PolicyRef{Version: 3, Hash: strings.Repeat("c3", 32)})
	e.ID = uuid.NewSHA1(uuid.Nil, pre.Bytes())
	return e
}

// HostIssued is the event of a host's pre-certificate.
func HostIssued(h certs.Host, pre *certs.PreCertificate, ca ssh.PublicKey) event.Event {
	e := event.New(h.Now, event.Actor{Kind: event.Person, ID: "per-000000000002", Name: "Otto Operator"}, "192.0.2.9",
		event.Subject{HostID: h.HostID}, event.HostCertificateIssued{
			Serial: h.Serial, Host: "db-1", Principals: pre.Principals(), Key: ssh.FingerprintSHA256(h.Key),
			PreCertificate: pre.Bytes(), CA: ssh.FingerprintSHA256(ca), ValidAfter: pre.ValidAfter(), ValidBefore: pre.ValidBefore(),
		})
	e.ID = uuid.NewSHA1(uuid.Nil, pre.Bytes())
	return e
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Resign changes a certificate and signs it anew, as somebody can who has the CA's
// key, or any key. The nonce stays.
func Resign(t testing.TB, cert *ssh.Certificate, ca ssh.Signer, change func(*ssh.Certificate)) *ssh.Certificate {
	t.Helper()
	c := *cert
	c.Extensions, c.CriticalOptions = maps.Clone(cert.Extensions), maps.Clone(cert.CriticalOptions)
	c.ValidPrincipals = slices.Clone(cert.ValidPrincipals)
	change(&c)
	c.SignatureKey, c.Signature = ca.PublicKey(), nil
	message := c.Marshal()
	var err error
	c.Signature, err = ca.Sign(rand.Reader, message[:len(message)-4]) // without the length of the signature
	must(t, err)
	return &c
}
