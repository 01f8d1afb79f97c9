package pack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"sallyport/audit/checkpoint"
	"sallyport/audit/cosignature"
	"sallyport/audit/receipt"
)

// Check is one thing that was checked. Names stay the same from version to version.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

// Options are what a verifier brings along.
type Options struct {
	// Trust says whose log it is. It must be set.
	Trust *cosignature.Policy
	// Previous is a checkpoint that the auditor kept from an earlier time. Optional:
	// without it, a log that was forked before is not noticed.
	Previous []byte
	// Report is told of each check as soon as it is done. Optional.
	Report func(Check)
}

// Verdict is what became of a verification.
type Verdict struct {
	OK         bool             `json:"ok"`
	Checks     []Check          `json:"checks"`
	Manifest   Manifest         `json:"manifest"`
	Exceptions map[string]int64 `json:"exceptions"` // that the log gives, by code
}

// Found is how many exceptions there are.
func (v Verdict) Found() (n int64) {
	for _, of := range v.Exceptions {
		n += of
	}
	return n
}

// verifier verifies one pack.
type verifier struct {
	o       Options
	p       *opened
	v       Verdict
	key     string
	log     note.Verifier
	tree    tlog.Tree
	damaged string              // what is wrong with the log's tiles; the first thing found
	leaves  map[int64]tlog.Hash // of entries that have a receipt
	tokens  *tokenReader
}

// Verify verifies a pack, with nothing but what it is given: no network, no
// configuration. It checks, in this order, and goes on after a failure as far as
// that makes sense:
//
//	archive          its form, by the rules of open
//	manifest         the log's key, as the auditor's policy has it, signed it
//	checkpoint       the log's key signed the head at the end
//	witnesses        as many of them cosigned it as the policy wants
//	start            the head at the start of the period, and that the log went on from it
//	previous         that it went on from the auditor's own checkpoint
//	entries          every entry gives its hash, and all hashes the head's root
//	request          what the pack is of is what the log says that was asked for; or, of an
//	                 archive, all that there is
//	receipts         those that there must be, and each proves its entry
//	evidence         tokens and policies are those that the log names
//	<file>           each table, and the page, byte for byte as made again from the log
//	files            they are those of the manifest, and nothing else is in the archive
//
// The verdict is in the result; an error means that nothing could be said.
func Verify(ctx context.Context, r io.ReaderAt, size int64, o Options) (Verdict, error) {
	if o.Trust == nil {
		return Verdict{}, errors.New("verifying a pack: there is no trust policy")
	}
	c := &verifier{o: o, v: Verdict{OK: true, Exceptions: map[string]int64{}}, leaves: map[int64]tlog.Hash{}}
	var err error
	if c.p, err = open(r, size); err != nil {
		c.check("archive", err, "")
		return c.v, nil
	}
	c.check("archive", nil, "%d files, %d bytes, unpacked %d", len(c.p.files), size, c.p.total)
	if !c.manifest() || !c.heads() {
		return c.v, nil
	}
	return c.v, c.contents(ctx)
}

// check notes the outcome of one check.
func (c *verifier) check(name string, err error, format string, args ...any) bool {
	x := Check{Name: name, OK: err == nil, Detail: fmt.Sprintf(format, args...)}
	if err != nil {
		x.Detail, c.v.OK = err.Error(), false
	}
	c.v.Checks = append(c.v.Checks, x)
	if c.o.Report != nil {
		c.o.Report(x)
	}
	return x.OK
}

// small reads a small file that must be there.
func (c *verifier) small(name string) ([]byte, error) {
	text, err := c.p.read(name)
	c.p.used[name] = true
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return text, nil
}

