package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/mod/sumdb/note"

	"sallyport/audit/checkpoint"
)

// stateFile keeps the last known checkpoint in a file. A nil one keeps nothing.
type stateFile struct {
	path string

	mu    sync.Mutex
	saved int64 // size of the checkpoint in the file
	err   error // of the last attempt to save
}

func newStateFile(path string) *stateFile { return &stateFile{path: path, saved: -1} }

// read returns the head that the file keeps, without its edge; nil if there is
// no file, as at the first start.
func (s *stateFile) read(verifier note.Verifier) (*head, error) {
	msg, err := os.ReadFile(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the last known checkpoint: %w", err)
	}
	tree, err := checkpoint.Open(msg, verifier)
	if err != nil {
		return nil, ErrKey.With("the last known checkpoint is not one of this log").
			Hinting("start with the log.key that the log was begun with; if the file %s is damaged, "+
				"find out why, and compare the log with a checkpoint kept elsewhere before removing it", s.path).
			Because(err)
	}
	return &head{size: tree.N, root: tree.Hash, checkpoint: msg}, nil
}

// save replaces the file, so that after a crash there is the old one or the new
// one, unless it keeps that checkpoint or a later one already.
func (s *stateFile) save(h *head) error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.size <= s.saved {
		return nil
	}
	if s.err = replaceFile(s.path, h.checkpoint); s.err == nil {
		s.saved = h.size
	}
	return s.err
}

func (s *stateFile) failure() error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func replaceFile(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(content)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// saveState keeps the last known checkpoint outside the database.
func (l *Log) saveState() error {
	if err := l.state.save(l.known.load()); err != nil {
		return ErrUnavailable.With("the last checkpoint cannot be kept outside the database").Because(err)
	}
	return nil
}
