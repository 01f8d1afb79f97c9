package broker

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"sallyport/audit/event"
)

const (
	// maxResults is how many results may wait to be written: minutes of a database
	// that hangs, at full speed. What comes on top is given up, and said so.
	maxResults = 16384
	// resultsBatch is how many results one transaction stages at most.
	resultsBatch = 512
	// A failed write is tried again after pauses from minResultPause, doubled up to
	// maxResultPause.
	minResultPause, maxResultPause = 50 * time.Millisecond, 5 * time.Second
	// resultLimit bounds one write.
	resultLimit = 30 * time.Second
)

// results writes what came of intents into the log, beside the calls that caused
// them: nobody waits for it, and one transaction takes all that waits. A process
// that dies takes those that still wait with it, and whoever reads the log then
// sees an intent without a result.
type results struct {
	write  func(ctx context.Context, events []event.Event) error
	logger *slog.Logger

	mu      sync.Mutex
	waiting []event.Event
	lost    int           // given up since the last that was said
	idle    chan struct{} // closed when nothing waits and nobody writes; nil: so it is
	closed  bool
	stop    context.CancelFunc // ends the write and its pauses
}

// writeResults appends events that change no state.
func (b *Broker) writeResults(ctx context.Context, events []event.Event) error {
	return b.cfg.Log.Append(ctx, events...)
}

// add hands over a result. It never blocks.
func (r *results) add(e event.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || len(r.waiting) >= maxResults {
		r.lost++
		if r.closed {
			r.tell()
		}
		return
	}
	r.waiting = append(r.waiting, e)
	if r.idle == nil {
		ctx, stop := context.WithCancel(context.Background())
		r.idle, r.stop = make(chan struct{}), stop
		go r.run(ctx, r.idle)
	}
}

// run writes until nothing waits. One runs at a time, and none while there is
// nothing to do.
func (r *results) run(ctx context.Context, idle chan struct{}) {
	defer close(idle)
	pause := minResultPause
	for {
		batch := r.next()
		if len(batch) == 0 {
			return
		}
		limited, cancel := context.WithTimeout(ctx, resultLimit)
		err := r.write(limited, batch)
		cancel()
		if err == nil {
			r.drop(len(batch))
			pause = minResultPause
			continue
		}
		if ctx.Err() == nil {
			r.logger.Warn("results of certificates could not be written; it will be tried again", "results", len(batch), "error", err)
		}
		select {
		case <-ctx.Done():
			r.giveUp()
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, maxResultPause)
	}
}

// next is what to write now; nothing means that run ends.
func (r *results) next() []event.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tell()
	if len(r.waiting) == 0 {
		r.idle = nil
		r.stop()
		return nil
	}
	return r.waiting[:min(len(r.waiting), resultsBatch):min(len(r.waiting), resultsBatch)]
}

func (r *results) drop(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting = r.waiting[n:]
	if len(r.waiting) == 0 {
		r.waiting = nil // let go of the array
	}
}

func (r *results) giveUp() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lost += len(r.waiting)
	r.waiting, r.idle = nil, nil
	r.tell()
}

// tell says how many were given up. The caller holds the lock.
func (r *results) tell() {
	if r.lost > 0 {
		r.logger.Error("results of certificates are not in the log: their intents stand there without", "results", r.lost)
		r.lost = 0
	}
}

// settle returns when everything that waits is written. If ctx ends before, what
// is left is given up; and what is added later, too.
func (r *results) settle(ctx context.Context) error {
	r.mu.Lock()
	r.closed = true
	idle, stop := r.idle, r.stop
	r.mu.Unlock()
	if idle == nil {
		return nil
	}
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		stop()
		<-idle
		return errors.New("the results of some certificates could not be written any more")
	}
}

// Close writes what came of the certificates that were signed last, and is to be
// called when no more are asked for. It waits as long as ctx lets it.
func (b *Broker) Close(ctx context.Context) error { return b.results.settle(ctx) }
