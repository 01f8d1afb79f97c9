package witness

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// stateFormat names the form of a witness's file.
const stateFormat = "sallyport.witness/1"

// handover is how long a witness waits for the one before it to let go of the state.
const handover = time.Second

// state is a file with the newest checkpoint of each log, which one process keeps.
type state struct {
	path string
	lock *os.File
	logs map[string][]byte // signed notes, by origin
}

type stateText struct {
	Format string            `json:"format"`
	Logs   map[string]string `json:"logs"`
}

// openState reads the file and keeps every other process from it. A file that is not
// there is a witness that has seen nothing; one that cannot be read is no witness.
func openState(path string) (*state, error) {
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("the witness's state: %w", err)
	}
	// Who has just ended may have started a program, which has the lock until it is exec'd.
	for late := time.Now().Add(handover); ; time.Sleep(10 * time.Millisecond) {
		err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			break
		}
		if time.Now().After(late) {
			lock.Close()
			return nil, fmt.Errorf("the witness's state %s: another process keeps it: %w", path, err)
		}
	}
	s := &state{path: path, lock: lock, logs: map[string][]byte{}}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	var in stateText
	if err == nil {
		err = json.Unmarshal(text, &in)
	}
	if err == nil && in.Format != stateFormat {
		err = fmt.Errorf("format %q is not %q", in.Format, stateFormat)
	}
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("the witness's state %s: %w", path, err)
	}
	for origin, checkpoint := range in.Logs {
		s.logs[origin] = []byte(checkpoint)
	}
	return s, nil
}

// put replaces the checkpoint of a log: when it returns nil, the new one is there
// whatever happens to the machine; when it fails, the old one is.
func (s *state) put(origin string, checkpoint []byte) error {
	logs := maps.Clone(s.logs)
	logs[origin] = checkpoint
	out := stateText{Format: stateFormat, Logs: map[string]string{}}
	for origin, checkpoint := range logs {
		out.Logs[origin] = string(checkpoint)
	}
	text, err := json.MarshalIndent(out, "", "  ")
	if err == nil {
		err = replace(s.path, append(text, '\n'))
	}
	if err != nil {
		return fmt.Errorf("keeping the witness's state: %w", err)
	}
	s.logs = logs
	return nil
}

// replace writes a file anew, durably.
func replace(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func (s *state) close() error { return s.lock.Close() }
