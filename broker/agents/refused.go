package agents

import (
	"context"

	"golang.org/x/crypto/ssh"

	"sallyport/approvals/policy"
	"sallyport/audit/event"
	"sallyport/internal/refusal"
	"sallyport/internal/throttle"
)

// attempt is what is known of somebody who is about to be refused.
type attempt struct {
	source    string
	policy    *policy.Policy
	key       ssh.PublicKey // nil: not proved
	token     *token        // nil: not readable
	verified  bool
	verdicts  []verdict
	run       *Run // nil: none
	elsewhere bool // it is recorded elsewhere, or is not about who the agent is
}

// record makes a refusal an event, unless there are too many of them. What fails because
// of us or of an issuer that is down is none. Recording changes nothing about it.
func (s *Service) record(ctx context.Context, a attempt, err error) {
	why := refusal.As(err)
	if why == nil || a.elsewhere || why.Kind == refusal.Unavailable || why.Kind == refusal.TooMany {
		return
	}
	if !s.refused.Allow(throttle.Network(a.source)) || !s.all.Allow("") {
		s.cfg.Logger.WarnContext(ctx, "an agent was refused; too many to record all", "source", a.source, "code", why.Code)
		return
	}
	data := event.AgentRefused{Verified: a.verified, Code: why.Code, Reason: why.Detail}
	if a.key != nil {
		data.Key = ssh.FingerprintSHA256(a.key)
	}
	if a.token != nil {
		data.Issuer, data.Subject = a.token.claims.Issuer, a.token.claims.Subject
	}
	if near := nearest(a.verdicts); len(near) > 0 && len(near[0].unmet) > 0 {
		data.Entry = near[0].entry.Name
		for _, f := range near[0].unmet {
			data.Unmet = append(data.Unmet, f.String())
		}
	}
	actor := event.Actor{Kind: event.Agent}
	if a.run != nil {
		data.RunID, actor.Name = a.run.ID, a.run.Entry
	}
	s.cfg.Log.Refused(ctx, event.New(s.cfg.Clock.Now(), actor, a.source, event.Subject{}, data).Under(ref(a.policy)))
}
