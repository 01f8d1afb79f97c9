package notify

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"sallyport/api"
)

// How much of a text a message carries, in characters; the page has all of it.
const (
	maxHeadline = 150 // Slack's limit of a header
	maxValue    = 400
	maxNames    = 5
)

// fact is one line of a message. Both parts are plain text on one line; each
// medium escapes them in its own way.
type fact struct{ Label, Value string }

// headline says in one line of plain text what the message is about.
func (m Message) headline() string {
	text := "Sallyport"
	if r := m.Request; r != nil {
		text = about(m.Kind, *r, m.drill())
	}
	switch m.Kind {
	case DeliveryFailed:
		text = "People could not be told of something"
		if m.Failure != nil && m.Failure.Channel != "" {
			text = "Messages through " + m.Failure.Channel + " do not arrive"
		}
	case Test:
		text = "Test message from Sallyport"
	case HostAlarm:
		text = "ALARM on a host"
		if m.Alarm != nil {
			text = "ALARM on " + oneLine(m.Alarm.Host, 63) + ": " + m.Alarm.Text
		}
	case DelegationMade, DelegationEnded:
		text = m.delegated()
	case ProposalWaiting, ProposalClosed:
		text = m.proposed()
	}
	return oneLine(text, maxHeadline)
}

func about(kind Kind, r api.Request, drill bool) string {
	// Short, so that a long name cannot push what it is about out of sight.
	who, where := oneLine(r.Requester.Name, 60), r.Where()
	text := ""
	switch kind {
	case Waiting:
		text = fmt.Sprintf("%s asks for %s for %s", who, where, r.Duration)
	case Reminder:
		text = fmt.Sprintf("Still undecided: %s asks for %s for %s", who, where, r.Duration)
	case Escalated:
		text = fmt.Sprintf("Nobody has decided: %s asks for %s for %s", who, where, r.Duration)
	case Closed:
		text = fmt.Sprintf("%s: %s for %s", outcome(r), where, who)
	case GrantEnding:
		text = fmt.Sprintf("Your access to %s ends soon", where)
	case GrantRevoked:
		text = fmt.Sprintf("Your access to %s has been ended", where)
	case EmergencyStarted:
		text = fmt.Sprintf("EMERGENCY: %s opened %s without approval", who, where)
	case ReviewDue:
		text = fmt.Sprintf("Review needed: emergency access of %s to %s", who, where)
	case ReviewOverdue:
		text = fmt.Sprintf("Review OVERDUE: emergency access of %s to %s", who, where)
	case ReviewGiven:
		text = fmt.Sprintf("Reviewed: emergency access of %s to %s", who, where)
	}
	if drill {
		text = "DRILL, " + text
	}
	return text
}

// outcome is the word for what became of a request.
func outcome(r api.Request) string {
	switch r.State {
	case api.Denied:
		return "Denied"
	case api.Cancelled:
		return "Cancelled"
	case api.Expired:
		return "Expired undecided"
	}
	return "Approved"
}

// facts are what the message says besides its headline.
func (m Message) facts() []fact {
	var out []fact
	add := func(label, value string) {
		if value = oneLine(value, maxValue); value != "" {
			out = append(out, fact{label, value})
		}
	}
	if m.Failure != nil {
		add("Channel", m.Failure.Channel)
		add("Error", m.Failure.Error)
	}
	if m.Kind == Test {
		add("Sent", instant(m.At))
	}
	for _, f := range slices.Concat(m.delegationFacts(), m.proposalFacts(), m.alarmFacts()) {
		add(f.Label, f.Value)
	}
	r := m.Request
	if r == nil {
		return out
	}
	add("Who", address(r.Requester))
	add("Where", r.Where())
	if r.Others() > 0 {
		var names []string
		for _, h := range r.Hosts {
			names = append(names, h.Name)
		}
		add(fmt.Sprintf("All %d hosts", len(names)), strings.Join(names, ", "))
	}
	add("How long", r.Duration)
	if r.NotBefore != nil {
		add("From", instant(*r.NotBefore))
	}
	add("Extends", r.Extends)
	add("Reason", r.Reason)
	add("Ticket", r.Ticket)
	switch m.Kind {
	case Waiting, Reminder, Escalated:
		add("Decide before", instant(r.ApproveBy))
		add("Needs", needs(*r))
	case Closed:
		add("Decided by", deciders(*r))
		if outcome(*r) == "Approved" && r.EndsAt != nil {
			add("Ends", instant(*r.EndsAt))
		}
	case GrantEnding, GrantRevoked, EmergencyStarted:
		if r.EndsAt != nil {
			add("Ends", instant(*r.EndsAt))
		}
	}
	if e := r.Emergency; e != nil && e.Review != nil && m.Kind == ReviewGiven {
		add("Review", strings.ReplaceAll(e.Review.Verdict, "-", " ")+", by "+oneLine(e.Review.Reviewer.Name, 60)+": "+e.Review.Comment)
	} else if e != nil && m.Kind != Closed && m.Kind != GrantEnding && m.Kind != GrantRevoked {
		add("Review by", strings.Join(e.ReviewGroups, " or ")+" before "+instant(e.ReviewBy))
	}
	return out
}

// needs says which approvals the request waits for now, and who could give them.
func needs(r api.Request) string {
	var parts []string
	for _, slot := range open(r) {
		part := fmt.Sprintf("%d from %s", slot.Count-slot.Filled, strings.Join(slot.Groups, " or "))
		var names []string
		for _, p := range slot.People {
			names = append(names, oneLine(p.Name, 60))
		}
		for _, d := range slot.Delegates {
			names = append(names, standsIn(d.Person, &d.For))
		}
		if more := len(names) - maxNames; more > 0 {
			names = append(names[:maxNames], fmt.Sprintf("%d more", more))
		}
		if len(names) > 0 {
			part += " (" + strings.Join(names, ", ") + ")"
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, " and ")
}

func deciders(r api.Request) string {
	var parts []string
	for _, d := range r.Decisions {
		part := standsIn(d.Approver, d.OnBehalfOf)
		if d.Verdict == api.Deny {
			part += ", who denied it"
		}
		if d.Comment != "" {
			part += ": " + d.Comment
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, "; ")
}

// call is what the message's link invites to.
func (m Message) call() string {
	switch m.Kind {
	case Waiting, Reminder, Escalated:
		return "Look and decide"
	case ReviewDue, ReviewOverdue:
		return "Review it"
	case GrantEnding:
		return "Extend or finish"
	case DelegationMade, DelegationEnded:
		return "See your delegations"
	case ProposalWaiting:
		return "See what it changes"
	case DeliveryFailed:
		return "See what failed"
	}
	return "Open in Sallyport"
}

// instant is a time as messages show it: their readers are anywhere.
func instant(t time.Time) string { return t.UTC().Format("Mon 2 Jan 2006, 15:04 UTC") }

// oneLine makes a text safe to stand in a line of ours: everything that breaks
// lines or is not seen becomes a space, so that nobody's reason looks like
// another fact of the message. What is longer than most characters is cut.
func oneLine(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsGraphic(r) || unicode.IsSpace(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, " "))
	s = strings.Join(strings.Fields(s), " ")
	if runes := []rune(s); len(runes) > most {
		s = strings.TrimSpace(string(runes[:most-1])) + "…"
	}
	return s
}
