package notify

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"sallyport/api"
)

// overtaken is described at the function of the same name; that somebody may
// decide for another is overtaken by its end, and that a policy is proposed when it
// can no longer come into force.
func (s story) overtaken(n Notice, now time.Time) bool {
	if l := s.delegation; l != nil {
		return n.Kind == DelegationMade && l.State != "planned" && l.State != "running"
	}
	if p := s.proposal; p != nil {
		return n.Kind == ProposalWaiting && p.State != api.ProposalOpen
	}
	return s.request != nil && overtaken(n, *s.request, now)
}

// standIns are those who are told because of a delegation: of the delegation
// itself both whom it names, also if they made it, so that nobody's say is lent
// behind their back; of a request to decide, those who can decide for a member of
// the groups that are told. They are told personally, through the channels of the
// groups that are lent.
func (d *Desk) standIns(n Notice, about story) []recipient {
	var to []recipient
	tell := func(p api.Person, groups []string) {
		if p.Email == "" {
			return
		}
		for _, channel := range d.cfg.Setup.personally(groups) {
			to = append(to, recipient{channel, p.ID})
		}
	}
	if l := about.delegation; l != nil {
		tell(l.Delegator, l.Groups)
		tell(l.Delegate, l.Groups)
	}
	if !slices.Contains([]Kind{Waiting, Reminder, Escalated}, n.Kind) {
		return to
	}
	for _, slot := range about.request.Approvers {
		if slot.Filled >= slot.Count || n.Stage != 0 && slot.Stage != n.Stage {
			continue
		}
		groups := slices.DeleteFunc(slices.Clone(slot.Groups), func(g string) bool { return !slices.Contains(n.Groups, g) })
		if len(groups) == 0 {
			continue
		}
		for _, stand := range slot.Delegates {
			if !excluded(n, *about.request, stand.Person.ID) {
				tell(stand.Person, groups)
			}
		}
	}
	return to
}

// personally are the channels that tell members of the groups at their own
// addresses; if there are none, the one that tells requesters.
func (s *Setup) personally(groups []string) []string {
	var out []string
	for _, r := range s.routes(groups) {
		if s.personal(r.channel) {
			out = append(out, r.channel)
		}
	}
	if len(out) == 0 && s.requester != "" {
		out = []string{s.requester}
	}
	return out
}

// standsIn names a person, and for whom they decide if that is somebody else.
func standsIn(p api.Person, of *api.Person) string {
	name := oneLine(p.Name, 60)
	if of != nil {
		name += " for " + oneLine(of.Name, 60)
	}
	return name
}

// delegated is the headline about a delegation.
func (m Message) delegated() string {
	l := m.Delegation
	if l == nil {
		return "Delegation"
	}
	// Short, so that a long name cannot push what it is about out of sight.
	who, of := oneLine(l.Delegate.Name, 40), oneLine(l.Delegator.Name, 40)
	if m.Kind == DelegationEnded {
		return fmt.Sprintf("%s no longer decides for %s", who, of)
	}
	if l.State == "planned" {
		return fmt.Sprintf("%s will decide for %s from %s", who, of, instant(l.From))
	}
	return fmt.Sprintf("%s decides for %s until %s", who, of, instant(l.Until))
}

// delegationFacts are what a message says of a delegation.
func (m Message) delegationFacts() []fact {
	l := m.Delegation
	if l == nil {
		return nil
	}
	facts := []fact{{"Who decides", address(l.Delegate)}, {"For", address(l.Delegator)}, {"Groups", strings.Join(l.Groups, ", ")},
		{"From", instant(l.From)}, {"Until", instant(l.Until)}, {"Reason", l.Reason}, {"Made by", address(l.MadeBy)}}
	if l.EndedBy != nil && l.EndedAt != nil {
		facts = append(facts, fact{"Ended by", address(*l.EndedBy) + ", " + instant(*l.EndedAt)})
	}
	return facts
}

// address is a person with what tells two of the same name apart.
func address(p api.Person) string {
	if p.Email == "" || p.Email == p.Name {
		return p.Name
	}
	return p.Name + " <" + p.Email + ">"
}
