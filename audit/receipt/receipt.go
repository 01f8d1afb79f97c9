// Package receipt writes, reads and checks receipts: proofs that an event is in
// the log, which anyone can check offline with the log's public key
// (c2sp.org/tlog-proof). It is pure: the broker, sally-host and an auditor's
// `sally` use the same code.
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

// Receipt is a parsed proof. Nothing in it is trusted before Verify.
type Receipt struct {
	Index      int64
	Proof      tlog.RecordProof
	Checkpoint []byte // signed note
}

// Format returns the receipt's only encoding.
func (r Receipt) Format() []byte {
	p := proof.TLogProof{Index: uint64(r.Index), Checkpoint: r.Checkpoint}
	for _, h := range r.Proof {
		p.Hashes = append(p.Hashes, h)
	}
	return p.Marshal()
}

// Parse reads a receipt. It accepts exactly what Format writes: no other line
// ends, no leading zeros, no extra data.
func Parse(text []byte) (Receipt, error) {
	if len(text) > MaxSize {
		return Receipt{}, fmt.Errorf("receipt: longer than %d bytes", MaxSize)
	}
	var p proof.TLogProof
	if err := p.Unmarshal(text); err != nil {
		return Receipt{}, fmt.Errorf("receipt: %w", err)
	}
	if p.ExtraData != nil || p.Index > math.MaxInt64 || len(p.Hashes) > 63 {
		return Receipt{}, errors.New("receipt: extra data, index or number of hashes that no receipt has")
	}
	r := Receipt{Index: int64(p.Index), Checkpoint: p.Checkpoint}
	for _, h := range p.Hashes {
		r.Proof = append(r.Proof, h)
	}
	if !bytes.Equal(r.Format(), text) {
		return Receipt{}, errors.New("receipt: not in its only form")
	}
	return r, nil
}

// Verify checks that the receipt proves that leaf is in the log whose key the
// verifier has, and returns the leaf's index.
func Verify(leaf, text []byte, verifier note.Verifier) (index int64, err error) {
	r, err := Parse(text)
	if err != nil {
		return 0, err
	}
	tree, err := checkpoint.Open(r.Checkpoint, verifier)
	if err != nil {
		return 0, fmt.Errorf("receipt: %w", err)
	}
	if r.Index >= tree.N {
		return 0, fmt.Errorf("receipt: index %d is not in a log of %d", r.Index, tree.N)
	}
	if err := tlog.CheckRecord(r.Proof, tree.N, tree.Hash, r.Index, tlog.RecordHash(leaf)); err != nil {
		return 0, fmt.Errorf("receipt: entry %d: %w", r.Index, err)
	}
	return r.Index, nil
}
