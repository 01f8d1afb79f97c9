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
			l.lane.fail(err)
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
		if !waiting && l.waiters.count() == 0 && l.lane.count() == 0 {
			return false, nil
		}
	}

	// Whoever waits now has committed before; so after the head is locked, their
	// events are either pending or have been sequenced by another replica.
	awaited := l.waiters.ids()
	taken := l.lane.take()
	b, err := l.sequence(ctx, taken)
	if err != nil {
		if l.lane.back(taken, err) {
			return true, nil // the log itself is well
		}
		return false, err
	}
	b.tell()
	if missing := l.waiters.deliver(b.entries, awaited); len(missing) > 0 {
		elsewhere, err := l.byID(ctx, missing)
		if err != nil {
			return false, err
		}
		l.waiters.deliver(elsewhere, nil)
	}
	return len(b.entries) == maxBatch || l.lane.count() > 0, nil
}

// batch is what one transaction sequenced.
type batch struct {
	entries []Entry // that waited in the table
	written []*submission
	refused map[*submission]error
	there   []*submission // that were in the log already
	grew    *grown
}

// tell wakes those who wait in the lane.
func (b *batch) tell() {
	for _, s := range b.written {
		s.grew = b.grew
		s.finish(nil)
	}
	for _, s := range b.there {
		s.finish(nil)
	}
	for s, err := range b.refused {
		s.finish(err)
	}
}

// sequence gives one batch of events their places, in one transaction:
//
//  1. lock the head, and compare it with the last known one;
//  2. read what waits, in the order of arrival;
//  3. write the rows of those that came by the lane, and leave out whose are refused;
//  4. compute the tree hashes and sign the new head;
//  5. append, move the head, commit.
//
// When the commit's outcome is unknown it returns an error; the next call finds
// out by step 1. Nothing is released before the commit is known to be durable.
func (l *Log) sequence(ctx context.Context, taken []*submission) (*batch, error) {
	tx, err := l.cfg.Pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	if err != nil {
		return nil, fmt.Errorf("beginning a batch: %w", err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx))

	if err := l.fault("lock"); err != nil {
		return nil, err
	}
	h, entries, err := l.lockHead(ctx, tx)
	if err != nil {
		return nil, err
	}
	b := &batch{entries: entries}
	if err := l.write(ctx, tx, b, taken); err != nil {
		return nil, err
	}
	if len(b.entries)+len(b.written) == 0 {
		return b, nil
	}

	ids := make([]uuid.UUID, len(b.entries))
	var leaves [][]byte
	hashes := make([]tlog.Hash, 0, len(b.entries)+len(b.written))
	for i := range b.entries {
		e := &b.entries[i]
		e.Index = h.size + int64(len(hashes))
		ids[i], hashes = e.ID, append(hashes, e.LeafHash)
	}
	for _, s := range b.written {
		s.entry.Index = h.size + int64(len(hashes))
		leaves, hashes = append(leaves, s.entry.Leaf), append(hashes, s.entry.LeafHash)
	}
	if b.grew, err = h.grow(hashes); err != nil {
		return nil, err
	}
	tree := b.grew.tree
	if b.grew.checkpoint, err = checkpoint.Sign(tree, l.cfg.Signer); err != nil {
		return nil, err
	}

	if err := l.fault("append"); err != nil {
		return nil, err
	}
	if _, err := tx.Exec(ctx, "SELECT audit.sequence($1, $2, $3, $4, $5, $6)",
		h.size, ids, leaves, hashBytes(b.grew.added), tree.Hash[:], string(b.grew.checkpoint)); err != nil {
		return nil, fmt.Errorf("appending %d events at %d: %w", len(hashes), h.size, err)
	}
	if err := l.fault("commit"); err != nil {
		return nil, err
	}
	if err := tx.Commit(ctx); err != nil {
		return nil, fmt.Errorf("committing %d events at %d: %w", len(hashes), h.size, err)
	}
	if err := l.fault("committed"); err != nil {
		return nil, err
	}
	l.known.store(&head{size: tree.N, root: tree.Hash, checkpoint: b.grew.checkpoint, edge: b.grew.edge})
	return b, nil
}

// lockHead locks the head, and reads a batch of events that wait in the table, in one
// round trip: the second statement begins when the first has its lock.
func (l *Log) lockHead(ctx context.Context, tx pgx.Tx) (*head, []Entry, error) {
	known := l.known.load()
	var (
		h       *head
		entries []Entry
		bad     error
		both    pgx.Batch
	)
	both.Queue("SELECT size, root, checkpoint FROM audit.lock_head()").QueryRow(func(row pgx.Row) error {
		h, bad = scanHead(row)
		return nil
	})
	both.Queue(`
		SELECT -1::bigint AS index, event_id, type, time, leaf FROM audit.pending
		ORDER BY arrival LIMIT $1`, maxBatch).Query(func(rows pgx.Rows) (err error) {
		entries, err = pgx.CollectRows(rows, scanEntry)
		return err
	})
	err := tx.SendBatch(ctx, &both).Close()
	if h == nil && bad == nil {
		bad = err
	}
	h, admitted := l.admit(ctx, tx, h, bad, known)
	if admitted != nil {
		return nil, nil, admitted
	}
	if err != nil {
		return nil, nil, fmt.Errorf("reading events that wait: %w", err)
	}
	return h, entries, nil
}

// write writes the rows of those that came by the lane.
func (l *Log) write(ctx context.Context, tx pgx.Tx, b *batch, taken []*submission) (err error) {
	if b.there, taken, err = inLog(ctx, tx, taken); err != nil || len(taken) == 0 {
		return err
	}
	b.refused = map[*submission]error{}
	rows := make([]*submission, 0, len(taken))
	for _, s := range taken {
		if s.row == nil {
			b.written = append(b.written, s)
		} else {
			rows = append(rows, s)
		}
	}
	if len(rows) == 0 {
		return nil
	}
	refused, err := l.lane.write(ctx, tx, rows)
	if err != nil {
		return errWrite{fmt.Errorf("writing %d rows with their events: %w", len(rows), err)}
	}
	for i, s := range rows {
		if refused[i] != nil {
			b.refused[s] = refused[i]
		} else {
			b.written = append(b.written, s)
		}
	}
	return nil
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
