package approvals

import (
	"context"
	"slices"
	"strings"
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
	if may, err := s.reads(ctx, c, r); err != nil {
		return api.Request{}, err
	} else if !may {
		return api.Request{}, ErrUnknownRequest
	}
	if err := s.discloseRequest(ctx, c, r); err != nil {
		return api.Request{}, err
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
		if e.Type == "certificate.signed" || strings.HasPrefix(e.Type, "disclosed.") {
			continue // the former says of each certificate what its own entry in the list does, the latter who read this
		}
		out.Timeline = append(out.Timeline, e.API(false))
	}
	if n := len(entries); n == 0 || !entries[n-1].Begins() {
		pruned, err := s.cfg.Log.LastPruned(ctx, r.terms.CreatedAt)
		if err != nil {
			return api.Request{}, err
		}
		out.Pruned = pruned.API()
	}
	return out, nil
}

// State is how far a request has come, and how many decisions it has, a review among
// them, for those to whom Get shows it. Whoever waits for a change asks again and again, and this
// reads little.
func (s *Service) State(ctx context.Context, c identity.Caller, id string) (api.State, int, error) {
	r, err := s.find(ctx, id)
	if err != nil {
		return "", 0, err
	}
	if may, err := s.reads(ctx, c, r); err != nil {
		return "", 0, err
	} else if !may {
		return "", 0, ErrUnknownRequest
	}
	n := len(r.decision)
	if r.review != nil {
		n++ // of an emergency, which has no decisions
	}
	return r.state, n, nil
}

