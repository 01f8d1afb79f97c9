package keys

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/mod/sumdb/note"

	"sallyport/broker/certs"
)

// maxFile bounds what is read of a key's file.
const maxFile = 64 << 10

// LoadOptions say where keys are.
type LoadOptions struct {
	Dir string
	// Passphrase of the CA keys' files, asked for only if they are encrypted.
	Passphrase func(file string) ([]byte, error)
	// AgentSocket, if set, is an ssh-agent that holds both CA keys: only
	// user_ca.pub and host_ca.pub are read from Dir.
	AgentSocket string
}

// Load reads the keys. It refuses files that others than their owner can read,
// and halves of keys that do not belong together.
func Load(o LoadOptions) (*Set, error) {
	if err := checkFolder(o.Dir); err != nil {
		return nil, err
	}
	var (
		set Set
		err error
	)
	if set.UserCA, err = loadCA(o, UserCAFile); err != nil {
		return nil, err
	}
	if set.HostCA, err = loadCA(o, HostCAFile); err != nil {
		return nil, err
	}
	if bytes.Equal(set.UserCA.PublicKey().Marshal(), set.HostCA.PublicKey().Marshal()) {
		return nil, ErrUnreadable.With("user_ca and host_ca are the same key").
			Hinting("users and hosts need separate CAs: make keys with sallyportd ca init")
	}
	if set.LogSigner, set.LogVerifier, err = loadLogKey(o.Dir); err != nil {
		return nil, err
	}
	if set.Token, err = loadTokenKey(filepath.Join(o.Dir, TokenFile)); err != nil {
		return nil, err
	}
	return &set, nil
}

func loadCA(o LoadOptions, name string) (Signer, error) {
	path := filepath.Join(o.Dir, name)
	public, err := loadPublic(path + ".pub")
	if err != nil {
		return nil, err
	}
	if o.AgentSocket != "" {
		return newAgentSigner(o.AgentSocket, name, public)
	}
	text, err := readSecret(path)
	if err != nil {
		return nil, err
	}
	defer clear(text)
	signer, err := ssh.ParsePrivateKey(text)
	var encrypted *ssh.PassphraseMissingError
	if errors.As(err, &encrypted) {
		signer, err = decrypt(o, path, text)
	}
	if err != nil {
		if errors.Is(err, ErrPassphrase) {
			return nil, err
		}
		return nil, ErrUnreadable.With("%s is not an OpenSSH private key", path).Because(err)
	}
	if !bytes.Equal(signer.PublicKey().Marshal(), public.Marshal()) {
		return nil, ErrUnreadable.With("%s.pub is not the public half of %s", path, path).
			Hinting("hosts trust what the .pub file says: restore both files from your backup, or ssh-keygen -y -f %s > %s.pub", path, path)
	}
	return signer, nil
}

func decrypt(o LoadOptions, path string, text []byte) (ssh.Signer, error) {
	if o.Passphrase == nil {
		return nil, ErrPassphrase.With("%s is encrypted and there is no passphrase", path)
	}
	passphrase, err := o.Passphrase(path)
	if err != nil {
		return nil, ErrPassphrase.With("the passphrase of %s cannot be had", path).Because(err)
	}
	signer, err := ssh.ParsePrivateKeyWithPassphrase(text, passphrase)
	if errors.Is(err, x509.IncorrectPasswordError) {
		return nil, ErrPassphrase.With("the passphrase does not open %s", path)
	}
	return signer, err
}

func loadPublic(path string) (ssh.PublicKey, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrMissing.With("%s is missing", path)
	}
	if err != nil {
		return nil, fmt.Errorf("reading a public key: %w", err)
	}
	fields := strings.Fields(string(text)) // type, key and comment
	if len(fields) < 2 {
		return nil, ErrUnreadable.With("%s is not a public key", path)
	}
	key, err := certs.ParseKey(fields[0] + " " + fields[1])
	if err != nil {
		return nil, ErrUnreadable.With("%s is not a good public key", path).Because(err)
	}
	return key, nil
}

func loadLogKey(dir string) (signerKey, verifierKey string, err error) {
	path := filepath.Join(dir, LogFile)
	text, err := readSecret(path)
	if err != nil {
		return "", "", err
	}
	signerKey = strings.TrimSpace(string(text))
	signer, err := note.NewSigner(signerKey)
	if err != nil {
		return "", "", ErrUnreadable.With("%s is not a note signer's key", path) // the cause may quote the key
	}
	public, err := os.ReadFile(filepath.Join(dir, logVerifierFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", "", ErrMissing.With("%s is missing", filepath.Join(dir, logVerifierFile))
	}
	if err != nil {
		return "", "", fmt.Errorf("reading the log's verifier key: %w", err)
	}
	verifierKey = strings.TrimSpace(string(public))
	verifier, err := note.NewVerifier(verifierKey)
	if err != nil || !pair(signer, verifier) {
		return "", "", ErrUnreadable.With("%s is not the public half of %s", filepath.Join(dir, logVerifierFile), path)
	}
	return signerKey, verifierKey, checkOrigin(signer.Name())
}

func pair(signer note.Signer, verifier note.Verifier) bool {
	const text = "are you two a pair?\n"
	signature, err := signer.Sign([]byte(text))
	return err == nil && signer.Name() == verifier.Name() && signer.KeyHash() == verifier.KeyHash() &&
		verifier.Verify([]byte(text), signature)
}

func loadTokenKey(path string) (ed25519.PrivateKey, error) {
	text, err := readSecret(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, ErrUnreadable.With("%s is not PEM", path)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := parsed.(ed25519.PrivateKey)
	if err != nil || !ok {
		return nil, ErrUnreadable.With("%s is not an Ed25519 key in PKCS #8", path)
	}
	return key, nil
}

// readSecret reads a file that nobody but its owner can. The check is on the
// open file, so that it cannot be exchanged in between.
func readSecret(path string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrMissing.With("%s is missing", path)
	}
	if err != nil {
		return nil, fmt.Errorf("reading a key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("reading a key: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, ErrUnreadable.With("%s is not a regular file", path)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, ErrOpen.With("%s has mode %04o: others than its owner can get at it", path, mode).
			Hinting("chmod 600 %s; if somebody may have read it, make new keys", path)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return nil, fmt.Errorf("reading a key: %w", err)
	}
	return text, nil
}

// checkFolder refuses a folder in which others could exchange the keys.
func checkFolder(dir string) error {
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return ErrMissing.With("the keys' folder %s is missing", dir)
	}
	if err != nil {
		return fmt.Errorf("looking at the keys' folder: %w", err)
	}
	if !info.IsDir() {
		return ErrMissing.With("%s is not a folder", dir)
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return ErrOpen.With("the keys' folder %s has mode %04o: others than its owner can exchange the keys", dir, mode).
			Hinting("chmod 700 %s", dir)
	}
	return nil
}
