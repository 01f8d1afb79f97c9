// Package policy is the document that says who may ask for what and who must
// approve: its strict YAML form, the matching of rules, and the quorum. All of
// it is pure: the same functions decide, explain and verify.
//
// A document looks like this:
//
//	sallyport: 1                      # version of this format
//	roles:
//	  operator: [sre-leads]           # groups whose members configure hosts
//	  auditor: [audit]                # groups whose members read everything
//	rules:                            # the first rule that fits decides
//	  - name: databases
//	    who: [engineers]              # members of any of these groups may ask
//	    where: class=database, env in (prod, staging)
//	    logins: [dba]
//	    duration: {default: 30m, max: 2h}
//	    certificate: {lifetime: 5m, source_address: [10.0.0.0/8]}
//	    approvals:                    # stages, passed in order
//	      - slots:                    # all slots of a stage; one person fills one
//	          - {groups: [dba-leads], count: 1}
//	          - {groups: [security], count: 1}
//	    approve_within: 1h
//	    reason: {required: true, min_length: 10}
//	    ticket: {required: true, pattern: 'INC-[0-9]+', message: an incident, such as INC-1234}
//	tests:                            # run whenever the document is read
//	  - name: nobody is root
//	    groups: [engineers]
//	    host: {class: database, env: prod}
//	    login: root
//	    expect: {refused: true}
//
// Group names and logins are exact; where is Kubernetes label-selector syntax,
// or "*" for every host. Unknown keys, duplicate keys and values outside their
// limits are refused with line and column. Schema describes every key.
package policy

import (
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"sallyport/api"
	"sallyport/internal/refusal"
)

// Limits on a document. They keep a mistake from becoming a policy and a
// decision from becoming slow.
const (
	MaxBytes               = 4 << 20
	MaxRules               = 5000
	MaxGroups              = 100 // in one list
	MaxLogins              = 100 // in one rule
	MaxStages              = 10
	MaxSlots               = 10 // in one stage
	MaxCount               = 20 // people in one slot
	MaxSourceAddresses     = 100
	MaxACRValues           = 10
	MaxTimes               = 50 // stretches of a schedule
	MaxExtensions          = 20
	MaxEscalations         = 10
	MaxTests               = 10_000
	MaxListens             = 500 // classes of hosts
	MaxPorts               = 200 // of one class
	MaxMinLength           = 500 // of a text, in characters
	MaxDuration            = 7 * 24 * time.Hour
	MaxApproveWithin       = 30 * 24 * time.Hour
	MinCertificateLifetime = time.Second
	MaxCertificateLifetime = time.Hour
	MinDuration            = time.Second
	MinSignInAge           = time.Minute // less would sign people out between two clicks
	MaxSignInAge           = 30 * 24 * time.Hour
	MinReviewWithin        = time.Minute
	MaxReviewWithin        = 30 * 24 * time.Hour
)

// What a rule that is silent gives.
const (
	DefaultDuration            = 30 * time.Minute
	DefaultApproveWithin       = time.Hour
	DefaultCertificateLifetime = 5 * time.Minute
	DefaultReviewWithin        = 24 * time.Hour
)

// Refusals of an ask by the policy.
var (
	ErrNoRule = refusal.New(refusal.Denied, "no-rule",
		"no rule of the policy lets you ask for this login on this host",
		"list what you may ask for: sally hosts").On("login")
	ErrTooLong = refusal.New(refusal.Denied, "duration-over-limit",
		"the duration is longer than the rule allows", "ask for less time").On("duration")
	ErrBadDuration = refusal.New(refusal.Invalid, "bad-duration",
		"the duration is not a positive time", "write it like 30m or 1h30m").On("duration")
	ErrReason = refusal.New(refusal.Invalid, "reason-required",
		"the rule requires a reason", "say what you are going to do and why").On("reason")
	ErrTicket = refusal.New(refusal.Invalid, "ticket-required",
		"the rule requires a ticket", "give the ticket's number").On("ticket")
)

// Policy is one parsed, valid document.
type Policy struct {
	// Text is the document, Hash its SHA-256 in hex.
	Text []byte
	Hash string
	// Version is the number that the database gave it; 0 before it is active.
	Version int64

	Roles map[api.Role][]string // groups per role
	Rules []Rule
	// Listening is what may listen on hosts; the first that fits a host is its list.
	Listening []Listening
	// Agents are the trust entries for deploy agents; the first that fits decides.
	Agents []Agent
	// Assurance is what proves decisions on the version that is to follow this one,
	// and decisions under rules that do not say.
	Assurance Assurance
	// Deployments are what agents may deploy; none: nothing.
	Deployments []Deployment

	index index // of Rules
}

