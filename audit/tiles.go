package audit

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"golang.org/x/mod/sumdb/tlog"

	"sallyport/audit/receipt"
)

// tileHeight is c2sp.org/tlog-tiles': 256 hashes a tile.
const tileHeight = 8

// Checkpoint is the newest signed tree head. One that contradicts the last known
// one is never given out.
func (l *Log) Checkpoint(ctx context.Context) ([]byte, error) {
	h, err := l.check(ctx)
	if err != nil {
		return nil, err
	}
	return h.checkpoint, nil
}

// Tile is the hash tile of c2sp.org/tlog-tiles at the path below "tile/", such
// as "0/x001/067" or "1/000.p/5", or ErrNoTile.
func (l *Log) Tile(ctx context.Context, path string) ([]byte, error) {
	t, err := l.tile(ctx, path)
	if err != nil {
		return nil, err
	}
	data, err := tlog.ReadTileData(t, hashReader(ctx, l.cfg.Pool))
	if err != nil {
		return nil, l.unreadable(err)
	}
	return data, nil
}

// Bundle is the entry bundle at the path below "tile/entries/", or ErrNoTile, or
// ErrPruned: leaves, each after 16 bits of length.
func (l *Log) Bundle(ctx context.Context, path string) ([]byte, error) {
	t, err := l.tile(ctx, "0/"+path) // the same entries as the hashes of that tile
	if err != nil {
		return nil, err
	}
	first := t.N << tileHeight
	rows, err := l.cfg.Pool.Query(ctx,
		"SELECT leaf FROM audit.entries WHERE index >= $1 AND index < $2 ORDER BY index", first, first+int64(t.W))
	if err != nil {
		return nil, fmt.Errorf("reading entry bundle %s: %w", path, err)
	}
	leaves, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
	if err != nil {
		return nil, fmt.Errorf("reading entry bundle %s: %w", path, err)
	}
	if len(leaves) != t.W {
		if err := l.pruned(ctx, first); errors.Is(err, ErrPruned) {
			return nil, err
		}
		return nil, l.behind(fmt.Errorf("entries from %d to %d are not all there", first, first+int64(t.W)))
	}
	var bundle []byte
	for _, leaf := range leaves {
		bundle = binary.BigEndian.AppendUint16(bundle, uint16(len(leaf)))
		bundle = append(bundle, leaf...)
	}
	return bundle, nil
}

// tile parses the path of a tile and checks that the tree is large enough for it.
func (l *Log) tile(ctx context.Context, path string) (tlog.Tile, error) {
	t, err := tlog.ParseTilePath(fmt.Sprintf("tile/%d/%s", tileHeight, path))
	if err != nil || t.L < 0 || t.L > 63/tileHeight {
		return tlog.Tile{}, ErrNoTile
	}
	h, err := l.check(ctx)
	if err != nil {
		return tlog.Tile{}, err
	}
	hashes := h.size >> (tileHeight * t.L) // at the tile's level
	if t.N > hashes>>tileHeight || t.N<<tileHeight+int64(t.W) > hashes {
		return tlog.Tile{}, ErrNoTile
	}
	return t, nil
}

// Receipt proves that entry index is in the log: a c2sp.org/tlog-proof under the
// newest checkpoint, also of an entry that was pruned. See package receipt for how to
// check it.
func (l *Log) Receipt(ctx context.Context, index int64) ([]byte, error) {
	h, err := l.check(ctx)
	if err != nil {
		return nil, err
	}
	if index < 0 || index >= h.size {
		return nil, ErrNoEntry
	}
	leaf, err := l.leafHash(ctx, index)
	if err != nil {
		return nil, err
	}
	proof, err := tlog.ProveRecord(h.size, index, hashReader(ctx, l.cfg.Pool))
	if err != nil {
		return nil, l.unreadable(err)
	}
	if err := tlog.CheckRecord(proof, h.size, h.root, index, leaf); err != nil {
		return nil, l.behind(fmt.Errorf("entry %d is not the one in the tree: %w", index, err))
	}
	return receipt.Receipt{Index: index, Proof: proof, Checkpoint: h.checkpoint}.Format(), nil
}

// leafHash is the hash of an entry; of one that was pruned, as the tree has it.
func (l *Log) leafHash(ctx context.Context, index int64) (tlog.Hash, error) {
	e, err := l.Entry(ctx, index)
	if !errors.Is(err, ErrPruned) {
		return e.LeafHash, err
	}
	hashes, err := l.LeafHashes(ctx, index, index+1)
	if err != nil {
		return tlog.Hash{}, err
	}
	return hashes[0], nil
}
