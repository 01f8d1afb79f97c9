package event

import (
	"fmt"
	"time"
)

// Sessions, as hosts report them. Times are by the host's clock; the event's own is
// when the broker took the report.

// SessionStarted records that a host's sshd let somebody in.
type SessionStarted struct {
	SessionID   string    `json:"session_id"`            // of the session
	Number      uint64    `json:"number,string"`         // of the host's report
	BootID      string    `json:"boot_id"`               // of the host's kernel, one for each start
	Serial      uint64    `json:"serial,string"`         // of the certificate; 0 if it was something else
	KeyID       string    `json:"key_id,omitempty"`      // of the certificate, as sshd logged it
	Principal   string    `json:"principal,omitempty"`   // of the certificate
	Key         string    `json:"key,omitempty"`         // fingerprint
	Certificate string    `json:"certificate,omitempty"` // SHA-256 of its wire format, hex
	Method      string    `json:"method,omitempty"`      // what sshd accepted, if it was no certificate
	Login       string    `json:"login"`                 // on the host
	Host        string    `json:"host"`                  // name
	Client      string    `json:"client"`                // address
	StartedAt   time.Time `json:"started_at"`            // by the host's clock
	EndsAt      time.Time `json:"ends_at,omitzero"`      // when the host will end it by itself
	Isolation   string    `json:"isolation"`             // how the host will find its processes
	Problem     string    `json:"problem,omitempty"`     // why the host did not let it begin
}

func (SessionStarted) EventType() (string, int) { return "session.started", 1 }
func (d SessionStarted) Summary() string {
	by := "without a certificate"
	if d.Serial > 0 {
		by = fmt.Sprintf("by certificate %d", d.Serial)
	}
	said := fmt.Sprintf("let %s in from %s, %s", d.Login, d.Client, by)
	if d.Problem != "" {
		said = fmt.Sprintf("turned %s away, who came from %s, %s: %s", d.Login, d.Client, by, d.Problem)
	}
	return said
}

// SessionEnded records the end of a session.
type SessionEnded struct {
	SessionID string    `json:"session_id"`          // of the session
	Number    uint64    `json:"number,string"`       // of the host's report
	BootID    string    `json:"boot_id"`             // of the host's kernel, one for each start
	Serial    uint64    `json:"serial,string"`       // of the certificate; 0: there is none
	KeyID     string    `json:"key_id,omitempty"`    // of the certificate
	Login     string    `json:"login"`               // on the host
	Host      string    `json:"host"`                // name
	Client    string    `json:"client"`              // address that it came from, as the host says
	StartedAt time.Time `json:"started_at,omitzero"` // missing if the start was never reported
	EndedAt   time.Time `json:"ended_at"`            // by the host's clock
	Reason    string    `json:"reason"`              // closed, time, finished, revoked, refused, reboot, lost, unrecorded
	Killed    int       `json:"killed,omitempty"`    // processes that the host ended
	Survived  int       `json:"survived,omitempty"`  // and could not end
}

func (SessionEnded) EventType() (string, int) { return "session.ended", 1 }
func (d SessionEnded) Summary() string {
	said := "saw the session of " + d.Login + " end"
	switch d.Reason {
	case "time":
		said = "ended the session of " + d.Login + ", as its time was up"
	case "finished":
		said = "ended the session of " + d.Login + ", whose person was done"
	case "revoked":
		said = "ended the session of " + d.Login + ", as it was revoked"
	case "reboot":
		said = "started anew, which ended the session of " + d.Login
	case "unrecorded":
		said = "ended the session of " + d.Login + ", which could not be recorded any more"
	case "lost":
		said = "lost sight of the session of " + d.Login
	}
	if d.Survived > 0 {
		said += fmt.Sprintf("; %d processes SURVIVED", d.Survived)
	}
	return said
}

// SessionAlarm records a session that must not be: without a certificate, with one that
// does not fit, or that had to be recorded and was not.
type SessionAlarm struct {
	SessionID string `json:"session_id"`    // of the session
	Serial    uint64 `json:"serial,string"` // of the certificate; 0: there is none
	Login     string `json:"login"`         // on the host
	Host      string `json:"host"`          // name
	Client    string `json:"client"`        // address that it came from, as the host says
	Code      string `json:"code"`          // for programs, such as no-certificate
	Reason    string `json:"reason"`        // what must not be, in words for people
}

func (SessionAlarm) EventType() (string, int) { return "session.alarm", 1 }
func (d SessionAlarm) Summary() string {
	return fmt.Sprintf("ALARM: session of %s from %s: %s", d.Login, d.Client, d.Reason)
}

// CertificateRevoked records that one certificate opens nothing any more, while its
// grant goes on.
type CertificateRevoked struct {
	Serial uint64 `json:"serial,string"` // of the certificate
	Host   string `json:"host"`          // id
	Login  string `json:"login"`         // on the host
	Reason string `json:"reason"`        // in the words of who revoked it
}

func (CertificateRevoked) EventType() (string, int) { return "certificate.revoked", 1 }
func (d CertificateRevoked) Summary() string {
	return fmt.Sprintf("revoked certificate %d", d.Serial) + because(d.Reason)
}
