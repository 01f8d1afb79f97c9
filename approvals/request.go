package approvals

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/audit/event"
	"sallyport/internal/refusal"
)

// MaxOpen is how many requests one person may have that are undecided or whose
// grant has not ended.
const MaxOpen = 50

// Preview says what would happen to the ask and who could approve, changing
// nothing. An ask that would be refused is refused here in the same words.
func (s *Service) Preview(ctx context.Context, c identity.Caller, in api.RequestInput) (api.Preview, error) {
	a, err := s.ask(ctx, c, in)
	if err != nil {
		return api.Preview{}, err
	}
	if err := s.checkAsker(ctx, a.terms); err != nil {
		return api.Preview{}, err
	}
	r, err := newRequest(a.terms)
	if err != nil {
		return api.Preview{}, err
	}
	slots, err := s.slotsWithPeople(ctx, r)
	if err != nil {
		return api.Preview{}, err
	}
	first := a.targets[0]
	open, err := s.OpenHosts(ctx, []string{first.ID})
	if err != nil {
		return api.Preview{}, err
	}
	host := api.Host{ID: first.ID, Name: first.Name, Labels: first.Labels, State: "sealed"}
	if open[first.ID] {
		host.State = "open"
	}
	for _, l := range a.policy.Logins(c.Groups, first.Labels, first.Logins) {
		host.Logins = append(host.Logins, l.Login)
	}
	return api.Preview{
		Host: host, Hosts: apiHosts(a.terms), Login: a.terms.Login, Rule: a.rule.Name, Duration: a.terms.Duration,
		Automatic: a.terms.Rule.Automatic, Approvers: slots, ApproveBy: a.terms.ApproveBy,
		NotBefore: a.terms.NotBefore, StartWithin: a.terms.Rule.StartWithin,
		CertificateLifetime: a.terms.Rule.CertificateLifetime, Emergency: r.emergency(nil, a.terms.CreatedAt),
	}, nil
}

// Request freezes the ask. Under an automatic rule the grant starts at once. A
// refusal by policy, or of something that the caller may not know of, is an event.
func (s *Service) Request(ctx context.Context, c identity.Caller, in api.RequestInput) (api.Request, error) {
	a, err := s.ask(ctx, c, in)
	if err == nil {
		err = s.create(ctx, c, a)
	}
	if r := refusal.As(err); r != nil && (r.Kind == refusal.Denied || r.Kind == refusal.NotFound || r.Kind == refusal.TooMany) {
		s.cfg.Log.Refused(ctx, c.Event(s.cfg.Clock.Now(), a.subject(c),
			event.RequestRefused{Host: asked(in), Login: in.Login, Code: r.Code, Reason: r.Detail, Emergency: in.Emergency}).Under(ref(a.policy)))
	}
	if err != nil {
		return api.Request{}, err
	}
	return s.Get(ctx, c, a.terms.RequestID)
}

// subject is what the event of a refusal names, as far as the ask was understood.
func (a ask) subject(c identity.Caller) event.Subject {
	about := event.Subject{PersonID: c.ID}
	if len(a.targets) > 0 {
		about.HostID, about.HostIDs = a.targets[0].ID, a.terms.HostIDs()
	}
	return about
}

// create writes the request, its events and its jobs in one transaction.
func (s *Service) create(ctx context.Context, c identity.Caller, a ask) error {
	r, err := newRequest(a.terms)
	if err != nil {
		return err
	}
	t := a.terms
	events := []event.Event{r.event(t.CreatedAt, c.Actor(), c.Source, event.RequestCreated{
		Terms: string(r.termsText), TermsHash: r.termsHash, Host: t.Host.Name, Hosts: t.HostNames(), Login: t.Login,
		Duration: t.Duration, Rule: t.Rule.Name, Reason: t.Reason, Ticket: t.Ticket,
		Emergency: t.Emergency != nil, Drill: t.Drill(), Extends: t.Extends,
	})}
	var reviewed []string
	switch {
	case t.Emergency != nil:
		if reviewed, err = s.checkReviewed(ctx, t.Person.ID, t.Drill()); err != nil {
			return err
		}
		opened, err := r.startEmergency(c)
		if err != nil {
			return err
		}
		events = append(events, opened...)
	case t.Rule.Automatic:
		started, err := r.grant(t.CreatedAt)
		if err != nil {
			return err
		}
		events = append(events, r.event(t.CreatedAt, c.Actor(), c.Source, started))
	}
	err = pgx.BeginFunc(ctx, s.cfg.Pool, func(tx pgx.Tx) error {
		// Two asks of one person at once are counted one after the other.
		if err := lockAsks(ctx, tx, c.ID); err != nil {
			return err
		}
		if err := s.cfg.People.Present(ctx, tx, c.ID); err != nil {
			return err
		}
		if err := s.checkOpen(ctx, tx, c.ID); err != nil {
			return err
		}
		if err := r.insert(ctx, tx); err != nil {
			return err
		}
		if t.Extends != "" {
			if err := s.keepExtension(ctx, tx, c, r); err != nil {
				return err
			}
		}
		if t.Emergency != nil {
			if err := s.keepEmergency(ctx, tx, r, reviewed); err != nil {
				return err
			}
		}
		if err := s.schedule(ctx, tx, r); err != nil {
			return err
		}
		if err := s.tellAsked(ctx, tx, r, a.rule); err != nil {
			return err
		}
		return s.cfg.Log.Stage(ctx, tx, events...)
	})
	if err != nil {
		return err
	}
	s.cfg.Log.Kick()
	return nil
}

// checkAsker refuses for what the person who asks has done before, or because of
// what was done to them.
func (s *Service) checkAsker(ctx context.Context, t Terms) error {
	err := s.cfg.People.Present(ctx, s.cfg.Pool, t.Person.ID)
	if err == nil {
		err = s.checkOpen(ctx, s.cfg.Pool, t.Person.ID)
	}
	if err == nil && t.Emergency != nil {
		_, err = s.checkReviewed(ctx, t.Person.ID, t.Drill())
	}
	return err
}

// checkOpen refuses when the person has MaxOpen open requests.
func (s *Service) checkOpen(ctx context.Context, db querier, personID string) error {
	rows, err := db.Query(ctx, `SELECT count(*) FROM requests WHERE person_id = @me AND `+stateNow+` IN ('requested', 'approved', 'active')`,
		pgx.NamedArgs{"me": personID, "now": s.cfg.Clock.Now()})
	if err != nil {
		return fmt.Errorf("counting open requests: %w", err)
	}
	n, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[int])
	if err != nil {
		return fmt.Errorf("counting open requests: %w", err)
	}
	if n >= MaxOpen {
		return ErrTooManyOpen.With("you have %d open requests, and no more are allowed", n)
	}
	return nil
}
