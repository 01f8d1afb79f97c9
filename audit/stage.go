package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"sallyport/audit/event"
)

// Stage writes events into the caller's transaction, where they wait to be
// sequenced. If the transaction rolls back, they never were. Call Kick after the
// commit. The transaction must be READ COMMITTED, PostgreSQL's default.
//
// It refuses, before the caller's state has changed, when the log cannot be
// relied on: ErrBehind, ErrUnavailable or ErrBusy. Staging an event a second
// time, because a commit's outcome was unknown, changes nothing.
func (l *Log) Stage(ctx context.Context, tx pgx.Tx, events ...event.Event) error {
	if len(events) == 0 {
		return nil
	}
	if err := l.known.refused(); err != nil {
		return err
	}
	if l.waiters.count()+len(events) > maxWaiting {
		return ErrBusy
	}
	leaves := make([][]byte, len(events))
	for i, e := range events {
		var err error
		if leaves[i], err = e.Encode(); err != nil {
			return err
		}
	}
	known := l.known.load() // before reading: meanwhile the head may move on
	var size *int64
	if err := tx.QueryRow(ctx, "SELECT audit.enqueue($1)", leaves).Scan(&size); err != nil {
		return fmt.Errorf("staging %s: %w", events[0].Type, unavailable(err))
	}
	if size == nil {
		return l.behind(errors.New("the head is gone"))
	}
	if *size < known.size {
		return l.behind(fmt.Errorf("it has %d entries, the last known checkpoint %d", *size, known.size))
	}
	return nil
}

// refusedLimit bounds how long a refusal waits for its event to be committed.
const refusedLimit = 10 * time.Second

// Refused commits the event of a refusal, which changes no state, to be sequenced
// soon. It outlives a caller who hangs up: nobody can try something and keep it
// out of the log like that. It returns no error, because a refusal stands whether
// or not it could be recorded; that it could not is in the process's log.
func (l *Log) Refused(ctx context.Context, e event.Event) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), refusedLimit)
	defer cancel()
	if err := l.commit(ctx, e); err != nil {
		l.logger.ErrorContext(ctx, "a refusal could not be recorded", slog.String("type", e.Type), slog.Any("error", err))
		return
	}
	l.Kick()
}

// Record stages events in a transaction of their own and waits for them. It is
// for facts that change no state, where the caller must know that they are kept.
func (l *Log) Record(ctx context.Context, events ...event.Event) ([]Entry, error) {
	if len(events) == 0 {
		return nil, nil
	}
	if err := l.commit(ctx, events...); err != nil {
		return nil, unavailable(err)
	}
	ids := make([]uuid.UUID, len(events))
	for i, e := range events {
		ids[i] = e.ID
	}
	return l.Wait(ctx, ids...)
}

// commit stages events in a transaction of their own.
func (l *Log) commit(ctx context.Context, events ...event.Event) error {
	return pgx.BeginTxFunc(ctx, l.cfg.Pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
		return l.Stage(ctx, tx, events...)
	})
}
