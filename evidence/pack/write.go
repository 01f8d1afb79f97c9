package pack

import (
	"archive/zip"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"sallyport/audit/checkpoint"
	"sallyport/audit/receipt"
	"sallyport/evidence/populations"
)

// ErrNotKept is what a source returns for bytes that are not there any more.
var ErrNotKept = errors.New("not kept")

// ErrTree says that the source's hashes are not those of the checkpoint.
var ErrTree = errors.New("the log's stored hashes do not give the root of its checkpoint")

// Source is where a writer reads. What it returns is checked against the tree, or
// against hashes in the log.
type Source interface {
	// Scan hands over the leaves with indexes of [from, to), in order, those that
	// there are. The slice is the callback's to keep.
	Scan(ctx context.Context, from, to int64, each func(index int64, leaf []byte) error) error
	// LeafHashes are the tree's hashes of the leaves of [from, to): all of them.
	LeafHashes(ctx context.Context, from, to int64) ([]tlog.Hash, error)
	// Hashes reads the stored hashes of the tree, for proofs.
	Hashes(ctx context.Context) tlog.HashReader
	// Policy is the document with the hash, or ErrNotKept.
	Policy(ctx context.Context, hash string) ([]byte, error)
	// IDTokens are the tokens of those of the statements that have one, by their ids.
	IDTokens(ctx context.Context, statements []string) (map[string]string, error)
	// Vouch signs with the log's key; see package audit/vouch.
	Vouch(kind, text string) ([]byte, error)
}

// Order is what to write. Every field without "optional" must be set.
type Order struct {
	ID     string
	Params Params
	Tool   string
	MadeAt time.Time
	MadeBy Operator
	// Key is the log's public key in note format.
	Key string
	// First is the index of the oldest entry that the source has.
	First int64
	// Checkpoint is the signed head that the pack ends with, with the witnesses'
	// cosignatures that there are; Start is that of the log before the period.
	Checkpoint, Start []byte
	// Trust is how the broker would have the log trusted: a policy for cosignature.ParsePolicy.
	Trust []byte
	// Dir is where files are kept until the archive takes them. Optional: the
	// system's folder for such files.
	Dir string
	// Progress is told how many entries of how many have been read. Optional.
	Progress func(done, total int64)
}

// Summary is what a pack turned out to have.
type Summary struct {
	Entries    int64 // in it
	InPeriod   int64 // dated in the period
	Missing    int64
	Exceptions int64
	Manifest   string // SHA-256, hex
}

// writer writes one pack.
type writer struct {
	o       Order
	src     Source
	m       Manifest
	tree    tlog.Tree
	zip     archive
	spool   *spool
	deflate deflater
	d       *deriver
	tokens  *output
	tokenN  int64
	files   []File
	kept    map[string]bool // policies in the archive
	broken  error           // of the source, while the lists were made
}

// Write writes a pack. It reads every entry once and keeps none, so that memory does
// not grow with the log; tables are kept in files until the archive takes them. An
// entry that is missing, or is not the one in the tree, becomes an exception; a tree
// that does not fit its checkpoint is ErrTree.
func Write(ctx context.Context, to io.Writer, o Order, src Source) (s Summary, err error) {
	w := &writer{o: o, src: src, zip: archive{zip.NewWriter(to)}, kept: map[string]bool{}}
	if err := w.begin(ctx); err != nil {
		return s, fmt.Errorf("beginning an evidence pack: %w", err)
	}
	defer func() { err = errors.Join(err, w.spool.remove()) }()
	if err := w.log(ctx); err != nil {
		return s, fmt.Errorf("writing an evidence pack: %w", err)
	}
	manifest, err := w.rest(ctx)
	if err != nil {
		return s, fmt.Errorf("writing an evidence pack: %w", err)
	}
	return Summary{Entries: w.d.read, InPeriod: w.d.inPeriod, Missing: w.d.missing, Exceptions: w.d.exceptionCount(), Manifest: digest(manifest)}, nil
}

func (w *writer) begin(ctx context.Context) error {
	verifier, err := note.NewVerifier(w.o.Key)
	if err != nil {
		return err
	}
	if w.tree, err = checkpoint.Open(w.o.Checkpoint, verifier); err != nil {
		return err
	}
	start, err := checkpoint.Open(w.o.Start, verifier)
	if err != nil {
		return err
	}
	w.m = Manifest{Format: Format, ID: w.o.ID, Params: w.o.Params, Tool: w.o.Tool, MadeAt: w.o.MadeAt.UTC(), MadeBy: w.o.MadeBy,
		Log: Log{Origin: verifier.Name(), First: w.o.First, Start: start.N, End: w.tree.N, Root: w.tree.Hash.String()}}
	w.m.Source = sourceText(w.m.Log)
	if w.m.Params.Controls == nil {
		w.m.Params.Controls = []string{}
	}
	if err := w.m.check(); err != nil {
		return err
	}
	if w.spool, err = newSpool(w.o.Dir); err != nil {
		return err
	}
	if w.tokens, err = newOutput(w.spool, tokensName); err == nil {
		w.d, err = newDeriver(w.m, w.o.Key, func(hash string) ([]byte, error) { return w.document(ctx, hash) }, w.spool)
	}
	if err != nil {
		err = errors.Join(err, w.spool.remove())
	}
	return err
}

