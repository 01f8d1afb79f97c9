package event

import (
	"fmt"
	"strings"
	"time"
)

// Emergencies. What is true of a drill is true of an emergency; Drill says that
// it was rehearsed.

// EmergencyStarted records that a person opened a door before anybody approved.
type EmergencyStarted struct {
	Drill        bool      `json:"drill,omitempty"` // a rehearsal
	TermsHash    string    `json:"terms_hash"`      // SHA-256 of the canonical terms, hex
	Host         string    `json:"host"`            // name
	Login        string    `json:"login"`           // on the host
	Reason       string    `json:"reason"`          // in the person's words
	Told         []string  `json:"told"`            // groups whose members are told at once
	ReviewGroups []string  `json:"review_groups"`   // groups whose members may review it
	ReviewBy     time.Time `json:"review_by"`       // the deadline
	Hosts        []string  `json:"hosts,omitempty"` // names of all, Host first, if there are several
}

func (EmergencyStarted) EventType() (string, int) { return "emergency.started", 1 }
func (d EmergencyStarted) Summary() string {
	return fmt.Sprintf("opened %s@%s before approval, as %s; %s must review it by %s", d.Login, named(d.Host, d.Hosts),
		emergency(d.Drill), strings.Join(d.ReviewGroups, " or "), d.ReviewBy.Format("2006-01-02 15:04 MST"))
}

func emergency(drill bool) string {
	if drill {
		return "an emergency DRILL"
	}
	return "an EMERGENCY"
}

// ReviewGiven records the sign-off after an emergency.
type ReviewGiven struct {
	Drill        bool     `json:"drill,omitempty"` // a rehearsal
	ReviewID     string   `json:"review_id"`       // of the review
	Verdict      string   `json:"verdict"`         // justified or not-justified
	Comment      string   `json:"comment"`         // in the reviewer's words
	Late         bool     `json:"late,omitempty"`  // after its deadline
	TermsHash    string   `json:"terms_hash"`      // SHA-256 of the canonical terms, hex
	Groups       []string `json:"groups"`          // of the reviewer, at the review
	Evidence     string   `json:"evidence"`        // the canonical statement, exactly
	EvidenceHash string   `json:"evidence_hash"`   // SHA-256 of it, hex
	// What proves it: see package approvals/evidence.
	Assurance   string `json:"assurance,omitempty"`     // session or provider
	IDTokenHash string `json:"id_token_hash,omitempty"` // SHA-256 of the ID token, hex
	KeysHash    string `json:"keys_hash,omitempty"`     // of the note in provider.keys_seen that the token verifies with
}

func (ReviewGiven) EventType() (string, int) { return "review.given", 1 }
func (d ReviewGiven) Summary() string {
	said := "reviewed the emergency: " + strings.ReplaceAll(d.Verdict, "-", " ")
	if d.Drill {
		said = "reviewed the emergency drill: " + strings.ReplaceAll(d.Verdict, "-", " ")
	}
	if d.Late {
		said += ", after the deadline"
	}
	return said
}

// ReviewRefused records a review that was not accepted, such as of one's own.
type ReviewRefused struct {
	Verdict string `json:"verdict"` // justified or not-justified, as it was tried
	Code    string `json:"code"`    // the refusal's code, as in docs/problems.md
	Reason  string `json:"reason"`  // why, in words for people
}

func (ReviewRefused) EventType() (string, int) { return "review.refused", 1 }
func (d ReviewRefused) Summary() string        { return "could not review: " + d.Reason }

// ReviewOverdue records that an emergency's deadline passed without a review.
type ReviewOverdue struct {
	Drill        bool      `json:"drill,omitempty"` // a rehearsal
	ReviewGroups []string  `json:"review_groups"`   // groups whose members may review it
	ReviewBy     time.Time `json:"review_by"`       // the deadline
}

func (ReviewOverdue) EventType() (string, int) { return "review.overdue", 1 }
func (d ReviewOverdue) Summary() string {
	return "found the review overdue: nobody from " + strings.Join(d.ReviewGroups, " or ") + " reviewed " +
		emergency(d.Drill) + " in time"
}
