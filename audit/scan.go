package audit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/mod/sumdb/tlog"

	"sallyport/audit/checkpoint"
)

// scanPage is how many rows one statement reads at most, so that no snapshot is
// old; the rows themselves are streamed, one at a time.
const scanPage = 4096

// Scan hands over the entries with indexes of [from, to), in order, each once. It
// holds one entry at a time, however long the log is. Entries that are not in the
// database, because they were pruned or somebody deleted them, are left out: who
// must have all looks at the indexes. It stops at the first error of each, and
// returns it.
func (l *Log) Scan(ctx context.Context, from, to int64, each func(Entry) error) error {
	for next := max(from, 0); next < to; {
		rows, err := l.cfg.Pool.Query(ctx, `
			SELECT index, event_id, type, time, leaf FROM audit.entries
			WHERE index >= $1 AND index < $2 ORDER BY index LIMIT $3`, next, to, scanPage)
		if err != nil {
			return fmt.Errorf("reading entries from %d: %w", next, unavailable(err))
		}
		n, last := 0, next
		for rows.Next() {
			e, err := scanEntry(rows)
			if err != nil {
				rows.Close()
				return fmt.Errorf("reading entries from %d: %w", next, err)
			}
			if err := each(e); err != nil {
				rows.Close()
				return err
			}
			n, last = n+1, e.Index
		}
		if err := rows.Err(); err != nil {
			return fmt.Errorf("reading entries from %d: %w", next, unavailable(err))
		}
		if n < scanPage {
			return nil
		}
		next = last + 1
	}
	return nil
}

// Oldest is the lowest index from which on the database has entries; the log's
// size if it has none. Those before it were pruned: their hashes remain.
func (l *Log) Oldest(ctx context.Context) (int64, error) {
	var index *int64
	err := l.cfg.Pool.QueryRow(ctx, "SELECT index FROM audit.entries ORDER BY index LIMIT 1").Scan(&index)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return 0, fmt.Errorf("reading the oldest entry: %w", unavailable(err))
	}
	if index == nil {
		h, err := l.check(ctx)
		if err != nil {
			return 0, err
		}
		return h.size, nil
	}
	return *index, nil
}

// FirstSince is the lowest index of an entry that happened at the time or later, by
// the events' own times; the log's size, if there is none.
func (l *Log) FirstSince(ctx context.Context, t time.Time) (int64, error) {
	var index *int64
	if err := l.cfg.Pool.QueryRow(ctx, "SELECT min(index) FROM audit.entries WHERE time >= $1", t).Scan(&index); err != nil {
		return 0, fmt.Errorf("looking for entries since %s: %w", t, unavailable(err))
	}
	if index != nil {
		return *index, nil
	}
	h, err := l.check(ctx)
	if err != nil {
		return 0, err
	}
	return h.size, nil
}

// LeafHashes are the hashes of the leaves with indexes of [from, to), as the tree
// has them, also where the entries themselves are gone. A caller asks for a few
// thousand at a time.
func (l *Log) LeafHashes(ctx context.Context, from, to int64) ([]tlog.Hash, error) {
	hashes, err := leafHashes(ctx, l.cfg.Pool, from, to)
	if err != nil {
		return nil, l.unreadable(err)
	}
	return hashes, nil
}

func leafHashes(ctx context.Context, q querier, from, to int64) ([]tlog.Hash, error) {
	if from >= to {
		return nil, nil
	}
	// The stored hashes of a stretch stand together, those of leaves among them.
	first, end := tlog.StoredHashIndex(0, from), tlog.StoredHashIndex(0, to-1)+1
	rows, err := q.Query(ctx, "SELECT index, hash FROM audit.hashes WHERE index >= $1 AND index < $2 ORDER BY index", first, end)
	if err != nil {
		return nil, fmt.Errorf("reading tree hashes: %w", err)
	}
	out := make([]tlog.Hash, 0, to-from)
	var index int64
	var hash []byte
	_, err = pgx.ForEachRow(rows, []any{&index, &hash}, func() error {
		if index != tlog.StoredHashIndex(0, from+int64(len(out))) {
			return nil
		}
		if len(hash) != tlog.HashSize {
			return errMissingHash
		}
		out = append(out, tlog.Hash(hash))
		return nil
	})
	if err == nil && int64(len(out)) != to-from {
		err = errMissingHash
	}
	return out, err
}

// Hashes reads the stored hashes of the tree, for proofs about it.
func (l *Log) Hashes(ctx context.Context) tlog.HashReader { return hashReader(ctx, l.cfg.Pool) }

// CheckpointAt is the signed head that the log had when it had so many entries,
// made anew from the tree of now: it says nothing that the newest one does not.
// ErrNoEntry if the log is not so long.
func (l *Log) CheckpointAt(ctx context.Context, size int64) ([]byte, error) {
	h, err := l.check(ctx)
	if err != nil {
		return nil, err
	}
	if size < 0 || size > h.size {
		return nil, ErrNoEntry
	}
	if size == h.size {
		return h.checkpoint, nil
	}
	root, err := tlog.TreeHash(size, hashReader(ctx, l.cfg.Pool))
	if err != nil {
		return nil, l.unreadable(err)
	}
	// Whoever can write into the database must not have us sign what he likes: the
	// earlier head is signed if the newest one, which is known, goes on with it.
	proof, err := tlog.ProveTree(h.size, size, hashReader(ctx, l.cfg.Pool))
	if err == nil && size > 0 {
		err = tlog.CheckTree(proof, h.size, h.root, size, root)
	}
	if err != nil && size > 0 {
		return nil, l.behind(fmt.Errorf("its hashes do not give the head that it had at %d: %w", size, err))
	}
	return checkpoint.Sign(tlog.Tree{N: size, Hash: root}, l.cfg.Signer)
}
