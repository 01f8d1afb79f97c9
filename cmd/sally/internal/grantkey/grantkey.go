// Package grantkey keeps the private keys that sally makes, one for each grant.
//
// A key is made at a grant's first use, and the broker binds the grant to it
// (P4). It never leaves this computer (P6): it lives in the person's ssh-agent
// with the grant's end as its lifetime, or, without an agent, in a file that its
// owner alone can read. It is removed when the grant has ended, and what may extend
// it: a grant that extends another is bound to the same key.
//
// Each grant has a folder named after its request:
//
//	id           the private key, unless the agent has it
//	id.pub       the public key
//	id-cert.pub  the newest certificate
//	known_hosts  the host CA's key, for this host alone
//	grant.json   whose grant it is, and when it ends
package grantkey

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"sallyport/api"
	"sallyport/cmd/sally/internal/home"
	"sallyport/internal/clock"
	"sallyport/internal/refusal"
)

// ErrGone says that a grant is bound to a key that is not here any more, or
// never was.
var ErrGone = refusal.New(refusal.Conflict, "key-gone",
	"the key that the grant is bound to is not on this computer",
	"end it and ask again: sally finish REQUEST")

var errBadID = refusal.New(refusal.Invalid, "bad-request-id", "that is no request's id", "see: sally requests")

// requestID is checked because it becomes a file name.
var requestID = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)

// Config says where keys are kept. All of it must be set, but for Agent.
type Config struct {
	// Dir holds the grants' folders; others cannot enter it.
	Dir string
	// Agent is the socket of the person's ssh-agent; without one, keys are files.
	Agent string
	Clock clock.Clock
}

// Ring is all keys on this computer. Several processes may use it at once.
type Ring struct{ cfg Config }

// NewRing returns the keys kept in a folder. Nothing needs to be there yet.
func NewRing(cfg Config) *Ring { return &Ring{cfg} }

// Grant is what the ring must know of a grant.
type Grant struct {
	Broker      string // its URL
	RequestID   string
	EndsAt      time.Time
	KeyUntil    time.Time // when the last grant could end that extends this one; EndsAt if that is later
	Fingerprint string    // of the key it is bound to; empty before the first use
}

// Key is a grant's key, ready to sign.
type Key struct {
	grant  Grant
	folder string
	signer ssh.Signer
	// InAgent says that the ssh-agent has the private key, not the folder.
	InAgent bool
}

// kept is grant.json.
type kept struct {
	Broker   string    `json:"broker"`
	KeyUntil time.Time `json:"key_until"`
}

// Key finds the grant's key, or makes it if the grant is not bound to one yet:
// in the agent if there is one that takes it and inFile is not asked for. It
// returns ErrGone for a grant that is bound to a key that is not here.
func (r *Ring) Key(ctx context.Context, g Grant, inFile bool) (*Key, error) {
	if !requestID.MatchString(g.RequestID) {
		return nil, errBadID.With("%q is no request's id", g.RequestID)
	}
	if !g.EndsAt.After(r.cfg.Clock.Now()) {
		return nil, errors.New("the grant has ended")
	}
	if g.KeyUntil.Before(g.EndsAt) {
		g.KeyUntil = g.EndsAt
	}
	unlock, err := r.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	k := &Key{grant: g, folder: filepath.Join(r.cfg.Dir, g.RequestID)}
	found, err := r.find(k)
	if err != nil || found {
		return k, err
	}
	if g.Fingerprint != "" {
		return nil, ErrGone.Hinting("end it and ask again: sally finish %s", g.RequestID)
	}
	return k, r.create(k, inFile)
}