func (c *verifier) manifest() bool {
	text, err := c.small(manifestName)
	if err != nil {
		return c.check("manifest", err, "")
	}
	if c.v.Manifest, err = parseManifest(text); err != nil {
		return c.check("manifest", err, "")
	}
	if c.key = c.o.Trust.Key(c.v.Manifest.Log.Origin); c.key == "" {
		return c.check("manifest", fmt.Errorf("your policy does not name the log %s", c.v.Manifest.Log.Origin), "")
	}
	if c.log, err = note.NewVerifier(c.key); err != nil {
		return c.check("manifest", err, "")
	}
	sig, err := c.small(noteName)
	if err == nil && signed(text, sig, c.key) != nil {
		err = errors.New("it is not signed by the key that your policy has for the log")
	}
	m := c.v.Manifest
	return c.check("manifest", err, "%s, signed by %s+%08x, made by %s for %s", m.ID, c.log.Name(), c.log.KeyHash(), m.Tool, or(m.MadeBy.Name, m.MadeBy.ID))
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// heads checks the signed heads, and that the log only grew between them. The root
// at the end is checked against the entries later.
func (c *verifier) heads() bool {
	m := c.v.Manifest
	text, err := c.small(checkpointName)
	if err == nil {
		c.tree, err = checkpoint.Open(text, c.log)
	}
	if err == nil && (c.tree.N != m.Log.End || c.tree.Hash.String() != m.Log.Root) {
		err = errors.New("it is not the one that the manifest names")
	}
	if !c.check("checkpoint", err, "%d entries, root %s", c.tree.N, c.tree.Hash) {
		return false
	}
	names, enough := c.o.Trust.Witnesses(text)
	if err = nil; !enough {
		err = fmt.Errorf("your policy wants the cosignatures of %s, and there are those of %s", c.o.Trust.Wanted(), or(strings.Join(names, ", "), "nobody"))
	}
	c.check("witnesses", err, "%s (your policy wants %s)", or(strings.Join(names, ", "), "none"), c.o.Trust.Wanted())

	start, err := c.small(startName)
	if err == nil {
		err = c.goesOn(start, m.Log.Start, "the start")
	}
	if err == nil {
		err = c.consistency(start)
	}
	c.check("start", err, "%d entries before the period, and the log went on from there", m.Log.Start)
	if c.o.Previous != nil {
		err := c.goesOn(c.o.Previous, -1, "your checkpoint")
		c.check("previous", err, "the log went on from your checkpoint")
	}
	return true
}

// goesOn checks that the log of the pack goes on with an earlier, signed head: its
// root, computed from the pack's tiles, is the one that was signed. The tiles are
// checked against the head at the end on the way.
func (c *verifier) goesOn(head []byte, want int64, what string) error {
	tree, err := checkpoint.Open(head, c.log)
	switch {
	case err != nil:
		return fmt.Errorf("%s is not signed by this log's key: %w", what, err)
	case want >= 0 && tree.N != want:
		return fmt.Errorf("%s has %d entries, not the %d of the manifest", what, tree.N, want)
	case tree.N > c.tree.N:
		return fmt.Errorf("%s has %d entries, more than the %d of the pack: ask for a newer pack", what, tree.N, c.tree.N)
	}
	root, err := tlog.TreeHash(tree.N, tlog.TileHashReader(c.tree, tileReader{c.p}))
	if err != nil {
		return errors.New("the pack's tiles are not those of its checkpoint")
	}
	if root != tree.Hash {
		return fmt.Errorf("FORK: the first %d entries of the log are not those of %s; both are signed by the log's key", tree.N, what)
	}
	return nil
}

// consistency checks the proof that others' programs would use.
func (c *verifier) consistency(start []byte) error {
	text, err := c.small(consistencyName)
	if err != nil {
		return err
	}
	was, err := checkpoint.Open(start, c.log)
	if err != nil {
		return err
	}
	var proof tlog.TreeProof
	for line := range strings.Lines(string(text)) {
		h, err := tlog.ParseHash(strings.TrimSuffix(line, "\n"))
		if err != nil || h.String()+"\n" != line {
			return errors.New("the consistency proof cannot be read")
		}
		proof = append(proof, h)
	}
	if was.N == 0 || was.N == c.tree.N {
		if len(proof) > 0 {
			return errors.New("there is a consistency proof where there is nothing to prove")
		}
		return nil
	}
	if err := tlog.CheckTree(proof, c.tree.N, c.tree.Hash, was.N, was.Hash); err != nil {
		return errors.New("the consistency proof does not hold")
	}
	return nil
}

// tileReader reads the pack's tiles for tlog.
type tileReader struct{ p *opened }

func (tileReader) Height() int                     { return tileHeight }
func (tileReader) SaveTiles([]tlog.Tile, [][]byte) {}
func (r tileReader) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	out := make([][]byte, len(tiles))
	for i, t := range tiles {
		var err error
		if out[i], err = r.p.read(tilePath(t)); err != nil {
			return nil, fmt.Errorf("%s: %w", tilePath(t), err)
		}
	}
	return out, nil
}

