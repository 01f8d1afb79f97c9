package keys

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"golang.org/x/crypto/ssh"
	"golang.org/x/mod/sumdb/note"

	"sallyport/broker/certs"
)

// InitOptions say how to make keys.
type InitOptions struct {
	Dir        string
	Origin     string // the log's name, e.g. "sallyport.example.com/log"
	Passphrase []byte // encrypts the CA keys; empty: only file mode 0600 protects them
}

// originPattern is a domain and a path (c2sp.org/tlog-checkpoint asks for a
// schema-less URL; certificates' extensions are named by its domain).
var originPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?(/[a-z0-9._-]+)*$`)

// checkOrigin refuses a name under which no certificate could carry its receipt.
func checkOrigin(origin string) error {
	if !originPattern.MatchString(origin) {
		return ErrOrigin.With("the log's name %q is not of the form example.com/log", origin)
	}
	if _, err := certs.Domain(origin); err != nil {
		return ErrOrigin.With("the log's name %q does not begin with a domain, such as example.com", origin)
	}
	return nil
}

// file is one file to be made.
type file struct {
	name string
	mode fs.FileMode
	data []byte
}

// Init makes all four keys. It refuses to touch a folder that has one already,
// and if it fails, it leaves none behind.
func Init(o InitOptions) (err error) {
	if err := checkOrigin(o.Origin); err != nil {
		return err
	}
	files, err := generate(o)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return fmt.Errorf("making the keys' folder: %w", err)
	}
	if err := checkFolder(o.Dir); err != nil {
		return err
	}
	for _, f := range files {
		if _, err := os.Lstat(filepath.Join(o.Dir, f.name)); err == nil {
			return ErrExists.With("%s exists already", filepath.Join(o.Dir, f.name))
		}
	}
	var made []string
	defer func() {
		if err != nil {
			for _, path := range made {
				os.Remove(path)
			}
		}
	}()
	for _, f := range files {
		path := filepath.Join(o.Dir, f.name)
		if err := writeNew(path, f); err != nil {
			return err
		}
		made = append(made, path)
	}
	return syncFolder(o.Dir)
}

func generate(o InitOptions) ([]file, error) {
	var files []file
	for _, ca := range []struct{ name, comment string }{
		{UserCAFile, "sallyport user CA"}, {HostCAFile, "sallyport host CA"},
	} {
		public, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		var block *pem.Block
		if len(o.Passphrase) > 0 {
			block, err = ssh.MarshalPrivateKeyWithPassphrase(private, ca.comment, o.Passphrase)
		} else {
			block, err = ssh.MarshalPrivateKey(private, ca.comment)
		}
		if err != nil {
			return nil, fmt.Errorf("encoding %s: %w", ca.name, err)
		}
		key, err := ssh.NewPublicKey(public)
		if err != nil {
			return nil, err
		}
		files = append(files, file{ca.name, 0o600, pem.EncodeToMemory(block)},
			file{ca.name + ".pub", 0o644, []byte(certs.Line(key) + " " + ca.comment + "\n")})
	}

	signer, verifier, err := note.GenerateKey(rand.Reader, o.Origin)
	if err != nil {
		return nil, fmt.Errorf("making the log's key: %w", err)
	}
	files = append(files, file{LogFile, 0o600, []byte(signer + "\n")}, file{logVerifierFile, 0o644, []byte(verifier + "\n")})

	_, token, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(token)
	if err != nil {
		return nil, fmt.Errorf("encoding the tokens' key: %w", err)
	}
	return append(files, file{TokenFile, 0o600, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})}), nil
}

// writeNew makes the file with all its bytes, or not at all; a link, unlike a
// rename, never replaces one that is there.
func writeNew(path string, f file) error {
	temporary, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	defer os.Remove(temporary.Name())
	_, err = temporary.Write(f.data)
	err = errors.Join(err, temporary.Chmod(f.mode), temporary.Sync(), temporary.Close())
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	err = os.Link(temporary.Name(), path)
	if errors.Is(err, fs.ErrExist) {
		return ErrExists.With("%s exists already", path)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("opening the keys' folder: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("writing the keys' folder: %w", err)
	}
	return nil
}
