package rollout_test

import (
	"strings"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/broker/rollout"
	"sallyport/broker/rollout/machine"
)

// policyIs puts another version of the policy into force.
func (s *scene) policyIs(change ...string) {
	s.t.Helper()
	document := strings.NewReplacer(change...).Replace(testPolicy)
	if document == testPolicy {
		s.t.Fatalf("the policy has none of %q", change)
	}
	other := s.person("olaf", "operators")
	p, err := s.approvals.Propose(s.t.Context(), s.operator, api.PolicyInput{Document: document, Comment: "because"})
	must(s.t, err)
	_, err = s.approvals.DecideProposal(s.t.Context(), other, p.ID, api.PolicyDecisionInput{Verdict: api.Approve, Comment: "read", Statement: p.Statement})
	must(s.t, err)
}

// A freeze that is put into the policy while a deployment is under way stops it, too, and
// what was issued before it ends when it begins.
func TestAttackFreezePutIntoThePolicyLater(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	j := s.deploy("github-edge", "edge", one)
	must(t, second(j.batch(1)))
	canary := j.state().Batches[0].Hosts[0].Name
	begins := s.clock.Now().Truncate(time.Minute).Add(3 * time.Minute)
	s.policyIs("    plan: {canary: {hosts: 1}, batches: [{hosts: 100%}], on_failure: rollback}\n    gates: [{name: sealed",
		`    freezes: [{name: now, zone: UTC, from: "`+begins.Format("2006-01-02T15:04")+`", until: "2026-03-03T00:00"}]`+
			"\n    plan: {canary: {hosts: 1}, batches: [{hosts: 100%}], on_failure: rollback}\n    gates: [{name: sealed")
	got, err := j.cert(1, canary)
	must(t, err)
	if got.ValidBefore.After(begins) {
		t.Errorf("a certificate is good until %s, in the freeze", got.ValidBefore)
	}
	s.clock.Advance(3 * time.Minute)
	refused(t, second(j.cert(1, canary)), machine.ErrFrozen)
	must(t, second(j.report(1, map[string]string{canary: "ok"})))
	s.until(j.id, 1, "passed")
	j.again()
	refused(t, second(j.batch(2)), machine.ErrFrozen)
	s.check()
}

// An agent that the policy trusts no more, or an entry that it does not have any more,
// gets nothing of what was opened before; people can end it.
func TestAttackAgentThatThePolicyNoLongerNames(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	j := s.deploy("github-edge", "edge", one)
	must(t, second(j.batch(1)))
	canary := j.state().Batches[0].Hosts[0].Name
	s.policyIs("agents: [github-edge]", "agents: [github-api]")
	for what, err := range map[string]error{"certificate": second(j.cert(1, canary)), "batch": second(j.batch(1)),
		"report": second(j.report(1, map[string]string{canary: "ok"})), "open": second(s.tryOpen(j.run, "edge", one))} {
		if err == nil {
			t.Errorf("%s: taken", what)
		}
	}
	refused(t, second(j.cert(1, canary)), rollout.ErrUnknown)
	s.policyIs("service: edge\n", "service: rim\n")
	refused(t, second(j.cert(1, canary)), rollout.ErrEntryGone)
	must(t, second(s.Control(t.Context(), s.operator, j.id, api.ControlInput{Action: "abort", Reason: "its entry is gone"})))
	s.until(j.id, 0, "aborted")
	if n := s.count(`SELECT count(*) FROM deployment_certificates`); n != 0 {
		t.Errorf("%d certificates", n)
	}
	s.check()
}
