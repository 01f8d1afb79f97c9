package audit

import (
	"context"
	"time"
)

// upkeepEvery is how often a log looks for upkeep to do.
const upkeepEvery = 2 * time.Second

// digestAll does the log's upkeep until the context ends, beside the sequencer, which
// does not wait for it: it makes partitions ahead, and sums up blocks for searches, at
// once while there are full ones.
func (l *Log) digestAll(ctx context.Context) {
	ticker := time.NewTicker(upkeepEvery)
	defer ticker.Stop()
	for {
		l.extend(ctx)
		for l.digest(ctx) {
			if ctx.Err() != nil {
				return
			}
			l.extend(ctx)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
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
