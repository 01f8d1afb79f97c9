package audit

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
)

const (
	// maxWaiting is how many events may be waited for at once in one process.
	maxWaiting = 16384
	// waitLimit is how long Wait waits: longer than a restart of PostgreSQL, not
	// longer than a caller's patience.
	waitLimit = 10 * time.Second
)

// Wait kicks the sequencer and returns when all the events, staged and
// committed before, have their places, in the order of ids. Run must be running
// in this process; which replica's sequencer is faster does not matter.
//
// On ErrUnavailable or ErrBehind the events may have their places or get them
// later, and waiting again is fine; but the caller must not act as if they had.
func (l *Log) Wait(ctx context.Context, ids ...uuid.UUID) ([]Entry, error) {
	if err := l.known.refused(); err != nil {
		return nil, err
	}
	places, err := l.waiters.join(ids)
	if err != nil {
		return nil, err
	}
	defer l.waiters.leave(ids, places)
	l.Kick()

	limit := time.NewTimer(waitLimit)
	defer limit.Stop()
	entries := make([]Entry, len(ids))
	for i, p := range places {
		select {
		case <-p.done:
			if p.err != nil {
				return nil, p.err
			}
			entries[i] = p.entry
		case <-ctx.Done():
			return nil, ErrUnavailable.Because(l.why(ctx.Err()))
		case <-limit.C:
			return nil, ErrUnavailable.Because(l.why(fmt.Errorf("not sequenced within %s", waitLimit)))
		}
	}
	return entries, nil
}

// why adds the sequencer's last failure, if there is one.
func (l *Log) why(err error) error {
	if f := l.failure.Load(); f != nil {
		return fmt.Errorf("%w; the sequencer's last failure: %w", err, f.err)
	}
	return err
}

// place is what callers who wait for one event share.
type place struct {
	waiting int           // callers; guarded by waiters.mu
	done    chan struct{} // closed when entry or err is set
	entry   Entry
	err     error
}

// waiters are the events that this process waits for.
type waiters struct {
	mu     sync.Mutex
	places map[uuid.UUID]*place
}

func (w *waiters) join(ids []uuid.UUID) ([]*place, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.places)+len(ids) > maxWaiting {
		return nil, ErrBusy
	}
	if w.places == nil {
		w.places = make(map[uuid.UUID]*place)
	}
	joined := make([]*place, len(ids))
	for i, id := range ids {
		p := w.places[id]
		if p == nil {
			p = &place{done: make(chan struct{})}
			w.places[id] = p
		}
		p.waiting++
		joined[i] = p
	}
	return joined, nil
}

func (w *waiters) leave(ids []uuid.UUID, places []*place) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, p := range places {
		if p.waiting--; p.waiting == 0 && w.places[ids[i]] == p {
			delete(w.places, ids[i])
		}
	}
}

func (w *waiters) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.places)
}

func (w *waiters) ids() []uuid.UUID {
	w.mu.Lock()
	defer w.mu.Unlock()
	ids := make([]uuid.UUID, 0, len(w.places))
	for id := range w.places {
		ids = append(ids, id)
	}
	return ids
}

// deliver wakes those who wait for the entries, and returns which of the awaited
// events have still not been delivered.
func (w *waiters) deliver(entries []Entry, awaited []uuid.UUID) (missing []uuid.UUID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range entries {
		if p := w.places[e.ID]; p != nil {
			p.entry = e
			close(p.done)
			delete(w.places, e.ID)
		}
	}
	for _, id := range awaited {
		if w.places[id] != nil {
			missing = append(missing, id)
		}
	}
	return missing
}

// fail wakes everybody with an error.
func (w *waiters) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, p := range w.places {
		p.err = err
		close(p.done)
		delete(w.places, id)
	}
}
