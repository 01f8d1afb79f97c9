package hosts

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/audit/event"
)

// By is who keeps a host in the registry, or asks for its certificate: an operator, or a
// host that an operator let in.
type By struct {
	event.Actor
	OnBehalfOf *event.Actor     // the operator, if the actor is the host
	Policy     *event.PolicyRef // that makes the actor an operator; a host has none
	Source     string
}

// Operator is the caller, who is one.
func Operator(c identity.Caller) By {
	return By{Actor: c.Actor(), Policy: &c.Policy, Source: c.Source}
}

// Event is an event that they cause.
func (b By) Event(at time.Time, about event.Subject, data event.Data) event.Event {
	e := event.New(at, b.Actor, b.Source, about, data)
	e.OnBehalfOf, e.Policy = b.OnBehalfOf, b.Policy
	return e
}

// CheckDescription refuses what is known of a host as Register would. An address may be
// missing.
func CheckDescription(in api.HostInput) error {
	in.Address = cmp.Or(in.Address, "192.0.2.1") // any: it is not known yet
	_, err := normal(in)
	return err
}

// Add registers a host, with an id of its own, in the caller's transaction, together
// with its event. Who may do that is for the caller to say.
func (r *Registry) Add(ctx context.Context, tx pgx.Tx, by By, id string, in api.HostInput) (api.Host, error) {
	in, err := normal(in)
	if err != nil {
		return api.Host{}, err
	}
	now := r.cfg.Clock.Now()
	h := describe(api.Host{ID: id, CreatedAt: now}, in)
	_, err = tx.Exec(ctx, `
		INSERT INTO hosts (id, name, address, labels, logins, host_key, created_at, changed_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $7)`,
		h.ID, h.Name, h.Address, h.Labels, h.Logins, h.HostKey, now)
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.ConstraintName == "hosts_live_name" {
		return api.Host{}, ErrNameTaken
	}
	if err != nil {
		return api.Host{}, fmt.Errorf("registering a host: %w", err)
	}
	return h, r.cfg.Log.Stage(ctx, tx, by.Event(now, event.Subject{HostID: h.ID}, event.HostRegistered{
		Name: h.Name, Address: h.Address, Labels: h.Labels, Logins: h.Logins, HostKey: fingerprint(h.HostKey)}))
}

// Lock is Get within a transaction, until the end of which nobody can use, change or
// remove the host.
func (r *Registry) Lock(ctx context.Context, tx pgx.Tx, nameOrID string) (api.Host, error) {
	return r.lock(ctx, tx, nameOrID)
}

// Rekey gives a host another key, in the caller's transaction, together with its event.
// The same key is no change. It returns approvals.ErrUnknownHost if the host is gone.
func (r *Registry) Rekey(ctx context.Context, tx pgx.Tx, by By, id, key string) (api.Host, error) {
	h, err := r.lock(ctx, tx, id)
	if err != nil || h.HostKey == key {
		return h, err
	}
	if h.HostKey, err = normalKey(key); err != nil {
		return h, err
	}
	now := r.cfg.Clock.Now()
	if _, err := tx.Exec(ctx, `UPDATE hosts SET host_key = $2, changed_at = $3 WHERE id = $1`, h.ID, h.HostKey, now); err != nil {
		return h, fmt.Errorf("changing a host's key: %w", err)
	}
	return h, r.cfg.Log.Stage(ctx, tx, by.Event(now, event.Subject{HostID: h.ID}, event.HostChanged{
		Name: h.Name, Address: h.Address, Labels: h.Labels, Logins: h.Logins, HostKey: fingerprint(h.HostKey)}))
}

// Address returns where ssh reaches a host, with the port, or refuses it.
func Address(address string) (string, error) { return normalAddress(address) }
