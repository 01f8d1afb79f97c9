// Package place knows where things are on a host, and reads and writes them. What
// sshd's question is answered by belongs to root and can be written by nobody else:
// each file, and each folder above it, is checked for that whenever it is read.
//
// A file is replaced at once or not at all, so that a host without power or without
// room on its disk keeps what it had.
package place

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Account is the account that sshd runs the helper as. It owns nothing.
const Account = "_sallyport"

// Program is where the helper is installed: sshd wants that nobody but root can write
// any folder above it.
const Program = "/usr/lib/sallyport/sally-host"

// MaxFile is the most bytes that a file of ours is read of.
const MaxFile = 16 << 20

// Place is a host's file system.
type Place struct {
	Root string // "/", but for tests and rehearsals
	// Owner is the numeric id that files must belong to: 0, but for tests.
	Owner uint32
}

// Here is this host.
var Here = Place{Root: "/"}

// The files. What is in Folder everybody on the host may read. State belongs to root
// and the group of Account; Spool in it to root alone.
func (p Place) Folder() string      { return p.join("etc/ssh/sallyport") }
func (p Place) Settings() string    { return p.join("etc/ssh/sallyport/host.json") }
func (p Place) UserCA() string      { return p.join("etc/ssh/sallyport/user_ca.pub") }
func (p Place) HostCert() string    { return p.join("etc/ssh/sallyport/host_key-cert.pub") }
func (p Place) State() string       { return p.join("var/lib/sally-host") }
func (p Place) Revocations() string { return p.join("var/lib/sally-host/revocations") }
func (p Place) Closed() string      { return p.join("var/lib/sally-host/closed") }
func (p Place) Spool() string       { return p.join("var/lib/sally-host/spool") }

func (p Place) join(name string) string { return filepath.Join(p.Root, name) }

// file reads a file that only its owner can have written.
func (p Place) file(name string) ([]byte, error) {
	if err := p.folders(name); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	switch {
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s: it is no regular file", name)
	case info.Size() > MaxFile:
		return nil, fmt.Errorf("%s: it has more than %d bytes", name, MaxFile)
	}
	if err := p.ownersOnly(name, info); err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(f, MaxFile))
}

// folders checks those above a file, up to the root: who can write one can exchange
// what is in it.
func (p Place) folders(name string) error {
	for dir := filepath.Dir(name); strings.HasPrefix(dir, filepath.Clean(p.Root)) && dir != filepath.Clean(p.Root); dir = filepath.Dir(dir) {
		info, err := os.Lstat(dir)
		if err != nil {
			return err
		}
		if !info.IsDir() {
			return fmt.Errorf("%s: it is no folder", dir)
		}
		if err := p.ownersOnly(dir, info); err != nil {
			return err
		}
	}
	return nil
}

func (p Place) ownersOnly(name string, info os.FileInfo) error {
	stat, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !ok || stat.Uid != p.Owner:
		return fmt.Errorf("%s: it does not belong to root", name)
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("%s: others than its owner can write it (mode %s)", name, info.Mode().Perm())
	}
	return nil
}

// Write replaces a file: whoever reads it finds what was there before or all of the
// text, after a loss of power, too.
func Write(name string, text []byte, mode os.FileMode) (err error) {
	dir := filepath.Dir(name)
	f, err := os.CreateTemp(dir, "."+filepath.Base(name)+".*")
	if err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
			err = fmt.Errorf("writing %s: %w", name, err)
		}
	}()
	if _, err = f.Write(text); err != nil {
		return err
	}
	if err = errors.Join(f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), name); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
