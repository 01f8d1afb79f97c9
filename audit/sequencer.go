package audit

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/mod/sumdb/tlog"

	"sallyport/audit/checkpoint"
	"sallyport/internal/refusal"
)

const (
	// maxBatch is how many events one transaction sequences at most. Larger ones
	// gain nothing, and hold the head and the waiters longer.
	maxBatch = 4096
	// patrol is how often a sequencer that nobody kicks looks for events whose
	// replica died between commit and kick.
	patrol = 500 * time.Millisecond
	// batchLimit bounds one batch, so that a database that hangs is noticed.
	batchLimit = 30 * time.Second
	// A failed batch is tried again after pauses from minPause, doubled up to maxPause.
	minPause, maxPause = 20 * time.Millisecond, time.Second
)

// Run sequences until ctx ends, and then returns nil. Every replica runs one.
func (l *Log) Run(ctx context.Context) error {
	ticker := time.NewTicker(patrol)
	defer ticker.Stop()
	saving := l.startSaving()
	defer saving.stop()
	var digesting sync.WaitGroup
	digesting.Go(func() { l.digestAll(ctx) })
	defer digesting.Wait()
	pause := minPause
	l.Kick() // for what was left when the last one stopped
	for {
		kicked := false
		select {
		case <-ctx.Done():
			return nil
		case <-l.kick:
			kicked = true
		case <-ticker.C:
		}
		more, err := l.turn(ctx, kicked)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			l.failure.Store(nil)
			pause = minPause
			saving.kick()
			if more {
				l.Kick()
			}
			continue
		}
		err = unavailable(err)
		if old := l.failure.Swap(&failed{err}); old == nil || old.err.Error() != err.Error() {
			l.logger.Error("sequencing failed; it will be tried again", "error", err)
		}
		if l.known.refused() != nil {
			l.waiters.fail(err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = min(2*pause, maxPause)
		l.Kick()
	}
}

// Kick tells the sequencer that something was committed. It never blocks.
func (l *Log) Kick() {
	select {
	case l.kick <- struct{}{}:
	default: // the next batch begins after this, and takes it too
	}
}

// turn does what there is to do, once, and says whether there is more. Unless
// kicked it first looks without locking anything.
func (l *Log) turn(ctx context.Context, kicked bool) (more bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, batchLimit)
	defer cancel()
	if !kicked {
		if _, err := l.check(ctx); err != nil {
			return false, err
		}
		var waiting bool
		if err := l.cfg.Pool.QueryRow(ctx, "SELECT EXISTS (SELECT FROM audit.pending)").Scan(&waiting); err != nil {
			return false, fmt.Errorf("looking for events that wait: %w", err)
		}
		if !waiting && l.waiters.count() == 0 {
			return false, nil
		}
	}

	// Whoever waits now has committed before; so after the head is locked, their
	// events are either pending or have been sequenced by another replica.
	awaited := l.waiters.ids()
	entries, err := l.sequence(ctx)
	if err != nil {
		return false, err
	}
	if missing := l.waiters.deliver(entries, awaited); len(missing) > 0 {
		elsewhere, err := l.byID(ctx, missing)
		if err != nil {
			return false, err
		}
		l.waiters.deliver(elsewhere, nil)
	}
	return len(entries) == maxBatch, nil
}

// sequence gives one batch of pending events their places, in one transaction:
//
//  1. lock the head, and compare it with the last known one;
//  2. read what waits, in the order of arrival;
//  3. compute the tree hashes and sign the new head;
//  4. append, move the head, commit.
//
// When the commit's outcome is unknown it returns an error; the next call finds
// out by step 1. Nothing is released before the commit is known to be durable.
func (l *Log) sequence(ctx context.Context) ([]Entry, error) {
	tx, err := l.cfg.Pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	if err != nil {
		return nil, fmt.Errorf("beginning a batch: %w", err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx))

	if err := l.fault("lock"); err != nil {
		return nil, err
	}
	known := l.known.load()
	row := tx.QueryRow(ctx, "SELECT size, root, checkpoint FROM audit.lock_head()")
	h, err := l.admit(ctx, tx, row, known)
	if err != nil {
		return nil, err
	}
	entries, err := readPending(ctx, tx, h.size)
	if err != nil || len(entries) == 0 {
		return nil, err
	}

	ids := make([]uuid.UUID, len(entries))
	leaves := make([]tlog.Hash, len(entries))
	for i, e := range entries {
		ids[i], leaves[i] = e.ID, e.LeafHash
	}
	tree, edge, added, err := h.grow(leaves)
	if err != nil {
		return nil, err
	}
	msg, err := checkpoint.Sign(tree, l.cfg.Signer)
	if err != nil {
		return nil, err
	}

	if err := l.fault("append"); err != nil {
		return nil, err
	}
	if _, err := tx.Exec(ctx, "SELECT audit.append($1, $2, $3, $4, $5)",
		h.size, ids, hashBytes(added), tree.Hash[:], string(msg)); err != nil {
		return nil, fmt.Errorf("appending %d events at %d: %w", len(entries), h.size, err)
	}
	if err := l.fault("commit"); err != nil {
		return nil, err
	}
	if err := tx.Commit(ctx); err != nil {
		return nil, fmt.Errorf("committing %d events at %d: %w", len(entries), h.size, err)
	}
	if err := l.fault("committed"); err != nil {
		return nil, err
	}
	l.known.store(&head{size: tree.N, root: tree.Hash, checkpoint: msg, edge: edge})
	return entries, nil
}

// readPending reads a batch of events that wait, and gives them the indexes
// from first on.
func readPending(ctx context.Context, tx pgx.Tx, first int64) ([]Entry, error) {
	rows, err := tx.Query(ctx, `
		SELECT -1::bigint AS index, event_id, type, time, leaf FROM audit.pending
		ORDER BY arrival LIMIT $1`, maxBatch)
	if err != nil {
		return nil, fmt.Errorf("reading events that wait: %w", err)
	}
	entries, err := pgx.CollectRows(rows, scanEntry)
	if err != nil {
		return nil, fmt.Errorf("reading events that wait: %w", err)
	}
	for i := range entries {
		entries[i].Index = first + int64(i)
	}
	return entries, nil
}

func hashBytes(hashes []tlog.Hash) [][]byte {
	b := make([][]byte, len(hashes))
	for i := range hashes {
		b[i] = hashes[i][:]
	}
	return b
}

// saver writes the last known checkpoint to its file beside the sequencer, so
// that nobody waits for that disk too. Kicks while it writes become one.
type saver struct {
	kicks chan struct{}
	done  chan struct{}
}

func (l *Log) startSaving() *saver {
	s := &saver{kicks: make(chan struct{}, 1), done: make(chan struct{})}
	go func() {
		defer close(s.done)
		for range s.kicks {
			if err := l.saveState(); err != nil {
				l.logger.Error("keeping the checkpoint failed", "error", err, "cause", refusal.As(err).Unwrap())
			}
		}
	}()
	return s
}

func (s *saver) kick() {
	select {
	case s.kicks <- struct{}{}:
	default:
	}
}

// stop returns when the newest checkpoint is in the file.
func (s *saver) stop() {
	s.kick()
	close(s.kicks)
	<-s.done
}
