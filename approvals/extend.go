package approvals

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals/grant"
	"sallyport/approvals/identity"
	"sallyport/approvals/policy"
	"sallyport/audit/event"
	"sallyport/internal/ids"
	"sallyport/internal/refusal"
)

// Refusals of an extension, besides those of an ask.
var (
	ErrNoExtension = refusal.New(refusal.Denied, "no-extension",
		"the rule does not let this grant be extended", "make a new request, which may run beside this grant")
	ErrNoExtensionLeft = refusal.New(refusal.Denied, "no-extension-left",
		"the grant has been extended as often as its rule allows", "make a new request, which may run beside this grant")
	ErrExtended = refusal.New(refusal.Conflict, "already-extended",
		"the grant has been extended already", "extend the request that follows it, or cancel that one first")
	ErrNothingToExtend = refusal.New(refusal.Conflict, "nothing-to-extend",
		"the grant has not been used, so there is no work to go on with", "log in first: sally ssh LOGIN@HOST")
)

// Extend asks for a grant that follows the caller's own without a gap. It is a
// request of its own, and the earlier grant is never touched, so that nothing that
// is open is cut and what was approved stays as it is (P4). The rules:
//
//  1. The grant is the caller's, has been used and has not ended.
//  2. Its terms say how often it may be extended, and by how much at most; the
//     terms of the extension say one time less. So the limit is that of the
//     first grant's terms, whatever the policy has become.
//  3. The policy in force still lets the caller ask for the login, and its rule
//     still allows extensions: what operators take away is gone at once. Of several
//     hosts, those for which it does not are left out.
//  4. It is approved with nobody asked if both the terms and the rule in force say
//     so, or if the rule would approve any such ask by itself; else by the
//     rule's stages, like any other request.
//  5. It starts at the earlier one's end, or when it is approved if that is later,
//     and is bound to the same key from the start.
//
// One extension at a time counts: of two at once one is refused. A refusal is an event.
func (s *Service) Extend(ctx context.Context, c identity.Caller, id string, in api.ExtendInput) (api.Request, error) {
	r, err := s.find(ctx, id)
	if err != nil {
		return api.Request{}, err
	}
	a, err := s.extension(ctx, c, r, in)
	if err == nil {
		err = s.create(ctx, c, a)
	}
	if refused := refusal.As(err); refused != nil {
		switch refused.Kind {
		case refusal.Denied, refusal.NotFound, refusal.Conflict, refusal.TooMany:
			s.cfg.Log.Refused(ctx, r.event(s.cfg.Clock.Now(), c.Actor(), c.Source, event.RequestRefused{
				Host: r.terms.Asked(), Login: r.terms.Login, Code: refused.Code, Reason: refused.Detail, Extends: r.id}))
		}
		if errors.Is(err, ErrNotRequester) && !r.visible(c) {
			err = ErrUnknownRequest
		}
	}
	if err != nil {
		return api.Request{}, err
	}
	return s.Get(ctx, c, a.terms.RequestID)
}

// extension is an ask for what is to follow the settled request's grant.
func (s *Service) extension(ctx context.Context, c identity.Caller, r *request, in api.ExtendInput) (ask, error) {
	if err := r.mayExtend(c.Person); err != nil {
		return ask{}, err
	}
	p, err := s.current(ctx)
	if err != nil {
		return ask{}, err
	}
	now := s.cfg.Clock.Now()
	reason := trim(in.Reason)
	if reason == "" {
		reason = r.terms.Reason
	}
	t, duration, err := form(api.RequestInput{Host: r.terms.Host.ID, Login: r.terms.Login, Duration: in.Duration,
		Reason: reason, Ticket: r.terms.Ticket}, now)
	if err != nil {
		return ask{}, err
	}
	targets, rule, err := s.stillThere(ctx, p, c, r.terms)
	if err != nil {
		return ask{}, err
	}
	if rule.Extend.Times == 0 {
		return ask{}, ErrNoExtension.With("rule %q no longer lets grants be extended", rule.Name)
	}
	by, err := r.terms.ExtendBy()
	if err != nil {
		return ask{}, err
	}
	if by = min(by, rule.Extend.By); duration == 0 {
		duration = by
	}
	switch {
	case duration < policy.MinDuration:
		return ask{}, policy.ErrBadDuration
	case duration > by:
		return ask{}, policy.ErrTooLong.With("%s is longer than rule %q allows for an extension", duration, rule.Name).
			Hinting("extend by at most %s", by)
	}
	if err := rule.CheckText(t.Reason, t.Ticket); err != nil {
		return ask{}, err
	}
	start := *r.ends
	t.Format = TermsFormat
	t.RequestID = ids.New(ids.Request)
	t.Person = TermsPerson{ID: c.ID, Issuer: c.Issuer, Subject: c.Subject}
	t.Selector = r.terms.Selector
	setHosts(&t, targets)
	t.Duration = short(duration)
	t.PublicKey, t.NotBefore, t.Extends = r.key, &start, r.id
	t.CreatedAt, t.ApproveBy = now, now.Add(rule.ApproveWithin)
	t.PolicyHash, t.PolicyVersion = p.Hash, p.Version
	t.Rule = grant.RuleOf(rule, r.terms.Rule.Extend.Automatic && rule.Extend.Automatic || rule.AutomaticAt(now) && rule.AutomaticAt(start))
	t.Rule.StartWithin = "" // it goes on with what is in use
	t.Rule.Extend = r.terms.Rule.Extend.Next()
	return ask{targets: targets, rule: rule, terms: t}, nil
}

