package approvals

import (
	"context"
	"slices"
	"strings"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/approvals/policy"
	"sallyport/audit/event"
	"sallyport/internal/ids"
	"sallyport/internal/refusal"
)

// ErrNotReader refuses what only operators and auditors may read.
var ErrNotReader = refusal.New(refusal.Denied, "readers-only",
	"only operators and auditors may ask who can reach a host", "what you can reach yourself: sally reach")

const (
	defaultReach = 50
	maxReach     = 200
)

// HostReach says who can reach a login on a host: by which rules, and by name who
// of those who have signed in. Operators and auditors only (P10). The cursor is
// the last page's next; the limit is at most 200, and 0 means 50.
func (s *Service) HostReach(ctx context.Context, c identity.Caller, nameOrID, login, cursor string, limit int) (api.HostReach, error) {
	if !reads(c) {
		s.refuseReader(ctx, c, "hosts.reach", ErrNotReader)
		return api.HostReach{}, ErrNotReader
	}
	if limit == 0 {
		limit = defaultReach
	}
	if limit < 1 || limit > maxReach || cursor != "" && !ids.Valid(ids.Person, cursor) {
		return api.HostReach{}, ErrBadFilter
	}
	target, err := s.cfg.Hosts.Target(ctx, nameOrID)
	if err != nil {
		return api.HostReach{}, err
	}
	if !slices.Contains(target.Logins, login) {
		return api.HostReach{}, ErrBadLogin.With("%s has no login %q", target.Name, login).
			Hinting("it has: %s", strings.Join(target.Logins, ", "))
	}
	p, err := s.current(ctx)
	if err != nil {
		return api.HostReach{}, err
	}
	if err := s.disclosePeople(ctx, c, "reached", event.Subject{HostID: target.ID}); err != nil {
		return api.HostReach{}, err
	}
	now := s.cfg.Clock.Now()
	door := p.WhoCanReach(target.Labels, login)
	out := api.HostReach{HostID: target.ID, Host: target.Name, Login: login, Rules: []api.ReachRule{},
		People: api.Page[api.ReachPerson]{Items: []api.ReachPerson{}}, Policy: api.PolicyRef{Version: p.Version, Hash: p.Hash}}
	groups := []string{} // whoever is in any of these can reach it, and nobody else
	for _, opens := range door.Rules() {
		rule := s.hostRule(identity.Caller{}, policy.LoginRule{Login: login, Rule: opens.Rule})
		out.Rules = append(out.Rules, api.ReachRule{Rule: rule.Rule, Groups: opens.Groups, Automatic: rule.Automatic, Approvers: rule.Approvers})
		groups = append(groups, opens.Groups...)
	}
	if out.Count, err = s.cfg.People.CountMembers(ctx, groups); err != nil {
		return api.HostReach{}, err
	}
	people, err := s.cfg.People.MembersAfter(ctx, groups, cursor, limit+1)
	if err != nil {
		return api.HostReach{}, err
	}
	if len(people) > limit {
		people = people[:limit]
		out.People.Next = people[limit-1].ID
	}
	for _, person := range people {
		if r := door.Rule(person.Groups); r != nil {
			out.People.Items = append(out.People.Items, api.ReachPerson{Person: named(person), Rule: r.Name,
				Automatic: r.AutomaticAt(now), Emergency: r.EmergencyFor(person.Groups) != nil})
		}
	}
	return out, nil
}

// Reach is what one person can reach, host by host.
type Reach struct {
	Person api.Person
	Policy api.PolicyRef
	// Empty says that no rule names any of the person's groups.
	Empty bool

	reach *policy.Reach
	login func(policy.LoginRule) api.ReachLogin
}

// PersonReach answers for oneself ("me"), and operators and auditors for anybody,
// by id or address. To others nobody else exists (P10).
func (s *Service) PersonReach(ctx context.Context, c identity.Caller, idOrEmail string) (*Reach, error) {
	person, err := s.reader(ctx, c, idOrEmail, "people.reach")
	if err != nil {
		return nil, err
	}
	p, err := s.current(ctx)
	if err != nil {
		return nil, err
	}
	now := s.cfg.Clock.Now()
	if person.Removed != nil {
		person.Groups = nil // who cannot sign in reaches nothing
	}
	reach := p.WhatCanBeReached(person.Groups)
	return &Reach{
		Person: named(person), Policy: api.PolicyRef{Version: p.Version, Hash: p.Hash}, Empty: reach.Empty(), reach: reach,
		login: func(l policy.LoginRule) api.ReachLogin {
			return api.ReachLogin{Login: l.Login, Rule: l.Rule.Name, MaxDuration: short(l.Rule.MaxDuration),
				Automatic: l.Rule.AutomaticAt(now), Emergency: l.Rule.EmergencyFor(person.Groups) != nil}
		},
	}, nil
}

// Host says what of the host can be reached; nothing, if there are no logins.
func (r *Reach) Host(t Target) api.ReachHost {
	out := api.ReachHost{HostID: t.ID, Host: t.Name, Labels: t.Labels}
	for _, l := range r.reach.Logins(t.Labels, t.Logins) {
		out.Logins = append(out.Logins, r.login(l))
	}
	return out
}
