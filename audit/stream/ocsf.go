package stream

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"sallyport/audit"
	"sallyport/audit/event"
)

// OCSFVersion is the version of the schema that documents are in (https://schema.ocsf.io).
const OCSFVersion = "1.9.0-dev"

// The classes of OCSF that documents are of, in the category Identity & Access
// Management.
const (
	iam              = 3
	authentication   = 3002
	authorizeSession = 3003
	entityManagement = 3004
)

// Activities, by class.
const (
	logon, logoff, ticket                       = 1, 2, 3    // of authentication
	assignPrivileges                            = 1          // of authorizeSession
	create, read, update, remove                = 1, 2, 3, 4 // of entityManagement
	activate, deactivate, suspend, resume, misc = 10, 11, 12, 13, 99
)

// Severities.
const (
	informational, low, medium, high = 1, 2, 3, 4
)

// meaning is what an event type is in OCSF.
type meaning struct {
	class, activity, severity int
	failed                    bool
	entity                    string // kind of what was managed, for entityManagement
}

// meanings are those of all event types. What the table does not have, of a newer
// version perhaps, is misc of entityManagement: nothing is left out.
var meanings = map[string]meaning{
	"person.signed_in":      {class: authentication, activity: logon, severity: informational},
	"person.sign_in_failed": {class: authentication, activity: logon, severity: low, failed: true},
	"person.signed_out":     {class: authentication, activity: logoff, severity: informational},
	"token.reused":          {class: authentication, activity: logon, severity: high, failed: true},

	"certificate.issued":            {class: authentication, activity: ticket, severity: informational},
	"certificate.signed":            {class: authentication, activity: ticket, severity: informational},
	"certificate.refused":           {class: authentication, activity: ticket, severity: low, failed: true},
	"host.certificate_issued":       {class: entityManagement, activity: update, severity: informational, entity: "host"},
	"host.certificate_signed":       {class: entityManagement, activity: update, severity: informational, entity: "host"},
	"grant.started":                 {class: authorizeSession, activity: assignPrivileges, severity: informational},
	"emergency.started":             {class: authorizeSession, activity: assignPrivileges, severity: high},
	"grant.ended":                   {class: entityManagement, activity: deactivate, severity: informational, entity: "grant"},
	"request.created":               {class: entityManagement, activity: create, severity: informational, entity: "request"},
	"request.decided":               {class: entityManagement, activity: update, severity: informational, entity: "request"},
	"request.closed":                {class: entityManagement, activity: remove, severity: informational, entity: "request"},
	"request.decision_voided":       {class: entityManagement, activity: update, severity: medium, entity: "request"},
	"request.refused":               {class: entityManagement, activity: create, severity: low, failed: true, entity: "request"},
	"request.decision_refused":      {class: entityManagement, activity: update, severity: medium, failed: true, entity: "request"},
	"access.refused":                {class: entityManagement, activity: read, severity: low, failed: true, entity: "access"},
	"review.given":                  {class: entityManagement, activity: update, severity: informational, entity: "emergency"},
	"review.overdue":                {class: entityManagement, activity: update, severity: high, failed: true, entity: "emergency"},
	"review.refused":                {class: entityManagement, activity: update, severity: medium, failed: true, entity: "emergency"},
	"host.registered":               {class: entityManagement, activity: create, severity: informational, entity: "host"},
	"host.changed":                  {class: entityManagement, activity: update, severity: informational, entity: "host"},
	"host.removed":                  {class: entityManagement, activity: remove, severity: informational, entity: "host"},
	"session.started":               {class: authentication, activity: logon, severity: informational},
	"session.ended":                 {class: authentication, activity: logoff, severity: informational},
	"session.alarm":                 {class: authentication, activity: logon, severity: high, failed: true},
	"certificate.revoked":           {class: entityManagement, activity: remove, severity: low, entity: "certificate"},
	"host.join_token_made":          {class: entityManagement, activity: create, severity: low, entity: "join token"},
	"host.join_token_withdrawn":     {class: entityManagement, activity: remove, severity: informational, entity: "join token"},
	"host.enrolled":                 {class: entityManagement, activity: activate, severity: medium, entity: "host"},
	"host.enrolment_refused":        {class: entityManagement, activity: activate, severity: medium, failed: true, entity: "host"},
	"host.quarantined":              {class: entityManagement, activity: suspend, severity: medium, entity: "host"},
	"host.released":                 {class: entityManagement, activity: resume, severity: medium, entity: "host"},
	"host.alarm":                    {class: entityManagement, activity: misc, severity: high, failed: true, entity: "host"},
	"host.reports_lost":             {class: entityManagement, activity: misc, severity: high, failed: true, entity: "host"},
	"host.report_refused":           {class: entityManagement, activity: misc, severity: medium, failed: true, entity: "host"},
	"host.posture_changed":          {class: entityManagement, activity: update, severity: medium, entity: "host"},
	"host.probed":                   {class: entityManagement, activity: read, severity: medium, entity: "host"},
	"person.removed":                {class: entityManagement, activity: suspend, severity: medium, entity: "person"},
	"person.restored":               {class: entityManagement, activity: resume, severity: medium, entity: "person"},
	"delegation.made":               {class: entityManagement, activity: create, severity: low, entity: "delegation"},
	"delegation.ended":              {class: entityManagement, activity: remove, severity: informational, entity: "delegation"},
	"policy.proposed":               {class: entityManagement, activity: create, severity: low, entity: "policy"},
	"policy.decided":                {class: entityManagement, activity: update, severity: low, entity: "policy"},
	"policy.withdrawn":              {class: entityManagement, activity: remove, severity: informational, entity: "policy"},
	"policy.refused":                {class: entityManagement, activity: update, severity: medium, failed: true, entity: "policy"},
	"policy.activated":              {class: entityManagement, activity: activate, severity: medium, entity: "policy"},
	"provider.keys_seen":            {class: entityManagement, activity: read, severity: informational, entity: "provider keys"},
	"broker.keys_loaded":            {class: entityManagement, activity: activate, severity: medium, entity: "broker keys"},
	"broker.started":                {class: entityManagement, activity: activate, severity: informational, entity: "broker"},
	"broker.configured":             {class: entityManagement, activity: update, severity: medium, entity: "broker configuration"},
	"database.migrated":             {class: entityManagement, activity: update, severity: medium, entity: "database"},
	"disclosed.search":              {class: entityManagement, activity: read, severity: informational, entity: "log"},
	"disclosed.event":               {class: entityManagement, activity: read, severity: informational, entity: "log"},
	"disclosed.entries":             {class: entityManagement, activity: read, severity: informational, entity: "log"},
	"disclosed.request":             {class: entityManagement, activity: read, severity: informational, entity: "request"},
	"disclosed.requests":            {class: entityManagement, activity: read, severity: informational, entity: "request"},
	"disclosed.people":              {class: entityManagement, activity: read, severity: informational, entity: "person"},
	"disclosed.sessions":            {class: entityManagement, activity: read, severity: informational, entity: "session"},
	"disclosed.messages":            {class: entityManagement, activity: read, severity: informational, entity: "message"},
	"message.failed":                {class: entityManagement, activity: misc, severity: medium, failed: true, entity: "message"},
	"pack.requested":                {class: entityManagement, activity: create, severity: informational, entity: "evidence pack"},
	"pack.made":                     {class: entityManagement, activity: update, severity: informational, entity: "evidence pack"},
	"pack.failed":                   {class: entityManagement, activity: update, severity: medium, failed: true, entity: "evidence pack"},
	"retention.pruned":              {class: entityManagement, activity: remove, severity: high, entity: "log entries"},
	"pack.downloaded":               {class: entityManagement, activity: read, severity: low, entity: "evidence pack"},
	"witness.lagging":               {class: entityManagement, activity: update, severity: high, failed: true, entity: "witness"},
	"witness.caught_up":             {class: entityManagement, activity: update, severity: informational, entity: "witness"},
	"witness.contradicts":           {class: entityManagement, activity: update, severity: 5, failed: true, entity: "witness"},
	"stream.started":                {class: entityManagement, activity: activate, severity: medium, entity: "stream"},
	"stream.lagging":                {class: entityManagement, activity: update, severity: high, failed: true, entity: "stream"},
	"stream.caught_up":              {class: entityManagement, activity: update, severity: informational, entity: "stream"},
	"agent.admitted":                {class: authentication, activity: logon, severity: informational},
	"agent.refused":                 {class: authentication, activity: logon, severity: medium, failed: true},
	"agent.token_shared":            {class: authentication, activity: logon, severity: high, failed: true},
	"agent.revoked":                 {class: entityManagement, activity: deactivate, severity: medium, entity: "agent run"},
	"deployment.opened":             {class: entityManagement, activity: create, severity: informational, entity: "deployment"},
	"deployment.refused":            {class: entityManagement, activity: update, severity: low, failed: true, entity: "deployment"},
	"deployment.decided":            {class: entityManagement, activity: update, severity: informational, entity: "deployment"},
	"deployment.moved":              {class: entityManagement, activity: update, severity: informational, entity: "deployment"},
	"deployment.held":               {class: entityManagement, activity: suspend, severity: medium, entity: "deployment"},
	"deployment.resumed":            {class: entityManagement, activity: resume, severity: informational, entity: "deployment"},
	"deployment.leased":             {class: entityManagement, activity: update, severity: informational, entity: "deployment"},
	"deployment.released":           {class: entityManagement, activity: update, severity: low, entity: "deployment"},
	"deployment.unfrozen":           {class: entityManagement, activity: update, severity: medium, entity: "deployment"},
	"batch.moved":                   {class: entityManagement, activity: update, severity: informational, entity: "batch"},
	"batch.reported":                {class: entityManagement, activity: update, severity: informational, entity: "batch"},
	"batch.verified":                {class: entityManagement, activity: update, severity: informational, entity: "batch"},
	"gate.decided":                  {class: entityManagement, activity: update, severity: informational, entity: "gate"},
	"deployment.certificate_issued": {class: authentication, activity: ticket, severity: informational},
	"deployment.certificate_signed": {class: authentication, activity: ticket, severity: informational},
	"session.recorded":              {class: entityManagement, activity: create, severity: informational, entity: "recording"},
	"session.recording_expired":     {class: entityManagement, activity: remove, severity: informational, entity: "recording"},
	"disclosed.recording":           {class: entityManagement, activity: read, severity: low, entity: "recording"},
}

