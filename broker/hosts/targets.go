package hosts

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"sallyport/approvals"
)

// Targets implements approvals.Hosts.
func (r *Registry) Targets(ctx context.Context) ([]approvals.Target, error) {
	rows, err := r.cfg.Pool.Query(ctx, `SELECT id, name, labels, logins FROM hosts WHERE removed_at IS NULL ORDER BY name`)
	if err != nil {
		return nil, fmt.Errorf("listing hosts: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (t approvals.Target, err error) {
		err = row.Scan(&t.ID, &t.Name, &t.Labels, &t.Logins)
		return t, err
	})
	if err != nil {
		return nil, fmt.Errorf("listing hosts: %w", err)
	}
	return list, nil
}
