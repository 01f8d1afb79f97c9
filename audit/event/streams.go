package event

import (
	"fmt"
	"time"
)

// Streams: where the log goes as it grows.

// StreamStarted records that the log goes somewhere that it did not go before.
type StreamStarted struct {
	Stream      string `json:"stream"`           // its name in the file of streams
	Destination string `json:"destination"`      // without secrets
	Before      string `json:"before,omitempty"` // where it went until now, without secrets
	Next        uint64 `json:"next,string"`      // index of the first entry that goes there
}

func (StreamStarted) EventType() (string, int) { return "stream.started", 1 }
func (d StreamStarted) Summary() string {
	return fmt.Sprintf("sends the log to %s, from entry %d on", d.Destination, d.Next)
}

// StreamLagging records that a receiver has not taken the log for too long.
type StreamLagging struct {
	Stream string    `json:"stream"`      // its name in the file of streams
	Next   uint64    `json:"next,string"` // index of the entry that waits
	Since  time.Time `json:"since"`       // when it began to wait
	Reason string    `json:"reason"`      // why the receiver does not take it, in words for people
}

func (StreamLagging) EventType() (string, int) { return "stream.lagging", 1 }
func (d StreamLagging) Summary() string {
	return fmt.Sprintf("cannot send the log to %s since %s: %s", d.Stream, d.Since.Format("2006-01-02 15:04 MST"), d.Reason)
}

// StreamCaughtUp records that a receiver takes the log again.
type StreamCaughtUp struct {
	Stream string `json:"stream"`      // its name in the file of streams
	Next   uint64 `json:"next,string"` // index of the first entry that it has not taken yet
}

func (StreamCaughtUp) EventType() (string, int) { return "stream.caught_up", 1 }
func (d StreamCaughtUp) Summary() string        { return "sends the log to " + d.Stream + " again" }
