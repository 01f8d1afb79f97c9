package audit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/audit/event"
	"sallyport/migrations"
)

// RecordChange commits an event about how things are now, unless the newest event of
// its type says that they were so already. describe is given that event's data, nil
// if there is none that this program can read, and returns the event, or false if
// there is nothing new. Brokers that start at once come one after the other.
func (l *Log) RecordChange(ctx context.Context, eventType string, describe func(before event.Data) (event.Event, bool)) error {
	err := pgx.BeginTxFunc(ctx, l.cfg.Pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
		before, err := newest(ctx, tx, eventType)
		if err != nil {
			return err
		}
		e, changed := describe(before)
		if !changed {
			return nil
		}
		return l.Stage(ctx, tx, e)
	})
	if err != nil {
		return fmt.Errorf("recording %s: %w", eventType, unavailable(err))
	}
	l.Kick()
	return nil
}

// newest is the data of the newest event of a type, in the log or on its way there.
// Until the transaction ends, nobody else who asks like this gets an answer.
func newest(ctx context.Context, tx pgx.Tx, eventType string) (event.Data, error) {
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('newest event ' || $1, 0))`, eventType); err != nil {
		return nil, err
	}
	var leaf []byte
	err := tx.QueryRow(ctx, `
		SELECT leaf FROM (
			(SELECT leaf, true AS waits FROM audit.pending WHERE type = $1 ORDER BY arrival DESC LIMIT 1)
			UNION ALL
			(SELECT leaf, false FROM audit.entries WHERE type = $1 ORDER BY index DESC LIMIT 1)) AS found
		ORDER BY waits DESC LIMIT 1`, eventType).Scan(&leaf)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	e, err := event.Decode(leaf)
	if err != nil {
		return nil, nil // a newer program's, or gone: then this is news
	}
	return e.Data, nil
}

// RecordSchema records that the database has been migrated, if the log does not say
// so yet, and returns the number of its newest migration.
func (l *Log) RecordSchema(ctx context.Context) (int, error) {
	schema, err := migrations.Version(ctx, l.cfg.Pool)
	if err != nil {
		return 0, err
	}
	return schema, l.RecordChange(ctx, migrated, func(before event.Data) (event.Event, bool) {
		return migratedTo(schema, before, l.cfg.Clock.Now())
	})
}

// Migrated does the same at once, right after the migration, for the administrator who
// is connected and has no log open. The event waits for the next broker that runs.
func Migrated(ctx context.Context, conn *pgx.Conn, now time.Time) error {
	err := pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
		schema, err := migrations.Version(ctx, tx)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "SET LOCAL ROLE sallyport_owner"); err != nil {
			return err
		}
		before, err := newest(ctx, tx, migrated)
		if err != nil {
			return err
		}
		e, changed := migratedTo(schema, before, now)
		if !changed {
			return nil
		}
		leaf, err := e.Encode()
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, "SELECT audit.enqueue($1)", [][]byte{leaf})
		return err
	})
	if err != nil {
		return fmt.Errorf("recording the migration: %w", err)
	}
	return nil
}

const migrated = "database.migrated"

func migratedTo(schema int, before event.Data, now time.Time) (event.Event, bool) {
	last, _ := before.(event.DatabaseMigrated)
	return event.New(now, event.Actor{Kind: event.Broker}, "", event.Subject{},
		event.DatabaseMigrated{Before: last.Schema, Schema: schema}), last.Schema != schema
}
