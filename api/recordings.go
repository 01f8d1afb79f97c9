package api

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"time"
)

// RecordingState is what the broker has of a recording, beside what the log says of it.
type RecordingState string

// The states of a recording.
const (
	RecordingGoesOn    RecordingState = "recording" // its end is not in the log
	RecordingComes     RecordingState = "arriving"  // its end is in the log, and the host has more of it
	RecordingWhole     RecordingState = "whole"     // it is what the log says
	RecordingDiffers   RecordingState = "differs"   // it is something else
	RecordingForgotten RecordingState = "forgotten" // its time is up
)

// Recording is what was recorded of one shell or command of a session. Nobody but
// auditors with their private key can read what it says.
type Recording struct {
	Session   string         `json:"session" example:"ses-4f8k2m9qhx1z"`
	Number    int            `json:"number" doc:"In the session, from 1"`
	State     RecordingState `json:"state" enum:"recording,arriving,whole,differs,forgotten"`
	HostID    string         `json:"host_id"`
	Host      string         `json:"host"`
	Login     string         `json:"login"`
	Request   string         `json:"request,omitempty"`
	Person    Person         `json:"person"`
	StartedAt *time.Time     `json:"started_at" doc:"By the host's clock, once its end was reported"`
	EndedAt   *time.Time     `json:"ended_at,omitempty"`
	Terminal  bool           `json:"terminal" doc:"It has a terminal's output; else what a command read and wrote"`
	Cut       string         `json:"cut,omitempty" doc:"Why it ends before what it records did"`
	Bytes     int64          `json:"bytes" doc:"That the broker has, or had"`
	Claimed   int64          `json:"claimed" doc:"That the host told of"`
	SHA256    string         `json:"sha256,omitempty" doc:"That the host told of, hex"`
	Event     *int64         `json:"event,omitempty" doc:"Where in the log its end is, with this hash"`
	RemovedAt *time.Time     `json:"removed_at,omitempty"`
}

// Recordings are those of a session, in order. Auditors only, as is the next.
func (c *Client) Recordings(ctx context.Context, session string) (Page[Recording], error) {
	return fetch[Page[Recording]](ctx, c, v1(http.MethodGet, "audit", "recordings", session))
}

// DownloadRecording writes a recording to w, as it is encrypted. It takes as long as it
// takes: ctx is what ends it.
func (c *Client) DownloadRecording(ctx context.Context, session string, number int, w io.Writer) (int64, error) {
	return c.download(ctx, v1(http.MethodGet, "audit", "recordings", session, strconv.Itoa(number)), w)
}
