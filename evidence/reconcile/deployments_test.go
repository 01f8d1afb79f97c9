package reconcile_test

import (
	"strings"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/audit/event"
	"sallyport/broker/rollout/machine"
	"sallyport/evidence/populations"
	"sallyport/evidence/reconcile"
	"sallyport/internal/history"
	"sallyport/internal/ids"
)

// rollout is a scene in which things are deployed.
type rollout struct {
	*scene
	run *history.Agent
}

func newRollout(t testing.TB) *rollout {
	t.Helper()
	return newRolloutUnder(t, history.DeployDocument)
}

func newRolloutUnder(t testing.TB, document string) *rollout {
	t.Helper()
	s := &scene{History: history.New(t, document), missing: map[int64]bool{}, from: history.Start}
	s.erin, s.liam, s.sam = s.Person("Erin", "engineers"), s.Person("Liam", "leads"), s.Person("Sam", "security")
	s.olga, s.omar = s.Person("Olga", "ops"), s.Person("Omar", "ops")
	return &rollout{s, s.Admit("github-redis")}
}

// opened is a deployment of one and three hosts.
func (r *rollout) opened(digest, previous string, forge func(event.Data) event.Data) *history.Deployment {
	return r.Deploy(r.run, "redis-prod", digest, previous, forge, []string{"r-1"}, []string{"r-2", "r-3", "r-4"})
}

// approved is one that has begun.
func (r *rollout) approved(forge func(event.Data) event.Data) *history.Deployment {
	return r.opened(history.Digest(1), "", forge).Approve(r.liam, r.sam)
}

// whole is one from beginning to end.
func (r *rollout) whole(forge func(event.Data) event.Data) {
	d := r.approved(forge)
	r.goOn(d)
}

func (r *rollout) goOn(d *history.Deployment) {
	for n := 1; n <= 2; n++ {
		d.Roll(n)
		d.Judge(n, r.liam)
	}
	d.Complete()
}

// after is a deployment of the next artifact, whose canary is about to be judged.
func (r *rollout) after(previous string) *history.Deployment {
	r.whole(nil)
	d := r.opened(history.Digest(2), previous, nil).Approve(r.liam, r.sam)
	d.Roll(1)
	d.Batch(1, "failed")
	return d
}

// each alters events of one type.
func each[D event.Data](alter func(d *D) (keep bool)) func(event.Data) event.Data {
	return func(data event.Data) event.Data {
		d, ok := data.(D)
		if !ok {
			return data
		}
		if !alter(&d) {
			return nil
		}
		return d
	}
}

