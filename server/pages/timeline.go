package pages

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/audit"
)

// timeline is a page of the log as the story of one request, host or person,
// newest first: days on one clock, and what belongs to one request together.
type timeline struct {
	Of    string // request, host or person
	Name  string // of it, or its id if nobody knows it any more
	Note  string
	Page  string // its page; empty if there is none any more
	Zone  string // name in the IANA database
	Asked bool   // for that zone; otherwise the script puts the reader's in
	Days  []timelineDay
}

// timelineDay is a day on the timeline's clock.
type timelineDay struct {
	Name   string
	Groups []timelineGroup
}

// timelineGroup is what happened about one request on a day, or one event that is
// about none.
type timelineGroup struct {
	Request string
	Target  string // login@host, if an event on the page says so
	Events  []timelineEvent
}

// timelineEvent is an event as the story tells it.
type timelineEvent struct {
	api.Event
	look
	At    time.Time // on the timeline's clock
	Words string    // those of the person who did it, beyond the summary
}

// timeline tells the page's story, if it is about one of a request, a host and a
// person, and was not wanted as a table.
func (p *Pages) timeline(r *http.Request, c identity.Caller, page logPage, f audit.Filter) (*timeline, error) {
	of := page.Filter.subject()
	if of == "" || page.Table {
		return nil, nil
	}
	zone, err := clockOf(page.Filter.Zone)
	if err != nil {
		return nil, err
	}
	t := timeline{Of: of, Zone: zone.String(), Asked: page.Filter.Zone != "", Days: tell(page.Items, zone, of == "request")}
	switch of {
	case "request":
		t.Name = f.RequestID
		if req, err := p.cfg.Broker.Request(r.Context(), c, f.RequestID); err == nil {
			t.Name, t.Note, t.Page = req.Where(), req.Requester.Name, "/requests/"+url.PathEscape(req.ID)
		}
	case "host":
		t.Name = page.Filter.Host
		if host, err := p.cfg.Broker.Host(r.Context(), c, f.HostID); err == nil {
			t.Name, t.Page = host.Name, "/hosts/"+url.PathEscape(host.ID)
		}
	case "person":
		t.Name = p.personName(r.Context(), c, f.PersonID)
		if t.Name != f.PersonID {
			t.Page = "/people/" + url.PathEscape(f.PersonID)
		}
	}
	return &t, nil
}

func (p *Pages) personName(ctx context.Context, c identity.Caller, id string) string {
	known, err := p.cfg.Approvals.KnownPerson(ctx, c, id)
	if err != nil || known.Name == "" {
		return id
	}
	return known.Name
}

// clockOf is the clock by which days are told; UTC unless another is asked for.
func clockOf(name string) (*time.Location, error) {
	zone, err := time.LoadLocation(name)
	if err != nil || name == "Local" {
		return nil, audit.ErrFilter.With("there is no such time zone").Hinting("write it like Europe/Berlin, or UTC")
	}
	return zone, nil
}

// tell puts events, newest first, into days and, unless they are all about one
// request, into groups. A group stands where its newest event does.
func tell(events []api.Event, zone *time.Location, oneRequest bool) (days []timelineDay) {
	targets := map[string]string{} // by request
	for _, e := range events {
		if target := targetOf(e); target != "" {
			targets[e.Request] = target
		}
	}
	for _, e := range events {
		at := e.Time.In(zone)
		if name := at.Format("Monday, 2 January 2006"); len(days) == 0 || days[len(days)-1].Name != name {
			days = append(days, timelineDay{Name: name})
		}
		day := &days[len(days)-1]
		told := timelineEvent{Event: e, look: lookOf(e), At: at, Words: wordsOf(e)}
		i := slices.IndexFunc(day.Groups, func(g timelineGroup) bool { return g.Request == e.Request })
		if e.Request == "" || oneRequest || i < 0 {
			i = len(day.Groups)
			day.Groups = append(day.Groups, timelineGroup{})
			if !oneRequest {
				day.Groups[i] = timelineGroup{Request: e.Request, Target: targets[e.Request]}
			}
		}
		day.Groups[i].Events = append(day.Groups[i].Events, told)
	}
	return days
}

// targetOf is the login@host that an event about a request names.
func targetOf(e api.Event) string {
	host, login := text(e, "host"), text(e, "login")
	if host == "" || login == "" {
		return ""
	}
	return login + "@" + host
}

// wordsOf are what the person wrote who did it, where the summary leaves them out.
func wordsOf(e api.Event) string {
	switch e.Type {
	case "request.created", "delegation.made":
		return text(e, "reason")
	case "request.decided", "review.given", "policy.proposed", "policy.decided":
		return text(e, "comment")
	}
	return ""
}

// text is one of the event's own fields, empty if it has none or it is no text.
func text(e api.Event, field string) string {
	s, _ := e.Data[field].(string)
	return s
}

// look is how an event is drawn: its kind by the icon, and how it came out by the
// tone, which is good, bad, warn, still or nothing. Its summary says both in words.
type look struct{ Icon, Tone string }

// lookOf is never at a loss: an event of a type that this version does not know
// looks like those whose type begins alike.
func lookOf(e api.Event) look {
	drill, emergency := e.Data["drill"] == true, e.Data["emergency"] == true
	alarm := look{"emergency", "bad"}
	if drill {
		alarm.Icon = "drill"
	}
	switch e.Type {
	case "request.created", "grant.started":
		switch {
		case emergency:
			return alarm
		case e.Type == "request.created":
			return look{"requests", ""}
		case e.Data["automatic"] == true:
			return look{"bolt", "good"}
		}
		return look{"open", "good"}
	case "emergency.started":
		return alarm
	case "request.decided", "policy.decided", "review.given":
		if v := text(e, "verdict"); v == string(api.Deny) || v == api.NotJustified {
			return look{"denied", "bad"}
		}
		return look{"check", "good"}
	case "request.closed":
		switch text(e, "state") {
		case string(api.Denied):
			return look{"denied", "bad"}
		case string(api.Expired):
			return look{"expired", "still"}
		}
		return look{"cancelled", "still"}
	case "grant.ended":
		if text(e, "reason") == "revoked" {
			return look{"denied", "warn"}
		}
		return look{"ended", "still"}
	case "policy.activated":
		return look{"policy", "good"}
	case "person.signed_out", "delegation.ended", "host.removed":
		return look{"over", "still"}
	case "person.removed":
		return look{"signout", "warn"}
	case "token.reused":
		return look{"warning", "bad"}
	case "review.overdue", "request.decision_voided", "message.failed":
		return look{"warning", "warn"}
	}
	if strings.HasSuffix(e.Type, "refused") || strings.HasSuffix(e.Type, "failed") {
		return look{"denied", "warn"}
	}
	kind, _, _ := strings.Cut(e.Type, ".")
	if icon, ok := kindIcons[kind]; ok {
		return look{icon, ""}
	}
	return look{"log", ""}
}

// kindIcons by what types begin with.
var kindIcons = map[string]string{
	"person": "people", "token": "key", "request": "requests", "grant": "open", "review": "check", "certificate": "key",
	"host": "hosts", "session": "terminal", "policy": "policy", "delegation": "delegate", "message": "bell", "broker": "mark", "database": "mark", "provider": "people",
	"deployment": "deploy", "batch": "deploy", "gate": "deploy", "agent": "deploy", "disclosed": "search", "pack": "download",
}
