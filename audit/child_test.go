package audit_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"sallyport/audit"
	"sallyport/internal/pgtest"
)

// The test binary is its own sequencer process, which kills itself at a step.
const (
	childURL  = "SALLYPORT_AUDIT_TEST_URL"
	childKey  = "SALLYPORT_AUDIT_TEST_SKEY"
	childVkey = "SALLYPORT_AUDIT_TEST_VKEY"
	childStep = "SALLYPORT_AUDIT_TEST_STEP"
)

// steps are all steps that Config.Fault is called at.
var steps = []string{"lock", "append", "commit", "committed"}

// child sequences until it is killed, by itself, at its step.
func child(url string) {
	ctx := context.Background()
	die := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, "child:", err)
			os.Exit(3)
		}
	}
	k, err := keysOf(os.Getenv(childKey), os.Getenv(childVkey))
	die(err)
	pool, err := pgxpool.New(ctx, url)
	die(err)
	cfg := config(pool, k)
	cfg.Fault = func(step string) error {
		if step == os.Getenv(childStep) {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // until the signal arrives
		}
		return nil
	}
	l, err := audit.Open(ctx, cfg)
	die(err)
	die(l.Run(ctx))
}

func TestP8_ASequencerKilledAtEveryStep(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range steps {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			db, k := pgtest.New(t), newKeys(t, "log.example.com")
			l := open(t, config(db.Pool, k))
			before := closed("req-before")
			if err := stage(t.Context(), db.Pool, l, before); err != nil {
				t.Fatal(err)
			}

			cmd := exec.CommandContext(t.Context(), exe)
			cmd.Env = append(os.Environ(), childURL+"="+db.URL, childKey+"="+k.skey, childVkey+"="+k.vkey, childStep+"="+step)
			out, err := cmd.CombinedOutput()
			status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
			if !ok || status.Signal() != syscall.SIGKILL {
				t.Fatalf("the child ended with %v\n%s", err, out)
			}
			want := int64(0)
			if step == "committed" {
				want = 1
			}
			// The server may need a moment to see that the client is gone.
			eventually(t, "the killed sequencer's transaction is over", func() bool {
				conn := connect(t, db.URL)
				_, err := conn.Exec(t.Context(), "SET lock_timeout = '1s'; SELECT audit.lock_head()")
				return err == nil
			})
			if tree := checkAll(t, db.Pool, k); tree.N != want {
				t.Errorf("the log has %d entries, want %d", tree.N, want)
			}

			run(t, l)
			after := closed("req-after")
			if err := stage(t.Context(), db.Pool, l, after); err != nil {
				t.Fatal(err)
			}
			entries, err := l.Wait(t.Context(), before.ID, after.ID)
			if err != nil || entries[0].Index != 0 || entries[1].Index != 1 {
				t.Errorf("after the crash: %v, %v", entries, err)
			}
			if tree := checkAll(t, db.Pool, k); tree.N != 2 {
				t.Errorf("the log has %d entries, want 2", tree.N)
			}
		})
	}
}
