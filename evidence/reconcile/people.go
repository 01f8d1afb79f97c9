package reconcile

import (
	"time"

	"sallyport/audit/event"
	"sallyport/evidence/populations"
)

// leaver is somebody who was removed.
type leaver struct {
	at    time.Time
	index int64
}

// access are the types of events that a person who has been removed can no longer
// be the actor of, with what they did.
var access = map[string]string{
	"person.signed_in":   "signed in",
	"request.created":    "asked for access",
	"request.decided":    "decided on a request",
	"certificate.issued": "got a certificate",
	"emergency.started":  "opened an emergency",
	"review.given":       "reviewed an emergency",
	"policy.proposed":    "proposed a policy",
	"policy.decided":     "decided on a policy",
	"session.started":    "logged in on a host",
	"delegation.made":    "lent their groups",
	"deployment.decided": "decided on a deployment",
}

// leaving reports what somebody does who has been removed.
func (g *Engine) leaving(e *populations.Event) {
	if len(g.leavers) == 0 {
		return
	}
	did, ok := access[e.Type]
	if !ok {
		return
	}
	person := e.Subject.PersonID
	if e.Actor.Kind == event.Person {
		person = e.Actor.ID
	}
	if e.Type == "session.started" && person == "" {
		person = sessionPerson(e)
	}
	if l, left := g.leavers[person]; left && e.Time.After(l.at) {
		g.report(LeaverAccess, e, l.index, "%s %s after having been removed at %s", person, did, populations.Time(l.at))
	}
}