// Each is something that must not happen in a deployment, or that looks like it and may.
func TestDeploymentExceptions(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		happens func(*rollout)
		want    []string
	}{
		"nothing wrong": {func(r *rollout) { r.whole(nil) }, nil},
		"nothing wrong, and nobody need approve": {func(r *rollout) {
			d := r.Deploy(r.run, "web-prod", history.Digest(1), "", nil, []string{"w-1", "w-2"})
			d.Roll(1)
			d.Judge(1, r.liam)
			d.Complete()
		}, nil},
		"nothing wrong, and it is rolled back": {func(r *rollout) { r.after(history.Digest(1)).PutBack() }, nil},
		"nothing wrong, and a run takes over what another lost": {func(r *rollout) {
			d := r.approved(nil)
			d.Batch(1, "open")
			d.Certificate(1, d.Hosts[0][0])
			r.Add(event.New(r.Now, event.Actor{Kind: event.Broker}, "", event.Subject{}, event.DeploymentReleased{DeploymentID: d.ID, Run: r.run.ID}))
			r.Add(event.New(r.Now, event.Actor{Kind: event.Broker}, "", event.Subject{}, event.DeploymentHeld{DeploymentID: d.ID, Code: machine.LeaseLost}))
			d.Close(1)
			d.Batch(1, "inconclusive")
			d.Move("held", "")
			d.Epoch++
			d.Lease(r.Admit("github-redis"))
			r.Add(event.New(r.Now, event.Actor{Kind: event.Broker}, "", event.Subject{}, event.DeploymentResumed{DeploymentID: d.ID, Code: machine.LeaseLost}))
			d.Move("active", "")
			r.goOn(d)
		}, nil},
		"nothing wrong, in a freeze with an override": {func(r *rollout) {
			d := r.approved(nil)
			r.Now = time.Date(2026, 1, 6, 10, 0, 0, 0, time.UTC)
			d.Relay(r.Admit("github-redis"))
			d.Override(r.sam, r.Now.Add(2*time.Hour))
			r.goOn(d)
		}, nil},

		"an agent's certificate before its batch is open": {func(r *rollout) {
			d := r.approved(nil)
			d.Issue(d.Template(1, d.Hosts[0][0]))
		}, []string{reconcile.AgentCertWithoutBatch}},
		"an agent's certificate after its batch was closed": {func(r *rollout) {
			d := r.approved(nil)
			d.Batch(1, "open")
			d.Close(1)
			d.Issue(d.Template(1, d.Hosts[0][0]))
		}, []string{reconcile.AgentCertWithoutBatch}},
		"an agent's certificate for a host of another batch": {func(r *rollout) {
			d := r.approved(nil)
			d.Batch(1, "open")
			d.Issue(d.Template(1, d.Hosts[1][0]))
		}, []string{reconcile.AgentCertWithoutBatch}},
		"an agent's certificate of another epoch": {func(r *rollout) {
			d := r.approved(nil)
			d.Batch(1, "open")
			a := d.Template(1, d.Hosts[0][0])
			a.Epoch = 7
			d.Issue(a)
		}, []string{reconcile.AgentCertWithoutBatch}},
		"an agent's certificate of another deployment": {func(r *rollout) {
			d := r.approved(nil)
			d.Batch(1, "open")
			a := d.Template(1, d.Hosts[0][0])
			a.DeploymentID = ids.New(ids.Deployment)
			d.Issue(a)
		}, []string{reconcile.AgentCertWithoutBatch}},
		"an agent's certificate for a host that two deployments have open": {func(r *rollout) {
			d := r.approved(nil)
			d.Batch(1, "open")
			other := r.Deploy(r.Admit("github-redis"), "web-prod", history.Digest(1), "", nil, []string{"r-1"})
			other.Batch(1, "open")
			d.Issue(d.Template(1, d.Hosts[0][0]))
		}, []string{reconcile.AgentCertWithoutBatch}},
		"an agent's certificate for a host that was reported": {func(r *rollout) {
			d := r.approved(nil)
			d.Batch(1, "open")
			r.Add(event.New(r.Now, r.run.Actor(), "", event.Subject{HostID: d.Hosts[0][0]},
				event.BatchReported{DeploymentID: d.ID, Batch: 1, OK: d.Hosts[0], Failed: []string{}, Skipped: []string{}}))
			d.Issue(d.Template(1, d.Hosts[0][0]))
		}, []string{reconcile.AgentCertWithoutBatch}},
		"an agent's certificate of a batch that is open for too long": {func(r *rollout) {
			d := r.approved(nil)
			d.Batch(1, "open")
			r.Now = r.Now.Add(d.Entry.Plan.OpenFor)
			a := d.Template(1, d.Hosts[0][0])
			a.Until = r.Now.Add(time.Minute)
			d.Issue(a)
		}, []string{reconcile.AgentCertWithoutBatch}},

		"an agent's certificate of a deployment that is held": {func(r *rollout) {
			d := r.approved(nil)
			d.Batch(1, "open")
			r.Broker(event.DeploymentHeld{DeploymentID: d.ID, Code: machine.Drift, Reason: "a host has drifted"})
			d.Issue(d.Template(1, d.Hosts[0][0]))
		}, []string{reconcile.AgentCertWithoutBatch}},

		"an agent's certificate with another command": {func(r *rollout) {
			d := r.approved(nil)
			d.Batch(1, "open")
			a := d.Template(1, d.Hosts[0][0])
			a.Command = "/bin/sh"
			d.Issue(a)
		}, []string{reconcile.AgentCertOutsidePolicy}},
		"an agent's certificate for another digest": {func(r *rollout) {
			d := r.approved(nil)
			d.Batch(1, "open")
			a := d.Template(1, d.Hosts[0][0])
			a.Command = "/usr/local/bin/deploy " + history.Digest(9)
			d.Issue(a)
		}, []string{reconcile.AgentCertOutsidePolicy}},
		"an agent's certificate from other addresses": {func(r *rollout) {
			d := r.approved(nil)
			d.Batch(1, "open")
			a := d.Template(1, d.Hosts[0][0])
			a.SourceAddress = []string{"198.51.100.0/24"}
			d.Issue(a)
		}, []string{reconcile.AgentCertOutsidePolicy}},
		"an agent's certificate that lives too long": {func(r *rollout) {
			d := r.approved(nil)
			d.Batch(1, "open")
			a := d.Template(1, d.Hosts[0][0])
			a.Now = a.Now.Add(2 * time.Minute)
			d.Issue(a)
		}, []string{reconcile.AgentCertOutsidePolicy}},
		"an agent's certificate with more uses": {func(r *rollout) {
			d := r.approved(each(func(d *event.DeploymentCertificateIssued) bool { d.Uses = 99; return true }))
			d.Batch(1, "open")
			d.Certificate(1, d.Hosts[0][0])
		}, []string{reconcile.AgentCertOutsidePolicy}},
		"an agent's certificate of which the event says something else": {func(r *rollout) {
			d := r.approved(each(func(d *event.DeploymentCertificateIssued) bool {
				d.Principal = "root@" + ids.New(ids.Host)
				return true
			}))
			d.Batch(1, "open")
			d.Issue(d.Template(1, d.Hosts[0][0]))
		}, []string{reconcile.AgentCertOutsidePolicy}},

		"an agent's certificate of a run that lost the lease": {func(r *rollout) {
			d := r.approved(nil)
			d.Batch(1, "open")
			d.Agent = r.Admit("github-redis")
			d.Certificate(1, d.Hosts[0][0])
		}, []string{reconcile.AgentCertOutsideRun}},
		"an agent's certificate for another key": {func(r *rollout) {
			d := r.approved(nil)
			d.Batch(1, "open")
			a := d.Template(1, d.Hosts[0][0])
			a.Key = r.erin.Key
			d.Issue(a)
		}, []string{reconcile.AgentCertOutsideRun}},
		"an agent's certificate of a run that was revoked": {func(r *rollout) {
			d := r.approved(nil)
			d.Batch(1, "open")
			r.Broker(event.AgentRevoked{RunID: r.run.ID, Entry: "github-redis", Reason: "it is no longer trusted"})
			r.Now = r.Now.Add(2 * time.Minute)
			d.Certificate(1, d.Hosts[0][0])
		}, []string{reconcile.AgentCertOutsideRun}},
		"an agent's certificate of a run that ended": {func(r *rollout) {
			d := r.approved(nil)
			r.Now = r.Now.Add(7 * time.Hour)
			d.Batch(1, "open")
			d.Certificate(1, d.Hosts[0][0])
		}, []string{reconcile.AgentCertOutsideRun}},
		"an agent that never came": {func(r *rollout) {
			d := r.approved(nil)
			r.run = &history.Agent{ID: ids.New(ids.Run), Key: r.run.Key, Token: r.run.Token}
			d.Relay(r.run)
			d.Batch(1, "open")
			d.Certificate(1, d.Hosts[0][0])
		}, []string{reconcile.AgentCertOutsideRun}},
		"a token that was shown with a second key": {func(r *rollout) {
			r.Add(event.New(r.Now, event.Actor{Kind: event.Agent, Name: "github-redis"}, "198.51.100.7", event.Subject{}, event.AgentTokenShared{RunID: r.run.ID,
				Entry: "github-redis", TokenHash: r.run.Token, FirstKey: "SHA256:a", SecondKey: "SHA256:b", FirstAt: r.Now, Revoked: true}).Under(r.Ref()))
		}, []string{reconcile.AgentTokenShared}},

		"a session without a certificate, by an agent's key id": {func(r *rollout) {
			d := r.approved(nil)
			d.Batch(1, "open")
			d.Session(d.Template(1, d.Hosts[0][0]))
		}, []string{reconcile.SessionWithoutCert}},
		"a session on a host after its sealing": {func(r *rollout) {
			d := r.approved(nil)
			d.Batch(1, "open")
			a := d.Template(1, d.Hosts[0][0])
			d.Issue(a)
			d.Close(1)
			r.Now = r.Now.Add(2 * time.Minute)
			d.Session(a)
		}, []string{reconcile.SessionAfterSealing}},
		"a session that is reported after the sealing": {func(r *rollout) {
			d := r.approved(nil)
			d.Batch(1, "open")
			a := d.Template(1, d.Hosts[0][0])
			d.Issue(a)
			d.Close(1)
			before := r.Now.Add(-time.Second).Format(time.RFC3339)
			r.Now = r.Now.Add(2 * time.Hour)
			keyID := d.ID + "/1/1/" + r.run.ID
			r.Session(a.HostID, `"serial":"1","key_id":"`+keyID+`","login":"deploy","started_at":"`+before+`"`)
		}, nil},
		"a session that the host did not let begin": {func(r *rollout) {
			d := r.approved(nil)
			d.Batch(1, "open")
			a := d.Template(1, d.Hosts[0][0])
			d.Issue(a)
			d.Close(1)
			r.Now = r.Now.Add(2 * time.Minute)
			r.Session(a.HostID, `"serial":"1","login":"deploy","problem":"sealed"`)
		}, nil},
		"more connections than a certificate is good for": {func(r *rollout) {
			d := r.approved(nil)
			d.Batch(1, "open")
			a := d.Template(1, d.Hosts[0][0])
			d.Issue(a)
			for range 3 {
				d.Session(a)
			}
		}, []string{reconcile.SessionOutsideCert}},
		"an agent's session on another host": {func(r *rollout) {
			d := r.approved(nil)
			d.Batch(1, "open")
			a := d.Template(1, d.Hosts[0][0])
			d.Issue(a)
			a.HostID = d.Hosts[1][0]
			d.Session(a)
		}, []string{reconcile.SessionOutsideCert}},

		"a start that nobody approved": {func(r *rollout) { r.goOn(r.opened(history.Digest(1), "", nil).Approve()) }, []string{reconcile.DeploymentUnapproved}},
		"a start that one of two approved": {func(r *rollout) {
			r.goOn(r.opened(history.Digest(1), "", nil).Approve(r.liam))
		}, []string{reconcile.DeploymentUnapproved}},
		"a start that was denied": {func(r *rollout) {
			d := r.opened(history.Digest(1), "", nil)
			d.Decide(r.liam, "start", api.Deny, time.Time{})
			d.Approve(r.liam, r.sam)
		}, []string{reconcile.DeploymentUnapproved}},
		"a start approved by people of other groups": {func(r *rollout) {
			r.opened(history.Digest(1), "", nil).Approve(r.erin, r.olga)
		}, []string{reconcile.DeploymentUnapproved}},
		"a start whose approval was for other terms": {func(r *rollout) {
			r.opened(history.Digest(1), "", each(func(d *event.DeploymentDecided) bool { d.TermsHash = "ab"; return true })).Approve(r.liam, r.sam)
		}, []string{reconcile.DecisionAltered, reconcile.DecisionAltered, reconcile.DeploymentUnapproved}},
		"a denial that the event calls an approval": {func(r *rollout) {
			d := r.opened(history.Digest(1), "", each(func(d *event.DeploymentDecided) bool { d.Verdict = "approve"; return true }))
			d.Decide(r.liam, "start", api.Deny, time.Time{})
		}, []string{reconcile.DecisionAltered}},
		"a start approved by who started it": {func(r *rollout) {
			r.By(r.liam, event.Subject{}, event.PersonSignedIn{Via: "web", Email: "Lena@example.com", AuthTime: r.Now})
			r.whole(nil)
		}, []string{reconcile.DeploymentByStarter, reconcile.DeploymentByStarter, reconcile.DeploymentByStarter}},
		"an approval by somebody who had left": {func(r *rollout) {
			r.Broker(event.KeysLoaded{})
			r.By(r.olga, event.Subject{PersonID: r.liam.ID}, event.PersonRemoved{})
			r.opened(history.Digest(1), "", nil).Approve(r.liam, r.sam)
		}, []string{reconcile.LeaverAccess}},
		"a certificate that names other approvals": {func(r *rollout) {
			d := r.approved(nil)
			d.Started = d.Started[:1]
			d.Batch(1, "open")
			d.Certificate(1, d.Hosts[0][0])
		}, []string{reconcile.DeploymentUnapproved}},

		"a batch before the former has shown that it is sealed": {func(r *rollout) {
			r.whole(each(func(d *event.BatchVerified) bool { return d.Batch != 1 }))
		}, []string{reconcile.BatchEarly, reconcile.BatchEarly, reconcile.DeploymentUnsealed}},
		"a host that its agent says is sealed": {func(r *rollout) {
			d := r.approved(each(func(d *event.BatchVerified) bool { return false }))
			d.Roll(1)
			r.Add(event.New(r.Now, r.run.Actor(), "", event.Subject{HostID: d.Hosts[0][0]}, event.BatchVerified{DeploymentID: d.ID, Batch: 1, State: "sealed"}))
			d.Judge(1, r.liam)
			d.Batch(2, "open")
		}, []string{reconcile.BatchEarly}},
		"a batch before the former has soaked": {func(r *rollout) {
			d := r.approved(each(func(d *event.BatchMoved) bool {
				if d.State == "gating" {
					r.Now = r.Now.Add(-5 * time.Minute)
				}
				return true
			}))
			d.Roll(1)
			d.Judge(1, r.liam)
			d.Roll(2)
		}, []string{reconcile.BatchEarly}},
		"a batch before the former has passed a gate": {func(r *rollout) {
			d := r.approved(each(func(d *event.GateDecided) bool { return d.Gate != "health" }))
			d.Roll(1)
			d.Judge(1, r.liam)
			d.Roll(2)
		}, []string{reconcile.BatchEarly}},
		"a batch after a gate that was inconclusive": {func(r *rollout) {
			d := r.approved(each(func(d *event.GateDecided) bool { d.Verdict = "inconclusive"; return true }))
			d.Roll(1)
			d.Judge(1, r.liam)
			d.Roll(2)
		}, []string{reconcile.BatchEarly}},
		"a batch after a gate that people should have passed": {func(r *rollout) {
			d := r.approved(nil)
			d.Roll(1)
			d.Judge(1, r.erin)
			d.Roll(2)
		}, []string{reconcile.BatchEarly}},
		"a batch after reports of failure": {func(r *rollout) {
			d := r.approved(each(func(d *event.BatchReported) bool { d.Failed, d.OK = d.OK, []string{}; return true }))
			d.Roll(1)
			d.Judge(1, r.liam)
			d.Roll(2)
		}, []string{reconcile.BatchEarly}},
		"a batch before the former": {func(r *rollout) { r.approved(nil).Roll(2) }, []string{reconcile.BatchEarly}},
		"a batch of a deployment that is held": {func(r *rollout) {
			d := r.approved(nil)
			r.Broker(event.DeploymentHeld{DeploymentID: d.ID, Code: machine.Stopped, Reason: "wait"})
			d.Batch(1, "open")
		}, []string{reconcile.BatchEarly}},
		"a deployment that is complete before its last batch": {func(r *rollout) {
			d := r.approved(nil)
			d.Roll(1)
			d.Judge(1, r.liam)
			d.Complete()
		}, []string{reconcile.BatchEarly, reconcile.DeploymentUnsealed}},

		"a deployment that is complete with a host that is quarantined": {func(r *rollout) {
			d := r.approved(nil)
			for n := 1; n <= 2; n++ {
				d.Roll(n)
				d.Judge(n, r.liam)
			}
			d.Move("verifying", "")
			d.Verify(1, machine.HostSealed)
			d.Verify(2, machine.HostQuarantined)
			d.Move("complete", "")
		}, []string{reconcile.DeploymentUnsealed}},
		"a deployment whose hosts were not verified at its end": {func(r *rollout) {
			d := r.approved(nil)
			for n := 1; n <= 2; n++ {
				d.Roll(n)
				d.Judge(n, r.liam)
			}
			d.Move("verifying", "")
			d.Move("complete", "")
		}, []string{reconcile.DeploymentUnsealed}},
		"a deployment that is aborted with a host that has drifted": {func(r *rollout) {
			d := r.approved(nil)
			d.Roll(1)
			d.Verify(1, machine.HostDrifted)
			d.Batch(1, "failed")
			d.Move("aborted", "")
		}, []string{reconcile.DeploymentUnsealed}},
		"a deployment that is aborted before anything was open": {func(r *rollout) { r.approved(nil).Move("aborted", "another day") }, nil},

		"a batch and a certificate in a freeze": {func(r *rollout) {
			d := r.approved(nil)
			r.Now = time.Date(2026, 1, 6, 10, 0, 0, 0, time.UTC)
			d.Relay(r.Admit("github-redis"))
			d.Batch(1, "open")
			d.Certificate(1, d.Hosts[0][0])
		}, []string{reconcile.DeploymentInFreeze, reconcile.DeploymentInFreeze}},
		"a certificate that is good into a freeze": {func(r *rollout) {
			d := r.approved(nil)
			r.Now = time.Date(2026, 1, 5, 23, 58, 0, 0, time.UTC)
			d.Relay(r.Admit("github-redis"))
			d.Batch(1, "open")
			d.Certificate(1, d.Hosts[0][0])
		}, []string{reconcile.DeploymentInFreeze}},
		"an override that nobody with the right gave": {func(r *rollout) {
			d := r.approved(nil)
			r.Now = time.Date(2026, 1, 6, 10, 0, 0, 0, time.UTC)
			d.Relay(r.Admit("github-redis"))
			d.Override(r.liam, r.Now.Add(time.Hour))
			d.Batch(1, "open")
		}, []string{reconcile.DeploymentUnapproved, reconcile.DeploymentInFreeze}},
		"an override that is over": {func(r *rollout) {
			d := r.approved(nil)
			r.Now = time.Date(2026, 1, 6, 10, 0, 0, 0, time.UTC)
			d.Relay(r.Admit("github-redis"))
			d.Override(r.sam, r.Now.Add(time.Minute))
			r.Now = r.Now.Add(time.Minute)
			d.Batch(1, "open")
		}, []string{reconcile.DeploymentInFreeze}},
		"an override that is longer than it was approved for": {func(r *rollout) {
			d := r.approved(each(func(d *event.DeploymentUnfrozen) bool { d.Until = d.Until.Add(time.Hour); return true }))
			d.Override(r.sam, r.Now.Add(time.Hour))
		}, []string{reconcile.DeploymentUnapproved}},
		"a freeze that the policy got since": {func(r *rollout) {
			d := r.approved(nil)
			r.Propose(r.olga, history.DeployDocument+"    freezes: [{name: now, zone: UTC, times: [{days: [mon], from: \"00:00\", to: \"24:00\"}]}]\n").Approve(r.omar)
			other := r.Deploy(r.run, "web-prod", history.Digest(1), "", nil, []string{"w-1"})
			r.Now = r.Now.Add(2 * time.Minute)
			d.Batch(1, "open")
			other.Batch(1, "open")
		}, []string{reconcile.DeploymentInFreeze}},

		"a rollback to what was never verified": {func(r *rollout) { r.after(history.Digest(7)).PutBack() }, []string{reconcile.RollbackUnverified}},
		"a rollback to nothing": {func(r *rollout) {
			d := r.approved(nil)
			d.Roll(1)
			d.Batch(1, "failed")
			d.Move("rolling_back", "")
			d.Batch(3, "open")
		}, []string{reconcile.RollbackUnverified}},
		"a rollback of a host that was never opened": {func(r *rollout) {
			d := r.after(history.Digest(1))
			d.Move("rolling_back", "")
			d.Hosts[0] = d.Hosts[1][:1]
			d.Batch(3, "open")
		}, []string{reconcile.DeploymentAltered}},

		"a deployment of an entry that the policy has not": {func(r *rollout) {
			r.opened(history.Digest(1), "", each(func(d *event.DeploymentOpened) bool { d.Entry = "mysql-prod"; return true }))
		}, []string{reconcile.DeploymentOutsidePolicy}},
		"a deployment by agents whom the policy does not let": {func(r *rollout) {
			r.run = r.Admit("github-other")
			r.opened(history.Digest(1), "", nil)
		}, []string{reconcile.DeploymentOutsidePolicy}},
		"a canary of all hosts": {func(r *rollout) {
			r.Deploy(r.run, "redis-prod", history.Digest(1), "", nil, []string{"r-1", "r-2", "r-3"})
		}, []string{reconcile.DeploymentOutsidePolicy}},
		"a command that the policy has not": {func(r *rollout) {
			r.opened(history.Digest(1), "", each(func(d *event.DeploymentOpened) bool { d.Command = "/bin/sh"; return true }))
		}, []string{reconcile.DeploymentOutsidePolicy}},
		"a deployment under a policy that is over": {func(r *rollout) {
			r.opened(history.Digest(1), "", func(d event.Data) event.Data {
				if _, ok := d.(event.DeploymentOpened); ok {
					ref := r.Ref()
					r.Propose(r.olga, history.DeployDocument+"\n").Approve(r.omar)
					r.Now = r.Now.Add(2 * time.Minute)
					r.Policy.Version, r.Policy.Hash = ref.Version, ref.Hash
				}
				return d
			})
		}, []string{reconcile.DeploymentOutsidePolicy}},
		"batches of hosts that it does not name": {func(r *rollout) {
			r.opened(history.Digest(1), "", each(func(d *event.DeploymentOpened) bool { d.Batches = []string{"1", "2"}; return true }))
		}, []string{reconcile.DeploymentAltered, reconcile.DeploymentOutsidePolicy}},
		"a batch of an unknown deployment": {func(r *rollout) {
			r.Broker(event.BatchMoved{DeploymentID: ids.New(ids.Deployment), Batch: 1, Before: "pending", State: "open"})
		}, []string{reconcile.DeploymentAltered}},
		"a batch of a deployment that has ended": {func(r *rollout) {
			d := r.approved(nil)
			d.Move("aborted", "")
			d.Batch(1, "open")
		}, []string{reconcile.DeploymentAltered}},
		"a deployment that is opened twice": {func(r *rollout) {
			d := r.approved(nil)
			r.Add(event.New(r.Now, r.run.Actor(), "", event.Subject{HostID: d.Hosts[0][0]}, event.DeploymentOpened{DeploymentID: d.ID}))
		}, []string{reconcile.DeploymentAltered}},
		"a batch that a stale run opens": {func(r *rollout) {
			d := r.approved(nil)
			d.Agent = r.Admit("github-redis")
			d.Batch(1, "open")
		}, []string{reconcile.DeploymentAltered}},
		"a deployment before the pack": {func(r *rollout) {
			d := r.approved(nil)
			d.Roll(1)
			r.first = 9
			r.Prune(9)
		}, []string{reconcile.BeforePack, reconcile.PrunedInPeriod}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRollout(t)
			tt.happens(r)
			r.want(tt.want...)
		})
	}
}

