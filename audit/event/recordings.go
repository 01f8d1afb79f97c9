package event

import (
	"fmt"
	"time"
)

// Recordings of sessions, as hosts report them; and who was shown one.

// SessionRecorded records the end of a recording: what its bytes are, whether the broker
// has them yet or not. A session has one for each shell or command in it. Times are by
// the host's clock.
type SessionRecorded struct {
	SessionID  string    `json:"session_id"`    // of the session
	Recording  int       `json:"recording"`     // its number in the session, from 1
	Number     uint64    `json:"number,string"` // of the host's report
	BootID     string    `json:"boot_id"`       // of the host's kernel, one for each start
	Serial     uint64    `json:"serial,string"` // of the certificate
	Login      string    `json:"login"`         // on the host
	Host       string    `json:"host"`          // name
	Bytes      uint64    `json:"bytes,string"`  // of the recording, encrypted
	Digest     string    `json:"digest"`        // SHA-256 of the recording, encrypted, hex
	Recipients []string  `json:"recipients"`    // age public keys of the auditors who can read it
	StartedAt  time.Time `json:"started_at"`    // of the shell or command
	EndedAt    time.Time `json:"ended_at"`      // of the recording
	Terminal   bool      `json:"terminal"`      // it had a terminal, of which the output is recorded
	Cut        string    `json:"cut,omitempty"` // why it ends before what it records did
}

func (SessionRecorded) EventType() (string, int) { return "session.recorded", 1 }
func (d SessionRecorded) Summary() string {
	said := fmt.Sprintf("recorded %s from %s on, %d bytes", d.Login, d.StartedAt.Format("2006-01-02 15:04:05 MST"), d.Bytes)
	if d.Cut != "" {
		said += "; CUT OFF: " + d.Cut
	}
	return said
}

// RecordingExpired records that the broker forgot a recording, as it does after a time.
type RecordingExpired struct {
	SessionID string `json:"session_id"`   // of the session
	Recording int    `json:"recording"`    // its number in the session
	Bytes     uint64 `json:"bytes,string"` // that the broker had of it
}

func (RecordingExpired) EventType() (string, int) { return "session.recording_expired", 1 }
func (d RecordingExpired) Summary() string {
	return fmt.Sprintf("forgot recording %d of session %s, whose time was up", d.Recording, d.SessionID)
}

// RecordingDisclosed records that an auditor took a recording, which they can read if
// they have a key that it is encrypted to.
type RecordingDisclosed struct {
	SessionID string `json:"session_id"`   // of the session
	Recording int    `json:"recording"`    // its number in the session
	Bytes     uint64 `json:"bytes,string"` // that the broker has of it
}

func (RecordingDisclosed) EventType() (string, int) { return "disclosed.recording", 1 }
func (d RecordingDisclosed) Summary() string {
	return fmt.Sprintf("took recording %d of session %s", d.Recording, d.SessionID)
}