// document finds a policy and puts it into the archive.
func (w *writer) document(ctx context.Context, hash string) ([]byte, error) {
	text, err := w.src.Policy(ctx, hash)
	if err != nil {
		if !errors.Is(err, ErrNotKept) {
			w.broken = err // it is not missing, it could not be read
		}
		return nil, err
	}
	if digest(text) != hash || len(text) > maxPolicy {
		return nil, ErrNotKept
	}
	if w.kept[hash] {
		return text, nil
	}
	w.kept[hash] = true
	c, err := w.deflate.compress(text)
	if err != nil {
		return nil, err
	}
	return text, w.zip.packed(policyPath(hash), c)
}

// chunk is the entries of one tile.
type chunk struct {
	n      int64
	leaves [][]byte // nil: not there
	hashes []tlog.Hash
}

// ready is a chunk as the archive and the lists want it.
type ready struct {
	n      int64
	hashes []tlog.Hash
	top    tlog.Hash
	bundle compressed
	events []*populations.Event // nil: not there
	tokens map[string]string    // by decision
}

// log writes the log, and makes the lists from it.
func (w *writer) log(ctx context.Context) error {
	b := &builder{tile: func(t tlog.Tile, data []byte) error { return w.zip.stored(tilePath(t), data) }}
	err := inOrder(ctx, w.chunks, func(r ready) error {
		if err := b.add(r.hashes, r.top); err != nil {
			return err
		}
		if r.events == nil {
			return nil
		}
		if err := w.zip.packed(bundlePath(r.n, len(r.hashes)), r.bundle); err != nil {
			return err
		}
		return w.take(r)
	})
	if err != nil {
		return err
	}
	root, err := b.root()
	if err != nil {
		return err
	}
	if root != w.tree.Hash {
		return ErrTree
	}
	return nil
}

// take hands a chunk's events to the lists.
func (w *writer) take(r ready) error {
	for i, e := range r.events {
		index := r.n*tileWidth + int64(i)
		if index < w.o.First {
			continue
		}
		if e == nil {
			if err := w.d.absent(index); err != nil {
				return err
			}
			continue
		}
		token, err := w.token(e, r.tokens)
		if err != nil {
			return err
		}
		if err := w.d.add(e, token); err != nil {
			return err
		}
		if w.broken != nil {
			return w.broken
		}
	}
	if w.o.Progress != nil {
		w.o.Progress(r.n*tileWidth+int64(len(r.events)), w.tree.N)
	}
	return nil
}

// tokenLine is one line of id-tokens.jsonl.
type tokenLine struct {
	Index   int64  `json:"index,string"`
	IDToken string `json:"id_token"`
}

// token is the ID token of a statement that the provider signed, which it writes down.
func (w *writer) token(e *populations.Event, tokens map[string]string) (string, error) {
	s, ok := e.Statement()
	if !ok || s.IDTokenHash == "" {
		return "", nil
	}
	token := tokens[s.ID]
	if digest([]byte(token)) != s.IDTokenHash || len(token) > maxTokenLine/2 {
		return "", nil // reconciliation says that it is missing
	}
	line, err := json.Marshal(tokenLine{e.Index, token})
	if err != nil {
		return "", err
	}
	w.tokenN++
	_, err = w.tokens.Write(append(line, '\n'))
	return token, err
}

// page is how many entries' hashes are read at once.
const page = 16 * tileWidth

// chunks reads the log, tile by tile.
func (w *writer) chunks(ctx context.Context, emit func(int64, func(context.Context) (ready, error)) error) error {
	for from := int64(0); from < w.tree.N; from += page {
		to := min(from+page, w.tree.N)
		hashes, err := w.src.LeafHashes(ctx, from, to)
		if err != nil {
			return err
		}
		var c chunk
		begin := func(n int64) {
			first := n*tileWidth - from
			c = chunk{n: n, hashes: hashes[first:min(first+tileWidth, int64(len(hashes)))]}
			if (n+1)*tileWidth > w.o.First {
				c.leaves = make([][]byte, len(c.hashes))
			}
		}
		flush := func() error {
			full, cost := c, int64(0)
			for _, leaf := range full.leaves {
				cost += bytesPerEntry * int64(len(leaf))
			}
			return emit(cost, func(ctx context.Context) (ready, error) { return w.prepare(ctx, full) })
		}
		begin(from / tileWidth)
		err = w.src.Scan(ctx, max(from, w.o.First), to, func(index int64, leaf []byte) error {
			for index >= (c.n+1)*tileWidth {
				if err := flush(); err != nil {
					return err
				}
				begin(c.n + 1)
			}
			c.leaves[index-c.n*tileWidth] = leaf
			return nil
		})
		if err != nil {
			return err
		}
		for {
			if err := flush(); err != nil {
				return err
			}
			if (c.n+1)*tileWidth >= to {
				break
			}
			begin(c.n + 1)
		}
	}
	return nil
}

