package reconcile

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"sallyport/api"
	"sallyport/approvals/evidence"
	"sallyport/approvals/grant"
	"sallyport/approvals/policy"
	"sallyport/audit/event"
	"sallyport/broker/rollout/plan"
	"sallyport/evidence/populations"
)

// said is what somebody said to a deployment.
type said struct {
	plan.Statement
	hash string
	name string // of the person
	// unproved is why it is not proved as strongly as the policy wants it; "" if it is.
	unproved string
}

// override is a time in which freezes do not hold.
type override struct {
	from, until time.Time
	by          string
}

func (g *Engine) deploymentDecided(e *populations.Event, d event.DeploymentDecided, idToken string) {
	x := g.deployment(e, d.DeploymentID)
	if x == nil {
		return
	}
	s, err := plan.ParseStatement([]byte(d.Evidence))
	if err != nil || plan.Hash([]byte(d.Evidence)) != d.EvidenceHash || s.Format != plan.DecisionFormat || s.Approver.ID != e.Actor.ID ||
		s.DeploymentID != x.id || s.TermsHash != x.opened.TermsHash || !tellsDeployment(d, s) {
		g.report(DecisionAltered, e, x.event.Index, "its statement cannot be read or is about something else, or the event says otherwise than the statement")
		return
	}
	if s.Verdict == api.Approve && x.started(g.emails[e.Actor.ID].email) {
		g.report(DeploymentByStarter, e, x.event.Index, "the token of the run that opened deployment %s names %s, who approved its %s", x.id, e.Actor.ID, d.About)
	}
	x.decisions = append(x.decisions, said{s, d.EvidenceHash, e.Actor.Name, x.unproved(s, g.evidence(e, idToken), g.anchor())})
}

// unproved says why a statement is not proved as the policy wants it, whatever the
// deployment's terms or the statement say of that; "" if it is.
func (x *deployment) unproved(s plan.Statement, ev grant.Evidence, a evidence.Anchor) string {
	if x.entry == nil {
		return "how strongly it must be proved cannot be read from the policy"
	}
	p := x.entry.Proof
	err := s.Said().Proved(grant.Assured{Assurance: string(p.Assurance), MaxAge: p.MaxAge, ACRValues: p.ACRValues}, ev, a)
	if err == nil {
		return ""
	}
	if fault := faultOf(err); fault != nil {
		err = fault
	}
	return err.Error()
}

func tellsDeployment(d event.DeploymentDecided, s plan.Statement) bool {
	about, batch, gate := s.Of()
	return d.About == about && d.Batch == batch && d.Gate == gate && d.Verdict == string(s.Verdict) && d.Comment == s.Comment &&
		d.TermsHash == s.TermsHash && slices.Equal(d.Groups, s.Groups) && d.Assurance == s.Assurance
}

// started is plan.Terms.Started of the deployment's terms.
func (x *deployment) started(email string) bool {
	t := plan.Terms{Agent: plan.Agent{Claims: x.opened.Claims}}
	return t.Started(email)
}

// filled says what the decisions about something lack; "" if they fill the stages. As for
// the broker, one that is not proved is not merely one less: nothing may rest on any.
func (x *deployment) filled(about string, stages []policy.Stage, denials bool) string {
	var given []policy.Approval
	behind := map[grant.StatementApprover]bool{}
	for _, s := range x.decisions {
		if s.About != about {
			continue
		}
		if s.unproved != "" {
			return "the decision of " + s.Approver.ID + " is not proved: " + s.unproved
		}
		same, byID := grant.StatementApprover{Issuer: s.Approver.Issuer, Subject: s.Approver.Subject}, grant.StatementApprover{ID: s.Approver.ID}
		if behind[same] || behind[byID] {
			return "two decisions are one person's"
		}
		behind[same], behind[byID] = true, true
		switch {
		case s.Verdict == api.Approve:
			given = append(given, policy.Approval{PersonID: s.Approver.ID, Groups: s.Groups})
		case denials:
			return s.Approver.ID + " denied it"
		}
	}
	if !policy.Quorum(stages, given).Complete {
		return "the approvals in the log are not enough for the policy's stages"
	}
	return ""
}

// hashesOf are those of the evidence about something.
func (x *deployment) hashesOf(about string) []string {
	list := []string{}
	for _, s := range x.decisions {
		if s.About == about {
			list = append(list, s.hash)
		}
	}
	return list
}

func (g *Engine) deploymentUnfrozen(e *populations.Event, d event.DeploymentUnfrozen) {
	x := g.deployment(e, d.DeploymentID)
	if x == nil {
		return
	}
	about := fmt.Sprintf("override/%d", max(x.lifted.Unix(), 0))
	x.lifted = d.Until
	if x.entry == nil {
		return
	}
	why := "the policy lets nobody override freezes"
	if len(x.entry.Override) > 0 {
		why = x.filled(about, x.entry.Override, false)
	}
	var by []string
	for _, s := range x.decisions {
		if s.About == about && s.Verdict == api.Approve {
			if by = append(by, s.name+" "+s.Approver.ID); d.Until.After(s.Until) && why == "" {
				why = s.Approver.ID + " allowed it until " + populations.Time(s.Until)
			}
		}
	}
	if why != "" {
		g.report(DeploymentUnapproved, e, x.event.Index, "going on in a freeze: %s", why)
		return
	}
	x.overrides = append(x.overrides, override{e.Time, d.Until, strings.Join(by, ", ")})
}

// frozen says in which freeze a batch is at the time, if nobody has overridden it:
// those of the policy that the deployment was opened under count, and those of the
// policy in force, if it is about now. A rollback is not stopped by freezes.
func (g *Engine) frozen(x *deployment, b *batch, at time.Time, now bool) string {
	if x.entry == nil || b.rollback {
		return ""
	}
	f := x.entry.FrozenAt(at)
	if v, ok := g.policies.versions[g.policies.current]; f == nil && now && ok && at.After(v.from.Add(maxStale)) {
		if p, err := g.policies.document(g, v.hash); err == nil {
			if entry := p.Deployment(x.opened.Entry); entry != nil {
				f = entry.FrozenAt(at)
			}
		}
	}
	if f == nil {
		return ""
	}
	for _, o := range x.overrides {
		if !at.Before(o.from) && at.Before(o.until) {
			x.emergency = true
			return ""
		}
	}
	return "the freeze " + f.Name
}

// signedIn is for how long a person's address is remembered after a sign-in: longer than
// anybody stays signed in.
const signedIn = 31 * 24 * time.Hour

type email struct {
	email string
	at    time.Time
}
