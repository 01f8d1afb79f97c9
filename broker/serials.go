package broker

import (
	"context"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// serialBlock is how many serials of users' certificates a process takes at once. What
// it has left when it ends are gaps, which are no certificates.
const serialBlock = 32

// serials hands out serials, each once.
type serials struct {
	mu   sync.Mutex
	left []int64
}

func (s *serials) next(ctx context.Context, pool *pgxpool.Pool) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.left) == 0 {
		rows, err := pool.Query(ctx, `SELECT nextval('certificate_serial') FROM generate_series(1, $1)`, serialBlock)
		if err != nil {
			return 0, fmt.Errorf("allocating serials: %w", err)
		}
		if s.left, err = pgx.CollectRows(rows, pgx.RowTo[int64]); err != nil {
			return 0, fmt.Errorf("allocating serials: %w", err)
		}
	}
	serial := s.left[0]
	s.left = s.left[1:]
	return uint64(serial), nil
}
