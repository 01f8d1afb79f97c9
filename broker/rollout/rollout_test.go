package rollout_test

import (
	"maps"
	"slices"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/audit/event"
	"sallyport/broker/certs"
	"sallyport/broker/rollout"
	"sallyport/broker/rollout/gates"
	"sallyport/broker/rollout/machine"
)

// Ten hosts, one at first, then three, then six: each batch is sealed and judged before
// the next, and in the end every host is sealed and the artifact is the verified one.
func TestDeploymentSucceeds(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	j := s.deploy("github-api", "api", one)
	d := j.state()
	if d.State != "active" || len(d.Batches) != 3 || !d.Batches[0].Canary || len(d.Batches[2].Hosts) != 6 || d.Next != 1 || d.Holder != j.run.ID {
		t.Fatalf("opened: %+v", d)
	}
	began := s.clock.Now()
	j.deployBatch(1)
	s.until(j.id, 1, "soaking")
	_, err := j.batch(2)
	refused(t, err, machine.ErrBatchBefore)
	if len(j.state().Blockers) == 0 {
		t.Error("nothing says what the deployment waits for")
	}
	s.until(j.id, 1, "passed")
	if soaked := s.clock.Now().Sub(began); soaked < 10*time.Minute {
		t.Errorf("the canary soaked for %s", soaked)
	}
	s.clock.Advance(10 * time.Minute)
	// The job has long been idle, and another run of the same pipeline takes over.
	second := s.deploy("github-api", "api", one)
	if second.id != j.id || second.epoch == j.epoch {
		t.Fatalf("another run got deployment %s in epoch %d", second.id, second.epoch)
	}
	second.deployBatch(2)
	s.until(j.id, 2, "passed")
	second.deployBatch(3)
	end := s.until(j.id, 0, "complete")
	if end.EndedAt == nil || end.Holder != "" || len(end.Blockers) != 0 {
		t.Errorf("the end: %+v", end)
	}
	for _, b := range end.Batches {
		for _, h := range b.Hosts {
			if h.State != "sealed" || h.Result != "ok" {
				t.Errorf("host %s is %s, %s", h.Name, h.State, h.Result)
			}
		}
	}
	if s.count(`SELECT count(*) FROM deployment_hosts WHERE open_until IS NOT NULL OR released_at IS NULL`) != 0 {
		t.Error("hosts are open, or locked still")
	}
	// Nobody enters afterwards, and the next one knows what to go back to.
	_, err = second.cert(3, end.Batches[2].Hosts[0].Name)
	refused(t, err, machine.ErrOver)
	if next := s.deploy("github-api", "api", two).state(); next.Previous != one {
		t.Errorf("a rollback would go to %q", next.Previous)
	}
	if _, err := second.p.Finish(t.Context(), second.run, second.id, api.EndInput{Epoch: second.epoch}); err != nil {
		t.Errorf("finishing what is complete: %v", err)
	}
	s.check()
}

// A certificate is for one host, one key and one command, from the policy's addresses,
// for minutes, and says of which deployment, batch and epoch it is.
func TestCertificateIsOfOneBatch(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	j := s.deploy("github-api", "api", one)
	d, err := j.batch(1)
	must(t, err)
	host := d.Batches[0].Hosts[0]
	got, err := j.cert(1, host.ID)
	must(t, err)
	cert := parse(t, got.Certificate.Certificate)
	if want := map[string]string{"force-command": "/usr/local/bin/deploy " + one, "source-address": "192.0.2.0/24"}; !maps.Equal(cert.CriticalOptions, want) {
		t.Errorf("critical options %q", cert.CriticalOptions)
	}
	if len(own(cert)) != 0 || !slices.Equal(cert.ValidPrincipals, []string{"deploy@" + host.ID}) || string(cert.Key.Marshal()) != string(j.run.Key.Marshal()) {
		t.Errorf("extensions %q, principals %q", own(cert), cert.ValidPrincipals)
	}
	if want, _ := certs.AgentKeyID(j.id, 1, j.epoch, j.run.ID); cert.KeyId != want {
		t.Errorf("key id %q, not %q", cert.KeyId, want)
	}
	if left := time.Unix(int64(cert.ValidBefore), 0).Sub(s.clock.Now()); left > 5*time.Minute || left < 4*time.Minute {
		t.Errorf("it is good for %s", left)
	}
	must(t, certs.CheckUser(cert, s.house.userCA.PublicKey(), "deploy", host.ID, s.clock.Now()))
	logged := s.logged(cert)
	if logged.Deployment != j.id || logged.Batch != 1 || logged.Uses != 2 || logged.ActorKind != "agent" || logged.TermsHash != d.TermsHash || logged.TokenHash != j.run.TokenHash {
		t.Errorf("the log says %+v", logged)
	}
	if len(got.KnownHosts) == 0 || got.SSHConfig == "" {
		t.Error("ssh is not told how to find the host")
	}
	var signed []event.Event
	s.eventually(func() bool { signed = s.events("deployment.certificate_signed"); return len(signed) > 0 })
	if len(signed) != 1 || signed[0].OnBehalfOf.ID != j.run.ID {
		t.Errorf("what came of it: %+v", signed)
	}
	s.check()
}