// Meaning is the class and the activity that events of a type have in OCSF, as
// documentation has them.
func Meaning(eventType string) string {
	m, ok := meanings[eventType]
	if !ok {
		m = meaning{class: entityManagement, activity: misc}
	}
	return fmt.Sprintf("%d/%d", m.class, m.activity)
}

// document is an event in OCSF. Its fields are those of the schema.
type document struct {
	Metadata    metadata  `json:"metadata"`
	CategoryUID int       `json:"category_uid"`
	ClassUID    int       `json:"class_uid"`
	ActivityID  int       `json:"activity_id"`
	TypeUID     int       `json:"type_uid"`
	Time        int64     `json:"time"` // ms
	SeverityID  int       `json:"severity_id"`
	StatusID    int       `json:"status_id"`
	Message     string    `json:"message"`
	Actor       *actor    `json:"actor,omitempty"`
	User        *user     `json:"user,omitempty"`
	Privileges  []string  `json:"privileges,omitempty"`
	Entity      *entity   `json:"entity,omitempty"`
	Service     *named    `json:"service,omitempty"`
	Source      *endpoint `json:"src_endpoint,omitempty"`
	Destination *endpoint `json:"dst_endpoint,omitempty"`
	RawData     string    `json:"raw_data"` // the leaf, exactly
	Unmapped    unmapped  `json:"unmapped"`
}

