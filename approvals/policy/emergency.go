package policy

import (
	"time"

	"sallyport/internal/refusal"
)

// ErrNoEmergency refuses an emergency that the rule does not allow to the asker.
var ErrNoEmergency = refusal.New(refusal.Denied, "no-emergency",
	"the rule does not let you open this door before somebody has approved",
	"ask without it; the approvers are told at once").On("emergency")

// EmergencyFor is the rule's emergency part if it lets members of the groups open
// the door before anybody has approved, else nil. Somebody who could be reviewed
// by nobody opens nothing.
func (r *Rule) EmergencyFor(groups []string) *Emergency {
	if r.Emergency == nil || len(r.Emergency.ReviewBy) == 0 || !overlap(r.Emergency.Groups, groups) {
		return nil
	}
	return r.Emergency
}

// CheckEmergency returns the duration to grant in an emergency for the one asked
// for, and refuses what is not as the rule wants it:
//
//  1. the duration is within the emergency's own limit; 0 asks for its default,
//  2. a reason is given, whatever the rule says of others, and has its form,
//  3. a ticket may be missing, for there is no time, but has its form if given.
func (r *Rule) CheckEmergency(e *Emergency, d time.Duration, reason, ticket string) (time.Duration, error) {
	why, number := r.Reason, r.Ticket
	why.Required, number.Required = true, false
	switch {
	case d == 0:
		d = e.DefaultDuration
	case d < MinDuration:
		return 0, ErrBadDuration
	case d > e.MaxDuration:
		return 0, ErrTooLong.With("%s is longer than rule %q allows in an emergency", d, r.Name).
			Hinting("ask for at most %s", e.MaxDuration)
	}
	if err := why.check(reason, ErrReason); err != nil {
		return 0, err
	}
	return d, number.check(ticket, ErrTicket)
}