// Rule says who may ask for which logins on which hosts, and on what terms. The
// first rule of the document that fits decides.
type Rule struct {
	Name        string
	Description string
	Groups      []string // who: members of any of these
	Where       labels.Selector
	Logins      []string

	MaxDuration     time.Duration
	DefaultDuration time.Duration
	ApproveWithin   time.Duration // time to approve
	StartWithin     time.Duration // from the grant's start to its first use; 0: until its end

	CertificateLifetime time.Duration
	SourceAddress       []string // CIDRs that certificates are good from; empty: any
	NoPTY               bool     // certificates without permit-pty
	Forwarding          []Forwarding
	KeyTypes            []string // SSH key types that may be certified; empty: all that are strong
	VerifyRequired      bool     // the security key must verify its person; only with sk- key types
	SingleUse           bool     // one certificate, and no other
	KeepSessions        bool     // sessions outlast the grant's time, though not its revocation
	Record              bool     // terminal sessions are recorded, or there are none
	// MaxSignInAge is how long ago the provider may have vouched for the requester
	// at each certificate; 0: as long as sign-ins last.
	MaxSignInAge time.Duration

	// Automatic approves at once, with nobody asked: always, or During the
	// schedule if there is one, and outside of it by Stages.
	Automatic bool
	During    *Schedule
	Stages    []Stage
	Reason    Text
	Ticket    Text

	Proof // of decisions

	Extend    Extend
	Emergency *Emergency    // nil: no emergencies
	Remind    time.Duration // approvers are reminded so long before a request expires; 0: never
	Escalate  []Escalation  // further groups that are told, in order, while nobody decides
}

// Forwarding is a kind of forwarding that a certificate may allow.
type Forwarding string

// The kinds of forwarding, by sshd's names for them.
const (
	AgentForwarding Forwarding = "agent" // permit-agent-forwarding
	PortForwarding  Forwarding = "port"  // permit-port-forwarding
	X11Forwarding   Forwarding = "x11"   // permit-X11-forwarding
)

// Proof is how what somebody decides must be proved.
type Proof struct {
	Assurance Assurance
	MaxAge    time.Duration // of the approver's authentication, with Provider; 0: the provider's own idea
	ACRValues []string      // one of which the provider must state, with Provider; empty: any
}

// Assurance is what proves a decision.
type Assurance string

const (
	// Session is the broker's own word, with what it knows of the sign-in.
	Session Assurance = "session"
	// Provider is the provider's signature over the decision: an ID token whose
	// nonce is the hash of the statement. It is what a rule that is silent has.
	Provider Assurance = "provider"
)

// Schedule is a set of times of the week.
type Schedule struct {
	Zone  *time.Location
	Times []Hours
}

// Hours are a stretch of some days; To is excluded, and after From.
type Hours struct {
	Days     []time.Weekday
	From, To time.Duration // since midnight, by the clock on the wall of the zone
}

// Extend says how often and how a grant may be followed by another without a gap.
type Extend struct {
	Times     int // 0: never
	By        time.Duration
	Automatic bool // with nobody asked; otherwise by the rule's stages again
}

// Emergency says who may open the door before anybody has approved.
type Emergency struct {
	Groups                       []string // members of any of these, who also fit the rule
	MaxDuration, DefaultDuration time.Duration
	Tell                         []string // groups that are told besides the rule's approvers
	ReviewBy                     []string // members of any of these may review, if independent
	ReviewWithin                 time.Duration
}

// Escalation is a group of people to tell when a request has waited so long.
type Escalation struct {
	After  time.Duration
	Groups []string
}

// Stage is passed when all its slots are filled; stages are passed in order.
type Stage struct{ Slots []Slot }

// Slot needs Count distinct people, each a member of any of Groups.
type Slot struct {
	Groups []string
	Count  int
}

// RolesOf are the roles that membership of the groups gives, in a fixed order.
func (p *Policy) RolesOf(groups []string) []api.Role {
	roles := []api.Role{}
	for _, role := range []api.Role{api.Operator, api.Auditor} {
		if overlap(p.Roles[role], groups) {
			roles = append(roles, role)
		}
	}
	return roles
}

// CheckDuration returns the duration to grant for the one asked for; 0 asks for
// the rule's default.
func (r *Rule) CheckDuration(d time.Duration) (time.Duration, error) {
	switch {
	case d == 0:
		return r.DefaultDuration, nil
	case d < MinDuration:
		return 0, ErrBadDuration
	case d > r.MaxDuration:
		return 0, ErrTooLong.With("%s is longer than rule %q allows", d, r.Name).
			Hinting("ask for at most %s", r.MaxDuration)
	}
	return d, nil
}

// CheckText refuses a reason or ticket that does not comply with the rule.
func (r *Rule) CheckText(reason, ticket string) error {
	if err := r.Reason.check(reason, ErrReason); err != nil {
		return err
	}
	return r.Ticket.check(ticket, ErrTicket)
}

func overlap(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}
