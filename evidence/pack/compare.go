package pack

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// comparer is the verifier's sink: what is made again from the log is compared with
// the pack's files as it comes, and nothing of either is kept. A difference is no
// error: the rest is still to be compared.
type comparer struct {
	p     *opened
	files map[string]*compared
}

// compared is one file.
type compared struct {
	r    io.ReadCloser
	buf  []byte
	at   int64
	line int64
	diff string // the first difference; "" while there is none
}

func newComparer(p *opened) *comparer { return &comparer{p: p, files: map[string]*compared{}} }

func (c *comparer) create(name string) (io.Writer, error) {
	f := &compared{line: 1}
	c.files[name] = f
	var err error
	if f.r, err = c.p.stream(name); errors.Is(err, errAbsent) {
		f.diff = err.Error()
	} else if err != nil {
		f.diff = "it cannot be unpacked"
	}
	return f, nil
}

func (f *compared) Write(p []byte) (int, error) {
	if f.diff != "" {
		return len(p), nil
	}
	if cap(f.buf) < len(p) {
		f.buf = make([]byte, len(p))
	}
	got := f.buf[:len(p)]
	n, err := io.ReadFull(f.r, got)
	if got = got[:n]; bytes.Equal(got, p) {
		f.at, f.line = f.at+int64(n), f.line+int64(bytes.Count(p, []byte("\n")))
		return len(p), nil
	}
	same := 0
	for same < n && got[same] == p[same] {
		same++
	}
	f.line += int64(bytes.Count(p[:same], []byte("\n")))
	switch {
	case same < n || err == nil:
		f.diff = fmt.Sprintf("it differs from what the log says, from byte %d in line %d on", f.at+int64(same), f.line)
	default:
		f.diff = fmt.Sprintf("it ends after %d bytes, in line %d, and the log goes on", f.at+int64(same), f.line)
	}
	return len(p), nil
}

func (c *comparer) close(name string) error {
	f := c.files[name]
	if f.r == nil {
		return nil
	}
	if f.diff == "" {
		var more [1]byte
		if n, err := io.ReadFull(f.r, more[:]); n > 0 {
			f.diff = fmt.Sprintf("it goes on after byte %d, line %d, where the log says no more", f.at, f.line)
		} else if !errors.Is(err, io.EOF) {
			f.diff = "it cannot be unpacked: its checksum is wrong"
		}
	}
	f.r.Close()
	f.buf = nil
	return nil
}

// open gives what was found equal. Of a file that differs nothing is read again: it
// could be anything.
func (c *comparer) open(name string) (io.ReadCloser, error) {
	if f := c.files[name]; f == nil || f.diff != "" {
		return io.NopCloser(bytes.NewReader(nil)), nil
	}
	return c.p.stream(name)
}