type metadata struct {
	Version  string  `json:"version"`
	Product  product `json:"product"`
	UID      string  `json:"uid"`        // the event's id: drop duplicates by it
	Code     string  `json:"event_code"` // the event's type
	LogName  string  `json:"log_name"`   // the log's origin
	Sequence int64   `json:"sequence"`   // index in the log
}

type product struct {
	Name    string `json:"name"`
	Vendor  string `json:"vendor_name"`
	Version string `json:"version,omitempty"`
}

type named struct {
	Name string `json:"name"`
}

type actor struct {
	User    *user  `json:"user,omitempty"`
	AppName string `json:"app_name,omitempty"`
}

type user struct {
	Name   string `json:"name,omitempty"`
	UID    string `json:"uid"`
	TypeID int    `json:"type_id"`
}

type entity struct {
	Name string `json:"name"`
	Type string `json:"type"`
	UID  string `json:"uid,omitempty"`
}

type endpoint struct {
	IP   string `json:"ip,omitempty"`
	UID  string `json:"uid,omitempty"`
	Name string `json:"name,omitempty"`
}

// unmapped is what OCSF has no place for.
type unmapped struct {
	Index      string           `json:"index"` // in the log
	LeafHash   string           `json:"leaf_hash"`
	OnBehalfOf *event.Actor     `json:"on_behalf_of,omitempty"`
	Request    string           `json:"request_id,omitempty"`
	Hosts      []string         `json:"host_ids,omitempty"`
	Policy     *event.PolicyRef `json:"policy,omitempty"`
}

