package evidence

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/audit/event"
)

// Content is a pack's zip on its way to an auditor. Close it.
type Content struct {
	Name string
	// File is the zip, or nil if another replica has it; then Write makes it again.
	File  *os.File
	Bytes int64 // of File
	write func(context.Context, io.Writer) error
	close func() error
}

// Close lets go of the pack.
func (c *Content) Close() error { return c.close() }

// WriteTo writes the zip. What it has written when it fails is cut off, and does not
// verify.
func (c *Content) WriteTo(ctx context.Context, w io.Writer) error {
	if c.File == nil {
		return c.write(ctx, w)
	}
	_, err := io.Copy(w, c.File)
	return err
}

// Download opens a pack. That it begins to be downloaded is in the log before the
// first byte leaves.
func (s *Service) Download(ctx context.Context, c identity.Caller, action, id string) (*Content, error) {
	if err := s.cfg.Approvals.OnlyAuditors(ctx, c, action); err != nil {
		return nil, err
	}
	r, err := s.find(ctx, id)
	if err != nil {
		return nil, err
	}
	switch now := s.cfg.Clock.Now(); {
	case r.State == api.PackWaiting || r.State == api.PackRunning:
		return nil, ErrNotReady
	case r.State != api.PackReady || r.EndedAt == nil || !now.Before(r.EndedAt.Add(Kept)):
		return nil, ErrGone
	}
	content, err := s.content(r)
	if err != nil {
		return nil, err
	}
	_, err = s.cfg.Log.Record(ctx, c.Event(s.cfg.Clock.Now(), event.Subject{},
		event.PackDownloaded{PackID: r.ID, Manifest: r.Manifest}))
	if err != nil {
		return nil, errors.Join(err, content.Close())
	}
	return content, nil
}

// content opens a pack's file, or makes ready to make it again.
func (s *Service) content(r row) (*Content, error) {
	f, err := os.Open(s.path(r.ID))
	if errors.Is(err, fs.ErrNotExist) {
		if !s.again.TryAcquire(1) {
			return nil, ErrTooMany
		}
		return &Content{Name: r.fileName(),
			write: func(ctx context.Context, w io.Writer) error { _, _, err := s.write(ctx, w, r, nil); return err },
			close: func() error { s.again.Release(1); return nil },
		}, nil
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &Content{Name: r.fileName(), File: f, Bytes: info.Size(), close: f.Close}, nil
}
