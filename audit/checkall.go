package audit

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"sallyport/audit/checkpoint"
	"sallyport/audit/event"
	"sallyport/audit/retention"
)

// CheckAll re-verifies the whole log in the database against the log's public
// key, in one snapshot, and returns its tree:
//
//  1. indexes are 0..n-1, or begin where the newest record of pruning says, and every
//     leaf decodes;
//  2. the columns beside a leaf say what the leaf says;
//  3. the stored tree hashes are exactly those of the leaves;
//  4. the head has that size and root, and its checkpoint is signed by the key;
//  5. no event both waits and has its place, and audit.event_ids has their ids.
//
// It shows a superuser's edits, unless he also has the log's key; against that,
// compare the tree with a checkpoint kept elsewhere.
func CheckAll(ctx context.Context, pool *pgxpool.Pool, verifier note.Verifier) (tlog.Tree, error) {
	var tree tlog.Tree
	err := pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly},
		func(tx pgx.Tx) (err error) {
			tree, err = checkAll(ctx, tx, verifier)
			return err
		})
	if err != nil {
		return tlog.Tree{}, fmt.Errorf("checking the log: %w", err)
	}
	return tree, nil
}

func checkAll(ctx context.Context, tx pgx.Tx, verifier note.Verifier) (tlog.Tree, error) {
	h, err := scanHead(tx.QueryRow(ctx, "SELECT size, root, checkpoint FROM audit.head"))
	if err != nil {
		return tlog.Tree{}, err
	}
	signed, err := checkpoint.Open(h.checkpoint, verifier)
	if err != nil {
		return tlog.Tree{}, err
	}
	if signed.N != h.size || signed.Hash != h.root {
		return tlog.Tree{}, errors.New("the head is not what its checkpoint says")
	}
	hashes, err := rebuild(ctx, tx, verifier)
	if err != nil {
		return tlog.Tree{}, err
	}
	if n := tlog.StoredHashCount(h.size); int64(len(hashes)) != n {
		return tlog.Tree{}, fmt.Errorf("the entries make %d tree hashes, a log of %d has %d", len(hashes), h.size, n)
	}
	if err := compareHashes(ctx, tx, hashes); err != nil {
		return tlog.Tree{}, err
	}
	root, err := tlog.TreeHash(h.size, hashes)
	if err != nil {
		return tlog.Tree{}, err
	}
	if root != h.root {
		return tlog.Tree{}, errors.New("the entries do not give the head's root")
	}
	var both int
	if err := tx.QueryRow(ctx, "SELECT count(*) FROM audit.pending JOIN audit.entries USING (event_id)").Scan(&both); err != nil {
		return tlog.Tree{}, err
	}
	if both > 0 {
		return tlog.Tree{}, fmt.Errorf("%d events wait although they have their places", both)
	}
	var ids, wrong int64
	if err := tx.QueryRow(ctx, `
		SELECT (SELECT count(*) FROM audit.event_ids),
			(SELECT count(*) FROM audit.entries AS e LEFT JOIN audit.event_ids AS i USING (event_id) WHERE i.index IS DISTINCT FROM e.index)`,
	).Scan(&ids, &wrong); err != nil {
		return tlog.Tree{}, err
	}
	if ids != h.size || wrong > 0 {
		return tlog.Tree{}, fmt.Errorf("of %d entries there are %d ids, %d of them wrong", h.size, ids, wrong)
	}
	return signed, nil
}

// storedHashes are all of a tree's hashes, by tlog.StoredHashIndex.
type storedHashes []tlog.Hash

// ReadHashes implements tlog.HashReader.
func (s storedHashes) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	hashes := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		if index >= int64(len(s)) {
			return nil, errMissingHash
		}
		hashes[i] = s[index]
	}
	return hashes, nil
}

