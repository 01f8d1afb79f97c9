package cli

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"sallyport/api"
	"sallyport/cmd/sally/internal/show"
)

// person is a name with the address that tells two of the same name apart.
func person(p api.Person) string {
	switch {
	case p.Email == "" || p.Email == p.Name:
		return or(p.Name, p.ID)
	case p.Name == "":
		return p.Email
	}
	return fmt.Sprintf("%s <%s>", p.Name, p.Email)
}

// name is a person in few words.
func name(p api.Person) string { return or(p.Name, or(p.Email, p.ID)) }

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// target is what a request is for: login@host, or the first few of several.
func target(r api.Request) string { return r.Where() }

// moment is a time as people want it: on the clock, and from now.
func (s *sally) moment(t *time.Time) string {
	if t == nil || t.IsZero() {
		return ""
	}
	return fmt.Sprintf("%s (%s)", s.out.When(*t), s.out.Relative(*t))
}

// fields prints labels and values, two and two, without those that are empty.
func (s *sally) fields(pairs ...string) {
	var rows [][]show.Cell
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			rows = append(rows, []show.Cell{{Text: "  " + pairs[i], Style: show.Faint}, {Text: pairs[i+1]}})
		}
	}
	s.out.Columns(rows)
}

// clock is the time that matters next, or mattered last, about a request.
func (s *sally) clock(r api.Request) string {
	switch {
	case r.State == api.Requested:
		return "expires " + s.out.Relative(r.ApproveBy)
	case r.State.Final() && r.EndsAt != nil:
		return "ended " + s.out.Relative(*r.EndsAt)
	case r.State.Final():
		return "asked " + s.out.Relative(r.CreatedAt)
	case r.StartsAt != nil && r.StartsAt.After(s.Clock.Now()):
		return "starts " + s.out.Relative(*r.StartsAt)
	case r.EndsAt != nil:
		return "ends " + s.out.Relative(*r.EndsAt)
	}
	return ""
}

func (s *sally) requestTable(requests []api.Request) {
	rows := make([][]show.Cell, len(requests))
	for i, r := range requests {
		rows[i] = append([]show.Cell{{Text: r.ID}, show.State(r.State)},
			append([]show.Cell{marked(r)}, show.Cells(show.Duration(r.Duration), name(r.Requester), s.clock(r), r.Reason)...)...)
	}
	heading := []string{"REQUEST", "STATE", "FOR", "HOW LONG", "WHO", "WHEN", "REASON"}
	if slices.ContainsFunc(requests, func(r api.Request) bool { return behalf(r) != nil }) {
		heading = append(heading, "YOU DECIDE FOR")
		for i, r := range requests {
			of := ""
			if d := behalf(r); d != nil {
				of = fmt.Sprintf("%s, until %s", name(d.For), s.out.When(d.Until))
			}
			rows[i] = append(rows[i], show.Cell{Text: of})
		}
	}
	s.out.Table(heading, rows)
}

// who says who must approve, as in "1 from approvers (Alex Approver) and 1 of
// security, then 1 of owners".
func who(slots []api.Slot) string {
	var b strings.Builder
	for i, slot := range slots {
		if i > 0 && slot.Stage != slots[i-1].Stage {
			b.WriteString(", then ")
		} else if i > 0 {
			b.WriteString(" and ")
		}
		b.WriteString(slotText(slot))
	}
	return b.String()
}

func slotText(slot api.Slot) string {
	const most = 5 // people named
	text := fmt.Sprintf("%d from %s", slot.Count, strings.Join(slot.Groups, " or "))
	var names []string
	for _, p := range slot.People {
		names = append(names, name(p))
	}
	for _, d := range slot.Delegates {
		names = append(names, name(d.Person)+" for "+name(d.For))
	}
	if len(names) > most {
		names = append(names[:most], "…")
	}
	if len(names) > 0 {
		text += " (" + strings.Join(names, ", ") + ")"
	}
	return text
}

