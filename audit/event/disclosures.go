package event

import (
	"fmt"
	"strings"
	"time"
)

// What somebody was shown whose role lets them read what concerns others. The
// event is committed before anything is shown. The same person who is shown the
// same again from the same address within ten minutes is one event, in each replica.

// SearchDisclosed records what an auditor looked for in the log. The later pages
// of one search are the same search.
type SearchDisclosed struct {
	Type    string    `json:"type,omitempty"`    // of events, or a prefix that ends in a dot
	Request string    `json:"request,omitempty"` // id, as it was asked for
	Person  string    `json:"person,omitempty"`  // id, as it was asked for
	Host    string    `json:"host,omitempty"`    // id, as it was asked for
	From    time.Time `json:"from,omitzero"`     // only events not before it
	To      time.Time `json:"to,omitzero"`       // only events before it
	Text    string    `json:"text,omitempty"`    // words that the events have
}

func (SearchDisclosed) EventType() (string, int) { return "disclosed.search", 1 }
func (d SearchDisclosed) Summary() string {
	var by []string
	for _, f := range []struct{ name, value string }{{"type ", d.Type}, {"request ", d.Request}, {"person ", d.Person},
		{"host ", d.Host}, {"from ", day(d.From)}, {"until ", day(d.To)}} {
		if f.value != "" {
			by = append(by, f.name+f.value)
		}
	}
	if d.Text != "" {
		by = append(by, fmt.Sprintf("words %q", d.Text))
	}
	if len(by) == 0 {
		return "looked at the log"
	}
	return "searched the log by " + strings.Join(by, ", ")
}

func day(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Format("2006-01-02 15:04 MST")
}

// EventDisclosed records that an auditor opened one event or its exact bytes; a
// receipt is hashes, and discloses nothing. Its subject is that event's.
type EventDisclosed struct {
	Index uint64 `json:"index,string"` // of the event that was opened
	Type  string `json:"type"`         // of the event that was opened
}

func (EventDisclosed) EventType() (string, int) { return "disclosed.event", 1 }
func (d EventDisclosed) Summary() string {
	return fmt.Sprintf("opened event %d (%s)", d.Index, d.Type)
}

// EntriesDisclosed records that an auditor took bundles of the log's entries, by
// which programs copy the whole log. It is one event for 65,536 entries.
type EntriesDisclosed struct {
	First uint64 `json:"first,string"` // index: the entries taken are not before it
	Last  uint64 `json:"last,string"`  // index: and not after it
}

func (EntriesDisclosed) EventType() (string, int) { return "disclosed.entries", 1 }
func (d EntriesDisclosed) Summary() string {
	return fmt.Sprintf("copied entries of the log from %d to %d", d.First, d.Last)
}

// RequestDisclosed records that somebody was shown a request with its reason,
// comments and evidence by their role alone: they neither asked for it, nor decide
// on it.
type RequestDisclosed struct {
	Roles []string `json:"roles"` // that let them: auditor or operator
}

func (RequestDisclosed) EventType() (string, int) { return "disclosed.request", 1 }
func (d RequestDisclosed) Summary() string {
	return "opened the request as " + strings.Join(d.Roles, " and ")
}

// RequestsDisclosed records that somebody was shown a list of everybody's requests,
// with reasons and comments, by their role.
type RequestsDisclosed struct {
	States []string `json:"states,omitempty"` // only requests in these, if there are any
	Host   string   `json:"host,omitempty"`   // id, if only requests for one were asked for
	Roles  []string `json:"roles"`            // that let them: auditor or operator
}

func (RequestsDisclosed) EventType() (string, int) { return "disclosed.requests", 1 }
func (d RequestsDisclosed) Summary() string {
	return "listed everybody's requests as " + strings.Join(d.Roles, " and ")
}

// PeopleDisclosed records that an operator or an auditor was shown who there is,
// with addresses and groups, or what somebody can reach. The subject names the
// person or the host, if it was about one.
type PeopleDisclosed struct {
	What  string   `json:"what"`  // list, person, reach (of a person) or reached (who can reach a host)
	Roles []string `json:"roles"` // that let them: auditor or operator
}

func (PeopleDisclosed) EventType() (string, int) { return "disclosed.people", 1 }
func (d PeopleDisclosed) Summary() string {
	switch d.What {
	case "person":
		return "looked up a person"
	case "reach":
		return "looked up what a person can reach"
	case "reached":
		return "looked up who can reach a host"
	}
	return "looked at who there is"
}

// SessionsDisclosed records that an operator or an auditor was shown who was on a host,
// from where and when.
type SessionsDisclosed struct {
	Roles []string `json:"roles"` // that they have
}

func (SessionsDisclosed) EventType() (string, int) { return "disclosed.sessions", 1 }
func (SessionsDisclosed) Summary() string          { return "looked at who was on the host" }

// MessagesDisclosed records that an operator or an auditor was shown what people
// were told.
type MessagesDisclosed struct {
	Request string   `json:"request,omitempty"` // id, if only the messages about one were asked for
	Roles   []string `json:"roles"`             // that let them: auditor or operator
}

func (MessagesDisclosed) EventType() (string, int) { return "disclosed.messages", 1 }
func (MessagesDisclosed) Summary() string          { return "looked at what people were told" }
