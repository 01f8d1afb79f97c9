package event

import (
	"fmt"
	"time"
)

// Hosts that enrol, and what they report of themselves.

// JoinTokenMade records that an operator lets a host enrol. The token itself is
// nowhere.
type JoinTokenMade struct {
	TokenID   string            `json:"token_id"`          // of the join token; the token itself is nowhere
	Name      string            `json:"name"`              // of the host
	Address   string            `json:"address,omitempty"` // that the host will have; absent: as it proposes
	Labels    map[string]string `json:"labels"`            // that the host will have
	Logins    []string          `json:"logins"`            // that the host will have
	ExpiresAt time.Time         `json:"expires_at"`        // when the token is good for nothing any more
}

func (JoinTokenMade) EventType() (string, int) { return "host.join_token_made", 1 }
func (d JoinTokenMade) Summary() string {
	return "made a join token for host " + d.Name + ", good until " + d.ExpiresAt.Format("2006-01-02 15:04 MST")
}

// JoinTokenWithdrawn records that a join token is good for nothing any more.
type JoinTokenWithdrawn struct {
	TokenID string `json:"token_id"` // of the join token; the token itself is nowhere
	Name    string `json:"name"`     // of the host
}

func (JoinTokenWithdrawn) EventType() (string, int) { return "host.join_token_withdrawn", 1 }
func (d JoinTokenWithdrawn) Summary() string        { return "withdrew the join token for host " + d.Name }

// EnrolmentRefused records a host that was not let in: by an operator, or because the
// token that it showed is good for nothing any more, which somebody may have copied.
type EnrolmentRefused struct {
	EnrolmentID string `json:"enrolment_id,omitempty"` // of the enrolment that waited, if one did
	TokenID     string `json:"token_id,omitempty"`     // of the join token that was shown, if one was
	Name        string `json:"name,omitempty"`         // as proposed, or as the token has it
	HostKey     string `json:"host_key"`               // fingerprint
	Code        string `json:"code"`                   // the refusal's code, as in docs/problems.md
	Reason      string `json:"reason"`                 // why, in words for people
}

func (EnrolmentRefused) EventType() (string, int) { return "host.enrolment_refused", 1 }
func (d EnrolmentRefused) Summary() string {
	return "refused to enrol a host with key " + d.HostKey + ": " + d.Reason
}

// HostEnrolled records that a host speaks for itself from now on, by its key.
type HostEnrolled struct {
	Name        string `json:"name"`                   // of the host
	HostKey     string `json:"host_key"`               // fingerprint
	EnrolmentID string `json:"enrolment_id,omitempty"` // of the enrolment that an operator approved
	TokenID     string `json:"token_id,omitempty"`     // of the join token that it showed instead
	OS          string `json:"os,omitempty"`           // as the host says
	OpenSSH     string `json:"openssh,omitempty"`      // as the host says
	Kernel      string `json:"kernel,omitempty"`       // as the host says
	Helper      string `json:"helper,omitempty"`       // version of sally-host, as the host says
}

func (HostEnrolled) EventType() (string, int) { return "host.enrolled", 1 }
func (d HostEnrolled) Summary() string        { return "enrolled host " + d.Name + ", with key " + d.HostKey }

// ReportsLost records that a host left out numbers of its reports.
type ReportsLost struct {
	From uint64 `json:"from,string"` // first number that is missing
	To   uint64 `json:"to,string"`   // inclusive
}

func (ReportsLost) EventType() (string, int) { return "host.reports_lost", 1 }
func (d ReportsLost) Summary() string        { return fmt.Sprintf("lost reports %d to %d", d.From, d.To) }

// ReportRefused records a host's report that could not be taken for what it says it is.
type ReportRefused struct {
	Number uint64 `json:"number,string"` // of the host's report
	Kind   string `json:"kind"`          // of the report, as the host says
	Code   string `json:"code"`          // the refusal's code
	Reason string `json:"reason"`        // why, in words for people
}

