// Package receipt writes, reads and checks receipts: proofs that an event is in
// the log, which anyone can check offline with the log's public key
// (c2sp.org/tlog-proof). It is pure: the broker, sally-host and an auditor's
// `sally` use the same code.
//
// A receipt by itself has no extra data. One that travels in a certificate has:
// what the verifier needs to rebuild the leaf (package broker/certs).
package receipt

import (
	"bytes"
	"errors"
	"fmt"
	"math"

	"github.com/transparency-dev/formats/proof"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"sallyport/audit/checkpoint"
)

// MaxSize bounds what Parse reads: a tree of 2^63 leaves has proofs of 63
// hashes, about 3 KB, and the rest is room for cosignatures.
const MaxSize = 16 << 10

// Receipt is a parsed proof. Nothing in it is trusted before Check.
type Receipt struct {
	Index      int64
	Proof      tlog.RecordProof
	Checkpoint []byte // signed note
	Extra      []byte // proved by nothing; empty: none
}

// Format returns the receipt's only encoding.
func (r Receipt) Format() []byte {
	p := proof.TLogProof{Index: uint64(r.Index), Checkpoint: r.Checkpoint}
	if len(r.Extra) > 0 {
		p.ExtraData = r.Extra
	}
	for _, h := range r.Proof {
		p.Hashes = append(p.Hashes, h)
	}
	return p.Marshal()
}

// Parse reads a receipt. It accepts exactly what Format writes: no other line
// ends, no leading zeros; and no extra data.
func Parse(text []byte) (Receipt, error) {
	r, err := ParseExtra(text)
	if err == nil && r.Extra != nil {
		return Receipt{}, errors.New("receipt: it has extra data")
	}
	return r, err
}

// ParseExtra reads a receipt as strictly as Parse, which may have extra data.
func ParseExtra(text []byte) (Receipt, error) {
	if len(text) > MaxSize {
		return Receipt{}, fmt.Errorf("receipt: longer than %d bytes", MaxSize)
	}
	var p proof.TLogProof
	if err := p.Unmarshal(text); err != nil {
		return Receipt{}, fmt.Errorf("receipt: %w", err)
	}
	if p.Index > math.MaxInt64 || len(p.Hashes) > 63 {
		return Receipt{}, errors.New("receipt: index or number of hashes that no receipt has")
	}
	r := Receipt{Index: int64(p.Index), Checkpoint: p.Checkpoint, Extra: p.ExtraData}
	for _, h := range p.Hashes {
		r.Proof = append(r.Proof, h)
	}
	if !bytes.Equal(r.Format(), text) {
		return Receipt{}, errors.New("receipt: not in its only form")
	}
	return r, nil
}

// WithExtra is the encoding of the receipt, which has none, with extra data.
func (r Receipt) WithExtra(extra []byte) ([]byte, error) {
	if len(extra) == 0 || len(r.Extra) > 0 {
		return nil, errors.New("receipt: it has extra data already, or there is none to add")
	}
	r.Extra = extra
	text := r.Format()
	if len(text) > MaxSize {
		return nil, fmt.Errorf("receipt: with its extra data longer than %d bytes", MaxSize)
	}
	return text, nil
}

// Verify checks that the receipt, without extra data, proves that leaf is in the
// log whose key the verifier has, and returns the leaf's index.
func Verify(leaf, text []byte, verifier note.Verifier) (index int64, err error) {
	r, err := Parse(text)
	if err != nil {
		return 0, err
	}
	return r.Index, r.Verify(leaf, verifier)
}

// Verify is nil if the receipt proves that leaf is in the log whose key the verifier
// has.
func (r Receipt) Verify(leaf []byte, verifier note.Verifier) error {
	tree, err := r.Tree(verifier)
	if err != nil {
		return err
	}
	return r.Check(leaf, tree)
}

// Tree is the head that the receipt is under, if the log's key signed it and the
// index is in it.
func (r Receipt) Tree(verifier note.Verifier) (tlog.Tree, error) {
	tree, err := checkpoint.Open(r.Checkpoint, verifier)
	if err != nil {
		return tlog.Tree{}, fmt.Errorf("receipt: %w", err)
	}
	if r.Index >= tree.N {
		return tlog.Tree{}, fmt.Errorf("receipt: index %d is not in a log of %d", r.Index, tree.N)
	}
	return tree, nil
}

// Check is nil if the receipt proves that leaf is in the tree, at its index.
func (r Receipt) Check(leaf []byte, tree tlog.Tree) error {
	if r.Index < 0 || r.Index >= tree.N {
		return fmt.Errorf("receipt: index %d is not in a log of %d", r.Index, tree.N)
	}
	if err := tlog.CheckRecord(r.Proof, tree.N, tree.Hash, r.Index, tlog.RecordHash(leaf)); err != nil {
		return fmt.Errorf("receipt: entry %d: %w", r.Index, err)
	}
	return nil
}
