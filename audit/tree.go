package audit

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"golang.org/x/mod/sumdb/tlog"
)

var errMissingHash = errors.New("a tree hash is missing")

// hashReader reads stored hashes from the database.
func hashReader(ctx context.Context, q querier) tlog.HashReader {
	return tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		rows, err := q.Query(ctx, `
			SELECT h.hash FROM unnest($1::bigint[]) WITH ORDINALITY AS u (index, n)
			JOIN audit.hashes AS h ON h.index = u.index ORDER BY u.n`, indexes)
		if err != nil {
			return nil, fmt.Errorf("reading tree hashes: %w", err)
		}
		found, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
		if err != nil {
			return nil, fmt.Errorf("reading tree hashes: %w", err)
		}
		if len(found) != len(indexes) {
			return nil, errMissingHash
		}
		hashes := make([]tlog.Hash, len(found))
		for i, h := range found {
			if len(h) != tlog.HashSize {
				return nil, errMissingHash
			}
			hashes[i] = tlog.Hash(h)
		}
		return hashes, nil
	})
}

// edge is the right edge of a tree of some size: the few stored hashes, by
// tlog.StoredHashIndex, from which its root and everything appended later are
// computed. With it the sequencer reads no hashes.
type edge map[int64]tlog.Hash

// ReadHashes implements tlog.HashReader.
func (e edge) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	hashes := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		h, ok := e[index]
		if !ok {
			return nil, errMissingHash
		}
		hashes[i] = h
	}
	return hashes, nil
}

func (e edge) root(size int64) (tlog.Hash, error) { return tlog.TreeHash(size, e) }

// readEdges reads the edges of trees of the sizes from the database, in one round trip.
func readEdges(ctx context.Context, q querier, sizes ...int64) ([]edge, error) {
	var wanted []int64
	for _, size := range sizes {
		_, err := edgeOf(size, tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
			wanted = append(wanted, indexes...)
			return make([]tlog.Hash, len(indexes)), nil
		}))
		if err != nil {
			return nil, err
		}
	}
	hashes, err := hashReader(ctx, q).ReadHashes(wanted)
	if err != nil {
		return nil, err
	}
	stored := make(edge, len(wanted))
	for i, index := range wanted {
		stored[index] = hashes[i]
	}
	edges := make([]edge, len(sizes))
	for i, size := range sizes {
		if edges[i], err = edgeOf(size, stored); err != nil {
			return nil, err
		}
	}
	return edges, nil
}

// edgeOf keeps what the root's computation reads.
func edgeOf(size int64, from tlog.HashReader) (edge, error) {
	kept := make(edge)
	_, err := tlog.TreeHash(size, tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		hashes, err := from.ReadHashes(indexes)
		if err != nil {
			return nil, err
		}
		for i, index := range indexes {
			kept[index] = hashes[i]
		}
		return hashes, nil
	}))
	return kept, err
}

// grown is a tree that has got new leaves.
type grown struct {
	tree       tlog.Tree
	edge       edge        // of the tree
	added      []tlog.Hash // to store: they follow those that are stored already
	hashes     edge        // the old tree's edge and what was added: the new leaves' proofs need no others
	checkpoint []byte      // that signs the tree
}

// grow appends leaves to the tree of head h.
func (h *head) grow(leaves []tlog.Hash) (*grown, error) {
	all := make(edge, len(h.edge)+2*len(leaves))
	for index, hash := range h.edge {
		all[index] = hash
	}
	var added []tlog.Hash
	first := tlog.StoredHashCount(h.size)
	for i, leaf := range leaves {
		hashes, err := tlog.StoredHashesForRecordHash(h.size+int64(i), leaf, all)
		if err != nil {
			return nil, fmt.Errorf("hashing entry %d: %w", h.size+int64(i), err)
		}
		for _, hash := range hashes {
			all[first+int64(len(added))] = hash
			added = append(added, hash)
		}
	}
	size := h.size + int64(len(leaves))
	next, err := edgeOf(size, all)
	if err != nil {
		return nil, fmt.Errorf("hashing the tree of %d: %w", size, err)
	}
	root, err := next.root(size)
	return &grown{tree: tlog.Tree{N: size, Hash: root}, edge: next, added: added, hashes: all}, err
}