// show turns settled requests into what the caller sees in lists.
func (s *Service) show(ctx context.Context, c identity.Caller, list []*request, now time.Time) ([]api.Request, error) {
	who, err := s.voter(ctx, s.cfg.Pool, c.Person)
	if err != nil {
		return nil, err
	}
	who = who.at(now)
	ids := who.delegators()
	for _, r := range list {
		ids = append(ids, r.personID)
		for _, d := range r.decision {
			for _, p := range d.statement.Behind() {
				ids = append(ids, p.ID)
			}
		}
		if r.review != nil {
			ids = append(ids, r.review.statement.Reviewer.ID)
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
		out[i].Actions = r.actions(who, people, now)
		out[i].Emergency = r.emergency(people, now)
	}
	return out, s.addReviewActions(ctx, c, list, out)
}

// api is the request as everybody who may see it sees it.
func (r *request) api(people map[string]api.Person) api.Request {
	t := r.terms
	out := api.Request{
		ID: r.id, State: r.state, Requester: people[r.personID],
		HostID: t.Host.ID, Host: t.Host.Name, Hosts: apiHosts(t), Selector: t.Selector, Login: t.Login, Duration: t.Duration,
		Reason: t.Reason, Ticket: t.Ticket, NotBefore: t.NotBefore, Rule: t.Rule.Name,
		Policy: api.PolicyRef{Version: t.PolicyVersion, Hash: t.PolicyHash}, TermsHash: r.termsHash,
		CreatedAt: t.CreatedAt, ApproveBy: t.ApproveBy,
		StartsAt: r.starts, EndsAt: r.ends, EndReason: r.endsWhy, KeyFingerprint: r.key,
		CertificateLifetime: t.Rule.CertificateLifetime, Approvers: r.slots(), Assurance: t.Rule.Assurance,
		Extends: t.Extends, ExtendedBy: r.next, StartWithin: t.Rule.StartWithin,
	}
	if e := t.Rule.Extend; e != nil {
		out.Extend = &api.ExtendRule{Times: e.Times, By: e.By, Automatic: e.Automatic || t.Rule.Automatic}
	}
	if r.state == api.Approved {
		out.UseBy = r.useBy
	}
	for _, d := range r.decision {
		var onBehalfOf *api.Person
		if f := d.statement.OnBehalfOf; f != nil {
			p := people[f.ID]
			onBehalfOf = &p
		}
		out.Decisions = append(out.Decisions, api.Decision{
			OnBehalfOf: onBehalfOf,
			ID:         d.id, Approver: people[d.statement.Approver.ID], Verdict: d.statement.Verdict,
			Comment: d.statement.Comment, TermsHash: d.statement.TermsHash, At: d.taken, Void: d.void,
			Evidence: d.shown(d.statement.Said()),
		})
	}
	return out
}

// actions says what the caller can do with the settled request, and if not, why.
func (r *request) actions(who voter, people map[string]api.Person, now time.Time) []api.Action {
	return []api.Action{
		r.deciding(who, api.Approve, people),
		r.deciding(who, api.Deny, people),
		action("cancel", r.mayCancel(who.Person)),
		action("finish", r.mayFinish(who.Person)),
		action("extend", r.mayExtend(who.Person)),
		action("connect", r.mayConnect(who.Person, now)),
	}
}

// action is what is known of an action that err refuses, if anything does.
func action(name string, err error) api.Action {
	a := api.Action{Name: name, Allowed: err == nil}
	if refused := refusal.As(err); refused != nil {
		a.Why = refused.Detail
	}
	return a
}

// slots are the terms' slots with the approvals that they have.
func (r *request) slots() []api.Slot {
	out := []api.Slot{}
	stages := r.terms.Stages()
	filled := policy.Quorum(stages, r.approvals()).Filled
	for i, stage := range stages {
		for j, slot := range stage.Slots {
			out = append(out, api.Slot{Stage: i + 1, Groups: slot.Groups, Count: slot.Count, Filled: filled[i][j]})
		}
	}
	return out
}

// slotsWithPeople also names those who could decide: members of the slot's groups
// at their last sign-in and those who stand in for some, but not the requester,
// nor who has decided.
func (s *Service) slotsWithPeople(ctx context.Context, r *request) ([]api.Slot, error) {
	out := r.slots()
	for i := range out {
		// As many more as can drop out again.
		members, err := s.cfg.People.Members(ctx, out[i].Groups, maxPeople+1+2*len(r.decision))
		if err != nil {
			return nil, err
		}
		for _, p := range members {
			if p.ID != r.personID && !r.behind(p.ID) && len(out[i].People) < maxPeople {
				out[i].People = append(out[i].People, named(p))
			}
		}
	}
	return out, s.addDelegates(ctx, r, out)
}

// named is a person as others see them: their groups are nobody else's business.
func named(p identity.Person) api.Person {
	return api.Person{ID: p.ID, Name: p.DisplayName(), Email: p.Email}
}

// Rules lists, for each of the host's logins that the caller may ask for, the
// rule that would apply.
func (s *Service) Rules(c identity.Caller, t Target) []api.HostRule {
	out := []api.HostRule{}
	for _, l := range s.Policy().Logins(c.Groups, t.Labels, t.Logins) {
		out = append(out, s.hostRule(c, l))
	}
	return out
}

// hostRule is a rule as those whom it lets ask see it, for an ask made now.
func (s *Service) hostRule(c identity.Caller, l policy.LoginRule) api.HostRule {
	rule := api.HostRule{
		Login: l.Login, Rule: l.Rule.Name, Automatic: l.Rule.AutomaticAt(s.cfg.Clock.Now()),
		MaxDuration: short(l.Rule.MaxDuration), DefaultDuration: short(l.Rule.DefaultDuration),
		Reason: textRule(l.Rule.Reason), Ticket: textRule(l.Rule.Ticket), Emergency: emergencyRule(l.Rule, c),
		SingleUse: l.Rule.SingleUse, KeepSessions: l.Rule.KeepSessions, Record: l.Rule.Record, KeyTypes: l.Rule.KeyTypes,
	}
	if rule.Automatic {
		return rule
	}
	for i, stage := range l.Rule.Stages {
		for _, slot := range stage.Slots {
			rule.Approvers = append(rule.Approvers, api.Slot{Stage: i + 1, Groups: slot.Groups, Count: slot.Count})
		}
	}
	return rule
}

func textRule(t policy.Text) *api.TextRule {
	return &api.TextRule{Required: t.Required, Message: t.Message}
}
