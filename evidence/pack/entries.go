package pack

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"sallyport/evidence/populations"
)

// parsed is the entries of one tile as a verifier has read them.
type parsed struct {
	n      int64
	hashes []tlog.Hash // of the leaves; of those that are missing, as the tile says
	top    tlog.Hash
	events []*populations.Event // nil: missing; no slice: before the pack's first entry
	wrong  string
}

// entries reads the log of the pack, in parallel and in order, rebuilds its tree and
// hands the events on.
func (c *verifier) entries(ctx context.Context, d *deriver) error {
	b := &builder{tile: func(t tlog.Tile, data []byte) error {
		c.p.used[tilePath(t)] = true
		if t.L > 0 || t.W < tileWidth { // those of level 0 have been compared
			if have, err := c.p.read(tilePath(t)); err != nil || !bytes.Equal(have, data) {
				c.damage("%s is not what the entries give", tilePath(t))
			}
		}
		return nil
	}}
	err := inOrder(ctx, c.tiles, func(r parsed) error {
		c.damage("%s", r.wrong)
		if err := b.add(r.hashes, r.top); err != nil {
			return err
		}
		if r.events == nil {
			return nil
		}
		c.p.used[bundlePath(r.n, len(r.hashes))] = true
		return c.take(d, r)
	})
	if err != nil {
		return err
	}
	root, err := b.root()
	if err != nil {
		return err
	}
	if root != c.tree.Hash {
		c.damage("the entries do not give the root of the checkpoint")
	}
	return nil
}

// damage notes the first thing that is wrong with the log.
func (c *verifier) damage(format string, args ...any) {
	if said := fmt.Sprintf(format, args...); c.damaged == "" {
		c.damaged = said
	}
}

func (c *verifier) take(d *deriver, r parsed) error {
	for i, e := range r.events {
		index := r.n*tileWidth + int64(i)
		if index < c.v.Manifest.Log.First {
			continue
		}
		if _, wanted := c.leaves[index]; wanted {
			c.leaves[index] = r.hashes[i]
		}
		if e == nil {
			if err := d.absent(index); err != nil {
				return err
			}
			continue
		}
		if err := d.add(e, c.tokens.of(e)); err != nil {
			return err
		}
	}
	return nil
}

// tiles emits a job for each tile of leaves.
func (c *verifier) tiles(ctx context.Context, emit func(int64, func(context.Context) (parsed, error)) error) error {
	for n := int64(0); n*tileWidth < c.tree.N; n++ {
		width := widthOf(n, c.tree.N)
		cost := int64(0)
		if f := c.p.files[bundlePath(n, width)]; f != nil {
			cost = bytesPerEntry * int64(f.UncompressedSize64)
		}
		err := emit(cost, func(context.Context) (parsed, error) { return c.parse(n, width) })
		if err != nil {
			return err
		}
	}
	return nil
}

// parse reads one tile and its bundle of entries.
func (c *verifier) parse(n int64, width int) (parsed, error) {
	r := parsed{n: n}
	name := tilePath(tlog.Tile{H: tileHeight, L: 0, N: n, W: width})
	tile, err := c.p.read(name)
	if err == nil && len(tile) != width*tlog.HashSize {
		err = errors.New("it has another length than its name says")
	}
	if err != nil {
		return r, fmt.Errorf("%s: %w", name, err)
	}
	r.hashes = make([]tlog.Hash, width)
	for i := range r.hashes {
		r.hashes[i] = tlog.Hash(tile[i*tlog.HashSize:])
	}
	if first := c.v.Manifest.Log.First; (n+1)*tileWidth > first {
		name := bundlePath(n, width)
		bundle, err := c.p.read(name)
		if err != nil {
			return r, fmt.Errorf("%s: %w", name, err)
		}
		if r.events, r.wrong, err = readBundle(bundle, n*tileWidth, first, r.hashes); err != nil {
			return r, fmt.Errorf("%s: %w", name, err)
		}
	}
	if width == tileWidth {
		r.top = fold(slices.Clone(r.hashes))
	}
	return r, nil
}