// printRequest prints all that is known of a request.
func (s *sally) printRequest(r api.Request) {
	s.out.Line("%s  %s", show.Cell{Text: r.ID, Style: show.Bold}, show.State(r.State))
	if r.Emergency != nil {
		s.out.Line("%s", show.Cell{Text: mark(r), Style: alarm})
	}
	s.out.Line("%s for %s, asked for by %s", show.Cell{Text: target(r), Style: show.Bold},
		show.Duration(r.Duration), person(r.Requester))
	ends := "ends"
	if r.State == api.Ended {
		ends = "ended"
	}
	expires := ""
	if r.State == api.Requested {
		expires = s.moment(&r.ApproveBy)
	}
	s.fields(
		"reason", r.Reason,
		"ticket", r.Ticket,
		"asked", s.moment(&r.CreatedAt),
		"expires", expires,
		"not before", s.moment(r.NotBefore),
		"starts", s.moment(r.StartsAt),
		"use it by", s.moment(r.UseBy),
		ends, s.moment(r.EndsAt),
		"because of", r.EndReason,
		"review", s.reviewState(r),
		"extends", r.Extends,
		"extended by", r.ExtendedBy,
		"may be extended", extendable(r),
		"you approve", s.decidesFor(r, api.Approve),
		"you deny", s.decidesFor(r, api.Deny),
		"rule", fmt.Sprintf("%s, policy version %d", r.Rule, r.Policy.Version),
		"key", r.KeyFingerprint,
		"terms", r.TermsHash,
	)
	s.hostLines(r)
	if len(r.Approvers) > 0 {
		s.out.Line("\nneeds")
		rows := make([][]show.Cell, len(r.Approvers))
		for i, slot := range r.Approvers {
			style := show.Yellow
			if slot.Filled >= slot.Count {
				style = show.Green
			}
			rows[i] = []show.Cell{{Text: "  " + slotText(slot)},
				{Text: fmt.Sprintf("%d of %d there", slot.Filled, slot.Count), Style: style}}
		}
		s.out.Columns(rows)
	}
	if len(r.Certificates) > 0 {
		s.out.Line("\ncertificates")
		rows := make([][]show.Cell, len(r.Certificates))
		for i, c := range r.Certificates {
			rows[i] = show.Cells(fmt.Sprintf("  %d", c.Serial), c.Principal,
				"good until "+s.out.When(c.ValidBefore)+" ("+s.out.Relative(c.ValidBefore)+")", signing(c))
		}
		s.out.Columns(rows)
	}
	s.pruned(r.Pruned)
	if len(r.Timeline) > 0 {
		s.out.Line("\ntimeline")
		rows := make([][]show.Cell, len(r.Timeline))
		for i, e := range r.Timeline {
			rows[i] = []show.Cell{{Text: "  " + s.out.When(e.Time), Style: show.Faint},
				{Text: or(e.Actor.Name, or(e.Actor.ID, e.Actor.Kind))}, {Text: e.Summary + s.comment(r, e)}}
		}
		s.out.Columns(rows)
	}
	if next := nextSteps(r); next != "" {
		s.out.Line("\nnext: %s", next)
	}
}

// signing is what came of a certificate, unless it is what one expects.
func signing(c api.CertificateInfo) string {
	switch c.Result {
	case api.NotSigned:
		return "never signed: " + c.Failure
	case api.NoResult:
		return "no result in the log"
	}
	return ""
}

// comment is what an approver said with the decision that the event is about.
func (s *sally) comment(r api.Request, e api.Event) string {
	for _, d := range r.Decisions {
		if e.Type == "request.decided" && e.Data["decision_id"] == d.ID && d.Comment != "" {
			return ": " + d.Comment
		}
	}
	return ""
}

// nextSteps are the commands that the caller could give now.
func nextSteps(r api.Request) string {
	commands := map[string]string{
		"approve": "sally approve " + r.ID, "deny": "sally deny " + r.ID,
		"cancel": "sally cancel " + r.ID, "finish": "sally finish " + r.ID, "extend": "sally extend " + r.ID,
		"connect": "sally ssh " + anyHost(r),
		"review":  "sally review " + r.ID + " --justified|--not-justified --comment TEXT",
	}
	var next []string
	for _, a := range r.Actions {
		if command := commands[a.Name]; a.Allowed && command != "" {
			next = append(next, command)
		}
	}
	return strings.Join(next, " · ")
}
