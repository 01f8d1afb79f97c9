package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"golang.org/x/crypto/ssh"

	"sallyport/api"
	"sallyport/api/hostapi"
	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/audit/event"
	"sallyport/broker/certs"
	"sallyport/broker/hosts"
	"sallyport/internal/ids"
	"sallyport/internal/throttle"
)

const (
	// pendingLife is how long a host waits to be let in.
	pendingLife = 24 * time.Hour
	// MaxPending is how many hosts may wait, and maxPendingFrom how many from one
	// network, so that no one can keep others out.
	MaxPending, maxPendingFrom = 200, 20
)

// enrolment is a row of enrolments.
type enrolment struct {
	id, key, name, address, source string
	logins                         []string
	facts                          hostapi.Facts
	asked, expires                 time.Time
	state, hostID                  string
}

const enrolmentColumns = `id, host_key, name, address, source, logins, facts, asked_at, expires_at, state, coalesce(host_id, '')`

func scanEnrolment(row pgx.CollectableRow) (e enrolment, err error) {
	err = row.Scan(&e.id, &e.key, &e.name, &e.address, &e.source, &e.logins, &e.facts, &e.asked, &e.expires, &e.state, &e.hostID)
	e.asked, e.expires = e.asked.UTC(), e.expires.UTC()
	return e, err
}

func (e enrolment) fingerprint() string {
	key, err := certs.ParseKey(e.key)
	if err != nil {
		return ""
	}
	return ssh.FingerprintSHA256(key)
}

func (e enrolment) pending() *hostapi.Pending {
	return &hostapi.Pending{ID: e.id, Fingerprint: e.fingerprint(), ExpiresAt: e.expires}
}

