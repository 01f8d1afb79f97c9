package event

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/uuid"
)

// Circumstances are what the events of a type say beside their data: who caused
// them, about what, under which policy. Whatever a type must name is there in every
// event of it; Complete checks that.
type Circumstances struct {
	// By are the kinds of actor that cause it.
	By []Kind
	// Stranger: the actor may be somebody whom nobody has identified yet.
	Stranger bool
	// Policy: a version of the policy decided, or gave the role that decided. What a
	// host causes needs none: its key is what allows it.
	Policy bool
	// Request, Person and Host must be named by the subject.
	Request, Person, Host bool
	// Behalf: it was done for somebody else, who is named.
	Behalf bool
}

var (
	person   = []Kind{Person}
	itself   = []Kind{Broker}
	agent    = []Kind{Agent}
	anybody  = []Kind{Person, Broker}
	ofHost   = []Kind{Host}
	keepers  = []Kind{Person, Host}
	byRole   = Circumstances{By: person, Policy: true}
	byItself = Circumstances{By: itself}
	onDemand = Circumstances{By: itself, Behalf: true}
	signing  = Circumstances{By: person, Person: true}
	reported = Circumstances{By: ofHost, Host: true}

	whoever   = []Kind{Agent, Person, Broker}
	deploying = Circumstances{By: whoever, Policy: true, Host: true}
)

// circumstances of every type in the catalogue.
var circumstances = map[string]Circumstances{
	"person.signed_in":      signing,
	"person.sign_in_failed": {By: person, Stranger: true},
	"person.signed_out":     signing,
	"token.reused":          signing,
	"person.removed":        {By: person, Policy: true, Person: true},
	"person.restored":       {By: person, Policy: true, Person: true},

	"request.created":          {By: person, Policy: true, Request: true, Person: true, Host: true},
	"request.refused":          {By: person, Policy: true, Person: true},
	"request.decided":          {By: person, Policy: true, Request: true, Person: true, Host: true},
	"request.decision_refused": {By: person, Policy: true, Request: true, Person: true, Host: true},
	"request.decision_voided":  {By: person, Policy: true, Request: true, Person: true, Host: true},
	"request.closed":           {By: anybody, Policy: true, Request: true, Person: true, Host: true},
	"grant.started":            {By: anybody, Policy: true, Request: true, Person: true, Host: true},
	"grant.ended":              {By: anybody, Policy: true, Request: true, Person: true, Host: true},
	"delegation.made":          {By: person, Policy: true, Person: true},
	"delegation.ended":         {By: person, Policy: true, Person: true},

	"emergency.started": {By: person, Policy: true, Request: true, Person: true, Host: true},
	"review.given":      {By: person, Policy: true, Request: true, Person: true, Host: true},
	"review.refused":    {By: person, Policy: true, Request: true, Person: true, Host: true},
	"review.overdue":    {By: itself, Policy: true, Request: true, Person: true, Host: true},

	"certificate.issued":      {By: person, Policy: true, Request: true, Host: true},
	"certificate.refused":     {By: person, Policy: true},
	"certificate.signed":      {By: itself, Policy: true, Request: true, Person: true, Host: true, Behalf: true},
	"certificate.revoked":     {By: person, Policy: true, Request: true, Person: true, Host: true},
	"host.certificate_issued": {By: keepers, Policy: true, Host: true},
	"host.certificate_signed": {By: itself, Policy: true, Host: true, Behalf: true},

	"agent.admitted":     {By: agent, Policy: true},
	"agent.refused":      {By: agent, Stranger: true, Policy: true},
	"agent.token_shared": {By: agent, Stranger: true, Policy: true},
	"agent.revoked":      {By: anybody, Policy: true},

	"message.failed": byItself,

	"host.registered":           {By: keepers, Policy: true, Host: true},
	"host.changed":              {By: keepers, Policy: true, Host: true},
	"host.removed":              {By: person, Policy: true, Host: true},
	"host.quarantined":          {By: person, Policy: true, Host: true},
	"host.released":             {By: person, Policy: true, Host: true},
	"host.join_token_made":      byRole,
	"host.join_token_withdrawn": byRole,
	"host.enrolled":             {By: keepers, Policy: true, Host: true},
	"host.enrolment_refused":    {By: keepers, Stranger: true, Policy: true},

	"host.alarm":           reported,
	"host.reports_lost":    reported,
	"host.report_refused":  reported,
	"host.posture_changed": reported,
	"host.probed":          {By: itself, Host: true},
	"session.started":      reported,
	"session.ended":        reported,
	"session.alarm":        {By: []Kind{Host, Broker}, Host: true},
	"session.recorded":     reported,

	"session.recording_expired": {By: itself, Host: true},

	"policy.proposed":  byRole,
	"policy.decided":   {By: person, Policy: true, Person: true},
	"policy.withdrawn": {By: person, Policy: true, Person: true},
	"policy.refused":   byRole,
	"policy.activated": {By: anybody, Policy: true},

	"retention.pruned": byItself,

	"broker.started":     byItself,
	"broker.configured":  byItself,
	"broker.keys_loaded": byItself,
	"database.migrated":  byItself,
	"provider.keys_seen": byItself,

	"witness.lagging":     byItself,
	"witness.caught_up":   byItself,
	"witness.contradicts": byItself,
	"stream.started":      byItself,
	"stream.lagging":      byItself,
	"stream.caught_up":    byItself,

	"access.refused":     byRole,
	"disclosed.search":   byRole,
	"disclosed.event":    byRole,
	"disclosed.entries":  byRole,
	"disclosed.request":  {By: person, Policy: true, Request: true, Person: true, Host: true},
	"disclosed.requests": byRole,
	"disclosed.people":   byRole,
	"disclosed.sessions": {By: person, Policy: true, Host: true},
	"disclosed.messages": byRole,

	"disclosed.recording":           {By: person, Policy: true, Host: true},
	"deployment.opened":             {By: agent, Policy: true, Host: true},
	"deployment.refused":            {By: []Kind{Agent, Person}, Policy: true},
	"deployment.decided":            {By: person, Policy: true, Host: true},
	"deployment.moved":              deploying,
	"deployment.held":               deploying,
	"deployment.resumed":            deploying,
	"deployment.leased":             {By: agent, Policy: true, Host: true},
	"deployment.released":           deploying,
	"deployment.unfrozen":           deploying,
	"batch.moved":                   deploying,
	"batch.reported":                {By: agent, Policy: true, Host: true},
	"batch.verified":                deploying,
	"gate.decided":                  deploying,
	"deployment.certificate_issued": {By: agent, Policy: true, Host: true},
	"deployment.certificate_signed": {By: itself, Policy: true, Host: true, Behalf: true},

	"pack.requested":  byRole,
	"pack.made":       onDemand,
	"pack.failed":     onDemand,
	"pack.downloaded": byRole,
}

