// Package api is what Sallyport and its clients say to each other: the wire
// types of /api/v1 and a Go client for them. It is a leaf: it imports nothing
// of Sallyport, so that other programs may use it.
//
// Durations are Go durations ("30m"), times RFC 3339 in UTC, lists page by
// cursor, and every error is an RFC 9457 [Problem].
package api

import "time"

// State of a request. A request is requested, then approved, denied, cancelled
// or expired; an approved one becomes active when its first certificate is
// issued, and ended when its time is up, it is finished, or it is revoked.
type State string

// The states of a request.
const (
	Requested State = "requested"
	Approved  State = "approved"
	Active    State = "active"
	Ended     State = "ended"
	Denied    State = "denied"
	Cancelled State = "cancelled"
	Expired   State = "expired"
)

// Final reports whether nothing can happen to the request any more.
func (s State) Final() bool {
	switch s {
	case Ended, Denied, Cancelled, Expired:
		return true
	}
	return false
}

// Verdict is what an approver says.
type Verdict string

// The verdicts.
const (
	Approve Verdict = "approve"
	Deny    Verdict = "deny"
)

// Role is what a person may do beyond asking and, where a rule names one of
// their groups, deciding.
type Role string

// The roles.
const (
	Operator Role = "operator" // configures: hosts
	Auditor  Role = "auditor"  // reads everything, changes nothing
)

// Person is someone who signs in through the OIDC provider, identified by
// (issuer, subject).
type Person struct {
	ID      string   `json:"id" example:"per-4f8k2m9qhx1z" doc:"Identifier within Sallyport"`
	Name    string   `json:"name" example:"Erin Engineer" doc:"Name as the provider gives it"`
	Email   string   `json:"email,omitempty" example:"engineer@example.com" doc:"Address as the provider gives it; never an identity"`
	Issuer  string   `json:"issuer,omitempty" doc:"Issuer of the person's ID tokens"`
	Subject string   `json:"subject,omitempty" doc:"Subject within the issuer"`
	Groups  []string `json:"groups,omitempty" doc:"Groups at the last sign-in"`
}

// Me is who the caller is and what is open for them.
type Me struct {
	Person     Person    `json:"person"`
	Roles      []Role    `json:"roles" doc:"operator, auditor"`
	SignedInAt time.Time `json:"signed_in_at" doc:"When the provider last vouched for this person"`
	Grants     []Request `json:"grants" doc:"The caller's requests that are approved or active, soonest end first"`
	Waiting    int       `json:"waiting" doc:"How many requests wait for the caller's decision"`
	Reviews    int       `json:"reviews" doc:"How many emergencies wait for the caller's review"`
	Proposals  int       `json:"proposals" doc:"How many proposals of a policy wait for the caller's decision"`
}

// Host is one machine that runs sshd.
type Host struct {
	ID         string            `json:"id" example:"host-7k3m9q2x4f8h"`
	Name       string            `json:"name" example:"db-1"`
	Address    string            `json:"address" example:"10.0.3.7:22" doc:"Where ssh connects to: host:port"`
	Labels     map[string]string `json:"labels"`
	Logins     []string          `json:"logins" doc:"Unix accounts that may be asked for; for people who are not operators or auditors, those that some rule lets them ask for"`
	HostKey    string            `json:"host_key,omitempty" doc:"The host's public key, authorized_keys format"`
	State      HostState         `json:"state" enum:"sealed,open,drifted,silent,unknown,quarantined" doc:"See StateWhy. A host without sally-host is sealed or open, by its grants alone"`
	StateWhy   []string          `json:"state_why,omitempty" doc:"Why it is not sealed, or how little that says; to operators and auditors"`
	Sessions   int               `json:"sessions,omitempty" doc:"How many last now, as far as the host has reported; to operators and auditors"`
	Quarantine *Quarantine       `json:"quarantine,omitempty" doc:"Present while an operator keeps it shut"`
	Helper     bool              `json:"helper" doc:"Whether it speaks for itself, by sally-host"`
	Rules      []HostRule        `json:"rules,omitempty" doc:"For each login, the rule that would apply to the caller"`
	CreatedAt  time.Time         `json:"created_at"`
}