// wait writes down that a host wants in. One that asks again is told the same; what it
// proposes is bounded, and nothing of it is in the log before an operator has looked.
func (s *Service) wait(ctx context.Context, c candidate) (*hostapi.Pending, error) {
	proposed := api.HostInput{Name: cmp.Or(c.in.Name, "unnamed"), Logins: c.in.Logins}
	if len(proposed.Logins) == 0 {
		proposed.Logins = []string{"root"} // to be checked with the rest; an operator says which
	}
	if err := hosts.CheckDescription(proposed); err != nil {
		return nil, err
	}
	address, err := hosts.Address(c.in.Address)
	if err != nil {
		return nil, err
	}
	now := s.cfg.Clock.Now()
	e := enrolment{id: ids.New(ids.Enrolment), key: c.key, name: c.in.Name, address: address, source: c.source,
		logins: append([]string{}, c.in.Logins...), facts: c.in.Facts, asked: now, expires: now.Add(pendingLife), state: "waiting"}
	err = s.change(ctx, func(tx pgx.Tx) error {
		if err := oneByOne(ctx, tx); err != nil {
			return err
		}
		if err := s.keyIsFree(ctx, tx, c.key, ""); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `UPDATE enrolments SET state = 'expired' WHERE state = 'waiting' AND expires_at <= $1`, now); err != nil {
			return fmt.Errorf("letting enrolments expire: %w", err)
		}
		waiting, err := enrolments(ctx, tx, `WHERE state = 'waiting'`)
		if err != nil {
			return err
		}
		here := 0
		for _, w := range waiting {
			if w.key == c.key {
				e = w
				return nil
			}
			if throttle.Network(w.source) == throttle.Network(c.source) {
				here++
			}
		}
		if len(waiting) >= MaxPending || here >= maxPendingFrom {
			return ErrTooManyPending
		}
		_, err = tx.Exec(ctx, `
			INSERT INTO enrolments (id, host_key, name, address, source, logins, facts, asked_at, expires_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
			e.id, e.key, e.name, e.address, e.source, e.logins, e.facts, e.asked, e.expires)
		if err != nil {
			return fmt.Errorf("writing down an enrolment: %w", err)
		}
		return nil
	})
	return e.pending(), err
}

type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

func enrolments(ctx context.Context, q querier, where string, args ...any) ([]enrolment, error) {
	rows, err := q.Query(ctx, `SELECT `+enrolmentColumns+` FROM enrolments `+where, args...)
	if err != nil {
		return nil, fmt.Errorf("reading enrolments: %w", err)
	}
	list, err := pgx.CollectRows(rows, scanEnrolment)
	if err != nil {
		return nil, fmt.Errorf("reading enrolments: %w", err)
	}
	return list, nil
}

// Pending lists the hosts that wait to be let in, oldest first. Operators only.
func (s *Service) Pending(ctx context.Context, c identity.Caller) ([]api.PendingHost, error) {
	if err := s.onlyOperators(ctx, c, "hosts.pending"); err != nil {
		return nil, err
	}
	list, err := enrolments(ctx, s.cfg.Pool, `WHERE state = 'waiting' AND expires_at > $1 ORDER BY asked_at, id`, s.cfg.Clock.Now())
	if err != nil {
		return nil, err
	}
	out := make([]api.PendingHost, len(list))
	for i, e := range list {
		out[i] = api.PendingHost{ID: e.id, Fingerprint: e.fingerprint(), HostKey: e.key, Name: e.name, Address: e.address,
			Logins: e.logins, Source: e.source, OS: e.facts.OS, OpenSSH: e.facts.OpenSSH, AskedAt: e.asked, ExpiresAt: e.expires}
	}
	return out, nil
}

// Approve lets a pending host in. Operators only. The operator says the fingerprint,
// which they have from the host itself: what somebody else announced in its name has
// another one. An address that they do not say is the host's own word (Enrol, 5). Labels, by which rules find hosts, are never the host's to propose.
func (s *Service) Approve(ctx context.Context, c identity.Caller, id string, in api.PendingDecision) (api.Host, error) {
	var h api.Host
	err := s.decide(ctx, c, "hosts.approve", id, func(tx pgx.Tx, e enrolment) error {
		if in.Fingerprint != e.fingerprint() {
			return ErrFingerprint // and not which key: it is to be read on the host
		}
		if err := s.keyIsFree(ctx, tx, e.key, ""); err != nil {
			return err
		}
		logins := in.Logins
		if len(logins) == 0 {
			logins = e.logins
		}
		by := hosts.Operator(c)
		name, address, proposed := cmp.Or(in.Name, e.name), in.Address, ""
		known, err := s.cfg.Hosts.Lock(ctx, tx, name)
		switch {
		case err == nil && !ids.Valid(ids.Host, name) && known.HostKey == e.key && len(in.Labels) == 0 && len(in.Logins) == 0:
			// Registered by hand, with this very key: now it speaks for itself.
			h, err = s.cfg.Hosts.Rekey(ctx, tx, by, known.ID, e.key)
		case err == nil || errors.Is(err, approvals.ErrUnknownHost):
			if address == "" {
				if proposed, err = proposal(e.address); err != nil {
					return err
				}
				address = proposed
			}
			h, err = s.cfg.Hosts.Add(ctx, tx, by, ids.New(ids.Host), api.HostInput{Name: name,
				Address: address, Labels: in.Labels, Logins: logins, HostKey: e.key})
		}
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `UPDATE enrolments SET state = 'approved', host_id = $2, decided_by = $3, decided_at = $4 WHERE id = $1`,
			e.id, h.ID, c.ID, s.cfg.Clock.Now()); err != nil {
			return fmt.Errorf("approving an enrolment: %w", err)
		}
		cand := candidate{in: hostapi.EnrolmentInput{Facts: e.facts}, key: e.key, print: e.fingerprint(), source: e.source}
		return s.letIn(ctx, tx, cand, h, by, letting{c.Actor(), proposed, e.id, ""})
	})
	return h, err
}

// Refuse sends a pending host away. Operators only. It may ask again, and is then
// another one that waits.
func (s *Service) Refuse(ctx context.Context, c identity.Caller, id, reason string) error {
	why, err := approvals.CheckWhy(reason)
	if err != nil {
		return err
	}
	return s.decide(ctx, c, "hosts.refuse", id, func(tx pgx.Tx, e enrolment) error {
		now := s.cfg.Clock.Now()
		if _, err := tx.Exec(ctx, `UPDATE enrolments SET state = 'refused', decided_by = $2, decided_at = $3 WHERE id = $1`, e.id, c.ID, now); err != nil {
			return fmt.Errorf("refusing an enrolment: %w", err)
		}
		return s.cfg.Log.Stage(ctx, tx, c.Event(now, event.Subject{}, event.EnrolmentRefused{
			EnrolmentID: e.id, Name: e.name, HostKey: e.fingerprint(), Code: ErrRefused.Code, Reason: why}))
	})
}

// decide runs what an operator decides on an enrolment that waits.
func (s *Service) decide(ctx context.Context, c identity.Caller, action, id string, do func(pgx.Tx, enrolment) error) error {
	if err := s.onlyOperators(ctx, c, action); err != nil {
		return err
	}
	if !ids.Valid(ids.Enrolment, id) {
		return ErrUnknownPending
	}
	return s.change(ctx, func(tx pgx.Tx) error {
		if err := oneByOne(ctx, tx); err != nil {
			return err
		}
		list, err := enrolments(ctx, tx, `WHERE id = $1 AND state = 'waiting' AND expires_at > $2 FOR UPDATE`, id, s.cfg.Clock.Now())
		if err != nil {
			return err
		}
		if len(list) == 0 {
			return ErrUnknownPending
		}
		return do(tx, list[0])
	})
}
