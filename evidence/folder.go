package evidence

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sallyport/api"
	"sallyport/internal/ids"
)

// The folder of packs that one replica keeps.

// limited refuses to write more than it may.
type limited struct {
	w    *bufio.Writer
	left int64
}

func (l *limited) Write(p []byte) (int, error) {
	if l.left -= int64(len(p)); l.left < 0 {
		return 0, fmt.Errorf("the pack is larger than %d bytes", int64(MaxKept))
	}
	return l.w.Write(p)
}

const extension, partial = ".zip", ".partial"

func (s *Service) path(id string) string { return filepath.Join(s.cfg.Dir, id+extension) }

// makeRoom removes the oldest files while there are more bytes than MaxKept.
func (s *Service) makeRoom() {
	type kept struct {
		path  string
		bytes int64
		at    time.Time
	}
	var list []kept
	var all int64
	entries, err := os.ReadDir(s.cfg.Dir)
	if err != nil {
		return
	}
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil && strings.HasSuffix(entry.Name(), extension) {
			list = append(list, kept{filepath.Join(s.cfg.Dir, entry.Name()), info.Size(), info.ModTime()})
			all += info.Size()
		}
	}
	slices.SortFunc(list, func(a, b kept) int { return a.at.Compare(b.at) })
	for _, k := range list {
		if all <= MaxKept/2 { // room for the next one
			return
		}
		if os.Remove(k.path) == nil {
			all -= k.bytes
		}
	}
}

// clean expires packs that were kept for long enough, and removes their files and
// what a process that died left behind.
func (s *Service) clean(ctx context.Context) {
	_, err := s.cfg.Pool.Exec(ctx, `UPDATE evidence_packs SET state = 'expired' WHERE state = 'ready' AND ended_at < $1`,
		s.cfg.Clock.Now().Add(-Kept))
	if err != nil {
		if ctx.Err() == nil {
			s.cfg.Logger.Error("expiring evidence packs failed", "error", err)
		}
		return
	}
	entries, err := os.ReadDir(s.cfg.Dir)
	if err != nil {
		return
	}
	for _, entry := range entries {
		id, _, _ := strings.Cut(entry.Name(), ".")
		if !ids.Valid(ids.Pack, id) {
			// A writer's own folder, if no writer can be at it any more.
			if info, err := entry.Info(); err == nil && entry.IsDir() && time.Since(info.ModTime()) > Kept {
				os.RemoveAll(filepath.Join(s.cfg.Dir, entry.Name()))
			}
			continue
		}
		half := strings.HasSuffix(entry.Name(), partial)
		if r, err := s.find(ctx, id); err == nil && (r.State == api.PackExpired || r.State == api.PackFailed || half && r.State != api.PackRunning) {
			os.Remove(filepath.Join(s.cfg.Dir, entry.Name()))
		}
	}
}
