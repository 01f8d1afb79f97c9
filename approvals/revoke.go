package approvals

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/audit/event"
	"sallyport/internal/refusal"
)

// Refusals of a revocation.
var (
	ErrBadRevocation = refusal.New(refusal.Invalid, "bad-revocation",
		"a revocation is of one thing", "name a request, a person, a host, a run or the serial of a certificate, and only one of them")
	ErrNoWhy = refusal.New(refusal.Invalid, "why-required",
		"that needs a reason", "say why, for whoever it stops and for whoever reads it later").On("reason")
	ErrNotOperator = refusal.New(refusal.Denied, "operators-only",
		"only operators may do that", "ask somebody in a group that the policy's roles name under operator")
)

// Revoke ends what the input names, at once and for good: no certificate is issued
// any more. The rules:
//
//  1. Operators revoke anybody's requests; others their own, which is the same as
//     being done with them.
//  2. A request loses its grant, with those that extend it; one that waits is
//     cancelled. Of a person it is all of them, and of a host all that are for it,
//     also if they are for others, too: whoever revokes a host does not trust it.
//
// Nothing left to revoke is no error: what the caller wants is so. That anybody
// else tried is an event.
func (s *Service) Revoke(ctx context.Context, c identity.Caller, in api.RevocationInput) (api.Revocation, error) {
	if in.Serial != "" || in.Agent != "" || len(in.Request+in.Person+in.Host) == 0 ||
		in.Request != "" && in.Person+in.Host != "" || in.Person != "" && in.Host != "" {
		return api.Revocation{}, ErrBadRevocation
	}
	why, err := CheckWhy(in.Reason)
	if err != nil {
		return api.Revocation{}, err
	}
	if in.Host != "" {
		return s.revokeHost(ctx, c, in.Host, why)
	}
	var of *request
	owner := in.Person
	if in.Request != "" {
		var err error
		if of, err = s.find(ctx, in.Request); err != nil {
			return api.Revocation{}, err
		}
		if owner = of.personID; owner != c.ID && !of.visible(c) {
			return api.Revocation{}, s.refusedTo(ctx, c, "revocations", event.Subject{RequestID: of.id, PersonID: owner}, ErrUnknownRequest)
		}
	}
	if owner != c.ID && !c.Has(api.Operator) {
		return api.Revocation{}, s.refusedTo(ctx, c, "revocations", event.Subject{RequestID: in.Request, PersonID: owner}, ErrNotOperator)
	}
	if of == nil {
		if _, err := s.cfg.People.Person(ctx, owner); err != nil {
			return api.Revocation{}, err
		}
	}
	var out stopped
	err = pgx.BeginFunc(ctx, s.cfg.Pool, func(tx pgx.Tx) (err error) {
		out = stopped{}
		how := stopping{why: "revoked", comment: why, actor: c.Actor(), source: c.Source}
		if owner == c.ID {
			how.why, how.comment = "finished", ""
		}
		if of != nil {
			err = s.stop(ctx, tx, of.id, how, &out)
		} else {
			err = s.stopAll(ctx, tx, owner, how, &out)
		}
		if err != nil {
			return err
		}
		return s.cfg.Log.Stage(ctx, tx, out.events...)
	})
	if err != nil {
		return api.Revocation{}, err
	}
	s.cfg.Log.Kick()
	return api.Revocation{Ended: notNil(out.ended), Cancelled: notNil(out.cancelled)}, nil
}

// refusedTo is the refusal, when the event of it has been recorded.
func (s *Service) refusedTo(ctx context.Context, c identity.Caller, action string, about event.Subject, why *refusal.Error) error {
	s.cfg.Log.Refused(ctx, c.Event(s.cfg.Clock.Now(), about,
		event.AccessRefused{Action: action, Code: why.Code, Reason: why.Detail}))
	return why
}

// stopping says who ends requests before their time, and why.
type stopping struct {
	why     string // the end reason of grants: finished or revoked
	comment string // in the actor's words
	actor   event.Actor
	source  string
}

// stopped are requests that were ended before their time.
type stopped struct {
	ended, cancelled []string // ids, of those with a grant and of those that waited
	events           []event.Event
}

// stop locks a request and ends it before its time, with those that extend it.
// One that is over already is left as it is.
func (s *Service) stop(ctx context.Context, tx pgx.Tx, id string, how stopping, out *stopped) error {
	for id != "" {
		r, err := s.lock(ctx, tx, id)
		if err != nil {
			return err
		}
		if err := s.stopOne(ctx, tx, r, how, out); err != nil {
			return err
		}
		id = r.next
	}
	return nil
}

func (s *Service) stopOne(ctx context.Context, tx pgx.Tx, r *request, how stopping, out *stopped) error {
	now := s.cfg.Clock.Now()
	data := r.settle(now)
	switch {
	case data != nil: // time was faster
		how.actor, how.source = event.Actor{Kind: event.Broker}, ""
	case r.state == api.Requested:
		r.close(api.Cancelled)
		data = event.RequestClosed{State: string(api.Cancelled), Comment: how.comment}
		out.cancelled = append(out.cancelled, r.id)
	case r.granted():
		r.end(how.why, now)
		data = event.GrantEnded{Reason: how.why, Comment: how.comment}
		out.ended = append(out.ended, r.id)
	default:
		return nil
	}
	out.events = append(out.events, r.event(now, how.actor, how.source, data))
	if err := r.save(ctx, tx); err != nil {
		return err
	}
	if r.state == api.Cancelled || r.state == api.Expired {
		return s.tellClosed(ctx, tx, r, now, how.actor.ID)
	}
	if r.endsWhy == "revoked" {
		return s.tellRevoked(ctx, tx, r, now, how.actor.ID)
	}
	return nil
}

// stopAll is stop for all requests of a person. No other can come until tx ends.
func (s *Service) stopAll(ctx context.Context, tx pgx.Tx, personID string, how stopping, out *stopped) error {
	if err := lockAsks(ctx, tx, personID); err != nil {
		return err
	}
	// In the order in which they follow each other, as stop locks them.
	rows, err := tx.Query(ctx, `
		SELECT id FROM requests WHERE person_id = $1 AND state IN ('requested', 'approved', 'active')
		ORDER BY created_at, id`, personID)
	if err != nil {
		return fmt.Errorf("reading a person's requests: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("reading a person's requests: %w", err)
	}
	for _, id := range ids {
		if slices.Contains(out.ended, id) || slices.Contains(out.cancelled, id) {
			continue
		}
		if err := s.stop(ctx, tx, id, how, out); err != nil {
			return err
		}
	}
	return nil
}

// lockAsks makes asks of one person wait until tx ends.
func lockAsks(ctx context.Context, tx pgx.Tx, personID string) error {
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('requests of ' || $1, 0))`, personID); err != nil {
		return fmt.Errorf("waiting for a person's asks: %w", err)
	}
	return nil
}
