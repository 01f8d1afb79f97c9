package audit

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/bits"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"

	"sallyport/audit/event"
)

// rootOf is RFC 6962 section 2.1, word for word, as a second implementation.
func rootOf(leaves [][]byte) [sha256.Size]byte {
	switch n := len(leaves); n {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return sha256.Sum256(append([]byte{0}, leaves[0]...))
	default:
		k := 1 << (bits.Len(uint(n-1)) - 1) // the largest power of two smaller than n
		left, right := rootOf(leaves[:k]), rootOf(leaves[k:])
		return sha256.Sum256(append(append([]byte{1}, left[:]...), right[:]...))
	}
}

// However the leaves fall into batches, the tree is the one of RFC 6962, and
// the edge that is kept is enough to go on.
func TestGrowDifferential(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var leaves [][]byte
		var stored storedHashes
		h := &head{edge: edge{}}
		for _, n := range rapid.SliceOfN(rapid.IntRange(1, 70), 1, 8).Draw(t, "batches") {
			var hashes []tlog.Hash
			for range n {
				leaf := fmt.Appendf(nil, "leaf %d", len(leaves))
				leaves = append(leaves, leaf)
				hashes = append(hashes, tlog.RecordHash(leaf))
			}
			grew, err := h.grow(hashes)
			if err != nil {
				t.Fatal(err)
			}
			tree, edge := grew.tree, grew.edge
			stored = append(stored, grew.added...)
			if tree.N != int64(len(leaves)) || tree.Hash != rootOf(leaves) {
				t.Fatalf("the root of %d leaves is wrong", len(leaves))
			}
			if int64(len(stored)) != tlog.StoredHashCount(tree.N) {
				t.Fatalf("%d hashes for %d leaves", len(stored), tree.N)
			}
			if len(edge) != bits.OnesCount64(uint64(tree.N)) {
				t.Fatalf("the edge of %d leaves has %d hashes", tree.N, len(edge))
			}
			// What the sequencer has at hand proves each of the new leaves.
			for i, hash := range hashes {
				proof, err := tlog.ProveRecord(tree.N, h.size+int64(i), grew.hashes)
				if err == nil {
					err = tlog.CheckRecord(proof, tree.N, tree.Hash, h.size+int64(i), hash)
				}
				if err != nil {
					t.Fatalf("new leaf %d of %d: %v", h.size+int64(i), tree.N, err)
				}
			}
			h = &head{size: tree.N, root: tree.Hash, edge: edge}
		}
		i := rapid.Int64Range(0, h.size-1).Draw(t, "index")
		proof, err := tlog.ProveRecord(h.size, i, stored)
		if err != nil {
			t.Fatal(err)
		}
		if err := tlog.CheckRecord(proof, h.size, h.root, i, tlog.RecordHash(leaves[i])); err != nil {
			t.Fatal(err)
		}
	})
}

func TestWaitersAreBounded(t *testing.T) {
	t.Parallel()
	var w waiters
	ids := make([]uuid.UUID, maxWaiting)
	for i := range ids {
		ids[i] = uuid.New()
	}
	places, err := w.join(ids)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.join([]uuid.UUID{uuid.New()}); !errors.Is(err, ErrBusy) {
		t.Errorf("one more: %v", err)
	}
	l := &Log{waiters: waiters{places: w.places}}
	if err := l.Stage(t.Context(), nil, someEvent()); !errors.Is(err, ErrBusy) {
		t.Errorf("Stage: %v", err)
	}
	if _, err := l.Wait(t.Context(), uuid.New()); !errors.Is(err, ErrBusy) {
		t.Errorf("Wait: %v", err)
	}
	w.leave(ids[1:], places[1:])
	if n := w.count(); n != 1 {
		t.Errorf("%d are waited for, want 1", n)
	}
	if missing := w.deliver([]Entry{{ID: ids[0], Index: 7}, {ID: ids[1]}}, ids[:2]); len(missing) != 0 || places[0].entry.Index != 7 {
		t.Errorf("delivered %v, missing %v", places[0].entry, missing)
	}
	w.leave(ids[:1], places[:1])
	if n := w.count(); n != 0 {
		t.Errorf("%d are waited for, want 0", n)
	}
}

func someEvent() event.Event {
	return event.New(time.Now(), event.Actor{Kind: event.Broker}, "", event.Subject{}, event.KeysLoaded{})
}
