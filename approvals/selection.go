package approvals

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/approvals/policy"
	"sallyport/internal/refusal"
)

// Refusals of an ask for several hosts.
var (
	ErrHostAndSelector = refusal.New(refusal.Invalid, "host-and-selector",
		"a request is for one host or for those with some labels, not for both", "leave one of them out").On("selector")
	ErrTooManyHosts = refusal.New(refusal.Invalid, "too-many-hosts",
		"the labels select more hosts than one request is for", "add a label to the selector").On("selector")
	ErrSeveralRules = refusal.New(refusal.Invalid, "several-rules",
		"the hosts do not all fall under one rule", "ask for the hosts of each rule separately").On("selector")
)

// setHosts freezes the targets, which are in the order of their names.
func setHosts(t *Terms, targets []Target) {
	t.Host, t.MoreHosts = TermsHost{ID: targets[0].ID, Name: targets[0].Name}, nil
	for _, target := range targets[1:] {
		t.MoreHosts = append(t.MoreHosts, TermsHost{ID: target.ID, Name: target.Name})
	}
}

// apiHosts are the hosts as everybody who may see the request sees them.
func apiHosts(t Terms) []api.RequestHost {
	out := []api.RequestHost{}
	for _, h := range t.Hosts() {
		out = append(out, api.RequestHost{ID: h.ID, Name: h.Name})
	}
	return out
}

// asked is what was asked for, in the caller's words.
func asked(in api.RequestInput) string {
	if in.Host != "" {
		return in.Host
	}
	return api.SelectorText(in.Selector)
}

// targets finds what is asked for, by name, and the one rule that decides:
//
//  1. Of one host: the host exists, and some rule lets the caller ask for the
//     login, which it has.
//  2. Of several: they have all the labels and the login, and a rule lets the
//     caller ask for it. The others are not mentioned, whatever they are; and if
//     there are none but those, it is as if there were no host at all.
//  3. The same rule decides on each.
func (s *Service) targets(ctx context.Context, p *policy.Policy, c identity.Caller, in api.RequestInput) ([]Target, *policy.Rule, error) {
	if in.Host == "" {
		all, err := s.cfg.Hosts.Targets(ctx)
		if err != nil {
			return nil, nil, err
		}
		return oneRule(p, c, in.Login, slices.DeleteFunc(all, func(t Target) bool { return !t.has(in.Selector) }))
	}
	target, err := s.cfg.Hosts.Target(ctx, in.Host)
	if r := refusal.As(err); r != nil && r.Kind == refusal.NotFound {
		return nil, nil, ErrUnknownHost
	}
	if err != nil {
		return nil, nil, err
	}
	rule, err := ruleFor(p, c, target, in.Login)
	return []Target{target}, rule, err
}

// stillThere finds the hosts of a grant that is to go on, and the one rule that
// decides now: those that are still there, and for which a rule still lets the
// caller ask.
func (s *Service) stillThere(ctx context.Context, p *policy.Policy, c identity.Caller, t Terms) ([]Target, *policy.Rule, error) {
	if len(t.MoreHosts) == 0 {
		return s.targets(ctx, p, c, api.RequestInput{Host: t.Host.ID, Login: t.Login})
	}
	all, err := s.cfg.Hosts.Targets(ctx)
	if err != nil {
		return nil, nil, err
	}
	hosts := t.Hosts()
	return oneRule(p, c, t.Login, slices.DeleteFunc(all, func(target Target) bool {
		return !slices.ContainsFunc(hosts, func(h TermsHost) bool { return h.ID == target.ID })
	}))
}

// has reports whether the host has all the labels.
func (t Target) has(selector map[string]string) bool {
	for label, value := range selector {
		if got, ok := t.Labels[label]; !ok || got != value {
			return false
		}
	}
	return true
}

// under are hosts on which one rule decides.
type under struct {
	rule  *policy.Rule
	hosts []Target
}

// oneRule picks, of the hosts, those that the caller may ask for with the login,
// and finds the rule that decides on all of them.
func oneRule(p *policy.Policy, c identity.Caller, login string, hosts []Target) ([]Target, *policy.Rule, error) {
	var found []Target
	var rules []under
	for _, t := range hosts {
		logins := p.Logins(c.Groups, t.Labels, t.Logins)
		i := slices.IndexFunc(logins, func(l policy.LoginRule) bool { return l.Login == login })
		if i < 0 {
			continue
		}
		found = append(found, t)
		rule := logins[i].Rule
		if i = slices.IndexFunc(rules, func(u under) bool { return u.rule == rule }); i < 0 {
			i, rules = len(rules), append(rules, under{rule: rule})
		}
		rules[i].hosts = append(rules[i].hosts, t)
	}
	switch {
	case len(found) == 0:
		return nil, nil, ErrUnknownHost
	case len(rules) > 1:
		return nil, nil, severalRules(rules)
	case len(found) > MaxHosts:
		return nil, nil, ErrTooManyHosts.With("%d hosts fit, and one request is for at most %d", len(found), MaxHosts)
	}
	slices.SortFunc(found, func(a, b Target) int { return strings.Compare(a.Name, b.Name) })
	return found, rules[0].rule, nil
}

// maxRulesNamed is how many rules a refusal names.
const maxRulesNamed = 4

// severalRules names the rules with some of their hosts, and how each rule's hosts
// can be asked for: by a label that they have and the other rules' hosts do not.
func severalRules(rules []under) error {
	var said, how []string
	for i, u := range rules {
		if i == maxRulesNamed {
			said = append(said, fmt.Sprintf("%d rules more", len(rules)-i))
			break
		}
		var names []string
		for _, t := range u.hosts {
			names = append(names, t.Name)
		}
		said = append(said, fmt.Sprintf("%q for %s", u.rule.Name, api.Several(names)))
		if label := u.apart(rules); label != "" {
			how = append(how, fmt.Sprintf("%s (%s)", label, u.rule.Name))
		}
	}
	err := ErrSeveralRules.With("the hosts do not all fall under one rule: %s", strings.Join(said, ", "))
	if len(how) == 0 {
		return err.Hinting("ask for the hosts of each rule separately, by labels that only they have, or one by one")
	}
	return err.Hinting("ask for the hosts of each rule separately; add to the selector: %s", strings.Join(how, ", or "))
}

// apart is a label with its value that all of the rule's hosts have, and none of
// the other rules'; empty if there is none.
func (u under) apart(rules []under) string {
	for _, label := range slices.Sorted(maps.Keys(u.hosts[0].Labels)) {
		want := map[string]string{label: u.hosts[0].Labels[label]}
		mine := !slices.ContainsFunc(u.hosts, func(t Target) bool { return !t.has(want) })
		others := slices.ContainsFunc(rules, func(o under) bool {
			return o.rule != u.rule && slices.ContainsFunc(o.hosts, func(t Target) bool { return t.has(want) })
		})
		if mine && !others {
			return api.SelectorText(want)
		}
	}
	return ""
}
