package hosts

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/audit/event"
	"sallyport/internal/refusal"
)

// Refusals of a quarantine.
var (
	ErrQuarantined = refusal.New(refusal.Conflict, "host-quarantined",
		"an operator keeps the host shut", "ask an operator why; it opens again with: sally hosts release")
	ErrNotQuarantined = refusal.New(refusal.Conflict, "host-not-quarantined",
		"the host is not in quarantine", "see how it is: sally hosts show")
)

// Quarantine keeps a host shut until Release: it gets no certificates, those that there
// are open nothing any more, and the sessions that they opened end. Grants go on, and are
// good again afterwards. Operators only.
func (r *Registry) Quarantine(ctx context.Context, c identity.Caller, nameOrID, reason string) (api.Host, error) {
	if err := r.OnlyOperators(ctx, c, "hosts.quarantine", reference(nameOrID)); err != nil {
		return api.Host{}, err
	}
	return r.shut(ctx, c, nameOrID, reason, true)
}

// Release ends a quarantine. Operators only.
func (r *Registry) Release(ctx context.Context, c identity.Caller, nameOrID, reason string) (api.Host, error) {
	if err := r.OnlyOperators(ctx, c, "hosts.release", reference(nameOrID)); err != nil {
		return api.Host{}, err
	}
	return r.shut(ctx, c, nameOrID, reason, false)
}

// shut begins or ends a quarantine, with its event.
func (r *Registry) shut(ctx context.Context, c identity.Caller, nameOrID, reason string, begin bool) (h api.Host, err error) {
	why, err := approvals.CheckWhy(reason)
	if err != nil {
		return h, err
	}
	err = r.change(ctx, func(tx pgx.Tx) (*event.Event, error) {
		if h, err = r.lock(ctx, tx, nameOrID); err != nil {
			return nil, err
		}
		now := r.cfg.Clock.Now()
		var e event.Event
		switch about := (event.Subject{HostID: h.ID}); {
		case begin && h.Quarantine != nil:
			return nil, ErrQuarantined
		case begin:
			h.Quarantine = &api.Quarantine{Since: now, Reason: why}
			e = c.Event(now, about, event.HostQuarantined{Name: h.Name, Reason: why})
			_, err = tx.Exec(ctx, `UPDATE hosts SET quarantined_at = $2, quarantined_by = $3, quarantine = $4 WHERE id = $1`, h.ID, now, c.ID, why)
		case h.Quarantine == nil:
			return nil, ErrNotQuarantined
		default:
			h.Quarantine = nil
			e = c.Event(now, about, event.HostReleased{Name: h.Name, Reason: why})
			_, err = tx.Exec(ctx, `UPDATE hosts SET quarantined_at = NULL, quarantined_by = NULL, quarantine = '' WHERE id = $1`, h.ID)
		}
		if err != nil {
			return nil, fmt.Errorf("changing a host's quarantine: %w", err)
		}
		return &e, nil
	})
	return h, err
}