// find looks for the key in the folder and in the agent.
func (r *Ring) find(k *Key) (bool, error) {
	private, err := home.ReadSecret(filepath.Join(k.folder, "id"))
	if err == nil {
		if k.signer, err = ssh.ParsePrivateKey(private); err != nil {
			return false, fmt.Errorf("read %s: %w", filepath.Join(k.folder, "id"), err)
		}
		return k.fits(), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if found, err := r.inherit(k); found || err != nil {
		return found, err
	}
	fingerprint := k.grant.Fingerprint
	if public, err := os.ReadFile(filepath.Join(k.folder, "id.pub")); err == nil {
		key, _, _, _, err := ssh.ParseAuthorizedKey(public)
		if err != nil {
			return false, fmt.Errorf("read %s: %w", filepath.Join(k.folder, "id.pub"), err)
		}
		if fingerprint == "" {
			fingerprint = ssh.FingerprintSHA256(key)
		}
	}
	if fingerprint == "" {
		return false, nil
	}
	if k.signer = r.fromAgent(fingerprint); k.signer == nil {
		return false, nil
	}
	k.InAgent = true
	return true, r.describe(k)
}

// inherit looks for the key that the grant is bound to among those of other
// grants, of which it may extend one, and keeps it here as well.
func (r *Ring) inherit(k *Key) (bool, error) {
	if k.grant.Fingerprint == "" {
		return false, nil
	}
	folders, err := r.folders()
	if err != nil {
		return false, err
	}
	for _, folder := range folders {
		key := publicKey(folder)
		if key == nil || ssh.FingerprintSHA256(key) != k.grant.Fingerprint {
			continue
		}
		private, err := home.ReadSecret(filepath.Join(folder, "id"))
		if errors.Is(err, fs.ErrNotExist) {
			continue // the agent has it
		}
		if err != nil {
			return false, err
		}
		if k.signer, err = ssh.ParsePrivateKey(private); err != nil || !k.fits() {
			continue
		}
		return true, errors.Join(r.describe(k), home.Write(filepath.Join(k.folder, "id"), private))
	}
	return false, nil
}

// folders are those of all grants.
func (r *Ring) folders() ([]string, error) {
	entries, err := os.ReadDir(r.cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("look for keys: %w", err)
	}
	var all []string
	for _, e := range entries {
		if e.IsDir() {
			all = append(all, filepath.Join(r.cfg.Dir, e.Name()))
		}
	}
	return all, nil
}

// publicKey is that of a grant's folder, or nil.
func publicKey(folder string) ssh.PublicKey {
	text, err := os.ReadFile(filepath.Join(folder, "id.pub"))
	if err != nil {
		return nil
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(text)
	if err != nil {
		return nil
	}
	return key
}

// fits reports whether the key is the one that the grant is bound to, if it is.
func (k *Key) fits() bool {
	return k.grant.Fingerprint == "" || k.grant.Fingerprint == k.Fingerprint()
}

// create makes a key and keeps it.
func (r *Ring) create(k *Key, inFile bool) error {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("make a key: %w", err)
	}
	if k.signer, err = ssh.NewSignerFromSigner(private); err != nil {
		return fmt.Errorf("make a key: %w", err)
	}
	if !inFile {
		// An agent that takes no keys (some only show those of a device) is
		// no reason to fail: a file does as well.
		if signer := r.intoAgent(private, k); signer != nil {
			k.signer, k.InAgent = signer, true
			return r.describe(k)
		}
	}
	block, err := ssh.MarshalPrivateKey(private, comment(k.grant.RequestID))
	if err != nil {
		return fmt.Errorf("encode the key: %w", err)
	}
	if err := r.describe(k); err != nil {
		return err
	}
	return home.Write(filepath.Join(k.folder, "id"), pem.EncodeToMemory(block))
}

// describe writes the files beside the private key.
func (r *Ring) describe(k *Key) error {
	note, err := json.Marshal(kept{Broker: k.grant.Broker, KeyUntil: k.grant.KeyUntil.UTC()})
	if err != nil {
		return fmt.Errorf("encode the grant: %w", err)
	}
	return errors.Join(
		home.Write(filepath.Join(k.folder, "grant.json"), append(note, '\n')),
		home.Write(filepath.Join(k.folder, "id.pub"), []byte(k.Public()+" "+comment(k.grant.RequestID)+"\n")))
}

// comment is the key's in the agent, so that people know what it is for.
func comment(requestID string) string { return "sallyport " + requestID }

// Fingerprint is the key's, SHA256:….
func (k *Key) Fingerprint() string { return ssh.FingerprintSHA256(k.signer.PublicKey()) }

// Public is the public key, authorized_keys format.
func (k *Key) Public() string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k.signer.PublicKey())))
}

