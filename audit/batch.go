package audit

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/mod/sumdb/tlog"

	"sallyport/audit/checkpoint"
)

// batch is what one transaction sequences.
type batch struct {
	entries []Entry       // that waited in the table
	lane    []*submission // that came by the lane, and are not in the log already
	writing Writing       // of the lane's rows
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
//  1. lock the head, and compare it with the last known one; read what waits, in the
//     order of arrival; look at what the lane's rows rest on;
//  2. leave out the rows that are refused; compute the tree hashes and sign the new
//     head; write the other rows, append all events, move the head;
//  3. commit.
//
// Each is one round trip, but for a head that another replica has moved: as long as
// this one has the head, nobody else gets any further. When the commit's outcome is
// unknown it returns an error; the next call finds out by step 1. Nothing is released
// before the commit is known to be durable.
func (l *Log) sequence(ctx context.Context, taken []*submission) (*batch, error) {
	conn, err := l.cfg.Pool.Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("beginning a batch: %w", err)
	}
	defer giveBack(ctx, conn)

	if err := l.fault("lock"); err != nil {
		return nil, err
	}
	b := &batch{lane: taken}
	h, err := l.begin(ctx, conn, b)
	if err != nil {
		return nil, err
	}
	var second pgx.Batch
	if err := b.decide(&second); err != nil {
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
	second.Queue("SELECT audit.sequence($1, $2, $3, $4, $5, $6)",
		h.size, ids, leaves, hashBytes(b.grew.added), tree.Hash[:], string(b.grew.checkpoint))
	if err := conn.SendBatch(ctx, &second).Close(); err != nil {
		return nil, fmt.Errorf("appending %d events at %d: %w", len(hashes), h.size, err)
	}
	if err := l.fault("commit"); err != nil {
		return nil, err
	}
	if tag, err := conn.Exec(ctx, "COMMIT"); err != nil || tag.String() != "COMMIT" {
		return nil, fmt.Errorf("committing %d events at %d: %s %w", len(hashes), h.size, tag, err)
	}
	if err := l.fault("committed"); err != nil {
		return nil, err
	}
	l.known.store(&head{size: tree.N, root: tree.Hash, checkpoint: b.grew.checkpoint, edge: b.grew.edge})
	return b, nil
}

// rollbackLimit bounds how long the end of a failed transaction is waited for.
const rollbackLimit = time.Second

// giveBack returns a connection to its pool, with no transaction open on it: or the
// pool would throw it away.
func giveBack(ctx context.Context, conn *pgxpool.Conn) {
	if pg := conn.Conn().PgConn(); !pg.IsClosed() && pg.TxStatus() != 'I' {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackLimit)
		defer cancel()
		conn.Exec(ctx, "ROLLBACK") // if that fails, the connection is worth nothing
	}
	conn.Release()
}

// begin opens the transaction, locks the head, reads the events that wait in the
// table, and looks at what the lane's rows rest on: each statement begins when the one
// before has what it waited for.
func (l *Log) begin(ctx context.Context, conn *pgxpool.Conn, b *batch) (*head, error) {
	known := l.known.load()
	var (
		h     *head
		bad   error
		first pgx.Batch
	)
	first.Queue("BEGIN ISOLATION LEVEL READ COMMITTED")
	first.Queue("SELECT size, root, checkpoint FROM audit.lock_head()").QueryRow(func(row pgx.Row) error {
		h, bad = scanHead(row)
		return nil
	})
	first.Queue(`
		SELECT -1::bigint AS index, event_id, type, time, leaf FROM audit.pending
		ORDER BY arrival LIMIT $1`, maxBatch).Query(func(rows pgx.Rows) (err error) {
		b.entries, err = pgx.CollectRows(rows, scanEntry)
		return err
	})
	doubtful := slices.ContainsFunc(b.lane, func(s *submission) bool { return s.again })
	if !doubtful {
		b.look(l, &first)
	}
	err := conn.SendBatch(ctx, &first).Close()
	switch {
	case h == nil && bad == nil:
		bad = err
	case err != nil: // the transaction has failed, and nothing more can be asked in it
		return nil, fmt.Errorf("beginning a batch: %w", err)
	}
	if h, err = l.admit(ctx, conn, h, bad, known); err != nil || !doubtful {
		return h, err
	}
	if b.there, b.lane, err = inLog(ctx, conn, b.lane); err != nil {
		return nil, err
	}
	var look pgx.Batch
	b.look(l, &look)
	if err := conn.SendBatch(ctx, &look).Close(); err != nil {
		return nil, fmt.Errorf("reading what the rows rest on: %w", err)
	}
	return h, nil
}

// look asks for what the lane's rows rest on.
func (b *batch) look(l *Log, to *pgx.Batch) {
	if rows := b.rows(); len(rows) > 0 {
		b.writing = l.lane.begin(rows)
		own(to, b.writing.Look)
	}
}

// rows are those of the lane that have a row.
func (b *batch) rows() []*submission {
	return slices.DeleteFunc(slices.Clone(b.lane), func(s *submission) bool { return s.row == nil })
}

// decide finds out whose rows are written, and queues the statements that do it.
func (b *batch) decide(to *pgx.Batch) error {
	b.refused = map[*submission]error{}
	if rows := b.rows(); len(rows) > 0 {
		var answers []error
		own(to, func(batch *pgx.Batch) { answers = b.writing.Write(batch) })
		if len(answers) != len(rows) {
			return errWrite{fmt.Errorf("%d answers for %d rows", len(answers), len(rows))}
		}
		for i, s := range rows {
			if answers[i] != nil {
				b.refused[s] = answers[i]
			}
		}
	}
	for _, s := range b.lane {
		if b.refused[s] == nil {
			b.written = append(b.written, s)
		}
	}
	return nil
}

// own marks the failures of the statements that queue adds as the lane's own.
func own(batch *pgx.Batch, queue func(*pgx.Batch)) {
	first := batch.Len()
	queue(batch)
	for _, q := range batch.QueuedQueries[first:] {
		answer := q.Fn
		q.Fn = func(results pgx.BatchResults) (err error) {
			if answer != nil {
				err = answer(results)
			} else {
				_, err = results.Exec()
			}
			if err != nil {
				return errWrite{fmt.Errorf("writing rows with their events: %w", err)}
			}
			return nil
		}
	}
}

func hashBytes(hashes []tlog.Hash) [][]byte {
	b := make([][]byte, len(hashes))
	for i := range hashes {
		b[i] = hashes[i][:]
	}
	return b
}
