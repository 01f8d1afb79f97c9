package pages

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/go-chi/chi/v5"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/audit"
	"sallyport/audit/event"
	"sallyport/audit/recording"
	"sallyport/broker/recordings"
	"sallyport/web"
)

// Recordings is what pages need of what hosts recorded. What was recorded itself, the
// script gets from the API, as `sally audit replay` does: so there is one way to it, and
// the log tells of each.
type Recordings interface {
	OfSession(ctx context.Context, c identity.Caller, action, sessionID string) ([]api.Recording, error)
	Counts(ctx context.Context, c identity.Caller, action string, sessions []string) (map[string]int, error)
}

// recordingsPage is what was recorded of a session.
type recordingsPage struct {
	Session string
	Items   []api.Recording
}

func (p *Pages) recordings(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	list, err := p.recorded(r, c)
	if err != nil {
		return err
	}
	web.Render(w, r, http.StatusOK, "recordings", recordingsPage{chi.URLParam(r, "session"), list})
	return nil
}

// recordingPage is one recording, and what plays it.
type recordingPage struct {
	api.Recording
	// Logged is what the log says of its end; nil: nothing yet, and so nothing proves
	// what it is.
	Logged *event.SessionRecorded
	// Contradicts says that the log is about something else than the broker's own books.
	Contradicts bool
	MaxBytes    int64
}

// Length is how long what was recorded took; zero if its end is not known.
func (p recordingPage) Length() time.Duration {
	if p.StartedAt == nil || p.EndedAt == nil {
		return 0
	}
	return p.EndedAt.Sub(*p.StartedAt).Round(time.Second)
}

// Source is where it is fetched from.
func (p recordingPage) Source() string {
	return fmt.Sprintf("/api/v1/audit/recordings/%s/%d", p.Session, p.Number)
}

// Command plays it elsewhere.
func (p recordingPage) Command() string {
	return fmt.Sprintf("sally audit replay %s --number %d --identity key.txt --vkey log.vkey", p.Session, p.Number)
}

// Playable reports whether the broker has something that could be what was recorded.
func (p recordingPage) Playable() bool {
	return p.State != api.RecordingForgotten && p.State != api.RecordingDiffers && !p.Contradicts && p.Bytes > 0
}

// Proved reports whether all of it can be compared with the log.
func (p recordingPage) Proved() bool { return p.State == api.RecordingWhole && p.Logged != nil }

func (p *Pages) recording(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	list, err := p.recorded(r, c)
	if err != nil {
		return err
	}
	number, err := strconv.Atoi(chi.URLParam(r, "number"))
	if err != nil {
		return recordings.ErrUnknown
	}
	for _, found := range list {
		if found.Number != number {
			continue
		}
		page := recordingPage{Recording: found, MaxBytes: recording.MaxSize}
		page.Session = chi.URLParam(r, "session") // whatever the broker's books call it
		if err := p.logged(r.Context(), &page); err != nil {
			return err
		}
		web.Render(w, r, http.StatusOK, "recording", page)
		return nil
	}
	return recordings.ErrUnknown
}

func (p *Pages) recorded(r *http.Request, c identity.Caller) ([]api.Recording, error) {
	return p.cfg.Recordings.OfSession(r.Context(), c, r.Method+" "+chi.RouteContext(r.Context()).RoutePattern(), chi.URLParam(r, "session"))
}

// logged adds what the log itself says: the broker's tables could be changed.
func (p *Pages) logged(ctx context.Context, page *recordingPage) error {
	if page.Event == nil {
		return nil
	}
	entry, err := p.cfg.Log.Entry(ctx, *page.Event)
	if errors.Is(err, audit.ErrNoEntry) {
		return nil
	}
	if err != nil {
		return err
	}
	e, err := entry.Event()
	if err != nil {
		return fmt.Errorf("reading entry %d: %w", entry.Index, err)
	}
	d, ok := e.Data.(event.SessionRecorded)
	if !ok || d.SessionID != page.Session || d.Recording != page.Number || d.Digest != page.SHA256 {
		page.Contradicts = true
		return nil
	}
	page.Logged = &d
	return nil
}

// marks are the sessions that were recorded, for auditors: others learn nothing of it.
func (p *Pages) marks(ctx context.Context, c identity.Caller, of []api.Session) (map[string]int, error) {
	if !c.Has(api.Auditor) || len(of) == 0 {
		return nil, nil
	}
	ids := make([]string, len(of))
	for i, s := range of {
		ids[i] = s.ID
	}
	return p.cfg.Recordings.Counts(ctx, c, "GET /hosts/{host}", ids)
}
