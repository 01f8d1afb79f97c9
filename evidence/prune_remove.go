package evidence

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// lockPatience is how long one attempt to remove keeps the log waiting for others
	// who read it, at most; lockAttempts is how often it is tried, a second apart.
	lockPatience = 2 * time.Second
	lockAttempts = 60
)

// remove drops the plan's partitions. The log waits while they go, but not for those
// who read them.
func (p *Pruner) remove(ctx context.Context, plan *Plan) error {
	for attempt := 1; ; attempt++ {
		err := p.tryRemove(ctx, plan)
		var pg *pgconn.PgError
		busy := errors.As(err, &pg) && (pg.Code == "55P03" || pg.Code == "40P01") // lock_timeout, deadlock
		if !busy || attempt == lockAttempts {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

func (p *Pruner) tryRemove(ctx context.Context, plan *Plan) error {
	return pgx.BeginFunc(ctx, p.cfg.Admin, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, fmt.Sprintf("SET LOCAL ROLE sallyport_owner; SET LOCAL lock_timeout = %d", lockPatience.Milliseconds())); err != nil {
			return fmt.Errorf("removing: %w", err)
		}
		// As Make does: no pack is asked for meanwhile.
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('evidence packs', 0))`); err != nil {
			return fmt.Errorf("removing: %w", err)
		}
		var open int
		err := tx.QueryRow(ctx, `SELECT count(*) FROM evidence_packs WHERE state IN ('waiting', 'running')`).Scan(&open)
		if err != nil {
			return fmt.Errorf("removing: %w", err)
		}
		if open > 0 {
			return ErrPacksBeingMade
		}
		// They could not be made again where their files are not.
		_, err = tx.Exec(ctx, `UPDATE evidence_packs SET state = 'expired' WHERE state = 'ready' AND first < $1`, plan.Before)
		if err != nil {
			return fmt.Errorf("removing: %w", err)
		}
		var partitions int
		if err := tx.QueryRow(ctx, `SELECT audit.remove($1, $2)`, plan.Before, plan.Recorded.ID).Scan(&partitions); err != nil {
			return fmt.Errorf("removing: %w", err)
		}
		if err := p.step("removing"); err != nil {
			return err
		}
		p.cfg.Progress("removing %d partitions", partitions)
		return nil
	})
}