// A row for each deployment and for each of its hosts says what the log says of it.
func TestRegisters(t *testing.T) {
	t.Parallel()
	r := newRollout(t)
	r.after(history.Digest(1)).PutBack()
	rows := r.rows()
	if len(rows["deployments"]) != 2 || len(rows["deployment_hosts"]) != 4+2 {
		t.Fatalf("%d deployments, %d hosts", len(rows["deployments"]), len(rows["deployment_hosts"]))
	}
	first, second := rows["deployments"][0], rows["deployments"][1]
	for field, want := range map[string]string{"digest": history.Digest(1), "trust_entry": "github-redis", "repository": "acme/redis", "commit": "4f8k", "person": "lena",
		"run": r.run.ID, "approvals_needed": "1 of leads and 1 of security", "result": "complete", "hosts_opened": "4", "certificates": "4", "sessions": "4",
		"emergency": "no", "rollback": "", "batches": "1, 3"} {
		if first[field] != want {
			t.Errorf("%s is %q, not %q", field, first[field], want)
		}
	}
	for field, want := range map[string]string{"approved_by": r.sam.ID, "tests": "health: pass", "approvals_of_gates": "gate people after batch 2"} {
		if !strings.Contains(first[field], want) {
			t.Errorf("%s is %q", field, first[field])
		}
	}
	if second["result"] != "rolled_back" || second["rollback"] != "to "+history.Digest(1) || second["digest_at_end"] != history.Digest(1) {
		t.Errorf("the rollback: %v", second)
	}
	for _, h := range rows["deployment_hosts"] {
		if h["state"] != "sealed" || h["certificates"] == "" || h["sessions"] == "" || h["opened_at"] == "" || h["closed_at"] == "" || h["verified_at"] == "" || h["result"] != "ok" {
			t.Errorf("a host: %v", h)
		}
	}
	// What is over before the period has no row.
	from, err := time.Parse(time.RFC3339Nano, second["first_opened_at"])
	must(t, err)
	r.from = from
	if rows := r.rows(); len(rows["deployments"]) != 1 || len(rows["deployment_hosts"]) != 2 {
		t.Errorf("%d deployments with %d hosts in the period", len(rows["deployments"]), len(rows["deployment_hosts"]))
	}
}

