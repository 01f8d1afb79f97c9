package rest

import (
	"context"
	"fmt"
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	"sallyport/api"
	"sallyport/api/hostapi"
	"sallyport/approvals/identity"
	"sallyport/broker/fleet"
	"sallyport/broker/recordings"
	"sallyport/server/problem"
)

func (a *API) recordings() {
	tag := []string{"audit"}
	register(a, huma.Operation{
		OperationID: "listRecordings", Method: http.MethodGet, Path: "/audit/recordings/{session}", Tags: tag,
		Summary: "What was recorded of a session, in order (auditors)",
	}, func(ctx context.Context, c identity.Caller, in *RecordedSessionPath) (*body[api.Page[api.Recording]], error) {
		list, err := a.Recordings.OfSession(ctx, c, "GET "+Prefix+"/audit/recordings/{session}", in.Session)
		return page(api.Page[api.Recording]{Items: list}, err)
	})
	register(a, huma.Operation{
		OperationID: "downloadRecording", Method: http.MethodGet, Path: "/audit/recordings/{session}/{number}", Tags: tag,
		Summary:     "A recording, as it is encrypted (auditors)",
		Description: "`sally audit replay` compares it with the log, and plays it with the auditor's own key. Each download is an event of the log.",
		Responses: map[string]*huma.Response{"200": {Description: "The recording",
			Content: map[string]*huma.MediaType{"application/octet-stream": {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}}}},
	}, func(ctx context.Context, c identity.Caller, in *struct {
		RecordedSessionPath
		Number int `path:"number" minimum:"1" maximum:"9999"`
	}) (*huma.StreamResponse, error) {
		content, err := a.Recordings.Open(ctx, c, "GET "+Prefix+"/audit/recordings/{session}/{number}", in.Session, in.Number)
		if err != nil {
			return nil, err
		}
		return &huma.StreamResponse{Body: func(ctx huma.Context) {
			r, w := humachi.Unwrap(ctx)
			sendRecording(w, r, content)
		}}, nil
	})
}

// RecordedSessionPath is exported because huma does not look into embedded types that are
// not.
type RecordedSessionPath struct {
	Session string `path:"session" maxLength:"32" example:"ses-4f8k2m9qhx1z"`
}

// sendRecording streams a recording. What fails on the way cuts the answer off.
func sendRecording(w http.ResponseWriter, r *http.Request, content *recordings.Content) {
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Disposition", fmt.Sprintf(`attachment; filename="%s-%d.rec"`, content.Session, content.Number))
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.FormatInt(content.Bytes, 10))
	if err := content.Write(r.Context(), &patient{w, http.NewResponseController(w)}); err != nil {
		problem.CallOf(r.Context()).Logger.WarnContext(r.Context(), "a download was cut off", "error", err)
		panic(http.ErrAbortHandler) // so that the client does not take it for the whole
	}
}

func (a *API) describeRecordingCall(calls huma.API) {
	registerHost(a, calls, huma.Operation{
		OperationID: "recordHost", Method: http.MethodPost, Path: "/host/recordings/{session}/{number}",
		Summary:     "Bring a piece of a recording of one of the host's own sessions",
		Description: "The answer says how many bytes the broker has. A piece that does not go on from there is not taken.",
	}, func(ctx context.Context, h fleet.Caller, in *struct {
		Session string `path:"session" pattern:"^[0-9a-f]{32}$" doc:"The host's own name for it"`
		Number  int    `path:"number" minimum:"1" maximum:"9999"`
		Offset  int64  `query:"offset" minimum:"0" required:"true"`
		RawBody []byte `contentType:"application/octet-stream"`
	}) (*body[hostapi.Recorded], error) {
		return reply(a.Fleet.Record(ctx, h, in.Session, in.Number, in.Offset, in.RawBody))
	})
}