// contents makes everything again from the entries.
func (c *verifier) contents(ctx context.Context) error {
	for name := range c.p.files {
		if index, ok := proofIndex(name); ok {
			c.leaves[index] = tlog.Hash{}
		}
	}
	same := newComparer(c.p)
	d, err := newDeriver(withoutFiles(c.v.Manifest), c.key, c.document, same)
	if err != nil {
		return err
	}
	if c.tokens, err = newTokenReader(c.p); err != nil {
		c.check("evidence", err, "")
		return nil
	}
	if err := c.entries(ctx, d); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		c.check("entries", err, "")
		return nil
	}
	err = d.finish()
	c.v.Exceptions = d.codes
	switch {
	case c.damaged != "":
		c.check("entries", errors.New(c.damaged), "")
	case d.missing > 0:
		c.check("entries", fmt.Errorf("%d entries are missing; what is there gives the root with their hashes (see exceptions.csv)", d.missing), "")
	default:
		heard := d.heard()
		c.check("entries", heard, "%d entries, from %d on, give the root; %d are dated in the period", d.read, c.v.Manifest.Log.First, d.inPeriod)
	}
	c.check("request", d.request(), "%s", c.v.Manifest.requested())
	if err != nil {
		c.check("tables", err, "")
		return nil
	}
	c.check("receipts", c.receipts(d.proofs), "%d", len(d.proofs))
	tokens := c.tokens.finish()
	c.check("evidence", tokens.err, "%d ID tokens, %d policies", tokens.n, len(c.policies()))
	for _, f := range d.files {
		var err error
		if diff := same.files[f.Name].diff; diff != "" {
			err = errors.New(diff)
		}
		what := "%d bytes, as made again from the log"
		if f.Name == workbookName {
			what = "%d bytes, as made again from the tables"
		}
		c.check(f.Name, err, what, f.Bytes)
	}
	c.check("files", c.allFiles(append(d.files, tokens.file)), "those of the manifest, and no others")
	return nil
}

func withoutFiles(m Manifest) Manifest {
	m.Files = nil
	return m
}

// document reads a policy of the pack.
func (c *verifier) document(hash string) ([]byte, error) {
	if len(hash) != maxDigest {
		return nil, ErrNotKept
	}
	text, err := c.p.read(policyPath(hash))
	if err != nil || digest(text) != hash {
		return nil, ErrNotKept // and the file, if there is one, is one that nothing needs
	}
	c.p.used[policyPath(hash)] = true
	return text, nil
}

func (c *verifier) policies() (names []string) {
	for name := range c.p.files {
		if strings.HasPrefix(name, policyDir) && c.p.used[name] {
			names = append(names, name)
		}
	}
	return names
}

// receipts checks that there are those that there must be, and each of them.
func (c *verifier) receipts(want []int64) error {
	for _, index := range want {
		text, err := c.small(proofPath(index))
		if err != nil {
			return err
		}
		r, err := receipt.Parse(text)
		if err != nil {
			return fmt.Errorf("%s: %w", proofPath(index), err)
		}
		tree, err := checkpoint.Open(r.Checkpoint, c.log)
		if err != nil {
			return fmt.Errorf("%s: %w", proofPath(index), err)
		}
		if r.Index != index || tree != c.tree {
			return fmt.Errorf("%s is of another entry or checkpoint", proofPath(index))
		}
		if err := tlog.CheckRecord(r.Proof, tree.N, tree.Hash, index, c.leaves[index]); err != nil {
			return fmt.Errorf("%s does not prove its entry", proofPath(index))
		}
	}
	return nil
}

// allFiles holds what was read against the manifest and the archive.
func (c *verifier) allFiles(made []File) error {
	for _, name := range []string{checkpointName, startName, consistencyName, trustName} {
		text, err := c.small(name)
		if err != nil {
			return err
		}
		made = append(made, File{Name: name, Bytes: int64(len(text)), SHA256: digest(text)})
	}
	slices.SortFunc(made, func(a, b File) int { return bytes.Compare([]byte(a.Name), []byte(b.Name)) })
	if !slices.Equal(made, c.v.Manifest.Files) {
		for _, f := range c.v.Manifest.Files {
			if !slices.Contains(made, f) {
				return fmt.Errorf("the manifest has another %s than the pack should have", f.Name)
			}
		}
		return errors.New("the manifest lacks files that the pack must have")
	}
	for name := range c.p.files {
		if !c.p.used[name] {
			return fmt.Errorf("%s is in the archive, and nothing in the log needs it", name)
		}
	}
	return nil
}
