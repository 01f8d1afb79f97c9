package evidence_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/mod/sumdb/note"

	"sallyport/approvals"
	"sallyport/audit"
	"sallyport/audit/stream"
	"sallyport/evidence"
	"sallyport/internal/clock"
)

// The test binary is its own pruning process, which kills itself at a step.
const (
	childURL    = "SALLYPORT_PRUNE_TEST_URL"
	childAdmin  = "SALLYPORT_PRUNE_TEST_ADMIN_URL"
	childKey    = "SALLYPORT_PRUNE_TEST_SKEY"
	childVkey   = "SALLYPORT_PRUNE_TEST_VKEY"
	childDir    = "SALLYPORT_PRUNE_TEST_DIR"
	childStep   = "SALLYPORT_PRUNE_TEST_STEP"
	childBefore = "SALLYPORT_PRUNE_TEST_BEFORE"
)

func child() {
	ctx := context.Background()
	die := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, "child:", err)
			os.Exit(3)
		}
	}
	signer, err := note.NewSigner(os.Getenv(childKey))
	die(err)
	pool, err := pgxpool.New(ctx, os.Getenv(childURL))
	die(err)
	admin, err := pgx.Connect(ctx, os.Getenv(childAdmin))
	die(err)
	log, err := audit.Open(ctx, audit.Config{Pool: pool, Signer: signer, VerifierKey: os.Getenv(childVkey), Clock: clock.System})
	die(err)
	go log.Run(ctx)
	head, err := log.Checkpoint(ctx)
	die(err)
	p, err := evidence.NewPruner(ctx, evidence.PrunerConfig{Log: log, Needs: approvals.Kept{Pool: pool, Log: log},
		Streams: func(ctx context.Context) ([]stream.Cursor, error) { return stream.Cursors(ctx, pool) }, Admin: admin,
		Clock: clock.NewManual(now), Dir: os.Getenv(childDir), Version: "test", By: "child", MinAge: evidence.StandardMinAge, Checkpoint: head,
		Fault: func(step string) error {
			if step == os.Getenv(childStep) {
				syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {} // until the signal arrives
			}
			return nil
		}})
	die(err)
	before, err := strconv.ParseInt(os.Getenv(childBefore), 10, 64)
	die(err)
	_, err = p.Prune(ctx, evidence.Until{Index: before})
	die(err)
}

// Killed at any step, nothing is lost, and the next run finishes it.
func TestPruneKilledAtEveryStep(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	must(t, err)
	for _, step := range []string{"planned", "archived", "verified", "logged", "removing", "removed"} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			s := newStore(t, 600)
			cmd := exec.CommandContext(t.Context(), exe)
			cmd.Env = append(os.Environ(), childURL+"="+s.db.URL, childAdmin+"="+s.db.AdminURL, childKey+"="+s.skey, childVkey+"="+s.key.Verifier,
				childDir+"="+s.dir, childStep+"="+step, childBefore+"=512")
			out, err := cmd.CombinedOutput()
			if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
				t.Fatalf("the child ended with %v\n%s", err, out)
			}
			// The server may need a moment to see that the client is gone.
			for deadline := time.Now().Add(20 * time.Second); s.count(`SELECT count(*) FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
				WHERE l.locktype = 'advisory' AND a.datname = current_database()`) > 0; time.Sleep(5 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("the killed process still holds its locks")
				}
			}
			if want := map[bool]int64{true: 512}[step == "removed"]; s.oldest() != want {
				t.Errorf("the oldest entry is %d, want %d", s.oldest(), want)
			}
			if err := s.check(); err != nil {
				t.Errorf("after the kill: %v", err)
			}
			_, err = s.pruner(nil).Prune(t.Context(), evidence.Until{Index: 512})
			if step == "removed" {
				refused(t, err, evidence.ErrNothingToPrune)
			} else {
				must(t, err)
			}
			records, err := s.log.Prunes(t.Context())
			must(t, err)
			if s.oldest() != 512 || len(records) != 1 || records[0].Before != 512 || len(s.archives()) != 1 {
				t.Errorf("the oldest entry is %d, there are the records %+v and the archives %v", s.oldest(), records, s.archives())
			}
			if err := s.check(); err != nil {
				t.Error(err)
			}
		})
	}
}
