package hostapi

import (
	"encoding/json"
	"time"
)

// Kind is what a report is about.
type Kind string

// The kinds of reports.
const (
	KindSessionStarted Kind = "session.started" // SessionStarted
	KindSessionEnded   Kind = "session.ended"   // SessionEnded
	KindPosture        Kind = "posture"         // PostureReport
	KindAlarm          Kind = "alarm"           // Alarm
)

// Report is one thing that a host saw. Reports are numbered from 1 on, by the host and
// for good, over restarts of daemon and machine; they are sent in that order, and again
// until the broker has answered for them. What was sent again must be the same bytes.
//
// A number that is left out is a report that was lost: the broker records how many.
type Report struct {
	BootID string          `json:"boot_id"` // /proc/sys/kernel/random/boot_id
	Seq    uint64          `json:"seq"`
	Time   time.Time       `json:"time"` // by the host's clock, when it was seen
	Kind   Kind            `json:"kind"`
	Data   json.RawMessage `json:"data"`
}

// Reports is the body of a call: up to MaxReports, in order of Seq.
type Reports struct {
	Reports []Report `json:"reports"`
}

// Accepted answers it. The host forgets all reports up to Seq, those that were
// refused, too: each has been recorded in the log, as what it is.
type Accepted struct {
	Seq     uint64    `json:"seq"` // the highest number that the broker has
	Refused []Refused `json:"refused,omitempty"`
}

// Refused is a report that could not be taken for what it says it is.
type Refused struct {
	Seq    uint64 `json:"seq"`
	Code   string `json:"code"`
	Detail string `json:"detail"`
}

// SessionStarted is a connection that sshd let in, whatever opened it. Fields about
// the certificate are as they stand in it; if sshd accepted something else, Serial is 0.
type SessionStarted struct {
	Session string `json:"session"` // 128 bits in hex, made by the host; one for each connection

	Serial      uint64 `json:"serial,string"`
	KeyID       string `json:"key_id,omitempty"`
	Principal   string `json:"principal,omitempty"`
	Key         string `json:"key,omitempty"`         // fingerprint of the key that logged in, SHA256:…
	Certificate string `json:"certificate,omitempty"` // SHA-256 of its wire format, hex
	Method      string `json:"method,omitempty"`      // what sshd accepted, if it was no certificate: "password", "publickey ssh-ed25519"

	Login     string    `json:"login"`
	Peer      string    `json:"peer"` // address of the client
	StartedAt time.Time `json:"started_at"`
	// EndsAt is when the host will end it by itself; nil: not, as the rule keeps sessions.
	EndsAt *time.Time `json:"ends_at,omitempty"`
	// Isolation is how the host will find its processes: cgroup, or session where it
	// can do no better.
	Isolation string `json:"isolation"`
	// Problem says why the host ended or refused it at once, if it did: a second use of
	// a certificate for single use, no receipt, and so on.
	Problem string `json:"problem,omitempty"`
}

// EndReason is why a session ended.
type EndReason string

// Why sessions end.
const (
	EndClosed   EndReason = "closed"   // the client, or its shell, is gone
	EndTime     EndReason = "time"     // the grant's time was up
	EndFinished EndReason = "finished" // its person is done with the grant
	EndRevoked  EndReason = "revoked"  // somebody revoked grant or certificate
	EndRefused  EndReason = "refused"  // the host did not let it begin: see SessionStarted.Problem
	EndReboot   EndReason = "reboot"   // the host started anew
	EndLost     EndReason = "lost"     // it was gone when the daemon looked; EndedAt is when it looked
)

// SessionEnded is its end. Who, where and by which certificate stands in it again, so
// that an end whose start was lost is still told.
type SessionEnded struct {
	Session string    `json:"session"`
	Serial  uint64    `json:"serial,string"`
	KeyID   string    `json:"key_id,omitempty"`
	Login   string    `json:"login"`
	Peer    string    `json:"peer"`
	EndedAt time.Time `json:"ended_at"`
	Reason  EndReason `json:"reason"`
	// Killed is how many processes the host ended, beside the connection itself.
	Killed int `json:"killed,omitempty"`
	// Survived is how many it could not end.
	Survived int `json:"survived,omitempty"`
}

// Alarm is something that must not happen: a tampered spool, a certificate that is
// signed but not in the log, reports that had to be dropped.
type Alarm struct {
	Code    string `json:"code"`   // lower-case words with hyphens, at most 63 bytes
	Detail  string `json:"detail"` // for people, at most 2000 bytes
	Serial  uint64 `json:"serial,omitempty,string"`
	Login   string `json:"login,omitempty"`
	Peer    string `json:"peer,omitempty"`
	Session string `json:"session,omitempty"`
}
