package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Fact is one thing that a rule gives or wants, by its key in the document. A
// rule that is silent has the fact of its default, so that two rules with the
// same facts decide alike.
type Fact struct{ Key, Value string }

// Difference is a fact that two versions of a rule do not share. A rule that one
// of them does not have has no facts.
type Difference struct{ Key, Was, Now string }

// conditions are what an ask must meet for the rule to decide on it.
func (r *Rule) conditions() []Fact {
	return []Fact{
		{"who", sorted(r.Groups)},
		{"where", r.Selector()},
		{"logins", sorted(r.Logins)},
	}
}

// facts are what the rule makes of an ask that it decides on: everything but its
// name, its description and its conditions.
func (r *Rule) facts() []Fact {
	facts := []Fact{
		{"approvals", needs(r.Stages)},
		{"automatic", automaticWords(r)},
		{"assurance", string(r.Assurance)},
		{"max_age", length(r.MaxAge)},
		{"acr_values", joined(r.ACRValues)},
		{"duration.max", length(r.MaxDuration)},
		{"duration.default", length(r.DefaultDuration)},
		{"approve_within", length(r.ApproveWithin)},
		{"start_within", length(r.StartWithin)},
		{"certificate.lifetime", length(r.CertificateLifetime)},
		{"certificate.source_address", sorted(r.SourceAddress)},
		{"certificate.pty", yesNo(!r.NoPTY)},
		{"certificate.forwarding", sorted(r.Forwarding)},
		{"certificate.key_types", sorted(r.KeyTypes)},
		{"certificate.verify_required", yesNo(r.VerifyRequired)},
		{"single_use", yesNo(r.SingleUse)},
		{"at_end", r.atEnd()},
		{"record", yesNo(r.Record)},
		{"max_sign_in_age", length(r.MaxSignInAge)},
		{"reason", r.Reason.words()},
		{"ticket", r.Ticket.words()},
		{"extend", r.Extend.words()},
		{"emergency", r.Emergency.words()},
		{"remind", length(r.Remind)},
	}
	escalate := make([]string, len(r.Escalate))
	for i, e := range r.Escalate {
		escalate[i] = length(e.After) + ": " + sorted(e.Groups)
	}
	return append(facts, Fact{"escalate", strings.Join(escalate, "; ")})
}

// atEnd is what becomes of sessions when the grant's time is up.
func (r *Rule) atEnd() string {
	if r.KeepSessions {
		return keepSessions
	}
	return "end"
}

// differences compares two versions of a rule, either of which may be nil, in
// the order of facts.
func differences(was, now *Rule) []Difference {
	all := func(r *Rule) []Fact {
		if r == nil {
			return make([]Fact, len(new(Rule).facts())+3)
		}
		return append(r.conditions(), r.facts()...)
	}
	var out []Difference
	before, after := all(was), all(now)
	for i := range before {
		if before[i].Value != after[i].Value {
			out = append(out, Difference{Key: max(before[i].Key, after[i].Key), Was: before[i].Value, Now: after[i].Value})
		}
	}
	return out
}

// needs are the approvals of stages in words.
func needs(stages []Stage) string {
	said := make([]string, len(stages))
	for i, stage := range stages {
		slots := make([]string, len(stage.Slots))
		for j, slot := range stage.Slots {
			groups := slices.Sorted(slices.Values(slot.Groups))
			slots[j] = fmt.Sprintf("%d from %s", slot.Count, strings.Join(groups, " or "))
		}
		said[i] = strings.Join(slots, " and ")
	}
	return strings.Join(said, ", then ")
}

func automaticWords(r *Rule) string {
	if !r.Automatic || r.During == nil {
		return yesNo(r.Automatic)
	}
	return r.During.words()
}

func (s *Schedule) words() string {
	times := make([]string, len(s.Times))
	for i, h := range s.Times {
		on := make([]string, len(h.Days))
		for j, d := range slices.Sorted(slices.Values(h.Days)) {
			on[j] = days[d]
		}
		times[i] = fmt.Sprintf("%s %s-%s", strings.Join(on, ", "), wall(h.From), wall(h.To))
	}
	return strings.Join(times, "; ") + " in " + s.Zone.String()
}

func wall(d time.Duration) string {
	return fmt.Sprintf("%02d:%02d", int(d.Hours()), int(d.Minutes())%60)
}

func (t Text) words() string {
	var said []string
	if t.Required {
		said = append(said, "required")
	}
	if t.MinLength > 0 {
		said = append(said, fmt.Sprintf("at least %d characters", t.MinLength))
	}
	if t.Pattern != nil {
		said = append(said, "like "+t.Pattern.String())
	}
	if t.Message != "" {
		said = append(said, fmt.Sprintf("message %q", t.Message))
	}
	return strings.Join(said, ", ")
}

func (e Extend) words() string {
	switch {
	case e.Times == 0:
		return ""
	case e.Automatic:
		return fmt.Sprintf("%d times by %s, automatically", e.Times, length(e.By))
	}
	return fmt.Sprintf("%d times by %s", e.Times, length(e.By))
}

func (e *Emergency) words() string {
	if e == nil {
		return ""
	}
	said := fmt.Sprintf("for %s, at most %s, %s by default, reviewed by %s within %s", sorted(e.Groups),
		length(e.MaxDuration), length(e.DefaultDuration), sorted(e.ReviewBy), length(e.ReviewWithin))
	if len(e.Tell) > 0 {
		said += ", told to " + sorted(e.Tell)
	}
	return said
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// length is a duration as people write it; one of 0 is none.
func length(d time.Duration) string {
	if d == 0 {
		return ""
	}
	s := d.String()
	for _, zero := range []struct{ end, without string }{{"m0s", "m"}, {"h0m", "h"}} {
		if rest, ok := strings.CutSuffix(s, zero.end); ok {
			s = rest + zero.without
		}
	}
	return s
}

// joined is for what has an order, sorted for what has none.
func joined[S ~string](of []S) string {
	said := make([]string, len(of))
	for i, s := range of {
		said[i] = string(s)
	}
	return strings.Join(said, ", ")
}

func sorted[S ~string](of []S) string { return joined(slices.Sorted(slices.Values(of))) }