// prepare does what can be done to chunks in parallel.
func (w *writer) prepare(ctx context.Context, c chunk) (ready, error) {
	r := ready{n: c.n, hashes: c.hashes}
	if len(c.hashes) == tileWidth {
		r.top = fold(slices.Clone(c.hashes))
	}
	if c.leaves == nil {
		return r, nil
	}
	r.events = make([]*populations.Event, len(c.leaves))
	var bundle []byte
	var signed []string
	for i, leaf := range c.leaves {
		if tlog.RecordHash(leaf) != c.hashes[i] {
			leaf = nil // it is missing, or somebody has changed it
		}
		bundle = binary.BigEndian.AppendUint16(bundle, uint16(len(leaf)))
		bundle = append(bundle, leaf...)
		if leaf == nil {
			continue
		}
		e := populations.Read(c.n*tileWidth+int64(i), leaf)
		r.events[i] = &e
		if s, ok := e.Statement(); ok && s.IDTokenHash != "" {
			signed = append(signed, s.ID)
		}
	}
	var err error
	if len(signed) > 0 {
		if r.tokens, err = w.src.IDTokens(ctx, signed); err != nil {
			return r, err
		}
	}
	r.bundle, err = w.deflate.compress(bundle)
	return r, err
}

// rest writes everything but the log, and returns the manifest.
func (w *writer) rest(ctx context.Context) ([]byte, error) {
	f, err := w.tokens.end(w.tokenN)
	if err != nil {
		return nil, err
	}
	if err := w.d.finish(); err != nil {
		return nil, err
	}
	if w.broken != nil {
		return nil, w.broken
	}
	if err := errors.Join(w.d.request(), w.d.heard()); err != nil {
		return nil, err
	}
	w.files = append(w.d.files, f)
	for _, f := range w.files {
		if err := w.zip.spooled(f.Name, w.spool.files[f.Name]); err != nil {
			return nil, err
		}
	}
	if err := w.heads(ctx); err != nil {
		return nil, err
	}
	if err := w.proofs(ctx); err != nil {
		return nil, err
	}
	slices.SortFunc(w.files, func(a, b File) int { return cmp.Compare(a.Name, b.Name) })
	w.m.Files = w.files
	manifest, err := w.m.encode()
	if err != nil {
		return nil, err
	}
	if len(manifest) > MaxManifest {
		return nil, fmt.Errorf("the manifest has %d bytes, more than %d", len(manifest), MaxManifest)
	}
	signature, err := sign(manifest, w.src.Vouch)
	if err != nil {
		return nil, err
	}
	if err := w.zip.stored(noteName, signature); err != nil {
		return nil, err
	}
	if err := w.zip.stored(manifestName, manifest); err != nil {
		return nil, err
	}
	return manifest, w.zip.z.Close()
}

// heads writes the checkpoints, the proof that one goes on with the other, and how
// the broker would have them trusted.
func (w *writer) heads(ctx context.Context) error {
	consistency, err := consistencyProof(w.m.Log.End, w.m.Log.Start, w.src.Hashes(ctx))
	if err != nil {
		return err
	}
	for _, f := range []struct {
		name string
		text []byte
	}{{checkpointName, w.o.Checkpoint}, {startName, w.o.Start}, {consistencyName, consistency}, {trustName, w.o.Trust}} {
		if len(f.text) > maxSmall {
			return fmt.Errorf("%s has %d bytes, more than %d", f.name, len(f.text), maxSmall)
		}
		if err := w.zip.stored(f.name, f.text); err != nil {
			return err
		}
		w.files = append(w.files, File{Name: f.name, Bytes: int64(len(f.text)), SHA256: digest(f.text)})
	}
	return nil
}

// consistencyProof is one hash a line; nothing where there is nothing to prove.
func consistencyProof(end, start int64, hashes tlog.HashReader) ([]byte, error) {
	if start == 0 || start == end {
		return nil, nil
	}
	proof, err := tlog.ProveTree(end, start, hashes)
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	for _, h := range proof {
		b.WriteString(h.String() + "\n")
	}
	return []byte(b.String()), nil
}

// proofs writes the receipts.
func (w *writer) proofs(ctx context.Context) error {
	for _, index := range w.d.proofs {
		proof, err := tlog.ProveRecord(w.tree.N, index, w.src.Hashes(ctx))
		if err != nil {
			return err
		}
		text := receipt.Receipt{Index: index, Proof: proof, Checkpoint: w.o.Checkpoint}.Format()
		if err := w.zip.stored(proofPath(index), text); err != nil {
			return err
		}
	}
	return nil
}