// HostRule says how a login on a host would be asked for by the caller.
type HostRule struct {
	Login           string    `json:"login"`
	Rule            string    `json:"rule" doc:"Name of the rule"`
	MaxDuration     string    `json:"max_duration" example:"2h"`
	DefaultDuration string    `json:"default_duration" example:"30m"`
	Automatic       bool      `json:"automatic" doc:"Approved at once, with nobody asked"`
	Approvers       []Slot    `json:"approvers,omitempty"`
	Reason          *TextRule `json:"reason,omitempty"`
	Ticket          *TextRule `json:"ticket,omitempty"`

	Emergency *EmergencyRule `json:"emergency,omitempty" doc:"Present if the caller may open this door before anybody has approved"`

	SingleUse    bool `json:"single_use,omitempty" doc:"A grant gives one certificate and no other"`
	KeepSessions bool `json:"keep_sessions,omitempty" doc:"Sessions outlast the grant's time"`
	Record       bool `json:"record,omitempty" doc:"Terminal sessions are recorded"`

	KeyTypes []string `json:"key_types,omitempty" doc:"SSH key types that may be certified; all strong ones if empty"`
}

// EmergencyRule says how a door would be opened before anybody has approved.
type EmergencyRule struct {
	MaxDuration     string   `json:"max_duration" example:"30m"`
	DefaultDuration string   `json:"default_duration" example:"15m"`
	Told            []string `json:"told,omitempty" doc:"Groups that are told at once, besides approvers and reviewers"`
	ReviewGroups    []string `json:"review_groups" doc:"Members of these review it afterwards"`
	ReviewWithin    string   `json:"review_within" example:"24h"`
}

// TextRule says what a reason or a ticket must look like.
type TextRule struct {
	Required bool   `json:"required"`
	Message  string `json:"message,omitempty" doc:"What to tell a person whose text does not fit"`
}

// HostInput registers a host or changes it.
type HostInput struct {
	Name    string            `json:"name" minLength:"1" maxLength:"63" pattern:"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$" doc:"Lower-case DNS name; unique"`
	Address string            `json:"address" minLength:"1" maxLength:"255" doc:"host or host:port; port 22 if none"`
	Labels  map[string]string `json:"labels,omitempty" doc:"Kubernetes label syntax; at most 64"`
	Logins  []string          `json:"logins" minItems:"1" maxItems:"64" doc:"Unix accounts: [a-z_][a-z0-9_-]{0,31}"`
	HostKey string            `json:"host_key,omitempty" maxLength:"16384" doc:"The host's public key, authorized_keys format; needed for a host certificate"`
}

// HostCertificate is the certificate that a host shows to ssh clients.
type HostCertificate struct {
	Certificate string    `json:"certificate" doc:"authorized_keys format, as HostCertificate wants it"`
	Serial      uint64    `json:"serial,string"`
	ValidBefore time.Time `json:"valid_before"`
}

// Slot is a number of approvals that must come from members of some groups.
// One person fills one slot only.
type Slot struct {
	Stage  int      `json:"stage" doc:"Stages are passed in order, from 1; slots of one stage together"`
	Groups []string `json:"groups" doc:"Members of any of these may fill the slot"`
	Count  int      `json:"count" doc:"How many distinct people the slot needs"`
	Filled int      `json:"filled" doc:"How many approvals it has"`
	People []Person `json:"people,omitempty" doc:"Those who are known to be able to decide, other than the requester; at most 50"`

	Delegates []Delegate `json:"delegates,omitempty" doc:"Those who can decide for somebody who can; at most 50"`
}