// Prove makes the proof of possession for a certificate: an armored SSHSIG
// (PROTOCOL.sshsig) of what api.ProofMessage says.
func (k *Key) Prove() (string, error) {
	message := strings.NewReader(string(api.ProofMessage(k.grant.Broker, k.grant.RequestID)))
	signature, err := sshsig.Sign(message, k.signer, sshsig.HashSHA512, api.ProofNamespace)
	if err != nil {
		return "", fmt.Errorf("prove possession of the key: %w", err)
	}
	return string(sshsig.Armor(signature)), nil
}

// Files are where ssh finds what it needs.
type Files struct {
	Identity    string // the private key, or the public one of a key in the agent
	Certificate string
	KnownHosts  string
}

// Keep writes a certificate and what goes with it into the grant's folder. of is
// the id of its host if the grant is for several, and empty if it is for one: each
// has files of its own, and ssh, which looks for a certificate beside a key by
// itself, finds none of another host.
func (k *Key) Keep(of, certificate string, knownHosts []string) (Files, error) {
	certificateFile, knownFile := "id-cert.pub", "known_hosts"
	if of != "" {
		certificateFile, knownFile = of+"-cert.pub", of+"-known_hosts"
	}
	f := Files{
		Identity:    filepath.Join(k.folder, "id"),
		Certificate: filepath.Join(k.folder, certificateFile),
		KnownHosts:  filepath.Join(k.folder, knownFile),
	}
	if k.InAgent {
		f.Identity += ".pub"
	}
	return f, errors.Join(
		home.Write(f.Certificate, []byte(strings.TrimSpace(certificate)+"\n")),
		home.Write(f.KnownHosts, []byte(strings.Join(knownHosts, "\n")+"\n")))
}

// Sweep removes the keys of grants that have ended, with whatever may extend them.
func (r *Ring) Sweep(ctx context.Context) error {
	now := r.cfg.Clock.Now()
	return r.remove(ctx, func(_ string, k kept) bool { return !now.Before(k.KeyUntil) })
}

// Forget removes the key of one grant.
func (r *Ring) Forget(ctx context.Context, requestID string) error {
	return r.remove(ctx, func(id string, _ kept) bool { return id == requestID })
}

// ForgetAll removes the keys of all grants of one broker.
func (r *Ring) ForgetAll(ctx context.Context, broker string) error {
	return r.remove(ctx, func(_ string, k kept) bool { return k.Broker == broker })
}

// remove takes away the grants that which picks, from the folder and the agent.
func (r *Ring) remove(ctx context.Context, which func(requestID string, k kept) bool) error {
	if _, err := os.Stat(r.cfg.Dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	unlock, err := r.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	folders, err := r.folders()
	if err != nil {
		return err
	}
	var gone []string
	needed := map[string]bool{} // fingerprints of keys that stay
	for _, folder := range folders {
		// A folder without a readable note is what a crash left: nothing that
		// ssh could use, so it goes with whatever goes next.
		var k kept
		if note, err := os.ReadFile(filepath.Join(folder, "grant.json")); err == nil {
			if json.Unmarshal(note, &k) == nil && !which(filepath.Base(folder), k) {
				if key := publicKey(folder); key != nil {
					needed[ssh.FingerprintSHA256(key)] = true
				}
				continue
			}
		}
		gone = append(gone, folder)
	}
	for _, folder := range gone {
		if key := publicKey(folder); key != nil && !needed[ssh.FingerprintSHA256(key)] {
			r.outOfAgent(key)
		}
		if err := os.RemoveAll(folder); err != nil {
			return fmt.Errorf("remove a key: %w", err)
		}
	}
	return nil
}

func (r *Ring) lock(ctx context.Context) (func(), error) {
	return home.Lock(ctx, filepath.Join(r.cfg.Dir, "lock"))
}
