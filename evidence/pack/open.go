package pack

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"strings"
)

// opened is an archive whose form has been checked. What is in its files has not.
type opened struct {
	files map[string]*zip.File
	used  map[string]bool
	total uint64
}

// names are all that a file of a pack can be called.
var names = regexp.MustCompile(`^(README\.html|manifest\.(json|note)|(reconciliation|samples|exceptions|controls)\.csv|evidence\.xlsx|` +
	`log/(checkpoint|start-checkpoint|consistency-proof|trust-policy|tile/([0-7]|entries)/(x[0-9]{3}/){0,5}[0-9]{3}(\.p/[0-9]{1,3})?)|` +
	`proofs/[0-9]{1,19}\.tlog-proof|populations/[a-z_]{1,32}\.csv|evidence/(id-tokens\.jsonl|policies/[0-9a-f]{64}\.yaml))$`)

// open checks the archive's form before anything in it is unpacked:
//
//  1. it begins with its first file, and all its files follow each other without
//     gaps, overlaps or anything behind them; each is named the same in front of its
//     data and in the directory at the end: all readers see the same;
//  2. every name is one that a pack has, so that none leads elsewhere, and none is
//     there twice;
//  3. files are stored or deflated, not encrypted, and are not larger, alone or
//     together, than the limits of this package allow.
//
// archive/zip, which reads the directory, is asked for the rest.
func open(r io.ReaderAt, size int64) (*opened, error) {
	z, err := zip.NewReader(r, size)
	if err != nil {
		return nil, errors.New("it is no zip, or is cut off")
	}
	if len(z.File) > MaxFiles || z.Comment != "" {
		return nil, fmt.Errorf("it has more than %d files, or a comment", MaxFiles)
	}
	p := &opened{files: make(map[string]*zip.File, len(z.File)), used: make(map[string]bool, len(z.File))}
	at := int64(0)
	for _, f := range z.File {
		if !names.MatchString(f.Name) {
			return nil, fmt.Errorf("it has a file that no pack has: %.100q", f.Name)
		}
		if p.files[f.Name] != nil {
			return nil, fmt.Errorf("%s is in it twice", f.Name)
		}
		p.files[f.Name] = f
		if at, err = checkLocal(r, f, at); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
		if p.total += f.UncompressedSize64; f.UncompressedSize64 > MaxTotal || p.total > MaxTotal {
			return nil, fmt.Errorf("unpacked it has more than %d bytes", int64(MaxTotal))
		}
		if f.UncompressedSize64 > uint64(mostBytes(f.Name)) {
			return nil, fmt.Errorf("%s has %d bytes, more than %d", f.Name, f.UncompressedSize64, mostBytes(f.Name))
		}
	}
	if p.total > ratioFrom && p.total > MaxRatio*uint64(size) {
		return nil, fmt.Errorf("unpacked it has %d bytes, more than %d times what it has packed", p.total, MaxRatio)
	}
	return p, checkDirectory(r, z.File, at, size)
}

// mostBytes is how large a file of the name may be. What is compared as it is made
// again, and never held, has no limit of its own.
func mostBytes(name string) int64 {
	switch {
	case name == manifestName:
		return MaxManifest
	case strings.HasPrefix(name, tileDir+"entries/"):
		return maxBundle
	case strings.HasPrefix(name, "log/"), strings.HasPrefix(name, proofDir), name == noteName:
		return maxSmall
	case strings.HasPrefix(name, policyDir):
		return maxPolicy
	}
	return math.MaxInt64
}

const (
	localHeader, localSize         = 0x04034b50, 30
	directoryHeader, directorySize = 0x02014b50, 46
	end64, end64Size               = 0x06064b50, 56
	locator64, locator64Size       = 0x07064b50, 20
	end, endSize                   = 0x06054b50, 22
)

// errForm says that the archive is not laid out as Write does it.
var errForm = errors.New("the archive is not laid out as Sallyport writes it: it was changed, or packed again by another program")

