package audit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/mod/sumdb/tlog"

	"sallyport/audit/event"
	"sallyport/audit/receipt"
)

// maxLane is how many events of a lane one transaction takes at most: their rows are
// checked and written while the head is locked.
const maxLane = 1024

// Lane is the way for state changes of which there are many at once: a row and its
// event are handed to the sequencer, which writes both, with those of everybody else
// who is waiting, in its own transaction. One commit serves all of them, and the
// event never waits in a table.
//
// The other way, Stage, is for changes that take locks of their own.
type Lane[T any] struct{ l *Log }

// Writing is how the rows of one batch are written, by statements that the sequencer
// sends in its own transaction. If one fails, all are begun again, each row alone.
type Writing interface {
	// Look queues what must be known first. It may lock rows, but must wait for no
	// lock that somebody may hold for long (FOR UPDATE SKIP LOCKED): everybody's
	// events wait with it.
	Look(*pgx.Batch)
	// Write is called when that is known. It queues the writing, and says of each row,
	// by its place, why it is not written: that one's event is not appended, and
	// Append returns the reason.
	Write(*pgx.Batch) (refused []error)
}

// NewLane makes the log's lane; begin is called for each batch of rows. A log has one
// lane, made before Run.
func NewLane[T any](l *Log, begin func(rows []T) Writing) *Lane[T] {
	if l.lane.begin != nil {
		panic("audit: a log has one lane")
	}
	l.lane.begin = func(all []*submission) Writing {
		rows := make([]T, len(all))
		for i, s := range all {
			rows[i] = s.row.(T)
		}
		return begin(rows)
	}
	return &Lane[T]{l}
}

// Append returns when row and event are durable and the event has its place, with its
// receipt. Run must be running in this process.
//
// On ErrUnavailable or ErrBehind they may be there, or come to be, both or neither;
// the caller must not act as if they were. ErrBusy, and what write refuses, say that
// they never will be.
func (n *Lane[T]) Append(ctx context.Context, e event.Event, row T) (Entry, error) {
	entries, err := n.l.join(row, e)
	if err == nil {
		n.l.Kick()
		err = n.l.submitted(ctx, entries)
	}
	if err != nil {
		return Entry{}, err
	}
	return entries[0].withReceipt()
}

// Append takes events that change no state through the lane, and returns when they
// are durable and have their places. Its errors are those of Lane.Append. It is for
// many events that nobody is in a hurry for, each of which comes this one way and no
// other: they go with the next batch that somebody waits for, or when the sequencer
// looks by itself, and cost no commit of their own.
func (l *Log) Append(ctx context.Context, events ...event.Event) error {
	all, err := l.join(nil, events...)
	if err != nil {
		return err
	}
	return l.submitted(ctx, all)
}

// join lets events wait in the lane, each with the row, if there is one.
func (l *Log) join(row any, events ...event.Event) ([]*submission, error) {
	if err := l.known.refused(); err != nil {
		return nil, err
	}
	all := make([]*submission, len(events))
	for i, e := range events {
		leaf, err := e.Encode()
		if err != nil {
			return nil, err
		}
		all[i] = &submission{row: row, done: make(chan struct{}), entry: Entry{
			Index: -1, ID: e.ID, Type: e.Type, Time: e.Time.UTC(), Leaf: leaf, LeafHash: tlog.RecordHash(leaf)}}
	}
	if !l.lane.join(all, maxWaiting-l.waiters.count()) {
		return nil, ErrBusy
	}
	return all, nil
}

// submitted returns when all have their places.
func (l *Log) submitted(ctx context.Context, all []*submission) error {
	limit := time.NewTimer(waitLimit)
	defer limit.Stop()
	for _, s := range all {
		select {
		case <-s.done:
		case <-ctx.Done():
			l.lane.leave(all)
			return ErrUnavailable.Because(l.why(ctx.Err()))
		case <-limit.C:
			l.lane.leave(all)
			return ErrUnavailable.Because(l.why(fmt.Errorf("not sequenced within %s", waitLimit)))
		}
	}
	for _, s := range all {
		if s.err != nil {
			return s.err
		}
	}
	return nil
}

