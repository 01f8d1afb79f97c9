package jobkey

import (
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

	"golang.org/x/crypto/ssh"

	"sallyport/cmd/sally/internal/home"
	"sallyport/internal/clock"
	"sallyport/internal/refusal"
)

var (
	errBadID = refusal.New(refusal.Invalid, "bad-deployment-id",
		"that is no deployment's id", "see: sally deploy status")
	// ErrNoKey says that a deployment was not opened here, or has ended.
	ErrNoKey = refusal.New(refusal.Conflict, "no-deployment-key",
		"no deployment was opened here", "open it, or join it: sally deploy open")
	errSeveral = refusal.New(refusal.Invalid, "several-deployments",
		"several deployments were opened here", "say which one")
)

// longest is how long a run can make calls, by the limits of trust entries; a key that
// is older opens nothing.
const longest = 6 * time.Hour

var deploymentID = regexp.MustCompile(`^dep-[a-z0-9]{1,32}$`)

// CheckID refuses what is no deployment's id: it becomes a folder's name.
func CheckID(id string) error {
	if !deploymentID.MatchString(id) {
		return errBadID.With("%q is no deployment's id", id)
	}
	return nil
}

// Folder keeps the keys of deployments whose steps are commands of their own.
type Folder struct {
	Dir   string
	Clock clock.Clock
}

// Kept is what a later step must know of the deployment.
type Kept struct {
	Broker     string    `json:"broker"` // its URL
	Deployment string    `json:"deployment"`
	Epoch      uint64    `json:"epoch,string"`
	Batch      int       `json:"batch"` // that was opened last; 0: none
	Opened     time.Time `json:"opened"`
	TokenHash  string    `json:"token_hash"` // SHA-256 of the token that was taken, hex
}

// Taken finds the key by which a token was taken at a broker; nil if it was not here. A
// token that is shown with a second key is an alarm.
func (f Folder) Taken(broker, tokenHash string) (*Key, error) {
	all, err := f.ids()
	if err != nil {
		return nil, err
	}
	for _, id := range all {
		key, kept, err := f.Find(id)
		if err != nil {
			return nil, err
		}
		if kept.Broker == broker && kept.TokenHash == tokenHash {
			return key, nil
		}
	}
	return nil, nil
}

// Of is where a deployment's files are.
func (f Folder) Of(id string) string { return filepath.Join(f.Dir, id) }

// Identity is the file of a deployment's private key.
func (f Folder) Identity(id string) string { return filepath.Join(f.Of(id), "id") }

// Keep writes the key and what is known of the deployment.
func (f Folder) Keep(k *Key, kept Kept) error {
	if err := CheckID(kept.Deployment); err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(k.private, "sallyport "+kept.Deployment)
	if err != nil {
		return fmt.Errorf("encode the key: %w", err)
	}
	return errors.Join(f.Note(kept),
		home.Write(f.Identity(kept.Deployment)+".pub", []byte(k.Public()+"\n")),
		home.Write(f.Identity(kept.Deployment), pem.EncodeToMemory(block)))
}

// Note writes what is known of the deployment.
func (f Folder) Note(kept Kept) error {
	text, err := json.Marshal(kept)
	if err != nil {
		return fmt.Errorf("encode the deployment: %w", err)
	}
	return home.Write(filepath.Join(f.Of(kept.Deployment), "deployment.json"), append(text, '\n'))
}

// Find is the deployment of that id, or without one the only one that was opened here.
func (f Folder) Find(id string) (*Key, Kept, error) {
	var kept Kept
	if id == "" {
		all, err := f.ids()
		switch {
		case err != nil:
			return nil, kept, err
		case len(all) == 0:
			return nil, kept, ErrNoKey
		case len(all) > 1:
			return nil, kept, errSeveral.With("several deployments were opened here: %s", strings.Join(all, ", "))
		}
		id = all[0]
	}
	if err := CheckID(id); err != nil {
		return nil, kept, err
	}
	text, err := os.ReadFile(filepath.Join(f.Of(id), "deployment.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, kept, ErrNoKey.With("deployment %s was not opened here", id)
	}
	if err == nil {
		err = json.Unmarshal(text, &kept)
	}
	if err != nil || kept.Deployment != id {
		return nil, kept, fmt.Errorf("read what is kept of %s: %w", id, errors.Join(err, errBadID))
	}
	secret, err := home.ReadSecret(f.Identity(id))
	if err != nil {
		return nil, kept, fmt.Errorf("read the deployment's key: %w", err)
	}
	private, err := ssh.ParseRawPrivateKey(secret)
	if err != nil {
		return nil, kept, fmt.Errorf("read %s: %w", f.Identity(id), err)
	}
	raw, ok := private.(*ed25519.PrivateKey)
	if !ok {
		return nil, kept, fmt.Errorf("read %s: it is no Ed25519 key", f.Identity(id))
	}
	key, err := of(*raw, rand.Reader)
	return key, kept, err
}

// Forget removes all that is kept of a deployment.
func (f Folder) Forget(id string) error {
	if err := CheckID(id); err != nil {
		return err
	}
	if err := os.RemoveAll(f.Of(id)); err != nil {
		return fmt.Errorf("remove the deployment's key: %w", err)
	}
	return nil
}

// Sweep removes what jobs left that ended without a word.
func (f Folder) Sweep() error {
	all, err := f.ids()
	if err != nil {
		return err
	}
	for _, id := range all {
		info, err := os.Stat(f.Identity(id))
		if err == nil && f.Clock.Now().Sub(info.ModTime()) < longest {
			continue
		}
		if err := f.Forget(id); err != nil {
			return err
		}
	}
	return nil
}

func (f Folder) ids() (list []string, err error) {
	entries, err := os.ReadDir(f.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for deployments: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() && deploymentID.MatchString(e.Name()) {
			list = append(list, e.Name())
		}
	}
	return list, nil
}
