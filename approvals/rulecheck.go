package approvals

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/approvals/policy"
)

// CheckPolicy verifies that the grant's terms, and those of the grants that it
// extends, are what the policy gave them, by the versions that they name. Terms
// are in the database, and whoever writes there could write himself a rule that
// asks nobody; versions that a broker vouches for he cannot.
func (s *Service) CheckPolicy(ctx context.Context, tx pgx.Tx, g Grant) error {
	for g := &g; g != nil; g = g.Earlier {
		p, err := s.believedVersion(ctx, tx, g.Terms.PolicyVersion)
		if err != nil {
			return err
		}
		var extends *TermsExtend
		if g.Earlier != nil {
			extends = g.Earlier.Terms.Rule.Extend
		}
		if err := g.Terms.checkRule(p, extends); err != nil {
			return ErrEvidence.With("the terms are not what the policy gave").Because(err)
		}
	}
	return nil
}

// believedVersion is a version that a broker vouches for. Others are ErrEvidence.
func (s *Service) believedVersion(ctx context.Context, db querier, n int64) (*policy.Policy, error) {
	if p := s.Policy(); p.Version == n {
		return p, nil
	}
	if p, ok := s.older.Load(n); ok {
		return p.(*policy.Policy), nil
	}
	v, err := readVersion(ctx, db, n)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, ErrEvidence.With("the terms name a version of the policy that never was in force")
	}
	if err != nil {
		return nil, err
	}
	if err := v.check(s.cfg.Log.VerifierKey()); err != nil {
		return nil, ErrEvidence.With("the terms name a version of the policy that nobody vouches for").Because(err)
	}
	p, err := v.parse()
	if err != nil {
		return nil, err
	}
	s.older.Store(n, p)
	return p, nil
}

// checkRule says in which way the terms are not those of their rule, or nil. It is
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
func (t Terms) checkRule(p *policy.Policy, extends *TermsExtend) error {
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
	times, err := t.times()
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
		want, most = termsRule(rule, false), e.MaxDuration
		want.Extend = nil
	case t.Extends != "":
		both := rule.Extend.Automatic && extends != nil && extends.Automatic
		want, most = termsRule(rule, automatic || t.Rule.Automatic && both), rule.Extend.By
		want.StartWithin = ""
		want.Extend = t.Rule.Extend // checkChain compares it with that of the grant before
	default:
		want = termsRule(rule, automatic)
	}
	switch same, err := sameRule(want, t.Rule); {
	case err != nil:
		return err
	case !same:
		return errors.New("the rule gives other terms")
	case times.duration > most:
		return errors.New("the rule gives less time")
	case t.ApproveBy.Sub(t.CreatedAt) != rule.ApproveWithin.Truncate(time.Microsecond):
		return errors.New("the rule gives another time to approve")
	}
	return nil
}

func sameRule(a, b TermsRule) (bool, error) {
	x, err := canonical(a)
	if err != nil {
		return false, err
	}
	y, err := canonical(b)
	return bytes.Equal(x, y), err
}
