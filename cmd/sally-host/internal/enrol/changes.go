package enrol

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"sallyport/cmd/sally-host/internal/place"
)

// changes are files that were changed, and can be put back. What was in them is in
// memory, and in a folder for people.
type changes struct {
	backup   string
	undos    []func() error
	reloaded bool // sshd has read them
}

// write changes a file, unless it is so already.
func (c *changes) write(name string, text []byte, mode os.FileMode) error {
	before, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		c.undos = append(c.undos, func() error { return os.Remove(name) })
		return place.Write(name, text, mode)
	}
	if err != nil {
		return err
	}
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	if bytes.Equal(before, text) && info.Mode().Perm() == mode {
		return nil
	}
	if err := c.keep(name, before, info.Mode()); err != nil {
		return err
	}
	return place.Write(name, text, mode)
}

// remove removes a file, if it is there.
func (c *changes) remove(name string) error {
	before, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	if err := c.keep(name, before, info.Mode()); err != nil {
		return err
	}
	return os.Remove(name)
}

func (c *changes) keep(name string, text []byte, mode os.FileMode) error {
	kept := filepath.Join(c.backup, name)
	if err := os.MkdirAll(filepath.Dir(kept), 0o700); err != nil {
		return err
	}
	c.undos = append(c.undos, func() error { return place.Write(name, text, mode.Perm()) })
	return place.Write(kept, text, 0o600)
}

// undo puts everything back, the last change first.
func (c *changes) undo() error {
	var all error
	for i := len(c.undos) - 1; i >= 0; i-- {
		if err := c.undos[i](); err != nil && !errors.Is(err, fs.ErrNotExist) {
			all = errors.Join(all, err)
		}
	}
	c.undos = nil
	return all
}
