// Package event is the catalogue of everything that Sallyport writes to its
// log, and the one place where an event becomes bytes.
//
// The types here are a published contract: auditors' programs read them for
// years. A struct may gain fields that are empty when unknown; any other change
// needs a new version number. An event is encoded once, when it is made, as
// JSON without HTML escaping and without floats, 64-bit integers as strings,
// times in UTC as RFC 3339; those exact bytes are hashed into the log.
package event

import (
	"time"

	"github.com/google/uuid"
)

// Kind says what kind of actor did something.
type Kind string

// The kinds of actors.
const (
	Person Kind = "person"
	Agent  Kind = "agent"
	Host   Kind = "host"
	Broker Kind = "broker" // Sallyport itself, when time passes or at start
)

// Actor is who did it. Name is for people who read; only ID identifies.
type Actor struct {
	Kind Kind   `json:"kind"`           // person, agent, host or broker
	ID   string `json:"id,omitempty"`   // empty for the broker, and for somebody whom nobody has identified
	Name string `json:"name,omitempty"` // for people who read
}

// PolicyRef names the version of the policy under which something happened.
type PolicyRef struct {
	Version int64  `json:"version,string"` // number
	Hash    string `json:"hash"`           // SHA-256, hex
}

// Subject says what an event is about; what does not apply is empty.
type Subject struct {
	RequestID string `json:"request_id,omitempty"` // of a request for access
	PersonID  string `json:"person_id,omitempty"`  // whom it concerns, if not the actor alone
	HostID    string `json:"host_id,omitempty"`    // of the host, or of the first of several
	// HostIDs are all hosts, HostID first, if the event is about several.
	HostIDs []string `json:"host_ids,omitempty"`
}

// Event is one record before it is encoded.
type Event struct {
	ID         uuid.UUID  `json:"id"`                     // version 7; makes a retried append harmless
	Type       string     `json:"type"`                   // such as request.created
	Version    int        `json:"version"`                // of the type's struct
	Time       time.Time  `json:"time"`                   // by the broker's clock
	Actor      Actor      `json:"actor"`                  // who did it
	OnBehalfOf *Actor     `json:"on_behalf_of,omitempty"` // for whom, if for somebody else
	Source     string     `json:"source,omitempty"`       // IP address that the action came from
	Subject    Subject    `json:"subject"`                // what it is about
	Policy     *PolicyRef `json:"policy,omitempty"`       // that decided, or gave the role that decided
	Data       Data       `json:"data"`                   // the type's own fields
}

// Data is the part of an event that differs from type to type.
type Data interface {
	// EventType is the type's name and the version of its struct.
	EventType() (name string, version int)
	// Summary is one line for people who read the log: what follows the actor's name.
	Summary() string
}

// New returns an event with a fresh id, at the time given.
func New(at time.Time, actor Actor, source string, subject Subject, data Data) Event {
	name, version := data.EventType()
	return Event{
		ID: uuid.Must(uuid.NewV7()), Type: name, Version: version, Time: at.UTC(),
		Actor: actor, Source: source, Subject: subject, Data: data,
	}
}

// Under returns the event with the policy version under which it happened.
func (e Event) Under(p PolicyRef) Event {
	e.Policy = &p
	return e
}
