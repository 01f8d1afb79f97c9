package rollout

import (
	"context"
	"slices"
	"strings"
	"unicode/utf8"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/broker/rollout/machine"
	"sallyport/broker/rollout/plan"
)

// Control lets a person stop, resume, abort or roll back a deployment: operators, and
// members of the groups that the policy's entry names. A stop closes what is open at once.
func (s *Service) Control(ctx context.Context, c identity.Caller, id string, in api.ControlInput) (api.Deployment, error) {
	in.Reason = strings.TrimSpace(in.Reason)
	if in.Reason == "" || utf8.RuneCountInString(in.Reason) > plan.MaxReason {
		return api.Deployment{}, ErrReason
	}
	what := map[string]machine.Event{"stop": machine.Stop{Why: in.Reason}, "resume": machine.Resume{Why: in.Reason},
		"abort": machine.Abort{Why: in.Reason}, "rollback": machine.Rollback{Why: in.Reason}}[in.Action]
	if what == nil {
		return api.Deployment{}, machine.ErrSubject
	}
	person, err := s.cfg.People.Person(ctx, c.ID)
	if err != nil {
		return api.Deployment{}, err
	}
	c.Person = person
	d, _, err := s.change(ctx, id, by{c.Actor(), c.Source}, func(ctx context.Context, ch *change) error {
		switch {
		case !ch.visible(c):
			return ErrUnknown
		case !ch.controls(c):
			return ErrNotYours
		}
		if err := s.cfg.People.HoldPresent(ctx, ch.tx, c.ID); err != nil {
			return err
		}
		return ch.step(what)
	})
	if err != nil {
		return api.Deployment{}, s.refusedPerson(ctx, c, id, in.Action, err)
	}
	return s.View(ctx, c, d.id)
}

// seesAll reports whether the person may see every deployment.
func seesAll(c identity.Caller) bool { return c.Has(api.Operator) || c.Has(api.Auditor) }

// visible reports whether the person may see the deployment: by a role, or because the
// terms name a group of theirs.
func (d *deployment) visible(c identity.Caller) bool {
	return seesAll(c) || slices.ContainsFunc(d.groups, func(g string) bool { return slices.Contains(c.Groups, g) })
}

// controls reports whether the person may stop it, and so on.
func (d *deployment) controls(c identity.Caller) bool {
	return c.Has(api.Operator) || slices.ContainsFunc(d.terms.Control, func(g string) bool { return slices.Contains(c.Groups, g) })
}
