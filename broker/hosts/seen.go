package hosts

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals"
)

// maxSeen is how many hosts are remembered at most.
const maxSeen = 16384

// Seen is a host as it was read, some time ago perhaps: QueueHold says whether it is
// still the same.
type Seen struct {
	api.Host
	version string
}

// memory remembers hosts by their ids. It forgets all of them when it is full.
type memory struct {
	mu    sync.Mutex
	hosts map[string]Seen
}

// Seen returns the host with the id, from memory if it was seen before.
func (r *Registry) Seen(ctx context.Context, id string) (Seen, error) {
	r.memory.mu.Lock()
	h, ok := r.memory.hosts[id]
	r.memory.mu.Unlock()
	if ok {
		return h, nil
	}
	rows, err := r.cfg.Pool.Query(ctx, `SELECT `+columns+`, xmin::text FROM hosts WHERE id = $1 AND removed_at IS NULL`, id)
	if err != nil {
		return Seen{}, fmt.Errorf("finding a host: %w", err)
	}
	h, err = pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) (h Seen, err error) {
		h.Host, err = scanAnd(row, &h.version)
		return h, err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return Seen{}, approvals.ErrUnknownHost
	}
	if err != nil {
		return Seen{}, fmt.Errorf("finding a host: %w", err)
	}
	r.memory.mu.Lock()
	defer r.memory.mu.Unlock()
	if r.memory.hosts == nil || len(r.memory.hosts) >= maxSeen {
		r.memory.hosts = make(map[string]Seen)
	}
	r.memory.hosts[id] = h
	return h, nil
}

// Forget makes the next Seen read the host anew.
func (r *Registry) Forget(id string) {
	r.memory.mu.Lock()
	defer r.memory.mu.Unlock()
	delete(r.memory.hosts, id)
}

// QueueHold asks which of the hosts are still as they were seen, and keeps those so
// until the transaction that the batch is sent in ends. found is called with the place
// of each. It does not wait for whoever is changing one.
func QueueHold(batch *pgx.Batch, seen []Seen, found func(place int)) {
	keys := make([]string, len(seen))
	for i, h := range seen {
		keys[i] = h.ID
	}
	batch.Queue(`
		SELECT id, xmin::text FROM hosts WHERE id = ANY ($1) AND removed_at IS NULL
		FOR SHARE SKIP LOCKED`, keys).Query(func(rows pgx.Rows) error {
		now := make(map[string]string, len(seen))
		var id, version string
		_, err := pgx.ForEachRow(rows, []any{&id, &version}, func() error {
			now[id] = version
			return nil
		})
		if err != nil {
			return fmt.Errorf("holding hosts: %w", err)
		}
		for i, h := range seen {
			if now[h.ID] == h.version && h.version != "" {
				found(i)
			}
		}
		return nil
	})
}
