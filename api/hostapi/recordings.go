package hostapi

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// RecordingsPath is where a host brings what it records:
//
//	POST RecordingsPath/{session}/{number}?offset=N
//
// with the bytes from N on (package audit/recording has their form). The answer, a
// [Recorded], says how many the broker has; what does not go on from there it has not
// taken. Recordings come in pieces while they are made.
const RecordingsPath = "/api/v1/host/recordings"

// MaxPiece is how many bytes one such call brings.
const MaxPiece = 256 << 10

// KindSessionRecorded reports the end of a recording: SessionRecorded. The hash of what
// was recorded is so in the log, whether the broker has all of it yet or not.
const KindSessionRecorded Kind = "session.recorded"

// CodeRecordingRefused: the broker will never take this recording. The host tells so by
// an alarm, and forgets it.
const CodeRecordingRefused = "recording-refused"

// Recorded says what the broker has of a recording.
type Recorded struct {
	Bytes int64 `json:"bytes"`
}

// SessionRecorded is the end of a recording. A session has one for each shell or command
// that was started in it.
type SessionRecorded struct {
	Session    string    `json:"session"`
	Number     int       `json:"number"` // from 1
	Serial     uint64    `json:"serial,string"`
	Request    string    `json:"request,omitempty"`
	Login      string    `json:"login"`
	Bytes      int64     `json:"bytes"`      // of the ciphertext
	SHA256     string    `json:"sha256"`     // of the ciphertext, hex
	Recipients []string  `json:"recipients"` // age public keys that it is encrypted to
	StartedAt  time.Time `json:"started_at"`
	EndedAt    time.Time `json:"ended_at"`
	Terminal   bool      `json:"terminal,omitempty"` // it had one
	// Cut says why the recording ends before what it records did, if it does; all that
	// went on in the session was ended then.
	Cut string `json:"cut,omitempty"`
}

// EndUnrecorded ends a session that could not be recorded, or not any more.
const EndUnrecorded EndReason = "unrecorded"

// Record brings a piece of a recording, and returns how much of it the broker has.
func (c *Client) Record(ctx context.Context, session string, number int, offset int64, piece []byte) (Recorded, error) {
	var r Recorded
	target := fmt.Sprintf("%s/%s/%d?offset=%d", RecordingsPath, session, number, offset)
	_, answer, err := c.callAs(ctx, http.MethodPost, target, "application/octet-stream", piece, 0)
	if err != nil {
		return r, err
	}
	return r, read(answer, &r)
}
