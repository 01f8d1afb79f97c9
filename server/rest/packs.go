package rest

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/evidence"
	"sallyport/server/problem"
)

// PackPath is exported because huma does not look into embedded types that are not.
type PackPath struct {
	ID string `path:"id" maxLength:"32" example:"pack-4f8k2m9qhx1z"`
}

// makePackOutput is a pack that will be made.
type makePackOutput struct {
	Status   int
	Location string `header:"Location"`
	Body     api.Pack
}

func (a *API) packs() {
	tag := []string{"audit"}
	register(a, huma.Operation{
		OperationID: "makePack", Method: http.MethodPost, Path: "/audit/packs", Tags: tag, DefaultStatus: http.StatusAccepted,
		Summary:     "Ask for an evidence pack, which is made in the background (auditors)",
		Description: "Ask for it again until its state is ready; then download it, for as long as it is kept.",
	}, func(ctx context.Context, c identity.Caller, in *struct{ Body api.PackInput }) (*makePackOutput, error) {
		p, err := a.Evidence.Make(ctx, c, "POST "+Prefix+"/audit/packs", in.Body)
		if err != nil {
			return nil, err
		}
		return &makePackOutput{http.StatusAccepted, Prefix + "/audit/packs/" + p.ID, p}, nil
	})
	register(a, huma.Operation{
		OperationID: "listPacks", Method: http.MethodGet, Path: "/audit/packs", Tags: tag,
		Summary: "Evidence packs, newest first (auditors)",
	}, func(ctx context.Context, c identity.Caller, in *struct {
		Cursor string `query:"cursor" maxLength:"64" doc:"next of the page before"`
		Limit  int    `query:"limit" minimum:"1" maximum:"200" default:"50"`
	}) (*body[api.Page[api.Pack]], error) {
		return reply(a.Evidence.Packs(ctx, c, "GET "+Prefix+"/audit/packs", in.Cursor, in.Limit))
	})
	register(a, huma.Operation{
		OperationID: "getPack", Method: http.MethodGet, Path: "/audit/packs/{id}", Tags: tag,
		Summary: "One evidence pack, and how far it has come (auditors)",
	}, func(ctx context.Context, c identity.Caller, in *PackPath) (*body[api.Pack], error) {
		return reply(a.Evidence.Pack(ctx, c, "GET "+Prefix+"/audit/packs/{id}", in.ID))
	})
	register(a, huma.Operation{
		OperationID: "downloadPack", Method: http.MethodGet, Path: "/audit/packs/{id}/download", Tags: tag,
		Summary:     "An evidence pack's zip (auditors)",
		Description: "Verify it with `sally audit verify`. Each download is an event of the log.",
		Responses: map[string]*huma.Response{"200": {Description: "The zip",
			Content: map[string]*huma.MediaType{"application/zip": {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}}}},
	}, func(ctx context.Context, c identity.Caller, in *PackPath) (*huma.StreamResponse, error) {
		content, err := a.Evidence.Download(ctx, c, "GET "+Prefix+"/audit/packs/{id}/download", in.ID)
		if err != nil {
			return nil, err
		}
		return &huma.StreamResponse{Body: func(ctx huma.Context) {
			defer content.Close()
			r, w := humachi.Unwrap(ctx)
			send(w, r, content)
		}}, nil
	})
}

// send streams a pack. What fails on the way cuts the answer off.
func send(w http.ResponseWriter, r *http.Request, content *evidence.Content) {
	h := w.Header()
	h.Set("Content-Type", "application/zip")
	h.Set("Content-Disposition", `attachment; filename="`+content.Name+`"`)
	h.Set("Cache-Control", "no-store")
	if content.File != nil {
		h.Set("Content-Length", strconv.FormatInt(content.Bytes, 10))
	}
	if err := content.WriteTo(r.Context(), &patient{w, http.NewResponseController(w)}); err != nil {
		problem.CallOf(r.Context()).Logger.WarnContext(r.Context(), "a download was cut off", "error", err)
		panic(http.ErrAbortHandler) // so that the client does not take it for the whole
	}
}

// downloadPause is how long a download may stand still. The server's own limit is on
// answers as a whole.
const downloadPause = 2 * time.Minute

// patient moves the deadline of an answer on with every piece of it.
type patient struct {
	w  io.Writer
	rc *http.ResponseController
}

func (p *patient) Write(b []byte) (int, error) {
	if err := p.rc.SetWriteDeadline(time.Now().Add(downloadPause)); err != nil {
		return 0, err
	}
	return p.w.Write(b)
}
