package rollout_test

import (
	"slices"
	"strings"
	"testing"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/broker/rollout"
)

// question is what the person is asked about that.
func (s *scene) question(c identity.Caller, id, about string) *api.DeploymentQuestion {
	s.t.Helper()
	a, err := s.Account(s.t.Context(), c, id)
	must(s.t, err)
	i := slices.IndexFunc(a.Questions, func(q api.DeploymentQuestion) bool { return q.About == about })
	if i < 0 {
		return nil
	}
	return &a.Questions[i]
}

func (s *scene) waiting(c identity.Caller) (list []string) {
	s.t.Helper()
	found, err := s.Waiting(s.t.Context(), c)
	must(s.t, err)
	for _, d := range found {
		list = append(list, d.ID)
	}
	n, err := s.CountWaiting(s.t.Context(), c)
	must(s.t, err)
	if n != len(list) {
		s.t.Errorf("%d are counted, %d are there", n, len(list))
	}
	return list
}

// What people are asked is asked of those, and only those, who can answer: not of whoever
// started it, nor twice, and of nobody when it is over.
func TestWhoIsAskedWhat(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	j := s.deploy("github-db", "db", one)
	starter := s.person("lena.too", "leads") // whom the job's token names
	for who, may := range map[*identity.Caller]bool{&s.lead: true, &s.security: true, &starter: false, &s.operator: false} {
		q := s.question(*who, j.id, "start")
		if q == nil || q.MayApprove != may || q.MayDeny != may || may == (q.Why != "") {
			t.Errorf("%s is asked %+v", who.Name, q)
		}
		if got := s.waiting(*who); slices.Equal(got, []string{j.id}) != may {
			t.Errorf("for %s wait %v", who.Name, got)
		}
	}
	if q := s.question(starter, j.id, "start"); !strings.Contains(q.Why, "started") {
		t.Errorf("who started it is told %q", q.Why)
	}
	_, err := s.Decide(t.Context(), s.lead, j.id, api.DeploymentDecisionInput{About: "start", Verdict: api.Approve})
	must(t, err)
	if q := s.question(s.lead, j.id, "start"); q.MayApprove || q.MayDeny || !strings.Contains(q.Why, "already") || q.Slots[0].Filled != 1 || q.Slots[1].Filled != 0 {
		t.Errorf("after the answer: %+v", q)
	}
	if got := s.waiting(s.lead); got != nil {
		t.Errorf("for who has answered wait %v", got)
	}
	_, err = s.Decide(t.Context(), s.security, j.id, api.DeploymentDecisionInput{About: "start", Verdict: api.Approve})
	must(t, err)
	j.again()
	j.deployBatch(1)
	s.until(j.id, 1, "gating")
	if q := s.question(s.lead, j.id, "gate"); q == nil || !q.MayApprove || q.Batch != 1 || q.Gate != "people" || q.Slots[0].Groups[0] != "leads" {
		t.Errorf("at the gate: %+v", q)
	}
	if got := s.waiting(s.security); got != nil {
		t.Errorf("for those whom the gate does not name wait %v", got)
	}
	_, err = s.Control(t.Context(), s.operator, j.id, api.ControlInput{Action: "abort", Reason: "enough"})
	must(t, err)
	s.until(j.id, 0, "aborted")
	if a, err := s.Account(t.Context(), s.lead, j.id); err != nil || len(a.Questions) != 0 || s.waiting(s.lead) != nil {
		t.Errorf("when it is over: %+v, %v", a.Questions, err)
	}
}

