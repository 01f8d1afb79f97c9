// Package notify tells people: that a request waits for them, that it was
// decided, that a door was opened in an emergency, that their access ends soon.
//
// It works in two steps, both of them jobs that survive a crash. A Notice says
// what happened; it is enqueued in the transaction of the state change, so that
// it is never lost, and never sent for a change that was rolled back. When its
// time comes it is spread: the routes say through which channels it is told, and
// each delivery becomes a row of messages with a job of its own, which is tried
// again with growing pauses until it was sent or given up. Giving up is an event
// and is told to the operators.
//
// Before a notice is spread and before each attempt to send, the request is read
// again: what has been overtaken (decided, reviewed, ended) is dropped. What is
// sent tells the present state, carries a link to the page where one can act, and
// nothing with which one could act without signing in.
//
// A delivery whose outcome is unknown is repeated: messages arrive at least once,
// and carry an id by which receivers can drop a second one.
package notify

import (
	"context"
	"errors"
	"net/mail"
	"time"

	"sallyport/api"
)

// Kind is what a notice is about. The names are part of the contract with
// receivers of webhooks.
type Kind string

// The kinds of notices.
const (
	Waiting          Kind = "request.waiting"   // a request waits for the decision of those who are told
	Reminder         Kind = "request.reminder"  // it still does, and will expire soon
	Escalated        Kind = "request.escalated" // it has waited for long; others are told as well
	Closed           Kind = "request.closed"    // approved, denied, cancelled or expired: nobody needs to look
	GrantEnding      Kind = "grant.ending"      // the requester's access ends soon
	GrantRevoked     Kind = "grant.revoked"     // somebody has ended it
	EmergencyStarted Kind = "emergency.started" // a door was opened before approval
	ReviewDue        Kind = "review.due"        // an emergency waits for its review
	ReviewOverdue    Kind = "review.overdue"    // it has not been reviewed in time
	ReviewGiven      Kind = "review.given"      // it has been reviewed: nobody needs to look
	DelegationMade   Kind = "delegation.made"   // somebody may decide for another for a while
	DelegationEnded  Kind = "delegation.ended"  // no more, before its time
	ProposalWaiting  Kind = "proposal.waiting"  // somebody proposed another policy
	ProposalClosed   Kind = "proposal.closed"   // approved, denied or withdrawn: nobody needs to look
	HostAlarm        Kind = "host.alarm"        // a host reported what must not be
	DeliveryFailed   Kind = "message.failed"    // people could not be told of something
	Test             Kind = "test"              // an operator tries a channel
)

// Notice is something that happened and of which people are to be told.
type Notice struct {
	// ID names the happening. A notice with an ID that was spread before tells
	// nobody a second time.
	ID        string    `json:"id"`
	Kind      Kind      `json:"kind"`
	RequestID string    `json:"request_id,omitempty"`
	Groups    []string  `json:"groups,omitempty"` // whom to tell; empty for kinds that have others to tell
	Stage     int       `json:"stage,omitempty"`  // of approvals, that is waited for
	By        string    `json:"by,omitempty"`     // the person who did it, and need not be told
	Due       time.Time `json:"due"`              // it is spread then, if it has not been overtaken
	Failure   *Failure  `json:"failure,omitempty"`

	DelegationID string `json:"delegation_id,omitempty"`
	ProposalID   string `json:"proposal_id,omitempty"` // of a policy
	Alarm        *Alarm `json:"alarm,omitempty"`       // what a notice of kind HostAlarm is about
}

// Failure is what a notice of kind DeliveryFailed is about.
type Failure struct {
	Channel string `json:"channel,omitempty"` // empty: there was none
	Error   string `json:"error"`
}

// Message is what a channel delivers to its addressees.
type Message struct {
	ID      string    // the same in every attempt
	At      time.Time // of this attempt
	Kind    Kind
	Link    string       // where one can look and act, after signing in
	Request *api.Request // as it is now; nil if the notice is about none
	Failure *Failure
	To      *mail.Address // the one addressee; nil: the channel's own

	Delegation *api.Delegation     // as it is now; nil if the notice is about none
	Proposal   *api.PolicyProposal // likewise, without its document
	Alarm      *Alarm              // nil if the notice is about none
}

// Channel delivers messages. Implementations are safe for concurrent use.
type Channel interface {
	// Send delivers the message, or says why not; then it may still have been
	// delivered, if the answer got lost. It returns within seconds. Its errors
	// hold no secret, and wrap errPermanent if another attempt would be in vain.
	Send(ctx context.Context, m Message) error
}

// errPermanent marks a failure that no other attempt can mend.
var errPermanent = errors.New("another attempt would be in vain")

// permanent is an error with that mark, without its words.
type permanent struct{ error }

func (p permanent) Is(target error) bool { return target == errPermanent }
func (p permanent) Unwrap() error        { return p.error }
