package event

import (
	"fmt"
	"strings"
)

// People who come to an end, and what ends with them.

// PersonRemoved records that an operator removed a person. What else ended by it
// is in events of its own.
type PersonRemoved struct {
	Name      string `json:"name,omitempty"` // of the person
	Reason    string `json:"reason"`         // in the operator's words
	SignIns   int    `json:"sign_ins"`       // how many ended
	Cancelled int    `json:"cancelled"`      // undecided requests of theirs
	Ended     int    `json:"ended"`          // grants of theirs
	Voided    int    `json:"voided"`         // approvals of theirs that had not opened anything
}

func (PersonRemoved) EventType() (string, int) { return "person.removed", 1 }
func (d PersonRemoved) Summary() string {
	return "removed " + orSomebody(d.Name) + ": " + d.Reason
}

// PersonRestored records that an operator lets a removed person sign in again.
type PersonRestored struct {
	Name   string `json:"name,omitempty"` // of the person
	Reason string `json:"reason"`         // in the operator's words
}

func (PersonRestored) EventType() (string, int) { return "person.restored", 1 }
func (d PersonRestored) Summary() string {
	return "restored " + orSomebody(d.Name) + ": " + d.Reason
}

func orSomebody(name string) string {
	if name == "" {
		return "a person"
	}
	return name
}

// DecisionVoided records that an approval counts no more, because whoever gave it
// was removed before the request was decided.
type DecisionVoided struct {
	DecisionID   string `json:"decision_id"`   // of the decision
	Approver     string `json:"approver"`      // id of the person
	EvidenceHash string `json:"evidence_hash"` // of the decision, hex
}

func (DecisionVoided) EventType() (string, int) { return "request.decision_voided", 1 }
func (DecisionVoided) Summary() string          { return "removed an approver, whose approval counts no more" }

// because is what follows a summary that has a reason in people's own words.
func because(comment string) string {
	if comment = strings.TrimSpace(comment); comment == "" {
		return ""
	}
	return fmt.Sprintf(" (%s)", comment)
}
