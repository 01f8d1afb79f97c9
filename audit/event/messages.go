package event

import "fmt"

// MessageFailed records that people could not be told of something: no attempt
// to deliver the message succeeded, or there was nobody to deliver it to.
type MessageFailed struct {
	MessageID string `json:"message_id"`        // of the message
	Notice    string `json:"notice"`            // what the message was about, such as request.waiting
	Channel   string `json:"channel,omitempty"` // by its name in the configuration; empty, if there was nobody to tell
	Attempts  int    `json:"attempts"`          // how many there were
	Error     string `json:"error"`             // of the last one
}

func (MessageFailed) EventType() (string, int) { return "message.failed", 1 }
func (d MessageFailed) Summary() string {
	if d.Channel == "" {
		return "could tell nobody: " + d.Error
	}
	return fmt.Sprintf("could not deliver a message through %s: %s", d.Channel, d.Error)
}
