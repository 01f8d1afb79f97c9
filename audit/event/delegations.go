package event

import (
	"strings"
	"time"
)

// Delegations. The subject's person is the delegator, whose groups are lent.

// DelegationMade records that somebody may decide for another for a while.
type DelegationMade struct {
	DelegationID string    `json:"delegation_id"` // of the delegation
	Delegator    string    `json:"delegator"`     // name
	Delegate     string    `json:"delegate"`      // name
	DelegateID   string    `json:"delegate_id"`   // id of the delegate
	Groups       []string  `json:"groups"`        // that are lent
	From         time.Time `json:"from"`          // when it begins
	Until        time.Time `json:"until"`         // when it ends
	Reason       string    `json:"reason"`        // in the actor's words
	Note         string    `json:"note"`          // the delegation, as the broker vouches for it with the log's key
	NoteHash     string    `json:"note_hash"`     // SHA-256 of it, hex
}

func (DelegationMade) EventType() (string, int) { return "delegation.made", 1 }
func (d DelegationMade) Summary() string {
	return "let " + d.Delegate + " decide for " + d.Delegator + " (" + strings.Join(d.Groups, ", ") + ") from " +
		d.From.Format("2006-01-02 15:04 MST") + " until " + d.Until.Format("2006-01-02 15:04 MST")
}

// DelegationEnded records that a delegation was ended before its time.
type DelegationEnded struct {
	DelegationID string `json:"delegation_id"` // of the delegation
	Delegator    string `json:"delegator"`     // name
	Delegate     string `json:"delegate"`      // name
	DelegateID   string `json:"delegate_id"`   // id of the delegate
}

func (DelegationEnded) EventType() (string, int) { return "delegation.ended", 1 }
func (d DelegationEnded) Summary() string {
	return "ended the delegation by which " + d.Delegate + " decided for " + d.Delegator
}
