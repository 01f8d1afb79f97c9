package pack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/mod/sumdb/tlog"

	"sallyport/audit/receipt"
)

// ErrNoEntry says that a pack does not have an entry.
var ErrNoEntry = errors.New("the pack does not have that entry")

// Entry reads one entry out of a pack, with a receipt made from the pack's tiles. It
// verifies nothing: the receipt does, under the key of somebody whom one trusts.
func Entry(r io.ReaderAt, size, index int64) (leaf, proof []byte, err error) {
	p, err := open(r, size)
	if err != nil {
		return nil, nil, err
	}
	text, err := p.read(manifestName)
	if err != nil {
		return nil, nil, err
	}
	m, err := parseManifest(text)
	if err != nil {
		return nil, nil, err
	}
	if index < m.Log.First || index >= m.Log.End {
		return nil, nil, fmt.Errorf("%w: it has those from %d to %d", ErrNoEntry, m.Log.First, m.Log.End-1)
	}
	n := index / tileWidth
	bundle, err := p.read(bundlePath(n, widthOf(n, m.Log.End)))
	if err != nil {
		return nil, nil, err
	}
	if leaf, err = inBundle(bundle, index-n*tileWidth); err != nil {
		return nil, nil, err
	}
	proof, err = p.prove(m, index)
	return leaf, proof, err
}

// inBundle is the leaf at a place of a bundle.
func inBundle(bundle []byte, place int64) ([]byte, error) {
	for i := int64(0); len(bundle) >= bundleOverheads; i++ {
		to := bundleOverheads + int(binary.BigEndian.Uint16(bundle))
		if to > len(bundle) {
			break
		}
		if leaf := bundle[bundleOverheads:to]; i == place && len(leaf) > 0 {
			return leaf, nil
		}
		bundle = bundle[to:]
	}
	return nil, ErrNoEntry
}

// prove makes a receipt from the pack's tiles and checkpoint.
func (p *opened) prove(m Manifest, index int64) ([]byte, error) {
	head, err := p.read(checkpointName)
	if err != nil {
		return nil, err
	}
	root, err := tlog.ParseHash(m.Log.Root)
	if err != nil {
		return nil, err
	}
	tree := tlog.Tree{N: m.Log.End, Hash: root}
	proof, err := tlog.ProveRecord(tree.N, index, tlog.TileHashReader(tree, tileReader{p}))
	if err != nil {
		return nil, fmt.Errorf("the pack's tiles are not those of its checkpoint: %w", err)
	}
	return receipt.Receipt{Index: index, Proof: proof, Checkpoint: head}.Format(), nil
}
