package pack

import (
	"crypto/sha256"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// The tree of RFC 6962, rebuilt from all its leaves by tiles. tlog has the same
// one hash at a time; here a tile of 256 is folded at once, so that many can be
// folded in parallel, and nothing is kept but the right edge.

// leafHash is the hash of the leaf at text[from:to], whose byte before from it
// overwrites: there stands a length that has been read.
func leafHash(text []byte, from, to int) tlog.Hash {
	text[from-1] = 0
	return sha256.Sum256(text[from-1 : to])
}

// fold is the root of a perfect subtree over hashes, whose number is a power of
// two. It uses the slice for its work.
func fold(hashes []tlog.Hash) tlog.Hash {
	var node [1 + 2*tlog.HashSize]byte
	node[0] = 1
	for n := len(hashes); n > 1; n /= 2 {
		for i := range n / 2 {
			copy(node[1:], hashes[2*i][:])
			copy(node[1+tlog.HashSize:], hashes[2*i+1][:])
			hashes[i] = sha256.Sum256(node[:])
		}
	}
	return hashes[0]
}

// builder rebuilds a tree from its leaves' hashes.
type builder struct {
	size   int64
	levels [][]tlog.Hash // of each level of tiles, those of the tile that is not full
	counts []int64       // tiles that were full
	// tile takes each tile once it is known. Those that are not full come from root.
	tile func(t tlog.Tile, data []byte) error
}

// add takes the next leaves: a whole tile of them, or what is left at the end. top
// is the root over a whole tile, which the caller has folded.
func (b *builder) add(hashes []tlog.Hash, top tlog.Hash) error {
	if b.size%tileWidth != 0 {
		return fmt.Errorf("rebuilding the tree: leaves follow a tile of %d that is not full", b.size%tileWidth)
	}
	b.size += int64(len(hashes))
	if len(b.levels) == 0 {
		b.levels, b.counts = [][]tlog.Hash{nil}, []int64{0}
	}
	b.levels[0] = hashes
	if len(hashes) < tileWidth {
		return nil
	}
	for l := 0; len(b.levels[l]) == tileWidth; l++ {
		if l > 0 {
			top = fold(append([]tlog.Hash(nil), b.levels[l]...))
		}
		if err := b.emit(l); err != nil {
			return err
		}
		b.counts[l]++
		b.levels[l] = nil
		if l+1 == len(b.levels) {
			b.levels, b.counts = append(b.levels, nil), append(b.counts, 0)
		}
		b.levels[l+1] = append(b.levels[l+1], top)
	}
	return nil
}

func (b *builder) emit(level int) error {
	data := make([]byte, 0, len(b.levels[level])*tlog.HashSize)
	for _, h := range b.levels[level] {
		data = append(data, h[:]...)
	}
	return b.tile(tlog.Tile{H: tileHeight, L: level, N: b.counts[level], W: len(b.levels[level])}, data)
}

// root hands over the tiles that are not full, and returns the tree's root.
func (b *builder) root() (tlog.Hash, error) {
	if b.size == 0 {
		return tlog.TreeHash(0, nil)
	}
	// The maximal perfect subtrees from right to left: each level's rest, by the bits
	// of its length.
	var root tlog.Hash
	have := false
	for l, rest := range b.levels {
		if len(rest) == 0 {
			continue
		}
		if err := b.emit(l); err != nil {
			return root, err
		}
		for end, width := len(rest), 1; end > 0; width *= 2 {
			if end&width == 0 {
				continue
			}
			h := fold(append([]tlog.Hash(nil), rest[end-width:end]...))
			if end -= width; have {
				root = tlog.NodeHash(h, root)
			} else {
				root, have = h, true
			}
		}
	}
	return root, nil
}