// A failed report spends the budget, at once and over all batches; what follows is held,
// and nobody but people end it.
func TestFailureHolds(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	j := s.deploy("github-api", "api", one)
	j.deployBatch(1)
	s.until(j.id, 1, "passed")
	j.again()
	d, err := j.batch(2)
	must(t, err)
	_, err = j.report(2, map[string]string{d.Batches[1].Hosts[0].Name: "failed"})
	must(t, err)
	d = s.until(j.id, 0, "held")
	s.until(j.id, 2, "failed")
	d = j.state()
	if d.Batches[1].Hosts[1].Result != "missing" || d.Spent != 1 || d.Budget != 0 {
		t.Errorf("after a failure: %+v", d)
	}
	_, err = j.batch(3)
	refused(t, err, machine.ErrHeld)
	_, err = s.Control(t.Context(), s.oncall, j.id, api.ControlInput{Action: "resume", Reason: "let us see"})
	refused(t, err, machine.ErrNothingHeld)
	_, err = s.Control(t.Context(), s.oncall, j.id, api.ControlInput{Action: "rollback", Reason: "back"})
	refused(t, err, machine.ErrNoWayBack)
	_, err = s.Control(t.Context(), s.oncall, j.id, api.ControlInput{Action: "abort", Reason: "it does not start"})
	must(t, err)
	if end := s.until(j.id, 0, "aborted"); end.Why != "it does not start" {
		t.Errorf("it ended because %q", end.Why)
	}
	s.check()
}

// A canary that fails its gate is rolled back to what was verified last, by its own
// command, on the host that was opened and no other.
func TestCanaryFailsAndIsRolledBack(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	first := s.deploy("github-edge", "edge", one)
	first.deployBatch(1)
	s.until(first.id, 1, "passed")
	first.again()
	first.deployBatch(2)
	s.until(first.id, 0, "complete")

	j := s.deploy("github-edge", "edge", two)
	canary := j.state().Batches[0].Hosts[0]
	j.deployBatch(1)
	s.house.shown.set(canary.ID, gates.Posture{State: gates.Sealed, Ports: []int{443, 6379}})
	d := s.until(j.id, 0, "rolling_back")
	if len(d.Batches) != 3 || !d.Batches[2].Rollback || len(d.Batches[2].Hosts) != 1 || d.Batches[2].Hosts[0].ID != canary.ID || d.Next != 3 {
		t.Fatalf("the rollback: %+v", d)
	}
	if failures := s.events("gate.decided"); failures[len(failures)-1].Data.(event.GateDecided).Failures != 2 {
		t.Errorf("one failure of a gate that may fail once was enough: %+v", failures)
	}
	j.again()
	_, err := j.batch(2)
	refused(t, err, machine.ErrBatchState)
	back, err := j.batch(3)
	must(t, err)
	got, err := j.cert(3, back.Batches[2].Hosts[0].Name)
	must(t, err)
	if command := parse(t, got.Certificate.Certificate).CriticalOptions["force-command"]; command != "/usr/local/bin/put-back "+one {
		t.Errorf("the rollback runs %q", command)
	}
	_, err = j.cert(3, "edge-03")
	refused(t, err, machine.ErrOtherBatch)
	_, err = j.report(3, map[string]string{canary.Name: "ok"})
	must(t, err)
	s.until(j.id, 0, "rolled_back")
	if next := s.deploy("github-edge", "edge", two).state(); next.Previous != one {
		t.Errorf("what was rolled back counts as verified: %q", next.Previous)
	}
	s.check()
}

// Two services that share hosts wait for each other, and so do two deployments of one.
func TestOneDeploymentPerHost(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	j := s.deploy("github-api", "api", one)
	_, err := s.tryOpen(s.run("github-api"), "api", two)
	refused(t, err, rollout.ErrOtherRunning)
	_, err = s.tryOpen(s.run("github-db"), "db", two)
	refused(t, err, rollout.ErrHostBusy)
	if n := s.count(`SELECT count(*) FROM deployments`); n != 1 {
		t.Errorf("%d deployments", n)
	}
	// The same run again, whose answer was lost, and another with the lease still held.
	if again, err := s.tryOpen(j.run, "api", one); err != nil || again.ID != j.id || again.Epoch != j.epoch {
		t.Errorf("opening again: %+v, %v", again, err)
	}
	_, err = s.tryOpen(s.run("github-api"), "api", one)
	refused(t, err, machine.ErrLeased)
	if _, err := s.Abort(t.Context(), j.run, j.id, api.EndInput{Epoch: j.epoch, Reason: "another day"}); err != nil {
		t.Fatal(err)
	}
	s.until(j.id, 0, "aborted")
	s.deploy("github-db", "db", two)
	s.check()
}

// Nothing starts before the people whom the policy names have approved it, and none of
// them twice, nor who started it.
func TestApprovalBeforeStart(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	j := s.deploy("github-db", "db", one)
	approve := func(who identity.Caller) error {
		_, err := s.Decide(t.Context(), who, j.id, api.DeploymentDecisionInput{About: "start", Verdict: api.Approve})
		return err
	}
	_, err := j.batch(1)
	refused(t, err, machine.ErrAwaiting)
	refused(t, approve(s.engineer), rollout.ErrUnknown)
	must(t, approve(s.lead))
	refused(t, approve(s.lead), rollout.ErrNotApprover)
	refused(t, approve(s.person("lena.too", "security")), rollout.ErrOwnDeployment)
	_, err = j.batch(1)
	refused(t, err, machine.ErrAwaiting)
	must(t, approve(s.security))
	j.deployBatch(1)
	s.until(j.id, 1, "gating")
	d, err := s.Decide(t.Context(), s.lead, j.id, api.DeploymentDecisionInput{About: "gate", Batch: 1, Gate: "people", Verdict: api.Approve, Comment: "all is well"})
	must(t, err)
	if len(d.Decisions) != 3 || d.Decisions[2].Gate != "people" {
		t.Errorf("decisions: %+v", d.Decisions)
	}
	s.until(j.id, 0, "complete")
	issued := s.events("deployment.certificate_issued")[0].Data.(event.DeploymentCertificateIssued)
	if len(issued.Decisions) != 2 {
		t.Errorf("a certificate names %d decisions", len(issued.Decisions))
	}
	s.check()
}
