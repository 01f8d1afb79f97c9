package approvals

import (
	"context"
	"slices"
	"time"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/approvals/policy"
	"sallyport/audit"
	"sallyport/internal/refusal"
)

// maxPeople is how many people a slot names.
const maxPeople = 50

// Get returns a request with slots, decisions, timeline and actions to those
// concerned: its requester, those who may decide, auditors and operators. To
// others it does not exist.
func (s *Service) Get(ctx context.Context, c identity.Caller, id string) (api.Request, error) {
	r, err := s.find(ctx, id)
	if err != nil {
		return api.Request{}, err
	}
	if !r.visible(c) {
		return api.Request{}, ErrUnknownRequest
	}
	shown, err := s.show(ctx, c, []*request{r}, s.cfg.Clock.Now())
	if err != nil {
		return api.Request{}, err
	}
	out := shown[0]
	if r.state == api.Requested {
		if out.Approvers, err = s.slotsWithPeople(ctx, r); err != nil {
			return api.Request{}, err
		}
	}
	entries, err := s.cfg.Log.Entries(ctx, audit.Filter{RequestID: id, Limit: 200})
	if err != nil {
		return api.Request{}, err
	}
	for _, e := range slices.Backward(entries) {
		out.Timeline = append(out.Timeline, e.API(false))
	}
	return out, nil
}

// State is how far a request has come, for those to whom Get shows it. Whoever
// waits for a change asks again and again, and this reads little.
func (s *Service) State(ctx context.Context, c identity.Caller, id string) (api.State, error) {
	r, err := s.find(ctx, id)
	if err != nil {
		return "", err
	}
	if !r.visible(c) {
		return "", ErrUnknownRequest
	}
	return r.state, nil
}

// show turns settled requests into what the caller sees in lists.
func (s *Service) show(ctx context.Context, c identity.Caller, list []*request, now time.Time) ([]api.Request, error) {
	var ids []string
	for _, r := range list {
		ids = append(ids, r.personID)
		for _, d := range r.decision {
			ids = append(ids, d.statement.Approver.ID)
		}
	}
	people := map[string]api.Person{}
	if len(ids) > 0 {
		found, err := s.cfg.People.People(ctx, ids)
		if err != nil {
			return nil, err
		}
		for _, p := range found {
			people[p.ID] = named(p)
		}
	}
	out := make([]api.Request, len(list))
	for i, r := range list {
		out[i] = r.api(people)
		out[i].Actions = r.actions(c, now)
	}
	return out, nil
}

// api is the request as everybody who may see it sees it.
func (r *request) api(people map[string]api.Person) api.Request {
	t := r.terms
	out := api.Request{
		ID: r.id, State: r.state, Requester: people[r.personID],
		HostID: t.Host.ID, Host: t.Host.Name, Login: t.Login, Duration: t.Duration,
		Reason: t.Reason, Ticket: t.Ticket, NotBefore: t.NotBefore, Rule: t.Rule.Name,
		Policy: api.PolicyRef{Version: t.PolicyVersion, Hash: t.PolicyHash}, TermsHash: r.termsHash,
		CreatedAt: t.CreatedAt, ApproveBy: t.ApproveBy,
		StartsAt: r.starts, EndsAt: r.ends, EndReason: r.endsWhy, KeyFingerprint: r.key,
		CertificateLifetime: t.Rule.CertificateLifetime, Approvers: r.slots(),
	}
	for _, d := range r.decision {
		out.Decisions = append(out.Decisions, api.Decision{
			ID: d.id, Approver: people[d.statement.Approver.ID], Verdict: d.statement.Verdict,
			Comment: d.statement.Comment, TermsHash: d.statement.TermsHash, At: d.statement.Time,
		})
	}
	return out
}

// actions says what the caller can do with the settled request, and if not, why.
func (r *request) actions(c identity.Caller, now time.Time) []api.Action {
	action := func(name string, err error) api.Action {
		a := api.Action{Name: name, Allowed: err == nil}
		if refused := refusal.As(err); refused != nil {
			a.Why = refused.Detail
		}
		return a
	}
	return []api.Action{
		action("approve", r.mayDecide(c.Person, api.Approve)),
		action("deny", r.mayDecide(c.Person, api.Deny)),
		action("cancel", r.mayCancel(c.Person)),
		action("finish", r.mayFinish(c.Person)),
		action("connect", r.mayConnect(c.Person, now)),
	}
}

// slots are the terms' slots with the approvals that they have.
func (r *request) slots() []api.Slot {
	out := []api.Slot{}
	stages := r.terms.stages()
	filled := policy.Quorum(stages, r.approvals()).Filled
	for i, stage := range stages {
		for j, slot := range stage.Slots {
			out = append(out, api.Slot{Stage: i + 1, Groups: slot.Groups, Count: slot.Count, Filled: filled[i][j]})
		}
	}
	return out
}

// slotsWithPeople also names those who could decide: members of the slot's groups
// at their last sign-in, but not the requester, nor who has decided.
func (s *Service) slotsWithPeople(ctx context.Context, r *request) ([]api.Slot, error) {
	out := r.slots()
	for i := range out {
		// As many more as can drop out again.
		members, err := s.cfg.People.Members(ctx, out[i].Groups, maxPeople+1+len(r.decision))
		if err != nil {
			return nil, err
		}
		for _, p := range members {
			decided := slices.ContainsFunc(r.decision, func(d decision) bool { return d.statement.Approver.ID == p.ID })
			if p.ID != r.personID && !decided && len(out[i].People) < maxPeople {
				out[i].People = append(out[i].People, named(p))
			}
		}
	}
	return out, nil
}

// named is a person as others see them: their groups are nobody else's business.
func named(p identity.Person) api.Person {
	return api.Person{ID: p.ID, Name: p.DisplayName(), Email: p.Email}
}

// Rules lists, for each of the host's logins that the caller may ask for, the
// rule that would apply.
func (s *Service) Rules(c identity.Caller, t Target) []api.HostRule {
	out := []api.HostRule{}
	for _, l := range s.policy.Logins(c.Groups, t.Labels, t.Logins) {
		rule := api.HostRule{
			Login: l.Login, Rule: l.Rule.Name, Automatic: l.Rule.Automatic,
			MaxDuration: short(l.Rule.MaxDuration), DefaultDuration: short(l.Rule.DefaultDuration),
			Reason: textRule(l.Rule.Reason), Ticket: textRule(l.Rule.Ticket),
		}
		for i, stage := range l.Rule.Stages {
			for _, slot := range stage.Slots {
				rule.Approvers = append(rule.Approvers, api.Slot{Stage: i + 1, Groups: slot.Groups, Count: slot.Count})
			}
		}
		out = append(out, rule)
	}
	return out
}

func textRule(t policy.Text) *api.TextRule {
	return &api.TextRule{Required: t.Required, Message: t.Message}
}
