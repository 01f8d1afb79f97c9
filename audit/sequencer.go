package audit

import (
	"context"
	"fmt"
	"sync"
	"time"
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
	var upkeep sync.WaitGroup
	upkeep.Go(func() { l.upkeep(ctx) })
	defer upkeep.Wait()
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
