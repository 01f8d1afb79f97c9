package place

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// The daemon's own folders and files below State, for root alone.
func (p Place) Sessions() string { return p.join("var/lib/sally-host/sessions") }
func (p Place) Used() string     { return p.join("var/lib/sally-host/used") }
func (p Place) Lock() string     { return p.join("var/lib/sally-host/daemon.lock") }

// Recordings is what is being recorded, and what the broker has not yet; Recorder is the
// socket at which a session asks the daemon to be recorded.
func (p Place) Recordings() string { return p.join("var/lib/sally-host/recordings") }
func (p Place) Recorder() string   { return p.join("run/sally-host/record.sock") }

// Join is the path of any file of this host, such as /proc/1/stat.
func (p Place) Join(name string) string { return p.join(name) }

// MakeState makes the daemon's folders, if they are not there.
func (p Place) MakeState() error {
	if err := os.MkdirAll(p.State(), 0o755); err != nil {
		return err
	}
	for _, dir := range []string{p.Sessions(), p.Used(), p.Spool(), p.Recordings()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	return nil
}

// BootID says which start of the machine this is: it is another one after the next.
func (p Place) BootID() (string, error) {
	text, err := os.ReadFile(p.join("proc/sys/kernel/random/boot_id"))
	if err != nil {
		return "", fmt.Errorf("which start of the machine this is: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// SyncDir makes last what was created, renamed or removed in a folder.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// ReadAtMost reads a file of this host that may be anybody's, if it has no more than so
// many bytes.
func (p Place) ReadAtMost(name string, most int64) ([]byte, error) {
	f, err := os.Open(p.join(name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(text)) > most {
		err = errors.New(name + ": it is too long")
	}
	return text, err
}
