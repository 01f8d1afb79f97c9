package reconcile_test

import (
	"strings"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/approvals/evidence"
	"sallyport/audit/event"
	"sallyport/evidence/populations"
	"sallyport/evidence/reconcile"
	"sallyport/internal/history"
)

// Where the policy wants the provider's signature on what people say to a deployment,
// nothing else is an approval, whatever the broker, or whoever can write its database,
// says.
func TestSignedDeploymentDecisions(t *testing.T) {
	t.Parallel()
	decided := func(alter func(*event.DeploymentDecided)) func(event.Data) event.Data {
		return each(func(d *event.DeploymentDecided) bool { alter(d); return true })
	}
	for name, tt := range map[string]struct {
		happens func(*rollout)
		want    []string
		says    string // the last exception
	}{
		"nothing wrong": {func(r *rollout) { r.whole(nil) }, nil, ""},
		"nothing wrong, in a freeze with an override": {func(r *rollout) {
			d := r.approved(nil)
			r.Now = time.Date(2026, 1, 6, 10, 0, 0, 0, time.UTC)
			d.Relay(r.Admit("github-redis"))
			d.Override(r.sam, r.Now.Add(2*time.Hour))
			r.goOn(d)
		}, nil, ""},
		"an ID token of another statement": {func(r *rollout) {
			r.whole(nil)
			var before event.DeploymentDecided
			for i, leaf := range r.Leaves {
				e := populations.Read(int64(i), leaf)
				if d, ok := e.Known.(event.DeploymentDecided); ok && e.Actor.ID == r.liam.ID {
					before = d
				}
			}
			d := r.opened(history.Digest(2), history.Digest(1), decided(func(d *event.DeploymentDecided) {
				if d.About == "start" && d.Groups[0] == "leads" {
					d.DecisionID, d.IDTokenHash, d.KeysHash = before.DecisionID, before.IDTokenHash, before.KeysHash
				}
			}))
			d.Approve(r.liam, r.sam)
		}, []string{reconcile.DeploymentUnapproved}, evidence.ErrNonce.Error()},
		"an ID token of somebody else": {func(r *rollout) {
			d := r.opened(history.Digest(1), "", nil)
			mallory := r.sam
			mallory.Subject = "sub-Mallory"
			d.Decide(r.liam, "start", api.Approve, time.Time{})
			d.Say(mallory, d.Statement(r.sam, "start", api.Approve, time.Time{}, evidence.Provider))
			d.Move("active", "it was approved")
		}, []string{reconcile.DeploymentUnapproved}, evidence.ErrPerson.Error()},
		"an ID token that is not kept": {func(r *rollout) {
			r.approved(nil)
			r.ForgetTokens()
		}, []string{reconcile.EvidenceMissing, reconcile.EvidenceMissing, reconcile.DeploymentUnapproved}, evidence.ErrForm.Error()},
		"an ID token that the event does not name": {func(r *rollout) {
			r.approved(decided(func(d *event.DeploymentDecided) { d.IDTokenHash = "" }))
		}, []string{reconcile.DeploymentUnapproved}, evidence.ErrForm.Error()},
		"keys that the log does not have": {func(r *rollout) {
			r.approved(decided(func(d *event.DeploymentDecided) { d.KeysHash = strings.Repeat("ab", 32) }))
		}, []string{reconcile.EvidenceMissing, reconcile.EvidenceMissing, reconcile.DeploymentUnapproved}, evidence.ErrForm.Error()},
		"keys whose entry is missing": {func(r *rollout) {
			r.approved(nil)
			for i, leaf := range r.Leaves {
				if populations.Read(int64(i), leaf).Type == "provider.keys_seen" {
					r.missing[int64(i)] = true
				}
			}
		}, []string{reconcile.LogGap, reconcile.EvidenceMissing, reconcile.EvidenceMissing, reconcile.DeploymentUnapproved}, evidence.ErrForm.Error()},
		"keys that the event does not name": {func(r *rollout) {
			r.approved(decided(func(d *event.DeploymentDecided) { d.KeysHash = "" }))
		}, []string{reconcile.DeploymentUnapproved}, evidence.ErrForm.Error()},
		"a decision of the broker's own word": {func(r *rollout) {
			d := r.opened(history.Digest(1), "", nil)
			d.Decide(r.liam, "start", api.Approve, time.Time{})
			d.Say(r.sam, d.Statement(r.sam, "start", api.Approve, time.Time{}, evidence.Session))
			d.Move("active", "it was approved")
		}, []string{reconcile.DeploymentUnapproved}, `"session"`},
		"a decision of the broker's own word beside enough that are signed": {func(r *rollout) {
			d := r.opened(history.Digest(1), "", nil)
			d.Say(r.erin, d.Statement(r.erin, "start", api.Approve, time.Time{}, evidence.Session))
			d.Approve(r.liam, r.sam)
		}, []string{reconcile.DeploymentUnapproved}, `"session"`},
		"a decision whose event calls the broker's own word the provider's": {func(r *rollout) {
			d := r.opened(history.Digest(1), "", decided(func(d *event.DeploymentDecided) { d.Assurance = evidence.Provider }))
			d.Decide(r.liam, "start", api.Approve, time.Time{})
			d.Say(r.sam, d.Statement(r.sam, "start", api.Approve, time.Time{}, evidence.Session))
			d.Move("active", "it was approved")
		}, []string{reconcile.DecisionAltered, reconcile.DeploymentUnapproved}, "not enough"},
		"a decision with another ID token's groups": {func(r *rollout) {
			d := r.opened(history.Digest(1), "", decided(func(d *event.DeploymentDecided) { d.Groups = []string{"security"} }))
			d.Approve(r.liam)
		}, []string{reconcile.DecisionAltered, reconcile.DeploymentUnapproved}, "not enough"},
		"two decisions that one person signed": {func(r *rollout) {
			d := r.opened(history.Digest(1), "", nil)
			double := r.Person("Sam again", "security", "leads")
			double.Subject = r.sam.Subject
			d.Approve(double, r.sam)
		}, []string{reconcile.DeploymentUnapproved}, "one person's"},
		"a gate that people passed by the broker's own word": {func(r *rollout) {
			d := r.approved(nil)
			alone := *d.Entry
			alone.Assurance = evidence.Session
			d.Entry = &alone
			d.Roll(1)
			d.Judge(1, r.liam)
			d.Batch(2, "open")
		}, []string{reconcile.BatchEarly}, `"session"`},
		"an override by the broker's own word": {func(r *rollout) {
			d := r.approved(nil)
			r.Now = time.Date(2026, 1, 6, 10, 0, 0, 0, time.UTC)
			d.Relay(r.Admit("github-redis"))
			alone := *d.Entry
			alone.Assurance = evidence.Session
			d.Entry = &alone
			d.Override(r.sam, r.Now.Add(time.Hour))
			d.Batch(1, "open")
		}, []string{reconcile.DeploymentUnapproved, reconcile.DeploymentInFreeze}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRolloutUnder(t, history.SignedDeployDocument)
			tt.happens(r)
			found := r.want(tt.want...)
			if len(found) > 0 && !strings.Contains(found[len(found)-1].Detail, tt.says) {
				t.Errorf("it says %q, without %q", found[len(found)-1].Detail, tt.says)
			}
		})
	}
}

// Under a policy that takes the broker's own word, the provider's signature is not what
// was agreed on.
func TestSignedDecisionOnADeploymentThatWantsNone(t *testing.T) {
	t.Parallel()
	r := newRollout(t)
	d := r.opened(history.Digest(1), "", nil)
	d.Decide(r.liam, "start", api.Approve, time.Time{})
	d.Say(r.sam, d.Statement(r.sam, "start", api.Approve, time.Time{}, evidence.Provider))
	d.Move("active", "it was approved")
	r.want(reconcile.DeploymentUnapproved)
}

// What the policy wants of the sign-in behind a decision, how recent and in which way, the
// provider's token must say.
func TestDeploymentDecisionAfterAnOldSignIn(t *testing.T) {
	t.Parallel()
	for _, wants := range []string{"max_age: 15m", "acr_values: [phishing-resistant]"} {
		r := newRolloutUnder(t, strings.Replace(history.SignedDeployDocument, "    service: redis\n", "    service: redis\n    "+wants+"\n", 1))
		r.approved(nil) // the tokens say neither
		r.want(reconcile.DeploymentUnapproved)
	}
}