// CircumstancesOf a type in the catalogue; ok is false for others.
func CircumstancesOf(eventType string) (c Circumstances, ok bool) {
	c, ok = circumstances[eventType]
	return c, ok
}

// Complete says what an event lacks that its type must have, or nil:
//
//  1. An id, a time, and data of the catalogue.
//  2. An actor of a kind that causes it, and their id, unless nobody knows it yet;
//     the broker has none.
//  3. The address that it came from, unless the broker did it by itself.
//  4. The version and hash of the policy, what it is about, and for whom, as the
//     type's circumstances demand.
func (e Event) Complete() error {
	c, known := circumstances[e.Type]
	lacks := func(what string) error { return fmt.Errorf("event %s of type %s has %s", e.ID, e.Type, what) }
	switch broker := e.Actor.Kind == Broker; {
	case !known || e.Data == nil:
		return lacks("a type that is not in the catalogue")
	case e.ID == uuid.Nil || e.Time.IsZero():
		return lacks("no id or no time")
	case !slices.Contains(c.By, e.Actor.Kind):
		return lacks(fmt.Sprintf("an actor of kind %q", e.Actor.Kind))
	case broker == (e.Actor.ID != "") && !c.Stranger:
		return lacks(fmt.Sprintf("an actor of kind %q with the id %q", e.Actor.Kind, e.Actor.ID))
	case e.Source == "" && !broker:
		return lacks("no source address")
	case e.Source != "" && !address(e.Source):
		return lacks(fmt.Sprintf("the source address %q", e.Source))
	case c.Policy && !e.ofHost() && (e.Policy == nil || e.Policy.Version < 1 || e.Policy.Hash == ""):
		return lacks("no version of the policy")
	case c.Request && e.Subject.RequestID == "":
		return lacks("no request")
	case c.Person && e.Subject.PersonID == "":
		return lacks("no person whom it concerns")
	case c.Host && e.Subject.HostID == "":
		return lacks("no host")
	case c.Behalf && (e.OnBehalfOf == nil || e.OnBehalfOf.ID == ""):
		return lacks("nobody for whom it was done")
	}
	return nil
}

// ofHost reports whether a host caused it, or the broker did for a host.
func (e Event) ofHost() bool {
	return e.Actor.Kind == Host || e.Actor.Kind == Broker && e.OnBehalfOf != nil && e.OnBehalfOf.Kind == Host
}

func address(text string) bool {
	_, err := netip.ParseAddr(text)
	return err == nil
}