// readBundle reads entries, each after 16 bits of length (c2sp.org/tlog-tiles); one
// of length 0, which no event has, is missing. hashes are what the tile says; where
// an entry is there, they become what it gives, and wrong says if that differs.
func readBundle(bundle []byte, index, first int64, hashes []tlog.Hash) (events []*populations.Event, wrong string, err error) {
	events = make([]*populations.Event, len(hashes))
	at := 0
	for i := range hashes {
		if len(bundle)-at < bundleOverheads {
			return nil, "", fmt.Errorf("it ends before entry %d", index+int64(i))
		}
		from := at + bundleOverheads
		to := from + int(binary.BigEndian.Uint16(bundle[at:]))
		if to > len(bundle) {
			return nil, "", fmt.Errorf("it ends in entry %d", index+int64(i))
		}
		at = to
		if from == to {
			continue
		}
		if index+int64(i) < first {
			return nil, "", fmt.Errorf("entry %d is before the pack's first", index+int64(i))
		}
		if h := leafHash(bundle, from, to); h != hashes[i] {
			hashes[i] = h
			if wrong == "" {
				wrong = fmt.Sprintf("entry %d is not the one in the tree", index+int64(i))
			}
		}
		e := populations.Read(index+int64(i), bundle[from:to:to])
		events[i] = &e
	}
	if at != len(bundle) {
		return nil, "", fmt.Errorf("something follows entry %d", index+int64(len(hashes))-1)
	}
	return events, wrong, nil
}

// proofIndex is the index of a receipt's name.
func proofIndex(name string) (int64, bool) {
	rest, ok := strings.CutPrefix(name, proofDir)
	if !ok {
		return 0, false
	}
	index, err := strconv.ParseInt(strings.TrimSuffix(rest, proofExt), 10, 64)
	return index, err == nil && proofPath(index) == name
}

// tokenReader reads id-tokens.jsonl beside the entries: its lines are in the order of
// the log.
type tokenReader struct {
	r    io.ReadCloser
	in   *bufio.Reader
	sum  hash.Hash
	size counter
	next *tokenLine
	n    int64
	last int64
	err  error
}

func newTokenReader(p *opened) (*tokenReader, error) {
	r, err := p.stream(tokensName)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", tokensName, err)
	}
	t := &tokenReader{r: r, sum: sha256.New(), last: -1}
	t.in = bufio.NewReaderSize(io.TeeReader(r, io.MultiWriter(t.sum, &t.size)), maxTokenLine)
	t.advance()
	return t, nil
}

// advance reads the next line.
func (t *tokenReader) advance() {
	t.next = nil
	if t.err != nil {
		return
	}
	line, err := t.in.ReadSlice('\n')
	if errors.Is(err, io.EOF) && len(line) == 0 {
		return
	}
	var l tokenLine
	if err == nil {
		err = json.Unmarshal(line, &l)
	}
	again, _ := json.Marshal(l)
	if err != nil || !bytes.Equal(append(again, '\n'), line) || l.Index <= t.last {
		t.err = fmt.Errorf("%s: line %d is not in its only form", tokensName, t.n+1)
		return
	}
	t.next, t.last = &l, l.Index
	t.n++
}

// of is the token of a statement, if it has one.
func (t *tokenReader) of(e *populations.Event) string {
	if t.next == nil || t.next.Index > e.Index {
		return ""
	}
	s, ok := e.Statement()
	if t.next.Index < e.Index || !ok || s.IDTokenHash == "" || digest([]byte(t.next.IDToken)) != s.IDTokenHash {
		t.err = fmt.Errorf("%s: the token of entry %d is not the one that the log names", tokensName, t.next.Index)
		t.next = nil
		return ""
	}
	token := t.next.IDToken
	t.advance()
	return token
}

// tokensRead is what a reader has found.
type tokensRead struct {
	n    int64
	file File
	err  error
}

func (t *tokenReader) finish() tokensRead {
	defer t.r.Close()
	if t.err == nil && t.next != nil {
		t.err = fmt.Errorf("%s: nothing in the log names the token of entry %d", tokensName, t.next.Index)
	}
	out := tokensRead{n: t.n, err: t.err}
	out.file = File{Name: tokensName, Bytes: int64(t.size), SHA256: hex.EncodeToString(t.sum.Sum(nil)), Rows: t.n}
	return out
}
