package receipt_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/transparency-dev/formats/proof"
	merkleproof "github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/tlog"

	"sallyport/audit/receipt"
)

// theirs is the verdict of an implementation of RFC 6962 by other people.
func theirs(r receipt.Receipt, leaf []byte, tree tlog.Tree) error {
	hashes := make([][]byte, len(r.Proof))
	for i, h := range r.Proof {
		hashes[i] = h[:]
	}
	return merkleproof.VerifyInclusion(rfc6962.DefaultHasher, uint64(r.Index), uint64(tree.N),
		rfc6962.DefaultHasher.HashLeaf(leaf), hashes, tree.Hash[:])
}

// Our verdict on a proof is that of transparency-dev/merkle: for every leaf of
// every small tree, and for what becomes of their proofs when they are spoilt.
func TestVerdictIsTransparencyDevs(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	good, bad := 0, 0
	compare := func(what string, r receipt.Receipt, leaf []byte, tree tlog.Tree) {
		t.Helper()
		mine, other := r.Check(leaf, tree), theirs(r, leaf, tree)
		if (mine == nil) != (other == nil) {
			t.Errorf("%s, entry %d of %d: we say %v, they say %v", what, r.Index, tree.N, mine, other)
		}
		if mine == nil {
			good++
		} else {
			bad++
		}
	}
	for size := 1; size <= 70; size++ {
		m := newLog(t, size)
		root, err := tlog.TreeHash(m.size, m)
		if err != nil {
			t.Fatal(err)
		}
		tree := tlog.Tree{N: m.size, Hash: root}
		for i := range m.size {
			r := m.receipt(t, i)
			compare("as it is", r, leaf(i), tree)
			compare("another leaf", r, leaf(i+1), tree)
			spoilt := r
			spoilt.Index = random.Int64N(m.size)
			compare("another index", spoilt, leaf(i), tree)
			compare("another size", r, leaf(i), tlog.Tree{N: i + 1 + random.Int64N(100), Hash: root})
			spoilt = r
			spoilt.Proof = append(tlog.RecordProof{}, r.Proof...)
			switch n := len(spoilt.Proof); random.IntN(4) {
			case 0:
				spoilt.Proof = append(spoilt.Proof, tlog.RecordHash(leaf(i)))
			case 1:
				spoilt.Proof = spoilt.Proof[:max(0, n-1)]
			case 2:
				if n > 0 {
					spoilt.Proof[random.IntN(n)][random.IntN(32)] ^= 1 << random.IntN(8)
				}
			case 3:
				random.Shuffle(n, func(i, j int) { spoilt.Proof[i], spoilt.Proof[j] = spoilt.Proof[j], spoilt.Proof[i] })
			}
			compare("another proof", spoilt, leaf(i), tree)
		}
	}
	if good < 70*71/2 || bad < 1000 {
		t.Errorf("%d good and %d bad proofs were compared", good, bad)
	}
	if r := (receipt.Receipt{Index: -1}); r.Check(nil, tlog.Tree{N: 1}) == nil {
		t.Error("a negative index passes")
	}
}

// Our hashes of leaves and trees are theirs, too.
func TestHashesAreTransparencyDevs(t *testing.T) {
	t.Parallel()
	h := rfc6962.DefaultHasher
	a, b := tlog.RecordHash([]byte("a")), tlog.RecordHash([]byte("b"))
	if both := tlog.NodeHash(a, b); !bytes.Equal(a[:], h.HashLeaf([]byte("a"))) || !bytes.Equal(both[:], h.HashChildren(a[:], b[:])) {
		t.Error("a hash differs")
	}
	if root, err := tlog.TreeHash(0, nil); err != nil || !bytes.Equal(root[:], h.EmptyRoot()) {
		t.Errorf("the empty tree's root differs: %v", err)
	}
}

// What transparency-dev/formats writes we read, with extra data and without.
func TestReceiptsAreTransparencyDevs(t *testing.T) {
	t.Parallel()
	m := newLog(t, 11)
	r := m.receipt(t, 5)
	for _, extra := range [][]byte{nil, []byte("more about it")} {
		p := proof.TLogProof{Index: 5, Checkpoint: r.Checkpoint, ExtraData: extra}
		for _, h := range r.Proof {
			p.Hashes = append(p.Hashes, h)
		}
		got, err := receipt.ParseExtra(p.Marshal())
		if err != nil || got.Index != 5 || !bytes.Equal(got.Extra, extra) || !bytes.Equal(got.Format(), p.Marshal()) {
			t.Errorf("%+v, %v", got, err)
		}
		if _, err := receipt.Parse(p.Marshal()); (err == nil) != (extra == nil) {
			t.Errorf("without extra data: %v", err)
		}
	}
}

func TestWithExtra(t *testing.T) {
	t.Parallel()
	m := newLog(t, 11)
	r := m.receipt(t, 5)
	with, err := r.WithExtra([]byte("more"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := receipt.Verify(leaf(5), with, m.vkey); err == nil {
		t.Error("Verify takes extra data")
	}
	again, err := receipt.ParseExtra(with)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		r     receipt.Receipt
		extra []byte
	}{
		"none": {r, nil}, "twice": {again, []byte("more")}, "too much": {r, make([]byte, receipt.MaxSize)},
	} {
		if _, err := c.r.WithExtra(c.extra); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
