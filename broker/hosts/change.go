package hosts

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/crypto/ssh"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/audit/event"
	"sallyport/broker/certs"
	"sallyport/internal/ids"
	"sallyport/internal/names"
	"sallyport/internal/refusal"
)

// Refusals of a change.
var (
	ErrNotOperator = refusal.New(refusal.Denied, "not-operator", "only operators keep the hosts",
		"ask somebody in a group that the policy's roles name under operator")
	ErrNameTaken = refusal.New(refusal.Conflict, "host-name-taken", "another host has this name",
		"choose another name, or remove the other host first").On("name")
)

// OnlyOperators lets operators pass. That anybody else tried the action is an event.
func (r *Registry) OnlyOperators(ctx context.Context, c identity.Caller, action, hostID string) error {
	if c.Has(api.Operator) {
		return nil
	}
	r.cfg.Log.Refused(ctx, c.Event(r.cfg.Clock.Now(), event.Subject{HostID: hostID},
		event.AccessRefused{Action: action, Code: ErrNotOperator.Code, Reason: ErrNotOperator.Detail}))
	return ErrNotOperator
}

// Register adds a host. Operators only, as are the next two.
func (r *Registry) Register(ctx context.Context, c identity.Caller, in api.HostInput) (api.Host, error) {
	if err := r.OnlyOperators(ctx, c, "hosts.register", ""); err != nil {
		return api.Host{}, err
	}
	var h api.Host
	err := r.change(ctx, func(tx pgx.Tx) (_ *event.Event, err error) {
		h, err = r.Add(ctx, tx, Operator(c), ids.New(ids.Host), in)
		return nil, err
	})
	return h, err
}

// Change replaces a host's description. Its id stays. A description that is the
// same already changes nothing and is no event.
func (r *Registry) Change(ctx context.Context, c identity.Caller, nameOrID string, in api.HostInput) (api.Host, error) {
	if err := r.OnlyOperators(ctx, c, "hosts.change", reference(nameOrID)); err != nil {
		return api.Host{}, err
	}
	in, err := normal(in)
	if err != nil {
		return api.Host{}, err
	}
	var h api.Host
	err = r.change(ctx, func(tx pgx.Tx) (*event.Event, error) {
		before, err := r.lock(ctx, tx, nameOrID)
		if err != nil {
			return nil, err
		}
		if h = describe(before, in); same(before, h) {
			return nil, nil
		}
		now := r.cfg.Clock.Now()
		_, err = tx.Exec(ctx, `
			UPDATE hosts SET name = $2, address = $3, labels = $4, logins = $5, host_key = $6, changed_at = $7
			WHERE id = $1`, h.ID, h.Name, h.Address, h.Labels, h.Logins, h.HostKey, now)
		if err != nil {
			return nil, fmt.Errorf("changing a host: %w", err)
		}
		e := c.Event(now, event.Subject{HostID: h.ID}, event.HostChanged{
			Name: h.Name, Address: h.Address, Labels: h.Labels, Logins: h.Logins, HostKey: fingerprint(h.HostKey)})
		return &e, nil
	})
	if err != nil {
		return api.Host{}, err
	}
	return h, nil
}

// Remove takes a host out: it can no longer be asked for, and running grants on
// it yield no more certificates. Its history stays; its name becomes free.
func (r *Registry) Remove(ctx context.Context, c identity.Caller, nameOrID string) error {
	if err := r.OnlyOperators(ctx, c, "hosts.remove", reference(nameOrID)); err != nil {
		return err
	}
	return r.change(ctx, func(tx pgx.Tx) (*event.Event, error) {
		h, err := r.lock(ctx, tx, nameOrID)
		if err != nil {
			return nil, err
		}
		now := r.cfg.Clock.Now()
		if _, err = tx.Exec(ctx, `UPDATE hosts SET removed_at = $2 WHERE id = $1`, h.ID, now); err != nil {
			return nil, fmt.Errorf("removing a host: %w", err)
		}
		e := c.Event(now, event.Subject{HostID: h.ID}, event.HostRemoved{Name: h.Name})
		return &e, nil
	})
}

// change runs do and stages its event in one transaction.
func (r *Registry) change(ctx context.Context, do func(pgx.Tx) (*event.Event, error)) error {
	err := pgx.BeginFunc(ctx, r.cfg.Pool, func(tx pgx.Tx) error {
		e, err := do(tx)
		if err != nil || e == nil {
			return err
		}
		return r.cfg.Log.Stage(ctx, tx, *e)
	})
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.ConstraintName == "hosts_live_name" {
		return ErrNameTaken
	}
	if err != nil {
		return err
	}
	r.cfg.Log.Kick()
	return nil
}

func (r *Registry) lock(ctx context.Context, tx pgx.Tx, nameOrID string) (api.Host, error) {
	if !names.Host(nameOrID) {
		return api.Host{}, approvals.ErrUnknownHost
	}
	return find(ctx, tx, nameOrID, "FOR UPDATE")
}

// reference is what an event about an attempt may repeat of the caller's words.
func reference(nameOrID string) string {
	if ids.Valid(ids.Host, nameOrID) {
		return nameOrID
	}
	return ""
}

func describe(h api.Host, in api.HostInput) api.Host {
	h.Name, h.Address, h.Labels, h.Logins, h.HostKey = in.Name, in.Address, in.Labels, in.Logins, in.HostKey
	return h
}

func same(a, b api.Host) bool {
	return a.Name == b.Name && a.Address == b.Address && a.HostKey == b.HostKey &&
		maps.Equal(a.Labels, b.Labels) && slices.Equal(a.Logins, b.Logins)
}

// fingerprint is that of a key that was parsed before, or empty for none.
func fingerprint(line string) string {
	key, err := certs.ParseKey(line)
	if err != nil {
		return ""
	}
	return ssh.FingerprintSHA256(key)
}
