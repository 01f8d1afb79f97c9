package place

import (
	"errors"
	"io/fs"
	"os"
	"strings"
)

// Close has the host refuse every certificate from now on, and says why: the broker
// does not know it any more, or wants it shut.
func (p Place) Close(why string) error { return Write(p.Closed(), []byte(why+"\n"), 0o640) }

// Reopen takes that back.
func (p Place) Reopen() error {
	if err := os.Remove(p.Closed()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// WhyClosed is why the host refuses every certificate, or empty.
func (p Place) WhyClosed() (string, error) {
	text, err := p.file(p.Closed())
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if why := strings.TrimSpace(string(text)); why != "" {
		return why, nil
	}
	return "it was closed", nil
}