// However many deployments there were, only those of the last day are remembered.
func TestDeploymentsAreForgotten(t *testing.T) {
	t.Parallel()
	r := newRollout(t)
	for i := range 200 {
		r.Now = history.Start.Add(time.Duration(i) * 7 * 24 * time.Hour)
		r.run = r.Admit("github-redis")
		previous := history.Digest(1)
		if i == 0 {
			previous = ""
		}
		r.goOn(r.opened(history.Digest(1), previous, nil).Approve(r.liam, r.sam))
	}
	most := 0
	r.each(func(g *reconcile.Engine, _ *populations.Event) { most = max(most, g.Remembered()) }, func(string, map[string]string) {})
	if most > 1100 {
		t.Errorf("up to %d things were remembered", most)
	}
}

// rows are those of the registers, with their columns by name.
func (r *rollout) rows() map[string][]map[string]string {
	out := map[string][]map[string]string{}
	r.each(func(*reconcile.Engine, *populations.Event) {}, func(name string, row map[string]string) { out[name] = append(out[name], row) })
	return out
}

func (r *rollout) each(seen func(*reconcile.Engine, *populations.Event), row func(string, map[string]string)) {
	r.T.Helper()
	g, err := reconcile.New(reconcile.Config{From: r.from, To: r.Now.Add(time.Hour), LogKey: r.Key,
		Document: func(hash string) ([]byte, error) { text, _ := r.Document(hash); return text, nil },
		Report:   func(x reconcile.Exception) error { r.T.Errorf("%s: %s", x.Code, x.Detail); return nil },
		Row: func(of *populations.Register, e *populations.Event, cells []string) error {
			if len(cells) != len(of.Fields) {
				r.T.Fatalf("a row of %s has %d cells for %d fields", of.Name, len(cells), len(of.Fields))
			}
			named := map[string]string{}
			for i, name := range of.Fields {
				named[name] = cells[i]
			}
			row(of.Name, named)
			return nil
		}})
	must(r.T, err)
	for i, leaf := range r.Leaves {
		e := populations.Read(int64(i), leaf)
		must(r.T, g.Add(&e, ""))
		seen(g, &e)
	}
	must(r.T, g.Finish())
}
