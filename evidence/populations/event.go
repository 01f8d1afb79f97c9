// Package populations makes the lists that an auditor draws samples from: the log's
// events become rows, one file for each population, by pure functions. Whoever has
// the log's entries gets the same bytes again, which is how `sally audit verify`
// shows that a list is complete and that nobody edited it.
//
//   - Every event is in exactly one population, and is exactly one row of it; what
//     no other population takes is in the last one, "other".
//   - A row begins with the event's index in the log. Columns are in a fixed order,
//     times are UTC (RFC 3339), and a cell that a spreadsheet might take for a
//     formula is neutralised (Neutral).
//   - A row is made from the leaf's own fields by their names, without the program's
//     catalogue of events: a row does not change when a newer Sallyport words
//     something otherwise, and events of types to come have their rows as well.
//
// Beside them there are registers, whose rows are things and not events: see Register.
//
// What a file looks like is part of a pack's format: see package evidence/pack.
package populations

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sallyport/audit/event"
)

// Event is one entry of the log as it is read for evidence.
type Event struct {
	Index      int64
	ID         string
	Type       string
	Version    int
	Time       time.Time
	Actor      event.Actor
	OnBehalfOf *event.Actor
	Source     string
	Subject    event.Subject
	Policy     *event.PolicyRef
	Data       map[string]json.RawMessage

	// Known is the data as this program's catalogue has it; nil if it does not know
	// the type, as with an event of a newer Sallyport.
	Known event.Data
	// Err is why the leaf is no event of a broker: it is no JSON, or not in the only
	// form that its type has. Such an entry is an exception by itself.
	Err error
}

// Read reads a leaf. It always returns an event, if need be one with Err and
// whatever could be read.
func Read(index int64, leaf []byte) Event {
	e := Event{Index: index}
	var wire struct {
		ID         string                     `json:"id"`
		Type       string                     `json:"type"`
		Version    int                        `json:"version"`
		Time       time.Time                  `json:"time"`
		Actor      event.Actor                `json:"actor"`
		OnBehalfOf *event.Actor               `json:"on_behalf_of"`
		Source     string                     `json:"source"`
		Subject    event.Subject              `json:"subject"`
		Policy     *event.PolicyRef           `json:"policy"`
		Data       map[string]json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(leaf, &wire); err != nil {
		e.Err = errors.New("it is not the JSON of an event")
		return e
	}
	e.ID, e.Type, e.Version, e.Time = wire.ID, wire.Type, wire.Version, wire.Time.UTC()
	e.Actor, e.OnBehalfOf, e.Source, e.Subject, e.Policy, e.Data = wire.Actor, wire.OnBehalfOf, wire.Source, wire.Subject, wire.Policy, wire.Data
	known, err := event.Decode(leaf)
	switch {
	case err == nil:
		e.Known = known.Data
		e.shed()
	case !errors.Is(err, event.ErrUnknown):
		e.Err = fmt.Errorf("it is not in the form that %q has", e.Type)
	case e.Type == "" || e.Time.IsZero():
		e.Err = errors.New("it has no type or no time")
	}
	return e
}

// shed lets go of fields that no column shows: the largest, which are in Known too.
func (e *Event) shed() {
	shown := All[Of(e.Type)].Fields
	for name := range e.Data {
		if name != "intent" && !slices.Contains(shown, name) {
			delete(e.Data, name)
		}
	}
}

// Statement is what somebody said that is kept with what proves it: a decision on a
// request, on the policy or on a deployment, or a review.
type Statement struct {
	ID          string
	Text, Hash  string
	IDTokenHash string // with assurance provider; the token itself is not in the log
	KeysHash    string // of the note about the keys that the token verifies with
}

// Statement is the statement that the event records, if it is of that kind.
func (e *Event) Statement() (Statement, bool) {
	switch d := e.Known.(type) {
	case event.RequestDecided:
		return Statement{d.DecisionID, d.Evidence, d.EvidenceHash, d.IDTokenHash, d.KeysHash}, true
	case event.ReviewGiven:
		return Statement{d.ReviewID, d.Evidence, d.EvidenceHash, d.IDTokenHash, d.KeysHash}, true
	case event.PolicyDecided:
		return Statement{d.DecisionID, d.Evidence, d.EvidenceHash, d.IDTokenHash, d.KeysHash}, true
	case event.DeploymentDecided:
		return Statement{d.DecisionID, d.Evidence, d.EvidenceHash, d.IDTokenHash, d.KeysHash}, true
	}
	return Statement{}, false
}

// Text is a field of the data as a cell has it: a string as it is, a list with
// commas, an object as name=value in the order of the names, "" for what is not
// there. Other JSON is itself.
func (e *Event) Text(field string) string { return text(e.Data[field]) }

func text(raw json.RawMessage) string {
	if len(raw) == 0 {
		return ""
	}
	switch raw[0] {
	case '"':
		var s string
		if json.Unmarshal(raw, &s) == nil {
			return s
		}
	case '[':
		var list []json.RawMessage
		if json.Unmarshal(raw, &list) == nil {
			cells := make([]string, len(list))
			for i, item := range list {
				cells[i] = text(item)
			}
			return strings.Join(cells, ", ")
		}
	case '{':
		var object map[string]json.RawMessage
		if json.Unmarshal(raw, &object) == nil {
			cells := make([]string, 0, len(object))
			for name, value := range object {
				cells = append(cells, name+"="+text(value))
			}
			slices.Sort(cells)
			return strings.Join(cells, ", ")
		}
	case 'n':
		return ""
	}
	return string(raw)
}

// Moment is a field of the data that is a time, or the zero time.
func (e *Event) Moment(field string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, e.Text(field))
	if err != nil {
		return time.Time{}
	}
	return t.UTC()
}

// Hosts are the hosts that the event is about.
func (e *Event) Hosts() []string {
	switch {
	case len(e.Subject.HostIDs) > 0:
		return e.Subject.HostIDs
	case e.Subject.HostID != "":
		return []string{e.Subject.HostID}
	}
	return nil
}