// checkLocal reads the header in front of a file's data, which begins at the place,
// and returns where the data ends (APPNOTE.TXT 4.3.7).
func checkLocal(r io.ReaderAt, f *zip.File, at int64) (int64, error) {
	var h [localSize]byte
	if _, err := r.ReadAt(h[:], at); err != nil {
		return 0, errForm
	}
	le := binary.LittleEndian
	flags, method := le.Uint16(h[6:]), le.Uint16(h[8:])
	name := make([]byte, le.Uint16(h[26:]))
	if len(name) != len(f.Name) {
		return 0, errForm
	}
	if _, err := r.ReadAt(name, at+localSize); err != nil {
		return 0, errForm
	}
	data, err := f.DataOffset()
	short := func(n uint64) uint32 { return uint32(min(n, math.MaxUint32)) }
	switch {
	case err != nil, le.Uint32(h[:]) != localHeader, flags != 0 || f.Flags != 0, method != f.Method,
		method != zip.Store && method != zip.Deflate, string(name) != f.Name, le.Uint16(h[28:]) != 0,
		data != at+localSize+int64(len(name)), le.Uint32(h[14:]) != f.CRC32,
		le.Uint32(h[18:]) != short(f.CompressedSize64), le.Uint32(h[22:]) != short(f.UncompressedSize64),
		method == zip.Store && f.CompressedSize64 != f.UncompressedSize64, f.CompressedSize64 > math.MaxInt64/2:
		return 0, errForm
	}
	return data + int64(f.CompressedSize64), nil
}

// checkDirectory reads what follows the files: the directory with each of them in
// the same order, and the records of its end, and nothing else (APPNOTE.TXT 4.3.12
// to 4.3.16).
func checkDirectory(r io.ReaderAt, files []*zip.File, at, size int64) error {
	in := &scanner{r: io.NewSectionReader(r, at, size-at)}
	le := binary.LittleEndian
	for _, f := range files {
		h := in.next(directorySize)
		if h == nil || le.Uint32(h) != directoryHeader {
			return errForm
		}
		nameLen, extra, comment := int(le.Uint16(h[28:])), int(le.Uint16(h[30:])), int(le.Uint16(h[32:]))
		if name := in.next(nameLen); comment != 0 || extra > 28 || !bytes.Equal(name, []byte(f.Name)) || extra > 0 && in.next(extra) == nil {
			return errForm
		}
	}
	h := in.next(endSize)
	if h != nil && le.Uint32(h) == end64 {
		if in.next(end64Size-endSize) == nil {
			return errForm
		}
		if h = in.next(locator64Size); h == nil || le.Uint32(h) != locator64 {
			return errForm
		}
		h = in.next(endSize)
	}
	if h == nil || le.Uint32(h) != end || in.next(1) != nil {
		return errForm
	}
	return nil
}

// scanner reads on in pieces; nil where the rest is shorter.
type scanner struct {
	r   io.Reader
	buf []byte
}

func (s *scanner) next(n int) []byte {
	if cap(s.buf) < n {
		s.buf = make([]byte, n)
	}
	b := s.buf[:n]
	if _, err := io.ReadFull(s.r, b); err != nil {
		return nil
	}
	return b
}

// errAbsent says that a file is not in the pack.
var errAbsent = errors.New("it is missing")

// stream opens a file for reading once, to be compared as it comes.
func (p *opened) stream(name string) (io.ReadCloser, error) {
	f := p.files[name]
	if f == nil {
		return nil, errAbsent
	}
	p.used[name] = true
	return f.Open()
}

// read is a file's contents, if it is one that mostBytes limits.
func (p *opened) read(name string) ([]byte, error) {
	f := p.files[name]
	if f == nil {
		return nil, errAbsent
	}
	return readFile(f)
}

func readFile(f *zip.File) ([]byte, error) {
	most := mostBytes(f.Name)
	if most == math.MaxInt64 {
		return nil, errors.New("it is not to be read at once")
	}
	r, err := f.Open()
	if err != nil {
		return nil, errors.New("it cannot be unpacked")
	}
	defer r.Close()
	text := make([]byte, 0, min(int64(f.UncompressedSize64), most)+1)
	b := bytes.NewBuffer(text)
	if n, err := io.Copy(b, io.LimitReader(r, most+1)); err != nil || n > most {
		return nil, errors.New("it cannot be unpacked, or is longer than it says")
	}
	return b.Bytes(), nil
}