// submission is an event, and its row, on their way through the lane.
type submission struct {
	row   any // nil: the event changes no state
	entry Entry
	again bool // it was in a batch of which nobody knows whether it was committed

	done chan struct{} // closed when the rest is set
	err  error
	grew *grown // the tree that the event came in with; nil if another look found it there
}

// withReceipt is the entry with its receipt, which is made here, by whoever waited,
// from hashes that the sequencer had at hand.
func (s *submission) withReceipt() (Entry, error) {
	if s.grew == nil {
		return s.entry, nil
	}
	proof, err := tlog.ProveRecord(s.grew.tree.N, s.entry.Index, s.grew.hashes)
	if err != nil {
		return Entry{}, fmt.Errorf("the receipt of entry %d: %w", s.entry.Index, err)
	}
	s.entry.Receipt = receipt.Receipt{Index: s.entry.Index, Proof: proof, Checkpoint: s.grew.checkpoint}.Format()
	return s.entry, nil
}

// lane is what waits in a log's lane.
type lane struct {
	begin func(all []*submission) Writing

	mu      sync.Mutex
	waiting []*submission
	singly  int // so many of the next go alone: one among them makes a batch fail
}

func (n *lane) join(all []*submission, room int) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.waiting)+len(all) > room {
		return false
	}
	n.waiting = append(n.waiting, all...)
	return true
}

// leave forgets those that nobody waits for any more and that have not been taken.
func (n *lane) leave(all []*submission) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.waiting = slices.DeleteFunc(slices.Clone(n.waiting), func(s *submission) bool { return slices.Contains(all, s) })
}

func (n *lane) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.waiting)
}

// take takes those of the next batch.
func (n *lane) take() []*submission {
	n.mu.Lock()
	defer n.mu.Unlock()
	many := min(len(n.waiting), maxLane)
	if n.singly > 0 {
		many = min(many, 1)
		n.singly--
	}
	taken := n.waiting[:many:many]
	n.waiting = n.waiting[many:]
	return taken
}

// errWrite is a failure of the lane's write.
type errWrite struct{ error }

func (e errWrite) Unwrap() error { return e.error }

// rows reports whether PostgreSQL refused the rows themselves, and not because of the
// state it is in: another try with the same rows would not help.
func (e errWrite) rows() bool {
	var answer *pgconn.PgError
	if !errors.As(e.error, &answer) {
		return false
	}
	switch answer.Code[:2] {
	case "08", "40", "53", "55", "57", "58": // connection, rollback, resources, state, intervention, system
		return false
	}
	return true
}

// back puts those of a failed batch back. If it was their writing that failed, each is
// tried alone; and one that was alone has failed. It reports whether the failure is
// the lane's own, and not the log's.
func (n *lane) back(taken []*submission, err error) (own bool) {
	if len(taken) == 0 {
		return false
	}
	var failure errWrite
	own = errors.As(err, &failure) && failure.rows()
	if own && len(taken) == 1 {
		taken[0].finish(err)
		return true
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range taken {
		s.again = true
	}
	if own {
		n.singly = len(taken)
	}
	n.waiting = append(taken, n.waiting...)
	return own
}

// fail wakes everybody with an error.
func (n *lane) fail(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.waiting {
		s.finish(err)
	}
	n.waiting = nil
}

func (s *submission) finish(err error) {
	s.err = err
	close(s.done)
}

// inLog splits off those that an earlier try, whose outcome nobody heard, has brought
// into the log. The head must be locked: only then is that try over.
func inLog(ctx context.Context, db querier, taken []*submission) (there, rest []*submission, err error) {
	var doubtful []uuid.UUID
	for _, s := range taken {
		if s.again {
			doubtful = append(doubtful, s.entry.ID)
		}
	}
	if len(doubtful) == 0 {
		return nil, taken, nil
	}
	found, err := entriesByID(ctx, db, doubtful)
	if err != nil {
		return nil, nil, err
	}
	known := make(map[uuid.UUID]Entry, len(found))
	for _, e := range found {
		known[e.ID] = e
	}
	for _, s := range taken {
		if e, ok := known[s.entry.ID]; ok {
			if e.LeafHash != s.entry.LeafHash {
				return nil, nil, fmt.Errorf("another event with the id %s is in the log", e.ID)
			}
			s.entry.Index = e.Index
			there = append(there, s)
		} else {
			rest = append(rest, s)
		}
	}
	return there, rest, nil
}
