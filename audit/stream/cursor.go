package stream

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Cursor says how far a stream is that was ever configured.
type Cursor struct {
	Name, Destination string
	Next              int64 // entry to deliver
}

// Cursors are those of all streams, by name, for whoever must not take entries away
// from under them.
func Cursors(ctx context.Context, pool *pgxpool.Pool) ([]Cursor, error) {
	rows, err := pool.Query(ctx, `SELECT name, destination, next FROM log_streams ORDER BY name`)
	if err != nil {
		return nil, fmt.Errorf("reading how far streams are: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Cursor])
	if err != nil {
		return nil, fmt.Errorf("reading how far streams are: %w", err)
	}
	return list, nil
}