func (ReportRefused) EventType() (string, int) { return "host.report_refused", 1 }
func (d ReportRefused) Summary() string {
	return fmt.Sprintf("sent report %d, which was refused: %s", d.Number, d.Reason)
}

// HostAlarm records what a host found that must not be.
type HostAlarm struct {
	Number uint64    `json:"number,string"`    // of the report
	BootID string    `json:"boot_id"`          // of the host's kernel, one for each start
	At     time.Time `json:"at"`               // by the host's clock
	Code   string    `json:"code"`             // the host's word for the kind of alarm
	Reason string    `json:"reason"`           // in the host's words
	Serial uint64    `json:"serial,string"`    // 0: it is about none
	Login  string    `json:"login,omitempty"`  // that it is about
	Client string    `json:"client,omitempty"` // address that it came from, as the host says
}

func (HostAlarm) EventType() (string, int) { return "host.alarm", 1 }
func (d HostAlarm) Summary() string        { return "ALARM: " + d.Reason }

// PostureChanged records that a host found itself other than before. A posture that is
// the same is no event.
type PostureChanged struct {
	Number  uint64    `json:"number,string"`  // of the report
	BootID  string    `json:"boot_id"`        // of the host's kernel, one for each start
	TakenAt time.Time `json:"taken_at"`       // by the host's clock
	Digest  string    `json:"digest"`         // SHA-256 of what the host signed, hex
	Passed  int       `json:"passed"`         // checks that did
	Failed  int       `json:"failed"`         // checks that did
	Unknown int       `json:"unknown"`        // checks that could not be made
	Changes []string  `json:"changes"`        // such as "keys: pass -> fail"; before the first posture all passed
	New     []string  `json:"new,omitempty"`  // findings that were not there before, such as "keys: /root/.ssh/authorized_keys"
	Gone    []string  `json:"gone,omitempty"` // and those that are not there any more; 60 in all at most
}

func (PostureChanged) EventType() (string, int) { return "host.posture_changed", 1 }
func (d PostureChanged) Summary() string {
	if d.Failed == 0 && d.Unknown == 0 {
		return fmt.Sprintf("passes all %d checks", d.Passed)
	}
	return fmt.Sprintf("passes %d checks, fails %d, and knows nothing of %d", d.Passed, d.Failed, d.Unknown)
}

// HostProbed records that a host looks other than before from outside.
type HostProbed struct {
	Result   string   `json:"result"`             // pass, fail or unknown
	Before   string   `json:"before,omitempty"`   // result of the look before
	Login    string   `json:"login"`              // that was tried
	Findings []string `json:"findings,omitempty"` // what is wrong, or could not be found out
}

func (HostProbed) EventType() (string, int) { return "host.probed", 1 }
func (d HostProbed) Summary() string {
	switch {
	case d.Result == "pass":
		return "looked at the host from outside, and found it shut"
	case len(d.Findings) == 0:
		return "looked at the host from outside: " + d.Result
	case d.Result == "fail":
		return "ALARM: looked at the host from outside: " + d.Findings[0]
	}
	return "could not look at the host from outside: " + d.Findings[0]
}

// HostQuarantined records that an operator keeps a host shut.
type HostQuarantined struct {
	Name   string `json:"name"`   // of the host
	Reason string `json:"reason"` // in the operator's words
}

func (HostQuarantined) EventType() (string, int) { return "host.quarantined", 1 }
func (d HostQuarantined) Summary() string {
	return "put host " + d.Name + " into quarantine" + because(d.Reason)
}

// HostReleased records the end of a quarantine.
type HostReleased struct {
	Name   string `json:"name"`   // of the host
	Reason string `json:"reason"` // in the operator's words
}

func (HostReleased) EventType() (string, int) { return "host.released", 1 }
func (d HostReleased) Summary() string {
	return "let host " + d.Name + " out of quarantine" + because(d.Reason)
}
