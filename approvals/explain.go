package approvals

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/approvals/policy"
	"sallyport/audit/event"
	"sallyport/internal/refusal"
)

// maxVerdicts is how many rules an explanation goes through.
const maxVerdicts = 50

// Explain says what would become of an ask that a person made now, and why. What
// it says comes from the code that decides (P10):
//
//   - For oneself: who can ask for nothing on the host hears the same whether or
//     not it exists, and only of rules for one's own groups.
//   - For anybody: operators and auditors, who also hear of all rules. To others,
//     nobody else exists.
//
// Nothing is asked, so nothing is recorded but the second, and that somebody tries it
// without being one of them.
func (s *Service) Explain(ctx context.Context, c identity.Caller, in api.ExplainInput) (api.Explanation, error) {
	person, err := s.reader(ctx, c, in.Person, "explain")
	if err != nil {
		return api.Explanation{}, err
	}
	p, err := s.current(ctx)
	if err != nil {
		return api.Explanation{}, err
	}
	who := identity.Caller{Person: person, Roles: p.RolesOf(person.Groups), Policy: ref(p), Source: c.Source, AuthTime: person.SignedInAt}
	out := api.Explanation{
		Person: named(person), Host: in.Host, Login: in.Login, Rules: []api.RuleVerdict{},
		Policy: api.PolicyRef{Version: p.Version, Hash: p.Hash},
	}
	a, err := s.askUnder(ctx, p, who, api.RequestInput{Host: in.Host, Login: in.Login, Duration: in.Duration,
		Emergency: in.Emergency, Reason: "-"}, anyText)
	if err == nil {
		err = s.checkAsker(ctx, a.terms)
	}
	if err == nil && person.Removed != nil { // who cannot sign in cannot ask
		err = identity.ErrRemoved.With("an operator has removed %s from Sallyport", person.DisplayName())
	}
	refused := refusal.As(err)
	if err != nil && (refused == nil || refused.Kind == refusal.Invalid || refused.Kind == refusal.Unavailable) {
		return api.Explanation{}, err // about how it was asked, or nothing could be found out
	}
	if out.Allowed = err == nil; !out.Allowed {
		out.Code, out.Detail, out.Hint = refused.Code, refused.Detail, refused.Hint
	}
	if out.Allowed {
		r, err := newRequest(a.terms)
		if err != nil {
			return api.Explanation{}, err
		}
		if out.Approvers, err = s.slotsWithPeople(ctx, r); err != nil {
			return api.Explanation{}, err
		}
		out.Automatic = a.terms.Rule.Automatic
	}

	everything := reads(c)
	target, err := s.cfg.Hosts.Target(ctx, in.Host)
	if hidden := refusal.As(err); hidden != nil && hidden.Kind == refusal.NotFound {
		if everything {
			out.Detail = "there is no such host" // no need to leave it open
		}
		return out, nil
	}
	if err != nil {
		return api.Explanation{}, err
	}
	logins := p.Logins(person.Groups, target.Labels, target.Logins)
	if len(logins) == 0 && !everything {
		return out, nil
	}
	out.Host = target.Name
	if everything && (out.Code == ErrUnknownHost.Code || out.Code == policy.ErrNoRule.Code) {
		out.Detail, out.Hint = forReader(person, target, in.Login, logins)
	}
	if i := slices.IndexFunc(logins, func(l policy.LoginRule) bool { return l.Login == in.Login }); i >= 0 {
		rule := s.hostRule(who, logins[i])
		out.Rule = &rule
	}
	out.Rules, out.More = verdicts(p, person, target, in.Login, everything)
	return out, nil
}

// forReader says that no rule fits to somebody who may know that, and of whom.
func forReader(person identity.Person, t Target, login string, logins []policy.LoginRule) (detail, hint string) {
	var others []string
	for _, l := range logins {
		others = append(others, l.Login)
	}
	if len(others) > 0 {
		hint = "on this host the rules let them ask for: " + strings.Join(others, ", ")
	}
	return fmt.Sprintf("no rule of the policy lets %s ask for %s on %s", person.DisplayName(), login, t.Name), hint
}

// anyText is a rule that takes every reason and ticket.
func anyText(r *policy.Rule) *policy.Rule {
	lenient := *r
	lenient.Reason, lenient.Ticket = policy.Text{}, policy.Text{}
	return &lenient
}

// verdicts are those of the rules that the reader may know of, the one that
// decides ahead and the nearest misses behind it, and how many there are beyond.
func verdicts(p *policy.Policy, person identity.Person, t Target, login string, everything bool) ([]api.RuleVerdict, int) {
	onHost := slices.Contains(t.Logins, login)
	out := []api.RuleVerdict{}
	for i, v := range p.Explain(policy.Ask{Groups: person.Groups, Labels: t.Labels, Login: login}) {
		if !everything && slices.Contains(v.Unmet, policy.Who) {
			continue
		}
		said := api.RuleVerdict{Rule: v.Rule.Name, Number: i + 1, Unmet: []api.UnmetCondition{}}
		for _, c := range v.Unmet {
			said.Unmet = append(said.Unmet, api.UnmetCondition{Condition: string(c), Detail: unmet(v.Rule, c, t)})
		}
		// Whether the host has a login is for those to know who could ask for it.
		if !onHost && (everything || len(v.Unmet) == 0) {
			said.Unmet = append(said.Unmet, api.UnmetCondition{Condition: "host", Detail: t.Name + " has no login " + login})
		}
		said.Fits, said.Decides = len(said.Unmet) == 0, v.Decides && onHost
		out = append(out, said)
	}
	slices.SortStableFunc(out, func(a, b api.RuleVerdict) int { return len(a.Unmet) - len(b.Unmet) })
	if more := len(out) - maxVerdicts; more > 0 {
		return out[:maxVerdicts], more
	}
	return out, 0
}

// unmet says what a condition that is not met asks for.
func unmet(r *policy.Rule, c policy.Condition, t Target) string {
	switch c {
	case policy.Who:
		return "it is for members of " + strings.Join(r.Groups, ", ")
	case policy.Where:
		return "it is for hosts with " + strings.Join(r.UnmetLabels(t.Labels), " and ")
	default:
		return "it is for the logins " + strings.Join(r.Logins, ", ")
	}
}

// reads reports whether the caller may know of everything.
func reads(c identity.Caller) bool { return c.Has(api.Operator) || c.Has(api.Auditor) }

// reader is the person that the caller wants to read about: oneself ("" or "me"),
// or for operators and auditors anybody, by id or address. To others nobody else
// exists; that they tried is an event.
func (s *Service) reader(ctx context.Context, c identity.Caller, idOrEmail, action string) (identity.Person, error) {
	switch {
	case idOrEmail == "" || idOrEmail == "me" || idOrEmail == c.ID || strings.EqualFold(idOrEmail, c.Email):
		return c.Person, nil
	case reads(c):
		p, err := s.cfg.People.Find(ctx, idOrEmail)
		if err != nil {
			return identity.Person{}, err
		}
		return p, s.disclosePeople(ctx, c, "reach", event.Subject{PersonID: p.ID})
	}
	s.refuseReader(ctx, c, action, identity.ErrUnknownPerson)
	return identity.Person{}, identity.ErrUnknownPerson
}

// refuseReader records that somebody tried to read about others.
func (s *Service) refuseReader(ctx context.Context, c identity.Caller, action string, why *refusal.Error) {
	s.cfg.Log.Refused(ctx, c.Event(s.cfg.Clock.Now(), event.Subject{},
		event.AccessRefused{Action: action, Code: why.Code, Reason: why.Detail}))
}
