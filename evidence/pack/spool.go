package pack

import (
	"bufio"
	"compress/flate"
	"errors"
	"hash"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
)

// spool keeps files on their way in a folder of their own, until the archive takes
// them. It is the writer's sink.
type spool struct {
	dir   string
	files map[string]*spooled
}

// spooled is one file, as it is written and, once it is closed, compressed too: an
// archive wants to know how long that is before it comes.
type spooled struct {
	f      *os.File
	sum    hash.Hash32
	n      counter
	packed *os.File
	length int64 // of packed
}

// newSpool makes a folder below dir; "" is the system's for temporary files.
func newSpool(dir string) (*spool, error) {
	dir, err := os.MkdirTemp(dir, spoolPrefix+"*")
	return &spool{dir: dir, files: map[string]*spooled{}}, err
}

const spoolPrefix = "evidence-"

func (s *spool) remove() error {
	var err error
	for _, o := range s.files {
		err = errors.Join(err, o.f.Close())
		if o.packed != nil {
			err = errors.Join(err, o.packed.Close())
		}
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

func (s *spool) file(name string) (*os.File, error) {
	return os.OpenFile(filepath.Join(s.dir, filepath.Base(name)), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
}

func (s *spool) create(name string) (io.Writer, error) {
	f, err := s.file(name)
	if err != nil {
		return nil, err
	}
	o := &spooled{f: f, sum: crc32.NewIEEE()}
	s.files[name] = o
	return io.MultiWriter(f, o.sum, &o.n), nil
}

func (s *spool) close(name string) error {
	o := s.files[name]
	packed, err := s.file(name + ".deflate")
	if err != nil {
		return err
	}
	o.packed = packed
	w := bufio.NewWriter(packed)
	z, err := flate.NewWriter(w, flate.BestSpeed)
	if err != nil {
		return err
	}
	if _, err := io.Copy(z, o.whole()); err != nil {
		return err
	}
	if err := errors.Join(z.Close(), w.Flush()); err != nil {
		return err
	}
	o.length, err = packed.Seek(0, io.SeekEnd)
	return err
}

func (o *spooled) whole() io.Reader { return io.NewSectionReader(o.f, 0, int64(o.n)) }

func (s *spool) open(name string) (io.ReadCloser, error) {
	o := s.files[name]
	if o == nil || o.packed == nil {
		return nil, os.ErrNotExist
	}
	return io.NopCloser(o.whole()), nil
}
