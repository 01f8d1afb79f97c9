// Package history makes up logs, for tests of what reads them: of things as they
// happen, and of things that must not. The leaves are real ones, with terms,
// statements, tokens and certificates that the broker's own rules accept, unless a
// test wants otherwise. There is no database.
package history

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"sallyport/approvals/evidence"
	"sallyport/approvals/policy"
	"sallyport/audit/checkpoint"
	"sallyport/audit/event"
	"sallyport/audit/vouch"
	"sallyport/internal/ids"
)

// Issuer and Client are the provider and what Sallyport is there.
const (
	Issuer = "https://id.test"
	Client = "sallyport"
)

// Start is when a history begins.
var Start = time.Date(2026, 1, 5, 9, 0, 0, 0, time.UTC)

// History is a log in memory. Its methods append events at Now, and move Now on by a
// second; it is for one goroutine.
type History struct {
	T       testing.TB
	Now     time.Time
	Signer  note.Signer
	Key     string // public, note format
	Leaves  [][]byte
	Policy  *policy.Policy // in force; its Version counts from 1
	CA      ssh.Signer
	Serial  uint64
	tokens  map[string]string // by statement
	texts   map[string][]byte // policies by hash
	keys    string            // hash of the newest note about the provider's keys
	keysAt  time.Time
	signing *ecdsa.PrivateKey
	hashes  hashes
	hosts   map[string]string
}

// Person is somebody in it.
type Person struct {
	ID, Subject, Name string
	Groups            []string
	Key               ssh.PublicKey
}

// New begins with a policy in force, from the broker's file.
func New(t testing.TB, document string) *History {
	t.Helper()
	private, public, err := note.GenerateKey(rand.Reader, "sallyport.test/log")
	must(t, err)
	signer, err := note.NewSigner(private)
	must(t, err)
	_, ca, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	caSigner, err := ssh.NewSignerFromKey(ca)
	must(t, err)
	signing, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	h := &History{T: t, Now: Start, Signer: signer, Key: public, CA: caSigner, signing: signing,
		tokens: map[string]string{}, texts: map[string][]byte{}, hosts: map[string]string{}}
	h.Broker(event.KeysLoaded{UserCA: ssh.FingerprintSHA256(caSigner.PublicKey()), Log: public})
	h.Activate(document, event.PolicyActivated{})
	return h
}

// Keep remembers a policy's text, as the database does.
func (h *History) Keep(document string) *policy.Policy {
	h.T.Helper()
	p, err := policy.Parse([]byte(document))
	must(h.T, err)
	h.texts[p.Hash] = p.Text
	return p
}

// Activate puts a policy into force.
func (h *History) Activate(document string, data event.PolicyActivated) int64 {
	h.T.Helper()
	p, n := h.Keep(document), int64(1)
	if h.Policy != nil {
		n = h.Policy.Version + 1
	}
	p.Version, h.Policy = n, p
	data.Rules, data.Bytes = len(p.Rules), len(p.Text)
	return h.Add(event.New(h.Now, event.Actor{Kind: event.Broker}, "", event.Subject{}, data).Under(h.Ref()))
}

// Ref is the version in force.
func (h *History) Ref() event.PolicyRef {
	return event.PolicyRef{Version: h.Policy.Version, Hash: h.Policy.Hash}
}

// Forget loses what the database keeps beside the log.
func (h *History) Forget() { h.tokens, h.texts = map[string]string{}, map[string][]byte{} }

// ForgetTokens loses the ID tokens only.
func (h *History) ForgetTokens() { h.tokens = map[string]string{} }

// Person makes somebody up.
func (h *History) Person(name string, groups ...string) Person {
	h.T.Helper()
	public, _, err := ed25519.GenerateKey(rand.Reader)
	must(h.T, err)
	key, err := ssh.NewPublicKey(public)
	must(h.T, err)
	return Person{ID: ids.New(ids.Person), Subject: "sub-" + name, Name: name, Groups: groups, Key: key}
}

// Host is the id of a host.
func (h *History) Host(name string) string {
	if h.hosts[name] == "" {
		h.hosts[name] = ids.New(ids.Host)
	}
	return h.hosts[name]
}

// Actor is the person as one.
func (p Person) Actor() event.Actor {
	return event.Actor{Kind: event.Person, ID: p.ID, Name: p.Name}
}

// Add appends an event and returns its index.
func (h *History) Add(e event.Event) int64 {
	h.T.Helper()
	leaf, err := e.Encode()
	must(h.T, err)
	return h.Leaf(leaf)
}

// Leaf appends any bytes.
func (h *History) Leaf(leaf []byte) int64 {
	h.Leaves = append(h.Leaves, leaf)
	h.Now = h.Now.Add(time.Second)
	return int64(len(h.Leaves)) - 1
}

