// Package hosts is the registry of machines that can be asked for. Operators
// keep it; every change is an event, committed with it.
//
// A host's id is for good and stands in certificates (P2); its name is for
// people and may, once the host has been removed, belong to another one.
package hosts

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"k8s.io/apimachinery/pkg/labels"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/audit"
	"sallyport/internal/clock"
	"sallyport/internal/ids"
	"sallyport/internal/names"
	"sallyport/internal/refusal"
)

// Config is what the registry needs; all of it must be set.
type Config struct {
	Pool  *pgxpool.Pool
	Log   *audit.Log
	Clock clock.Clock
}

// Registry is the list of hosts. It is safe for concurrent use.
type Registry struct {
	cfg    Config
	memory memory
}

// New returns the registry.
func New(cfg Config) (*Registry, error) {
	if cfg.Pool == nil || cfg.Log == nil || cfg.Clock == nil {
		return nil, errors.New("hosts: the registry needs a pool, a log and a clock")
	}
	return &Registry{cfg: cfg}, nil
}

// Refusals of reading. A host that is not there is approvals.ErrUnknownHost, in
// the same words as one that the caller may not know of (P10).
var (
	ErrSelector = refusal.New(refusal.Invalid, "host-selector", "the label selector cannot be read",
		"write it as Kubernetes does: class=database,env in (prod,demo),!retired").On("selector")
	ErrPage = refusal.New(refusal.Invalid, "host-page", "there is no such page of the list",
		"give a limit from 1 to 200, and the cursor exactly as it was returned, or none")
)

const (
	defaultLimit = 50
	maxLimit     = 200
)

// Filter narrows List. Zero fields do not filter.
type Filter struct {
	Selector string // Kubernetes label-selector syntax
	Search   string // part of the name
	Cursor   string
	Limit    int // 1 to 200; 0 means 50
}

// List returns, by name, those of the hosts that keep returns, as it returns them. It
// is given them as stored, some at a time: without state and rules, which package
// broker adds for a caller. A page is full whatever keep leaves out, so that it tells
// nothing about those.
func (r *Registry) List(ctx context.Context, f Filter, keep func([]api.Host) ([]api.Host, error)) (api.Page[api.Host], error) {
	page := api.Page[api.Host]{Items: []api.Host{}}
	selector, err := labels.Parse(f.Selector)
	if err != nil {
		return page, ErrSelector.With("the label selector cannot be read: %v", err)
	}
	limit := f.Limit
	if limit == 0 {
		limit = defaultLimit
	}
	after, err := base64.RawURLEncoding.DecodeString(f.Cursor)
	last := string(after)
	if err != nil || last != "" && !names.Host(last) || limit < 1 || limit > maxLimit {
		return page, ErrPage
	}
	f.Search = strings.ToLower(f.Search)
	if strings.Trim(f.Search, nameCharacters) != "" {
		return page, nil // no name has that
	}
	for {
		batch, err := r.batch(ctx, f.Search, last)
		if err != nil {
			return page, err
		}
		whole := len(batch) < maxLimit
		if !whole {
			last = batch[len(batch)-1].Name
		}
		kept, err := keep(slices.DeleteFunc(batch, func(h api.Host) bool { return !selector.Matches(labels.Set(h.Labels)) }))
		if err != nil {
			return page, err
		}
		if page.Items = append(page.Items, kept...); len(page.Items) > limit {
			page.Items = page.Items[:limit]
			page.Next = base64.RawURLEncoding.EncodeToString([]byte(page.Items[limit-1].Name))
			return page, nil
		}
		if whole {
			return page, nil
		}
	}
}

const columns = `id, name, address, labels, logins, host_key, created_at, quarantined_at, quarantine`

// batch is up to maxLimit live hosts whose name contains search and comes after last.
func (r *Registry) batch(ctx context.Context, search, last string) ([]api.Host, error) {
	rows, err := r.cfg.Pool.Query(ctx, `
		SELECT `+columns+` FROM hosts
		WHERE removed_at IS NULL AND strpos(name, $1) > 0 AND name > $2
		ORDER BY name LIMIT $3`, search, last, maxLimit)
	if err != nil {
		return nil, fmt.Errorf("listing hosts: %w", err)
	}
	list, err := pgx.CollectRows(rows, scan)
	if err != nil {
		return nil, fmt.Errorf("listing hosts: %w", err)
	}
	return list, nil
}

func scan(row pgx.CollectableRow) (h api.Host, err error) { return scanAnd(row) }

// scanAnd also scans what was selected after columns.
func scanAnd(row pgx.CollectableRow, also ...any) (h api.Host, err error) {
	var since *time.Time
	var why string
	err = row.Scan(append([]any{&h.ID, &h.Name, &h.Address, &h.Labels, &h.Logins, &h.HostKey, &h.CreatedAt, &since, &why}, also...)...)
	h.CreatedAt = h.CreatedAt.In(time.UTC)
	if since != nil {
		h.Quarantine = &api.Quarantine{Since: since.UTC(), Reason: why}
	}
	return h, err
}

// querier is a pool or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// find is the live host of that id or name. What has the form of an id is one:
// no name does.
func find(ctx context.Context, q querier, nameOrID, lock string) (api.Host, error) {
	column := "name"
	if ids.Valid(ids.Host, nameOrID) {
		column = "id"
	}
	rows, err := q.Query(ctx, `SELECT `+columns+` FROM hosts WHERE `+column+` = $1 AND removed_at IS NULL `+lock, nameOrID)
	if err != nil {
		return api.Host{}, fmt.Errorf("finding a host: %w", err)
	}
	h, err := pgx.CollectExactlyOneRow(rows, scan)
	if errors.Is(err, pgx.ErrNoRows) {
		return api.Host{}, approvals.ErrUnknownHost
	}
	if err != nil {
		return api.Host{}, fmt.Errorf("finding a host: %w", err)
	}
	return h, nil
}

// Get finds a host by id or name.
func (r *Registry) Get(ctx context.Context, nameOrID string) (api.Host, error) {
	if !names.Host(nameOrID) {
		return api.Host{}, approvals.ErrUnknownHost
	}
	return find(ctx, r.cfg.Pool, nameOrID, "")
}

// Hold is Get within a transaction, until the end of which nobody can change or
// remove the host.
func (r *Registry) Hold(ctx context.Context, tx pgx.Tx, nameOrID string) (api.Host, error) {
	if !names.Host(nameOrID) {
		return api.Host{}, approvals.ErrUnknownHost
	}
	return find(ctx, tx, nameOrID, "FOR SHARE")
}

// Target implements approvals.Hosts.
func (r *Registry) Target(ctx context.Context, nameOrID string) (approvals.Target, error) {
	h, err := r.Get(ctx, nameOrID)
	if err != nil {
		return approvals.Target{}, err
	}
	return approvals.Target{ID: h.ID, Name: h.Name, Labels: h.Labels, Logins: h.Logins}, nil
}