// RequestInput asks for one login, on one host or on several, for a time.
type RequestInput struct {
	Host string `json:"host,omitempty" maxLength:"63" doc:"Name or id; either this or selector"`

	Selector map[string]string `json:"selector,omitempty" doc:"Labels with their values: all hosts that have all of them, have the login, and on which one rule lets the caller ask for it; at most 50 hosts, frozen now"`

	Login     string     `json:"login" minLength:"1" maxLength:"32" doc:"Unix account on the host"`
	Duration  string     `json:"duration,omitempty" maxLength:"32" example:"30m" doc:"How long, from the approval on; the rule's default if empty"`
	Reason    string     `json:"reason,omitempty" maxLength:"2000"`
	Ticket    string     `json:"ticket,omitempty" maxLength:"200"`
	PublicKey string     `json:"public_key,omitempty" maxLength:"16384" doc:"Binds the grant to this key from the start; otherwise the first key used binds it"`
	NotBefore *time.Time `json:"not_before,omitempty" doc:"Future start; at most 30 days ahead"`
	Emergency bool       `json:"emergency,omitempty" doc:"Open the door before approval, if a rule allows it; reviewed afterwards"`
	Drill     bool       `json:"drill,omitempty" doc:"With emergency: a rehearsal, marked as such everywhere"`
}

// Preview is what would happen to a request, had it been made.
type Preview struct {
	Host                Host       `json:"host" doc:"The first, if there are several"`
	Login               string     `json:"login"`
	Rule                string     `json:"rule"`
	Duration            string     `json:"duration"`
	Automatic           bool       `json:"automatic" doc:"Would be approved at once"`
	Approvers           []Slot     `json:"approvers" doc:"Who would have to approve"`
	ApproveBy           time.Time  `json:"approve_by" doc:"When it would expire undecided"`
	NotBefore           *time.Time `json:"not_before,omitempty" doc:"Future start"`
	StartWithin         string     `json:"start_within,omitempty" doc:"How long after its start the grant would have to be used first"`
	CertificateLifetime string     `json:"certificate_lifetime"`

	Hosts []RequestHost `json:"hosts" doc:"All hosts that it would be for, by name"`

	Emergency *Emergency `json:"emergency,omitempty" doc:"Set if it was asked for as an emergency: the door would open at once, and these are told"`
}

// Request is a person's frozen ask and all that became of it.
type Request struct {
	ID                  string            `json:"id" example:"req-4f8k2m9qhx1z"`
	State               State             `json:"state" enum:"requested,approved,active,ended,denied,cancelled,expired"`
	Requester           Person            `json:"requester"`
	HostID              string            `json:"host_id"`
	Host                string            `json:"host" doc:"The host's name when it was asked for; the first, if there are several"`
	Login               string            `json:"login"`
	Duration            string            `json:"duration"`
	Reason              string            `json:"reason,omitempty"`
	Ticket              string            `json:"ticket,omitempty"`
	NotBefore           *time.Time        `json:"not_before,omitempty"`
	Rule                string            `json:"rule"`
	Policy              PolicyRef         `json:"policy"`
	TermsHash           string            `json:"terms_hash" doc:"SHA-256 of the canonical terms, hex; every decision carries it"`
	CreatedAt           time.Time         `json:"created_at"`
	ApproveBy           time.Time         `json:"approve_by" doc:"When it expires if it is not decided"`
	StartsAt            *time.Time        `json:"starts_at,omitempty" doc:"When the grant starts: at the approval, or at not_before if that is later"`
	EndsAt              *time.Time        `json:"ends_at,omitempty" doc:"When the grant ends, or has ended"`
	EndReason           string            `json:"end_reason,omitempty" enum:"time,finished,revoked,unused" doc:"Why it ended"`
	KeyFingerprint      string            `json:"key_fingerprint,omitempty" doc:"The one key that the grant is bound to, SHA256:…"`
	CertificateLifetime string            `json:"certificate_lifetime"`
	Approvers           []Slot            `json:"approvers" doc:"What is needed, and what is there"`
	Decisions           []Decision        `json:"decisions,omitempty"`
	Certificates        []CertificateInfo `json:"certificates,omitempty"`
	Sessions            []Session         `json:"sessions,omitempty" doc:"The latest 200 that its certificates opened, as hosts report them, oldest first"`
	Timeline            []Event           `json:"timeline,omitempty" doc:"The events of this request, oldest first"`
	Pruned              *Pruned           `json:"pruned,omitempty" doc:"If older events of it were pruned: where they are"`
	Emergency           *Emergency        `json:"emergency,omitempty"`
	Extends             string            `json:"extends,omitempty" doc:"The request whose grant this one follows without a gap"`
	ExtendedBy          string            `json:"extended_by,omitempty" doc:"The request that follows this one's grant; it waits, or has or had a grant"`
	Extend              *ExtendRule       `json:"extend,omitempty" doc:"How it may still be extended; absent: not at all"`
	StartWithin         string            `json:"start_within,omitempty" doc:"How long after its start the grant must be used first"`
	UseBy               *time.Time        `json:"use_by,omitempty" doc:"When the grant ends if it has not been used; absent: at ends_at"`
	Assurance           string            `json:"assurance,omitempty" enum:"session,provider" doc:"What proves its decisions"`
	Actions             []Action          `json:"actions,omitempty" doc:"What the caller could do, and if not, why"`

	Hosts    []RequestHost     `json:"hosts" doc:"All hosts that it is for, by name; one certificate is for one of them"`
	Selector map[string]string `json:"selector,omitempty" doc:"The labels that they were asked for by"`
}