// leaf is what every event has, of whatever version.
type leaf struct {
	ID         string           `json:"id"`
	Type       string           `json:"type"`
	Time       time.Time        `json:"time"`
	Actor      event.Actor      `json:"actor"`
	OnBehalfOf *event.Actor     `json:"on_behalf_of"`
	Source     string           `json:"source"`
	Subject    event.Subject    `json:"subject"`
	Policy     *event.PolicyRef `json:"policy"`
	Data       struct {
		Host  string `json:"host"`
		Login string `json:"login"`
	} `json:"data"`
}

// origin says where documents come from.
type origin struct{ log, version string }

// convert is an entry as one line of OCSF, without its end. It never fails for an
// event that is in the log: what cannot be read is told as such.
func (o origin) convert(e audit.Entry) []byte {
	var l leaf
	problem := json.Unmarshal(e.Leaf, &l)
	m, known := meanings[l.Type]
	if !known {
		m = meaning{class: entityManagement, activity: misc, severity: informational, entity: "event"}
	}
	d := document{
		Metadata: metadata{Version: OCSFVersion, Product: product{"Sallyport", "Sallyport", o.version},
			UID: e.ID.String(), Code: e.Type, LogName: o.log, Sequence: e.Index},
		CategoryUID: iam, ClassUID: m.class, ActivityID: m.activity, TypeUID: 100*m.class + m.activity,
		Time: e.Time.UnixMilli(), SeverityID: m.severity, StatusID: 1, Message: e.Type, RawData: string(e.Leaf),
		Unmapped: unmapped{Index: fmt.Sprint(e.Index), LeafHash: fmt.Sprintf("%x", e.LeafHash[:]), OnBehalfOf: l.OnBehalfOf,
			Request: l.Subject.RequestID, Hosts: l.Subject.HostIDs, Policy: l.Policy},
	}
	if m.failed {
		d.StatusID = 2
	}
	switch said, err := e.Event(); {
	case err == nil:
		d.Message = said.Data.Summary()
	case !errors.Is(err, event.ErrUnknown) || problem != nil:
		d.SeverityID, d.StatusID, d.Message = high, 2, "an entry of the log that cannot be read"
	}
	d.who(l)
	d.what(m, l)
	line, err := json.Marshal(d)
	if err != nil { // no value in it can fail
		panic(fmt.Sprintf("an OCSF document: %v", err))
	}
	return line
}

// who fills in who did it, and from where.
func (d *document) who(l leaf) {
	if l.Actor.Kind == event.Person {
		d.Actor = &actor{User: person(l.Actor.ID, l.Actor.Name)}
	} else {
		d.Actor = &actor{AppName: "sallyport " + string(l.Actor.Kind)}
	}
	if l.Source != "" {
		d.Source = &endpoint{IP: l.Source}
	}
	if l.Subject.HostID != "" && d.ClassUID != entityManagement {
		d.Destination = &endpoint{UID: l.Subject.HostID, Name: l.Data.Host}
	}
}

func person(id, name string) *user { return &user{Name: name, UID: id, TypeID: 1} }

// what fills in what each class must have.
func (d *document) what(m meaning, l leaf) {
	switch m.class {
	case entityManagement:
		d.Entity = &entity{Name: m.entity, Type: l.Type, UID: l.entityID(m.entity)}
		return
	case authentication:
		d.Service = &named{"sallyport"}
	case authorizeSession:
		d.Privileges = []string{strings.Trim(l.Data.Login+"@"+l.Subject.HostID, "@")}
	}
	switch {
	case l.Subject.PersonID != "" && l.Subject.PersonID != l.Actor.ID:
		d.User = person(l.Subject.PersonID, "")
	case l.OnBehalfOf != nil:
		d.User = person(l.OnBehalfOf.ID, l.OnBehalfOf.Name)
	case l.Actor.ID != "":
		d.User = person(l.Actor.ID, l.Actor.Name)
	default:
		d.User = &user{UID: "unknown", TypeID: 0}
	}
}

// entityID is the id of what an event is about.
func (l leaf) entityID(kind string) string {
	switch kind {
	case "host":
		return l.Subject.HostID
	case "person":
		return l.Subject.PersonID
	}
	return l.Subject.RequestID
}
