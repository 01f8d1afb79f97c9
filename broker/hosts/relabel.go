package hosts

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"k8s.io/apimachinery/pkg/labels"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/audit/event"
	"sallyport/internal/refusal"
)

// MaxRelabelled is how many hosts one call changes at most: each change is an event.
const MaxRelabelled = 1000

// Refusals of a change of many hosts' labels.
var (
	ErrRelabel = refusal.New(refusal.Invalid, "labels-change",
		"this changes no labels of any host", "say which hosts, and labels to set or to remove, but none of them both")
	ErrTooManyHosts = refusal.New(refusal.Invalid, "labels-too-many-hosts",
		"the selector fits more than 1000 hosts", "change them in parts").On("selector")
)

// Relabel sets and removes labels of all hosts that the selector fits, all together or
// none. It returns those that are different afterwards, and with DryRun changes nothing.
// Operators only: labels decide which rules apply.
func (r *Registry) Relabel(ctx context.Context, c identity.Caller, in api.LabelsInput) ([]api.Host, error) {
	if err := r.OnlyOperators(ctx, c, "hosts.labels", ""); err != nil {
		return nil, err
	}
	selector, err := labels.Parse(in.Selector)
	if err != nil {
		return nil, ErrSelector.With("the label selector cannot be read: %v", err)
	}
	both := func(key string) bool { _, set := in.Set[key]; return set }
	if in.Selector == "" || len(in.Set)+len(in.Remove) == 0 || slices.ContainsFunc(in.Remove, both) {
		return nil, ErrRelabel
	}
	if err := checkLabels(in.Set); err != nil {
		return nil, err
	}
	var changed []api.Host
	err = pgx.BeginFunc(ctx, r.cfg.Pool, func(tx pgx.Tx) error {
		changed = nil
		list, err := fitting(ctx, tx, selector)
		if err != nil {
			return err
		}
		now := r.cfg.Clock.Now()
		var events []event.Event
		for _, h := range list {
			after := maps.Clone(h.Labels)
			maps.Copy(after, in.Set)
			for _, key := range in.Remove {
				delete(after, key)
			}
			if maps.Equal(after, h.Labels) {
				continue
			}
			if err := checkLabels(after); err != nil {
				return err
			}
			h.Labels = after
			if changed = append(changed, h); len(changed) > MaxRelabelled {
				return ErrTooManyHosts
			}
			if in.DryRun {
				continue
			}
			if _, err := tx.Exec(ctx, `UPDATE hosts SET labels = $2, changed_at = $3 WHERE id = $1`, h.ID, after, now); err != nil {
				return fmt.Errorf("changing a host's labels: %w", err)
			}
			events = append(events, c.Event(now, event.Subject{HostID: h.ID}, event.HostChanged{
				Name: h.Name, Address: h.Address, Labels: h.Labels, Logins: h.Logins, HostKey: fingerprint(h.HostKey)}))
		}
		return r.cfg.Log.Stage(ctx, tx, events...)
	})
	if err != nil {
		return nil, err
	}
	r.cfg.Log.Kick()
	slices.SortFunc(changed, func(a, b api.Host) int { return strings.Compare(a.Name, b.Name) })
	return changed, nil
}

// fitting locks the live hosts that the selector fits, and no others: certificates are
// issued for those meanwhile.
func fitting(ctx context.Context, tx pgx.Tx, selector labels.Selector) ([]api.Host, error) {
	read := func(sql string, args ...any) ([]api.Host, error) {
		rows, err := tx.Query(ctx, `SELECT `+columns+` FROM hosts WHERE removed_at IS NULL `+sql, args...)
		if err != nil {
			return nil, fmt.Errorf("reading hosts: %w", err)
		}
		list, err := pgx.CollectRows(rows, scan)
		if err != nil {
			return nil, fmt.Errorf("reading hosts: %w", err)
		}
		return slices.DeleteFunc(list, func(h api.Host) bool { return !selector.Matches(labels.Set(h.Labels)) }), nil
	}
	list, err := read(``)
	if err != nil {
		return nil, err
	}
	keys := make([]string, len(list))
	for i, h := range list {
		keys[i] = h.ID
	}
	return read(`AND id = ANY ($1) ORDER BY id FOR UPDATE`, keys)
}