// Emergency is what makes a request one, and what became of its review.
type Emergency struct {
	Drill        bool      `json:"drill" doc:"A rehearsal"`
	Told         []string  `json:"told" doc:"Groups whose members are told at once, and may see it"`
	ReviewGroups []string  `json:"review_groups" doc:"Members of these review it, if they are independent"`
	ReviewBy     time.Time `json:"review_by"`
	Assurance    string    `json:"assurance" enum:"session,provider" doc:"What proves a review of it: the broker's word, or the identity provider's signature"`
	Overdue      bool      `json:"overdue" doc:"It is past review_by, and nobody has reviewed it"`
	Review       *Review   `json:"review,omitempty" doc:"Absent while it waits"`
}

// The verdicts of a review.
const (
	Justified    = "justified"
	NotJustified = "not-justified"
)

// Review is the sign-off after an emergency.
type Review struct {
	ID       string    `json:"id"`
	Reviewer Person    `json:"reviewer"`
	Verdict  string    `json:"verdict" enum:"justified,not-justified"`
	Comment  string    `json:"comment"`
	Late     bool      `json:"late" doc:"It came after review_by"`
	Running  bool      `json:"running" doc:"The grant had not ended: what was done after the review is not signed off"`
	At       time.Time `json:"at"`

	Evidence DecisionEvidence `json:"evidence" doc:"What proves that the reviewer said it"`
}

// ReviewInput signs off an emergency.
type ReviewInput struct {
	Verdict string `json:"verdict" enum:"justified,not-justified"`
	Comment string `json:"comment" minLength:"1" maxLength:"2000"`
}

// ExtendRule says how a grant may be followed by another without a gap.
type ExtendRule struct {
	Times     int    `json:"times" doc:"How often"`
	By        string `json:"by" example:"30m" doc:"How long each is at most"`
	Automatic bool   `json:"automatic" doc:"With nobody asked; otherwise the rule's approvers decide again"`
}

// ExtendInput asks for more time without a gap.
type ExtendInput struct {
	Duration string `json:"duration,omitempty" maxLength:"32" doc:"The rule's step if empty"`
	Reason   string `json:"reason,omitempty" maxLength:"2000"`
}

// Action is something the caller can do with a request, or the reason why not.
type Action struct {
	Name    string `json:"name" enum:"approve,deny,cancel,finish,extend,connect,review,withdraw"`
	Allowed bool   `json:"allowed"`
	Why     string `json:"why,omitempty" doc:"Why it is not allowed"`

	Delegate *Delegate `json:"delegate,omitempty" doc:"Of approve and deny: the caller would do it for somebody, by this delegation"`
}

// PolicyRef names one immutable version of the policy.
type PolicyRef struct {
	Version int64  `json:"version,string"`
	Hash    string `json:"hash" doc:"SHA-256 of the policy's text, hex"`
}

// Decision is one approver's verdict on one request.
type Decision struct {
	ID       string `json:"id"`
	Approver Person `json:"approver"`

	OnBehalfOf *Person `json:"on_behalf_of,omitempty" doc:"For whom the approver decided, by a delegation"`

	Verdict   Verdict   `json:"verdict"`
	Comment   string    `json:"comment,omitempty"`
	TermsHash string    `json:"terms_hash"`
	At        time.Time `json:"at"`
	Void      bool      `json:"void,omitempty" doc:"It counts no more: the approver was removed before it had opened anything"`

	Evidence DecisionEvidence `json:"evidence"`
}

