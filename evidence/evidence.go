// Package evidence is what an auditor takes away: evidence packs, made from the log
// in the background and kept for a while. What a pack is, and how it is verified, is
// package evidence/pack's, which is pure; this package has the database.
//
//   - Only auditors ask for packs, see them and download them (P10). Each of that is
//     an event, and so is what became of a pack.
//   - A pack goes on to a signed head of the log that has the event of its being
//     asked for. So its last entry is later than its period, and nobody can leave
//     out the period's end.
//   - A pack is one file below the broker's state folder, readable by the broker
//     alone, for Kept; the newest packs count when there is more than MaxKept. A
//     replica that has no such file makes it again for a download, the same but for
//     the archive's own bytes.
package evidence

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/semaphore"

	"sallyport/approvals/identity"
	"sallyport/audit"
	"sallyport/internal/clock"
)

// Limits on packs.
const (
	// Kept is how long a pack can be downloaded.
	Kept = 24 * time.Hour
	// MaxKept is how many bytes of packs one replica keeps.
	MaxKept = 32 << 30
	// MaxWaiting is how many packs may be waiting or made at once, of all auditors.
	MaxWaiting = 20
	// maxAttempts is how often a pack is begun before it is given up.
	maxAttempts = 3
	// maxAgain is how many packs one replica makes again at once, for downloads.
	maxAgain = 2
)

// Approvals is what this room needs of the one below.
type Approvals interface {
	OnlyAuditors(ctx context.Context, c identity.Caller, action string) error
	Documents
}

// Documents are what the log names by its hash and does not hold itself.
type Documents interface {
	PolicyDocument(ctx context.Context, hash string) ([]byte, error)
	IDTokens(ctx context.Context, statements []string) (map[string]string, error)
}

// Config is what a Service needs. Every field without "optional" must be set.
type Config struct {
	Pool      *pgxpool.Pool
	Log       *audit.Log
	Approvals Approvals
	Clock     clock.Clock
	// Dir is where packs are kept, of this replica alone. Optional: then a temporary
	// one, until Run ends.
	Dir string
	// Version of the program, which packs name.
	Version string
	// Witnessed returns a signed head of the log of at least so many entries, with
	// the witnesses' cosignatures that there are. Optional: then the newest head
	// without any.
	Witnessed func(ctx context.Context, atLeast int64) ([]byte, error)
	// Trust is what packs say about whom to trust beside the log's key: lines
	// "witness" and "quorum" (c2sp.org/tlog-policy). Optional.
	Trust string
	// Logger receives what goes wrong in the background. Optional.
	Logger *slog.Logger
}

// Service makes packs. It is safe for concurrent use, also by several processes on
// one database.
type Service struct {
	cfg       Config
	temporary bool   // the folder is ours, and goes with us
	worker    string // this process's name for itself
	kick      chan struct{}
	again     *semaphore.Weighted // packs that are made again for a download
}

// New returns the service, whose folder it makes. Run makes the packs.
func New(cfg Config) (*Service, error) {
	if cfg.Pool == nil || cfg.Log == nil || cfg.Approvals == nil || cfg.Clock == nil || cfg.Version == "" {
		return nil, errors.New("evidence: pool, log, approvals, clock and version must be set")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	s := &Service{temporary: cfg.Dir == "", worker: random(), kick: make(chan struct{}, 1), again: semaphore.NewWeighted(maxAgain)}
	if s.temporary {
		cfg.Dir = filepath.Join(os.TempDir(), "sallyport-packs-"+s.worker)
	}
	s.cfg = cfg
	return s, os.MkdirAll(cfg.Dir, 0o700)
}

func random() string {
	var b [8]byte
	rand.Read(b[:]) // never fails: crypto/rand crashes the process instead
	return hex.EncodeToString(b[:])
}
