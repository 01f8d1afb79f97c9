package broker_test

import (
	"slices"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/internal/oidctest"
)

// lend lets somebody decide for another for a day.
func (s *signedScene) lend(from, to identity.Caller) api.Delegation {
	s.t.Helper()
	d, err := s.approvals.Delegate(s.t.Context(), from, api.DelegationInput{Delegate: to.ID, Until: s.clock.Now().Add(24 * time.Hour), Reason: "away"})
	must(s.t, err)
	return d
}

// Who stands in signs with the provider as themselves, whose token cannot name the
// groups: the delegation that the broker vouches for does.
func TestSignedDecisionsOfDelegates(t *testing.T) {
	t.Parallel()
	s := newSignedScene(t)
	dora := s.comes("dora", "interns")
	s.lend(s.keeper, dora)
	r := s.ask("root", "vault-1")
	for _, of := range []string{"me", s.guard.ID} { // they were shown another
		_, err := s.approvals.DraftDecision(t.Context(), dora, approvals.Browser{SignIn: s.signIns[dora.ID], ClientID: oidctest.ClientID}, r.ID, api.DecisionInput{Verdict: api.Approve, For: of})
		isRefused(t, "for "+of, err, approvals.ErrForAnother)
	}
	s.decide(dora, r.ID, api.Approve)
	s.decide(s.guard, r.ID, api.Approve)
	s.issue(newKey(t), r.ID)
	s.checkLog()

	// The draft says for whom: what has changed until they come back is refused.
	other := s.comes("kit", "approvers")
	for name, change := range map[string]func(kim identity.Caller, d api.Delegation) error{
		"ended meanwhile": func(kim identity.Caller, d api.Delegation) error {
			_, err := s.approvals.EndDelegation(t.Context(), kim, d.ID)
			return err
		},
		"ended, and another lends": func(kim identity.Caller, d api.Delegation) error {
			s.lend(other, s.comes("dora of ended, and another lends", "interns"))
			_, err := s.approvals.EndDelegation(t.Context(), kim, d.ID)
			return err
		},
		"the delegator lost the group": func(kim identity.Caller, d api.Delegation) error { s.comes(kim.Subject, "interns"); return nil },
		"the delegator decided": func(kim identity.Caller, d api.Delegation) error {
			r, err := s.approvals.List(t.Context(), kim, approvals.ListFilter{Scope: approvals.Waiting})
			must(t, err)
			s.decide(kim, r.Items[0].ID, api.Approve)
			return nil
		},
	} {
		kim := s.comes("kim of "+name, "approvers")
		d := s.lend(kim, s.comes("dora of "+name, "interns"))
		who := s.comes("dora of "+name, "interns")
		r := s.ask("root", "vault-1")
		draft := s.draft(who, r.ID, api.Approve)
		must(t, change(kim, d))
		if err := s.complete(who, draft, s.provider.Sign(s.claims(who, draft))); err == nil {
			t.Errorf("%s: it is taken", name)
		}
		got, err := s.approvals.Get(t.Context(), s.engineer, r.ID)
		must(t, err)
		if slices.ContainsFunc(got.Decisions, func(x api.Decision) bool { return x.Approver.ID == who.ID }) {
			t.Errorf("%s: the delegate decided", name)
		}
		_, err = s.approvals.Cancel(t.Context(), s.engineer, r.ID)
		must(t, err)
	}
}