// DecisionEvidence is what proves a decision or a review, by its hashes: the
// statement itself stands in the log (request.decided, review.given or
// policy.decided), the rest is kept with what was said.
type DecisionEvidence struct {
	Assurance   string     `json:"assurance" enum:"session,provider" doc:"session: the broker's word; provider: the identity provider's signature"`
	Statement   string     `json:"statement_hash" doc:"SHA-256 of the statement, hex; the nonce of the ID token is the same in base64url"`
	IDTokenHash string     `json:"id_token_hash,omitempty" doc:"SHA-256 of the ID token that signs the statement, hex"`
	KeysHash    string     `json:"keys_hash,omitempty" doc:"SHA-256 of the note about the provider's keys, hex; provider.keys_seen in the log has it"`
	AuthTime    *time.Time `json:"auth_time,omitempty" doc:"When the provider authenticated the person, if it said so"`
	AMR         []string   `json:"amr,omitempty" doc:"How, in its words (RFC 8176)"`
	ACR         string     `json:"acr,omitempty" doc:"And how strongly, in its words"`
}

// DecisionInput is what an approver says of a request.
type DecisionInput struct {
	Verdict   Verdict `json:"verdict" enum:"approve,deny"`
	Comment   string  `json:"comment,omitempty" maxLength:"2000"`
	TermsHash string  `json:"terms_hash,omitempty" maxLength:"64" doc:"The terms that the approver saw; refused if the request has others"`

	For string `json:"for,omitempty" maxLength:"32" doc:"For whom the approver saw that they decide: me, or the id of the person who delegates to them; refused if it would be for another. Not compared if empty"`
}

// CertificateInput asks for a certificate under a grant.
type CertificateInput struct {
	Host string `json:"host,omitempty" maxLength:"63" doc:"Name, as the request has it, or id; may be left out if the request is for one host"`

	PublicKey string `json:"public_key" minLength:"1" maxLength:"16384" doc:"authorized_keys format"`
	Proof     string `json:"proof" minLength:"1" maxLength:"16384" doc:"Armored SSHSIG by that key over ProofMessage, namespace sallyport-certificate"`
}

// CertificateInfo is what is known of an issued certificate.
type CertificateInfo struct {
	Serial      uint64    `json:"serial,string"`
	KeyID       string    `json:"key_id"`
	Principal   string    `json:"principal"`
	Fingerprint string    `json:"fingerprint" doc:"Of the certified key, SHA256:…"`
	ValidAfter  time.Time `json:"valid_after"`
	ValidBefore time.Time `json:"valid_before"`
	Event       string    `json:"event_id,omitempty" doc:"The certificate.issued event in the log"`

	Result  SigningResult `json:"result,omitempty" enum:"signed,failed,none" doc:"What came of it. None: the broker stopped before it could tell, or will in a moment"`
	Failure string        `json:"failure,omitempty" enum:"no-place,not-signed,check-failed" doc:"Why it failed"`
}

// Certificate is an issued certificate and how to use it.
type Certificate struct {
	CertificateInfo
	Certificate string   `json:"certificate" doc:"OpenSSH user certificate, authorized_keys format"`
	LogIndex    int64    `json:"log_index,string" doc:"Where in the log the certificate.issued event stands"`
	KnownHosts  []string `json:"known_hosts" doc:"Lines for a known_hosts file"`
	Connect     Connect  `json:"connect"`
}

// Connect says how ssh reaches the host.
type Connect struct {
	Address      string `json:"address" doc:"Host name or IP address"`
	Port         int    `json:"port"`
	Login        string `json:"login"`
	HostKeyAlias string `json:"host_key_alias" doc:"The name under which known_hosts knows the host"`
	Command      string `json:"command" doc:"The same as a command line for sally"`
}

