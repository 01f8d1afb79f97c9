package grant

import "time"

// Drill reports whether the request is a rehearsal.
func (t Terms) Drill() bool { return t.Emergency != nil && t.Emergency.Drill }

// Readers are the groups whose members may see the request: those that decide on
// it, and those that are told of an emergency.
func (t Terms) Readers() []string {
	if t.Emergency != nil {
		return t.Emergency.Told // the stages' among them
	}
	return t.Groups()
}

// checkEmergency returns when an emergency's grant started: when it was asked
// for. Nothing makes it allowed but its terms, so that they must be whole: a
// reason, somebody other than nobody to review it, a deadline after the start; and
// nothing about them may be as in a request that is approved.
func (g Grant) checkEmergency(t Terms) (time.Time, error) {
	switch {
	case len(g.Decisions) > 0:
		return t.CreatedAt, ErrEvidence.With("the terms are of an emergency, but there are decisions")
	case t.Rule.Automatic || t.Rule.Extend != nil || t.Extends != "" || t.NotBefore != nil:
		return t.CreatedAt, ErrEvidence.With("the terms are of an emergency and of another kind of request")
	case t.Reason == "":
		return t.CreatedAt, ErrEvidence.With("an emergency without a reason")
	case len(t.Emergency.ReviewGroups) == 0 || !t.Emergency.ReviewBy.After(t.CreatedAt):
		return t.CreatedAt, ErrEvidence.With("an emergency that nobody is to review")
	}
	return t.CreatedAt, nil
}
