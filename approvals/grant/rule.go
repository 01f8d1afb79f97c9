package grant

import (
	"bytes"
	"errors"
	"slices"
	"time"

	"sallyport/approvals/policy"
)

// Stages are the terms' stages in the words of the quorum.
func (t Terms) Stages() []policy.Stage {
	out := make([]policy.Stage, len(t.Rule.Stages))
	for i, stage := range t.Rule.Stages {
		for _, slot := range stage.Slots {
			out[i].Slots = append(out[i].Slots, policy.Slot(slot))
		}
	}
	return out
}

// Groups are all groups that the stages name, each once.
func (t Terms) Groups() []string {
	out := []string{}
	seen := map[string]bool{}
	for _, stage := range t.Rule.Stages {
		for _, slot := range stage.Slots {
			for _, g := range slot.Groups {
				if !seen[g] {
					seen[g] = true
					out = append(out, g)
				}
			}
		}
	}
	return out
}

// RuleOf freezes a rule's numbers, with approvers unless the ask is automatic.
func RuleOf(r *policy.Rule, automatic bool) TermsRule {
	out := TermsRule{
		Name: r.Name, Automatic: automatic, Stages: []TermsStage{},
		CertificateLifetime: Short(r.CertificateLifetime), SourceAddress: append([]string{}, r.SourceAddress...),
		NoPTY: r.NoPTY, KeyTypes: slices.Clone(r.KeyTypes), VerifyRequired: r.VerifyRequired, SingleUse: r.SingleUse, Record: r.Record,
		Assurance: string(r.Assurance), ACRValues: slices.Clone(r.ACRValues),
	}
	if r.KeepSessions {
		out.AtEnd = KeepSessions
	}
	for _, f := range r.Forwarding {
		out.Forwarding = append(out.Forwarding, string(f))
	}
	for _, d := range []struct {
		to   *string
		from time.Duration
	}{{&out.StartWithin, r.StartWithin}, {&out.MaxSignInAge, r.MaxSignInAge}, {&out.MaxAge, r.MaxAge}} {
		if d.from > 0 {
			*d.to = Short(d.from)
		}
	}
	if r.Extend.Times > 0 {
		out.Extend = &TermsExtend{Times: r.Extend.Times, By: Short(r.Extend.By), Automatic: r.Extend.Automatic}
	}
	if automatic {
		return out
	}
	for _, stage := range r.Stages {
		var s TermsStage
		for _, slot := range stage.Slots {
			s.Slots = append(s.Slots, TermsSlot(slot))
		}
		out.Stages = append(out.Stages, s)
	}
	return out
}

// CheckPolicy verifies that the grant's terms, and those of the grants that it
// extends, are what the policy gave them (CheckRule), by the versions that they
// name. find returns the version that terms name, or why there is none; its error
// is returned as it is.
func (g Grant) CheckPolicy(find func(Terms) (*policy.Policy, error)) error {
	for g := &g; g != nil; g = g.Earlier {
		p, err := find(g.Terms)
		if err != nil {
			return err
		}
		var extends *TermsExtend
		if g.Earlier != nil {
			extends = g.Earlier.Terms.Rule.Extend
		}
		if err := g.Terms.CheckRule(p, extends); err != nil {
			return ErrEvidence.With("the terms are not what the policy gave").Because(err)
		}
	}
	return nil
}

// CheckRule says in which way the terms are not those of their rule, or nil. It is
// pure. extends is what the terms that these extend say of extensions. The rules:
//
//  1. The policy is the version that the terms name, and has the rule, which is
//     for the login.
//  2. All that the terms say of the rule, the rule gives: approvers, assurance,
//     certificates. Nobody is asked only if the rule asked nobody at that time, or
//     if these and the earlier terms both extend a grant with nobody asked.
//  3. The grant lasts no longer than the rule allows for a request of its kind,
//     and the request waited no longer.
//  4. An emergency is one that the rule has, and is reviewed as it says.
//
// Who may ask, and where, is not checked again: the groups of that time and the
// host's labels are not in the terms.
func (t Terms) CheckRule(p *policy.Policy, extends *TermsExtend) error {
	if t.PolicyHash != p.Hash || t.PolicyVersion != p.Version {
		return errors.New("the policy is another version")
	}
	i := slices.IndexFunc(p.Rules, func(r policy.Rule) bool { return r.Name == t.Rule.Name })
	if i < 0 {
		return errors.New("the policy has no such rule")
	}
	rule := &p.Rules[i]
	if !slices.Contains(rule.Logins, t.Login) {
		return errors.New("the rule is for other logins")
	}
	times, err := t.Times()
	if err != nil {
		return err
	}
	automatic := rule.AutomaticAt(t.CreatedAt) && (t.NotBefore == nil || rule.AutomaticAt(*t.NotBefore))
	most := rule.MaxDuration
	var want TermsRule
	switch {
	case t.Emergency != nil:
		e := rule.Emergency
		said := t.Emergency.Assurance
		if e == nil || said != "" && said != string(rule.Assurance) || !slices.Equal(t.Emergency.ReviewGroups, e.ReviewBy) || !t.Emergency.ReviewBy.Equal(t.CreatedAt.Add(e.ReviewWithin)) {
			return errors.New("the rule has no such emergency")
		}
		want, most = RuleOf(rule, false), e.MaxDuration
		want.Extend = nil
	case t.Extends != "":
		both := rule.Extend.Automatic && extends != nil && extends.Automatic
		want, most = RuleOf(rule, automatic || t.Rule.Automatic && both), rule.Extend.By
		want.StartWithin = ""
		want.Extend = t.Rule.Extend // checkChain compares it with that of the grant before
	default:
		want = RuleOf(rule, automatic)
	}
	switch same, err := sameRule(want, t.Rule); {
	case err != nil:
		return err
	case !same:
		return errors.New("the rule gives other terms")
	case times.Duration > most:
		return errors.New("the rule gives less time")
	case t.ApproveBy.Sub(t.CreatedAt) != rule.ApproveWithin.Truncate(time.Microsecond):
		return errors.New("the rule gives another time to approve")
	}
	return nil
}

func sameRule(a, b TermsRule) (bool, error) {
	x, err := Canonical(a)
	if err != nil {
		return false, err
	}
	y, err := Canonical(b)
	return bytes.Equal(x, y), err
}
