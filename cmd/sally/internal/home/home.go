// Package home is where sally keeps things on a person's computer, as the XDG
// Base Directory Specification has it: the broker's URL in the configuration
// folder, tokens in the state folder, keys in the runtime folder, which is in
// memory and gone after the last sign-out from the machine.
//
// Whatever is secret is in a file that its owner alone can read, in a folder
// that its owner alone can enter, replaced as a whole or not at all.
package home

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/goccy/go-yaml"

	"sallyport/internal/refusal"
)

var (
	errNoHome = refusal.New(refusal.Invalid, "no-home",
		"neither HOME nor the XDG variables say where to keep files", "set HOME")
	errExposed = refusal.New(refusal.Unauthenticated, "file-exposed",
		"others can read a file with secrets", "sign in again: sally logout, then sally login")
)

// Home is sally's folders. None of them needs to exist.
type Home struct {
	Config  string // configuration
	State   string // tokens
	Runtime string // keys
}

// Find returns the folders that the environment asks for.
func Find(getenv func(string) string) (Home, error) {
	// "All paths set in these environment variables must be absolute. If an
	// implementation encounters a relative path [it] should […] ignore it."
	absolute := func(name string) string {
		if dir := getenv(name); filepath.IsAbs(dir) {
			return filepath.Join(dir, "sally")
		}
		return ""
	}
	h := Home{
		Config:  absolute("XDG_CONFIG_HOME"),
		State:   absolute("XDG_STATE_HOME"),
		Runtime: absolute("XDG_RUNTIME_DIR"),
	}
	home := getenv("HOME")
	if home == "" {
		home = getenv("USERPROFILE") // Windows has no HOME
	}
	if (h.Config == "" || h.State == "") && !filepath.IsAbs(home) {
		return Home{}, errNoHome
	}
	if h.Config == "" {
		h.Config = filepath.Join(home, ".config", "sally")
	}
	if h.State == "" {
		h.State = filepath.Join(home, ".local", "state", "sally")
	}
	if h.Runtime == "" {
		h.Runtime = h.State
	}
	return h, nil
}

// Settings is the configuration file.
type Settings struct {
	// URL is the broker that commands talk to, as of the last `sally login --url`.
	URL string `yaml:"url"`
}

// Settings reads the configuration file; without one, it is empty.
func (h Home) Settings() (Settings, error) {
	var s Settings
	file := filepath.Join(h.Config, "config.yaml")
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, fmt.Errorf("read the configuration: %w", err)
	}
	if err := yaml.UnmarshalWithOptions(text, &s, yaml.Strict()); err != nil {
		return s, fmt.Errorf("read %s: %w", file, err)
	}
	return s, nil
}

// Save writes the configuration file.
func (h Home) Save(s Settings) error {
	text, err := yaml.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode the configuration: %w", err)
	}
	return Write(filepath.Join(h.Config, "config.yaml"), text)
}

// Folder makes a folder that only its owner can enter.
func Folder(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	// MkdirAll leaves a folder that is there as it is.
	if err := os.Chmod(dir, 0o700); err != nil {
		return fmt.Errorf("close a folder to others: %w", err)
	}
	return nil
}

// Write replaces a file with one of mode 0600: readers, also after a crash, see
// the old content or the new one. It makes the folder if there is none.
func Write(file string, content []byte) error {
	dir := filepath.Dir(file)
	if err := Folder(dir); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, ".new-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(content)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), file)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return nil
}

// ReadSecret reads a file that only its owner may be able to read, and refuses
// one that others can: whatever is in it may be known to them.
func ReadSecret(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if exposed(info) {
		return nil, errExposed.With("others can read %s (mode %#o)", file, info.Mode().Perm())
	}
	content := make([]byte, info.Size())
	n, err := f.ReadAt(content, 0)
	if err != nil && n < len(content) {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	return content, nil
}

// Lock waits until no other process holds the lock file, and holds it until
// unlock is called or the process ends, however it ends.
func Lock(ctx context.Context, file string) (unlock func(), err error) {
	if err := Folder(filepath.Dir(file)); err != nil {
		return nil, err
	}
	// Asking again and again instead of waiting in the kernel lets the context
	// end the wait.
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		unlock, err := tryLock(file)
		if err != nil {
			return nil, fmt.Errorf("lock %s: %w", file, err)
		}
		if unlock != nil {
			return unlock, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for another sally that holds %s: %w", file, ctx.Err())
		case <-tick.C:
		}
	}
}