// mayExtend says why the person cannot extend the settled request's grant, or nil.
func (r *request) mayExtend(p identity.Person) error {
	switch err := r.mayFinish(p); {
	case err != nil:
		return err
	case r.terms.Rule.Extend == nil && r.terms.Extends != "":
		return ErrNoExtensionLeft
	case r.terms.Rule.Extend == nil:
		return ErrNoExtension
	case r.next != "":
		return ErrExtended.With("the grant has been extended already, by %s", r.next).
			Hinting("extend %s, or cancel it first", r.next)
	case r.key == "":
		return ErrNothingToExtend
	}
	return nil
}

// keepExtension ties a new request to the one that it extends, if that is still
// as it was when the terms were made. The earlier one's lock keeps a second
// extension, and its end, out until tx ends.
func (s *Service) keepExtension(ctx context.Context, tx pgx.Tx, c identity.Caller, r *request) error {
	before, err := s.lock(ctx, tx, r.terms.Extends)
	if err != nil {
		return err
	}
	before.settle(s.cfg.Clock.Now())
	if err := before.mayExtend(c.Person); err != nil {
		return err
	}
	if !before.ends.Equal(*r.terms.NotBefore) || before.key != r.terms.PublicKey {
		return ErrEvidence.With("the grant that is extended has changed meanwhile")
	}
	_, err = tx.Exec(ctx, `INSERT INTO extensions (request_id, extends, person_id) VALUES ($1, $2, $3)`, r.id, before.id, r.personID)
	if err != nil {
		return fmt.Errorf("writing extension %s: %w", r.id, err)
	}
	return nil
}

// addExtensions reads, of those that can be extended, by which request they are:
// one that waits, or that has or had a grant.
func (s *Service) addExtensions(ctx context.Context, db querier, list []*request) error {
	byID, keys := map[string]*request{}, []string{}
	for _, r := range list {
		if r.terms.Rule.Extend != nil {
			byID[r.id], keys = r, append(keys, r.id)
		}
	}
	if len(keys) == 0 {
		return nil
	}
	rows, err := db.Query(ctx, `
		SELECT e.extends, e.request_id FROM extensions e JOIN requests ON requests.id = e.request_id
		WHERE e.extends = ANY(@ids) AND `+stateNow+` NOT IN ('denied', 'cancelled', 'expired')`,
		pgx.NamedArgs{"ids": keys, "now": s.cfg.Clock.Now()})
	if err != nil {
		return fmt.Errorf("reading extensions: %w", err)
	}
	var id, next string
	_, err = pgx.ForEachRow(rows, []any{&id, &next}, func() error {
		byID[id].next = next
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading extensions: %w", err)
	}
	return nil
}

// earlier reads the grant that the terms extend, with its evidence and those
// before it. They are not locked: what they were cannot change any more, but for
// an early end, which also ends what follows under that one's lock.
func (s *Service) earlier(ctx context.Context, db querier, t Terms, c identity.Caller, left int) (*Grant, error) {
	if t.Extends == "" {
		return nil, nil
	}
	if left == 0 {
		return nil, ErrEvidence.With("more grants follow each other than any rule allows")
	}
	r, err := s.one(ctx, db, `SELECT `+requestColumns+` FROM requests WHERE id = $1`, t.Extends)
	if errors.Is(err, ErrUnknownRequest) {
		return nil, ErrEvidence.With("the request that is extended does not exist")
	}
	if err != nil {
		return nil, err
	}
	r.settle(s.cfg.Clock.Now())
	g, err := s.grantOf(ctx, db, r, c, left-1)
	return &g, err
}