// The account has the terms, each certificate with its place in the log, and each gate
// with what it wants and what was seen; the events are the deployment's own.
func TestTheAccountOfADeployment(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	other := s.deploy("github-edge", "edge", two)
	j := s.deploy("github-api", "api", one)
	j.deployBatch(1)
	s.until(j.id, 1, "passed")
	s.events("") // nothing waits for its place any more
	a, err := s.Account(t.Context(), s.auditor, j.id)
	must(t, err)
	if a.Command != "/usr/local/bin/deploy "+one || a.Login != "deploy" || a.Agent != "github-api" || a.Issuer != "https://token.test" || a.OnFailure != "hold" || a.Back != "" {
		t.Errorf("the terms are %+v", a)
	}
	if len(a.Certificates) != 1 || a.Certificates[0].Index == nil || a.Certificates[0].HostID != a.Batches[0].Hosts[0].ID || a.Certificates[0].Uses != 2 {
		t.Fatalf("the certificates are %+v", a.Certificates)
	}
	if e, err := s.log.Entry(t.Context(), *a.Certificates[0].Index); err != nil || e.Type != "deployment.certificate_issued" {
		t.Errorf("its event is %s, %v", e.Type, err)
	}
	if g := a.Batches[0].Gates[0]; g.Asks != "1 of 1 hosts reported ok" || g.At == nil || g.Why != "1 of 1 hosts are ok, and 1 must be" {
		t.Errorf("the gate is %+v", g)
	}
	if g := a.Batches[2].Gates[0]; g.Asks != "6 of 6 hosts reported ok" || g.At != nil {
		t.Errorf("a gate that was not looked at is %+v", g)
	}
	events, all, err := s.Told(t.Context(), s.auditor, j.id)
	must(t, err)
	if !all || len(events) < 8 || events[len(events)-1].Type != "deployment.opened" {
		t.Errorf("%d events, all: %v", len(events), all)
	}
	for _, e := range events {
		if e.Data["deployment_id"] != j.id || e.Type == "deployment.certificate_issued" {
			t.Errorf("event %s of %v", e.Type, e.Data["deployment_id"])
		}
	}

	d, err := s.OfHost(t.Context(), s.operator, s.ids["api-01"])
	must(t, err)
	if d == nil || d.ID != j.id {
		t.Errorf("the host's last deployment is %+v", d)
	}
	if d, err := s.OfHost(t.Context(), s.operator, s.ids["db-01"]); d != nil || err != nil {
		t.Errorf("of a host that never had one: %+v, %v", d, err)
	}
	services, err := s.Services(t.Context(), s.oncall)
	must(t, err)
	if !slices.Equal(services, []string{"api"}) {
		t.Errorf("somebody sees services %v", services)
	}
	over, err := s.List(t.Context(), s.auditor, rollout.Filter{Over: true})
	must(t, err)
	active, err := s.List(t.Context(), s.auditor, rollout.Filter{State: "active"})
	must(t, err)
	if len(over.Items) != 0 || len(active.Items) != 2 {
		t.Errorf("%d are over, %d active", len(over.Items), len(active.Items))
	}
	_ = other
}

// Somebody whom no deployment concerns learns nothing of any by what pages are made of.
func TestPagesTellStrangersNothing(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	j := s.deploy("github-api", "api", one)
	_, err := s.Account(t.Context(), s.engineer, j.id)
	refused(t, err, rollout.ErrUnknown)
	_, _, err = s.Told(t.Context(), s.engineer, j.id)
	refused(t, err, rollout.ErrUnknown)
	if d, err := s.OfHost(t.Context(), s.engineer, s.ids["api-01"]); d != nil || err != nil {
		t.Errorf("a host's deployment: %+v, %v", d, err)
	}
	if services, err := s.Services(t.Context(), s.engineer); len(services) != 0 || err != nil {
		t.Errorf("services: %v, %v", services, err)
	}
	for who, want := range map[*identity.Caller]bool{&s.engineer: false, &s.oncall: true, &s.operator: true, &s.auditor: true} {
		if sees, err := s.Sees(t.Context(), *who); sees != want || err != nil {
			t.Errorf("%s sees deployments: %v, %v", who.Name, sees, err)
		}
	}
	if s.waiting(s.engineer) != nil {
		t.Error("something waits for a stranger")
	}
}
