package hosts

import (
	"context"
	"fmt"
	"slices"

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

// Logins are the logins of those of the hosts that are still there, by id.
func (r *Registry) Logins(ctx context.Context, ids []string) (map[string][]string, error) {
	rows, err := r.cfg.Pool.Query(ctx, `SELECT id, logins FROM hosts WHERE id = ANY ($1) AND removed_at IS NULL`, ids)
	if err != nil {
		return nil, fmt.Errorf("reading logins: %w", err)
	}
	found := map[string][]string{}
	var id string
	var logins []string
	_, err = pgx.ForEachRow(rows, []any{&id, &logins}, func() error {
		found[id] = slices.Clone(logins)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading logins: %w", err)
	}
	return found, nil
}