// Session appends the event of a login that the host reports, with these fields of it in
// JSON. It began now, if they do not say otherwise.
func (h *History) Session(host string, fields string) int64 {
	h.T.Helper()
	data := event.SessionStarted{SessionID: "ses-000000000001", Number: 1, BootID: "boot", Client: "192.0.2.9", StartedAt: h.Now, Isolation: "cgroup"}
	if err := json.Unmarshal([]byte("{"+fields+"}"), &data); err != nil {
		h.T.Fatal(err)
	}
	return h.Add(event.New(h.Now, event.Actor{Kind: event.Host, ID: host}, "", event.Subject{HostID: host}, data))
}

// Broker appends what Sallyport itself did.
func (h *History) Broker(data event.Data) int64 {
	return h.Add(event.New(h.Now, event.Actor{Kind: event.Broker}, "", event.Subject{}, data))
}

// By appends what a person did.
func (h *History) By(p Person, subject event.Subject, data event.Data) int64 {
	return h.Add(event.New(h.Now, p.Actor(), "192.0.2.7", subject, data))
}

// Vouch implements the writer's source.
func (h *History) Vouch(kind, text string) ([]byte, error) { return vouch.Sign(kind, text, h.Signer) }

// Tree is the log's, of so many entries.
func (h *History) Tree(size int64) tlog.Tree {
	h.T.Helper()
	h.hashes.grow(h.Leaves)
	root, err := tlog.TreeHash(size, h.hashes.reader())
	must(h.T, err)
	return tlog.Tree{N: size, Hash: root}
}

// Checkpoint is its signed head.
func (h *History) Checkpoint(size int64) []byte {
	h.T.Helper()
	msg, err := checkpoint.Sign(h.Tree(size), h.Signer)
	must(h.T, err)
	return msg
}

// hashes are a tree's, all of them.
type hashes struct {
	all  []tlog.Hash
	size int64
}

func (s *hashes) reader() tlog.HashReader {
	return tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, index := range indexes {
			out[i] = s.all[index]
		}
		return out, nil
	})
}

func (s *hashes) grow(leaves [][]byte) {
	for ; s.size < int64(len(leaves)); s.size++ {
		added, err := tlog.StoredHashes(s.size, leaves[s.size], s.reader())
		if err != nil {
			panic(err)
		}
		s.all = append(s.all, added...)
	}
}

// Scan, LeafHashes, Hashes, Vouch and IDTokens are of the writer's source.
func (h *History) Scan(_ context.Context, from, to int64, each func(int64, []byte) error) error {
	for i := from; i < to; i++ {
		if h.Leaves[i] == nil {
			continue
		}
		if err := each(i, h.Leaves[i]); err != nil {
			return err
		}
	}
	return nil
}

// LeafHashes are those of the tree, whatever has become of the leaves since.
func (h *History) LeafHashes(_ context.Context, from, to int64) ([]tlog.Hash, error) {
	h.hashes.grow(h.Leaves)
	out := make([]tlog.Hash, 0, to-from)
	for i := from; i < to; i++ {
		out = append(out, h.hashes.all[tlog.StoredHashIndex(0, i)])
	}
	return out, nil
}

// Hashes are the tree's.
func (h *History) Hashes(context.Context) tlog.HashReader {
	h.hashes.grow(h.Leaves)
	return h.hashes.reader()
}

// Seal computes the tree as it is now: what is done to Leaves afterwards is done to
// the database behind the log's back.
func (h *History) Seal() { h.hashes.grow(h.Leaves) }

// Document is a kept policy.
func (h *History) Document(hash string) ([]byte, bool) {
	text, ok := h.texts[hash]
	return text, ok
}

// IDTokens are those of the statements, by their ids.
func (h *History) IDTokens(_ context.Context, statements []string) (map[string]string, error) {
	out := map[string]string{}
	for _, s := range statements {
		if t, ok := h.tokens[s]; ok {
			out[s] = t
		}
	}
	return out, nil
}

// publicKey is the provider's key as it publishes it.
func (h *History) publicKey() evidence.Key {
	enc := base64.RawURLEncoding.EncodeToString
	b, err := h.signing.PublicKey.Bytes() // 4, X, Y
	must(h.T, err)
	n := len(b) / 2
	return evidence.Key{Type: "EC", ID: "one", Curve: "P-256", X: enc(b[1 : 1+n]), Y: enc(b[1+n:])}
}

func sum(text []byte) string {
	s := sha256.Sum256(text)
	return hex.EncodeToString(s[:])
}

func must(t testing.TB, err error) {
	if err != nil {
		t.Helper()
		t.Fatal(err)
	}
}