// rebuild reads every entry and computes all tree hashes from the leaves. Those of
// leaves that were pruned it takes from the database: the root shows whether they are
// right.
func rebuild(ctx context.Context, tx pgx.Tx, verifier note.Verifier) (storedHashes, error) {
	first, hashes, err := prunedHashes(ctx, tx)
	if err != nil {
		return nil, err
	}
	rows, err := tx.Query(ctx, `
		SELECT index, event_id, type, time, leaf, coalesce(
			leaf_hash = sha256('\x00'::bytea || leaf)
			AND data = convert_from(leaf, 'UTF8')::jsonb
			AND time = (data->>'time')::timestamptz
			AND actor_id IS NOT DISTINCT FROM data->'actor'->>'id'
			AND person_id IS NOT DISTINCT FROM data->'subject'->>'person_id'
			AND request_id IS NOT DISTINCT FROM data->'subject'->>'request_id'
			AND host_id IS NOT DISTINCT FROM data->'subject'->>'host_id', false)
		FROM audit.entries ORDER BY index`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	recorded := int64(0) // entries before it were pruned, as the log's key vouches for
	next := first
	for ; rows.Next(); next++ {
		var (
			e      Entry
			copied bool
		)
		if err := rows.Scan(&e.Index, &e.ID, &e.Type, &e.Time, &e.Leaf, &copied); err != nil {
			return nil, err
		}
		if e.Index != next {
			return nil, fmt.Errorf("after entry %d comes %d", next-1, e.Index)
		}
		ev, err := event.Decode(e.Leaf)
		if err != nil && !errors.Is(err, event.ErrUnknown) {
			return nil, fmt.Errorf("entry %d: %w", e.Index, err)
		}
		if !copied || err == nil && (ev.ID != e.ID || ev.Type != e.Type) {
			return nil, fmt.Errorf("entry %d: the columns do not say what the leaf says", e.Index)
		}
		if d, ok := ev.Data.(event.RetentionPruned); ok && retention.Check(d, verifier) == nil {
			recorded = max(recorded, int64(d.Before))
		}
		added, err := tlog.StoredHashes(next, e.Leaf, hashes)
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", e.Index, err)
		}
		hashes = append(hashes, added...)
	}
	if first > recorded {
		return nil, fmt.Errorf("entries before %d are gone, and the log vouches for those before %d only", first, recorded)
	}
	return hashes, rows.Err()
}

// prunedHashes are the tree hashes of the leaves before the oldest entry, which is at
// first.
func prunedHashes(ctx context.Context, tx pgx.Tx) (first int64, hashes storedHashes, err error) {
	err = tx.QueryRow(ctx, "SELECT index FROM audit.entries ORDER BY index LIMIT 1").Scan(&first)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, nil, nil
	}
	for from := int64(0); from < first && err == nil; from += scanPage {
		var leaves []tlog.Hash
		if leaves, err = leafHashes(ctx, tx, from, min(from+scanPage, first)); err != nil {
			break
		}
		for i, leaf := range leaves {
			var added []tlog.Hash
			if added, err = tlog.StoredHashesForRecordHash(from+int64(i), leaf, hashes); err != nil {
				break
			}
			hashes = append(hashes, added...)
		}
	}
	return first, hashes, err
}

// compareHashes compares all stored tree hashes with the right ones.
func compareHashes(ctx context.Context, tx pgx.Tx, right storedHashes) error {
	rows, err := tx.Query(ctx, "SELECT index, hash FROM audit.hashes ORDER BY index")
	if err != nil {
		return err
	}
	defer rows.Close()
	n := 0
	for ; rows.Next(); n++ {
		var (
			index int64
			hash  []byte
		)
		if err := rows.Scan(&index, &hash); err != nil {
			return err
		}
		if index != int64(n) || n >= len(right) || string(hash) != string(right[n][:]) {
			return fmt.Errorf("tree hash %d is wrong", index)
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if n != len(right) {
		return fmt.Errorf("there are %d tree hashes instead of %d", n, len(right))
	}
	return nil
}
