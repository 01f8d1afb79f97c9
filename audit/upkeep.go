package audit

import (
	"context"
	"time"
)

const (
	// upkeepEvery is how often a log looks for upkeep to do.
	upkeepEvery = 2 * time.Second
	// digestRest is how many times as long as it worked it rests when it has not caught up.
	digestRest = 4
)

// upkeep is done until the context ends, beside the sequencer, which does not wait for
// it: partitions are made ahead, and blocks are summed up for searches, at once while
// there are full ones. While the log grows it rests in between, several times as long
// as it worked, so that the database has its hands free for what people wait for; what
// it leaves for later, searches read entry by entry.
func (l *Log) upkeep(ctx context.Context) {
	for {
		l.extend(ctx)
		began, before := time.Now(), l.known.load().size
		rest := upkeepEvery
		if l.digest(ctx) {
			if rest = 0; l.known.load().size > before {
				rest = digestRest * time.Since(began)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(rest):
		}
	}
}

// extend makes the partitions that the log will need next (migration 020). That it
// fails is no reason to stop: the log goes on until there is no more room, and then
// takes nothing until there is (P9).
func (l *Log) extend(ctx context.Context) {
	var made int
	if err := l.cfg.Pool.QueryRow(ctx, "SELECT audit.extend()").Scan(&made); err != nil && ctx.Err() == nil {
		l.logger.ErrorContext(ctx, "making the log's next partitions failed", "error", err)
	}
}
