package notify

import (
	"slices"
	"time"

	"sallyport/api"
)

// stage is the stage of approvals that an undecided request waits for, from 1; 0
// if none of its slots is open.
func stage(r api.Request) int {
	for _, slot := range r.Approvers {
		if slot.Filled < slot.Count {
			return slot.Stage // slots stand in the order of their stages
		}
	}
	return 0
}

// open are the slots of the stage that the request waits for.
func open(r api.Request) []api.Slot {
	now := stage(r)
	return slices.DeleteFunc(slices.Clone(r.Approvers), func(s api.Slot) bool {
		return s.Stage != now || s.Filled >= s.Count
	})
}

// overtaken reports whether telling of the notice would now mislead:
//
//  1. a request to decide, after the decision or when the stage has passed;
//  2. that access ends soon, when it has ended already or goes on;
//  3. that a review is due, when it is there.
//
// That a request was closed, or an emergency began or was reviewed, stays true.
func overtaken(n Notice, r api.Request, now time.Time) bool {
	switch n.Kind {
	case Waiting:
		return r.State != api.Requested || stage(r) != n.Stage
	case Reminder, Escalated:
		return r.State != api.Requested
	case GrantEnding:
		return r.State != api.Approved && r.State != api.Active || r.EndsAt == nil || !now.Before(*r.EndsAt) || r.ExtendedBy != ""
	case ReviewDue, ReviewOverdue:
		return r.Emergency == nil || r.Emergency.Review != nil
	}
	return false
}

// decided reports whether the person has decided on the request, or somebody has
// for them, and so need not be told that it waits.
func decided(r api.Request, personID string) bool {
	return slices.ContainsFunc(r.Decisions, func(d api.Decision) bool {
		return d.Approver.ID == personID || d.OnBehalfOf != nil && d.OnBehalfOf.ID == personID && !d.Void
	})
}

// excluded reports whether the person is not told of the notice although they are
// in its groups: who asked for it or has dealt with it knows already.
func excluded(n Notice, r api.Request, personID string) bool {
	if personID == n.By {
		return true
	}
	switch n.Kind {
	case Waiting, Reminder, Escalated:
		return personID == r.Requester.ID || decided(r, personID)
	case EmergencyStarted, ReviewDue, ReviewOverdue:
		return personID == r.Requester.ID
	}
	return false
}

// excluded is described at the function of the same name; of what is no request,
// only who did it knows.
func (s story) excluded(n Notice, personID string) bool {
	if s.request == nil {
		return personID == n.By
	}
	return excluded(n, *s.request, personID)
}

// mayDropOut is how many people may be excluded, at most, and one more.
func (s story) mayDropOut() int {
	if s.request == nil {
		return 2
	}
	return 2 + len(s.request.Decisions)
}

// concerned is the person whom the notice is about, and who is told of it; nil, if
// nobody is: who asked, or who proposed a policy.
func (s story) concerned(n Notice) *api.Person {
	switch {
	case s.request != nil && tellsRequester(n, *s.request):
		return &s.request.Requester
	case s.proposal != nil && n.Kind == ProposalClosed && !s.excluded(n, s.proposal.Author.ID):
		return &s.proposal.Author
	}
	return nil
}

// followsUp are the kinds whose messages one of this kind settles: it goes to
// whoever got one of them.
func followsUp(k Kind) []Kind {
	switch k {
	case Closed:
		return []Kind{Waiting, Reminder, Escalated}
	case ReviewGiven:
		return []Kind{EmergencyStarted, ReviewDue, ReviewOverdue}
	}
	return nil
}

// tellsRequester reports whether the requester is told personally.
func tellsRequester(n Notice, r api.Request) bool {
	told := []Kind{Closed, GrantEnding, GrantRevoked, ReviewGiven}
	return slices.Contains(told, n.Kind) && !excluded(n, r, r.Requester.ID)
}

// tellsOperators reports whether the operators' channels are told, too.
func tellsOperators(k Kind) bool {
	return slices.Contains([]Kind{EmergencyStarted, ReviewOverdue, DeliveryFailed, HostAlarm}, k)
}

// mustReachSomebody reports whether it is a failure if the notice reaches nobody.
func mustReachSomebody(k Kind) bool {
	return slices.Contains([]Kind{Waiting, Escalated, EmergencyStarted, ReviewDue, ReviewOverdue}, k)
}

// loud reports whether the message shall interrupt people.
func (m Message) loud() bool {
	return m.Kind == EmergencyStarted && !m.drill() || m.Kind == HostAlarm
}

func (m Message) drill() bool {
	return m.Request != nil && m.Request.Emergency != nil && m.Request.Emergency.Drill
}