// Event is one record of the log.
type Event struct {
	Index int64      `json:"index,string" doc:"Place in the log; -1 while it waits to be sequenced"`
	ID    string     `json:"id"`
	Type  string     `json:"type" example:"request.created"`
	Time  time.Time  `json:"time"`
	Actor EventActor `json:"actor"`

	OnBehalfOf *EventActor `json:"on_behalf_of,omitempty" doc:"For whom the actor did it"`

	Source   string         `json:"source,omitempty" doc:"Address that the action came from"`
	Request  string         `json:"request_id,omitempty"`
	Host     string         `json:"host_id,omitempty"`
	Hosts    []string       `json:"host_ids,omitempty" doc:"All hosts, if it is about several"`
	Person   string         `json:"person_id,omitempty"`
	Summary  string         `json:"summary" doc:"One line for people"`
	Data     map[string]any `json:"data,omitempty" doc:"The event's own fields, which differ by type"`
	Leaf     []byte         `json:"leaf,omitempty" doc:"The exact bytes in the log, base64; only when one event is asked for"`
	LeafHash string         `json:"leaf_hash,omitempty" doc:"RFC 6962 leaf hash, hex"`
}

// EventActor is who did it.
type EventActor struct {
	Kind string `json:"kind" enum:"person,agent,host,broker"`
	ID   string `json:"id,omitempty"`
	Name string `json:"name,omitempty"`
}

// Notification is one message to people, and what became of it. What it said is
// not kept: it told of the request as it was when it was sent.
type Notification struct {
	ID        string     `json:"id" example:"msg-4f8k2m9qhx1z" doc:"Receivers can drop duplicates by it"`
	Kind      string     `json:"kind" example:"request.waiting"`
	Request   string     `json:"request_id,omitempty"`
	Channel   string     `json:"channel" doc:"Name of the channel; empty if there was none to tell it through"`
	Person    *Person    `json:"person,omitempty" doc:"To whom; absent: to the channel's own addressees"`
	State     string     `json:"state" enum:"waiting,sending,retrying,sent,dropped,failed" doc:"dropped: overtaken by events before it was sent"`
	Attempts  int        `json:"attempts"`
	Error     string     `json:"error,omitempty" doc:"Of the last attempt"`
	CreatedAt time.Time  `json:"created_at"`
	EndedAt   *time.Time `json:"ended_at,omitempty" doc:"When it was sent, dropped or given up"`
}

// Page is one page of a list.
type Page[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next,omitempty" doc:"Cursor of the next page; empty on the last"`
}

// EventPage is one page of the log, newest first.
type EventPage struct {
	Page[Event]
	Previous string  `json:"previous,omitempty" doc:"Cursor of the page with newer events, for after; empty on the first"`
	Pruned   *Pruned `json:"pruned,omitempty" doc:"On the last page, if older events were pruned: where they are"`
}

// Pruned says where events are that were archived and removed from the database. Their
// receipts can still be had.
type Pruned struct {
	Event         int64     `json:"event" doc:"Index of the event that says so"`
	At            time.Time `json:"at"`
	Before        int64     `json:"before" doc:"Events with a lower index are gone"`
	Earliest      time.Time `json:"earliest" doc:"Times of the events in the archive"`
	Latest        time.Time `json:"latest"`
	Archive       string    `json:"archive" doc:"Name of the archive with the newest of them, an evidence pack"`
	ArchiveSHA256 string    `json:"archive_sha256" doc:"Its hash"`
}

// Problem is an error as RFC 9457 has it, with a hint.
type Problem struct {
	Type     string         `json:"type,omitempty"`
	Title    string         `json:"title,omitempty"`
	Status   int            `json:"status,omitempty"`
	Detail   string         `json:"detail,omitempty"`
	Instance string         `json:"instance,omitempty"`
	Code     string         `json:"code,omitempty" doc:"Stable name of the problem"`
	Hint     string         `json:"hint,omitempty" doc:"What to do next"`
	Errors   []ProblemField `json:"errors,omitempty" doc:"Which fields are wrong"`
	Continue string         `json:"continue,omitempty" doc:"The page on which a person can go on, for code provider-evidence-needed"`
}

// ProblemField is one wrong field.
type ProblemField struct {
	Location string `json:"location,omitempty"`
	Message  string `json:"message,omitempty"`
}

// Error makes a Problem an error, so that a client can return it as it came.
func (p *Problem) Error() string {
	if p.Detail != "" {
		return p.Detail
	}
	return p.Title
}
