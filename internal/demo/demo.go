// Package demo brings up all of Sallyport on one machine, to try: a private
// PostgreSQL, Dex with sample people, the broker and hosts with real sshd,
// all on loopback addresses. It goes the way that an administrator goes: it
// migrates, makes keys, serves, and registers the hosts through the API as the
// sample operator.
//
// Everything is fresh at each start and stops together: at Ctrl-C, when one part
// fails, and, by the kernel's hand, when the demo itself is killed.
package demo

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"sallyport/internal/child"
	"sallyport/internal/dex"
	"sallyport/internal/postgres"
	"sallyport/internal/refusal"
)

// ErrRuns says that a demo uses the folder already.
var ErrRuns = refusal.New(refusal.Conflict, "demo-runs",
	"a demo runs in this folder already", "use that one, or stop it with Ctrl-C")

// Config says where the demo happens. Both fields are required.
type Config struct {
	// Dir holds the demo's database, keys, logs and env file. What was there
	// before is removed.
	Dir string
	// Out is told how it goes and what to try.
	Out io.Writer
}

//go:embed policy.yaml
var policyText []byte

// house is a demo while it runs.
type house struct {
	cfg   Config
	ports *ports
	life  context.Context // of all of it

	database *postgres.Cluster
	provider *dex.Provider
	broker   *child.Process
	hosts    []*host
}

// Run brings the demo up, says what to try, and keeps it up until ctx ends or one
// of its parts does. Not being root, it starts itself again through sudo.
func Run(ctx context.Context, cfg Config) error {
	if os.Geteuid() != 0 {
		return becomeRoot(ctx, cfg)
	}
	ctx, cancel := onLeash(ctx)
	defer cancel()
	var err error
	if cfg.Dir, err = filepath.Abs(cfg.Dir); err != nil {
		return err
	}
	unlock, err := clear(cfg.Dir)
	if err != nil {
		return err
	}
	defer unlock()
	h := &house{cfg: cfg, life: ctx}
	defer h.stop()
	if err := h.start(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // Ctrl-C while it came up
		}
		return err
	}
	if err := h.writeEnv(); err != nil {
		return err
	}
	h.tell()
	err = h.wait(ctx)
	fmt.Fprintln(cfg.Out, "\nStopping.")
	return err
}

// clear makes the folder, or takes an old one over, and empties it. The lock on
// it goes with this process.
func clear(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	lock, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		return nil, ErrRuns.Because(err)
	}
	old, err := os.ReadDir(dir)
	for _, entry := range old {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, entry.Name())))
	}
	// Whoever came here through sudo may put files of their own beside ours.
	if uid, e := strconv.Atoi(os.Getenv("SUDO_UID")); e == nil {
		err = errors.Join(err, os.Chown(dir, uid, -1))
	}
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("emptying %s: %w", dir, err)
	}
	return func() { lock.Close() }, nil
}

func (h *house) start(ctx context.Context) error {
	began := time.Now()
	fmt.Fprintln(h.cfg.Out, "Starting PostgreSQL, an OpenID provider, the broker and five hosts …")
	var err error
	if h.ports, err = choosePorts(); err != nil {
		return err
	}
	for _, note := range h.ports.notes {
		fmt.Fprintln(h.cfg.Out, note)
	}
	group, parallel := errgroup.WithContext(ctx)
	group.Go(func() error { return h.startDatabase(parallel) })
	group.Go(func() error { return h.startProvider(parallel) })
	if err := group.Wait(); err != nil {
		return err
	}
	if err := h.startBroker(ctx); err != nil {
		return err
	}
	if err := h.startHosts(ctx); err != nil {
		return err
	}
	fmt.Fprintf(h.cfg.Out, "Up after %.1f s.\n", time.Since(began).Seconds())
	return nil
}

// wait returns nil when ctx ends, and an error when a part of the demo does.
func (h *house) wait(ctx context.Context) error {
	ended := make(chan error, 8)
	watch := func(what string, done <-chan struct{}) {
		go func() {
			<-done
			ended <- fmt.Errorf("%s has ended; its log is in %s", what, h.cfg.Dir)
		}()
	}
	watch("PostgreSQL", h.database.Done())
	watch("Dex", h.provider.Done())
	watch("the broker", h.broker.Done())
	for _, x := range h.hosts {
		watch("host "+x.name, x.sshd.Done())
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-ended:
		return err
	}
}

// stop ends what runs, the last first, and removes what is no use any more. The
// logs stay, to look at.
func (h *house) stop() {
	os.Remove(filepath.Join(h.cfg.Dir, "env"))
	for _, x := range h.hosts {
		if x.sshd != nil {
			x.sshd.Stop()
		}
	}
	if h.broker != nil {
		h.broker.Stop(syscall.SIGTERM, 10*time.Second)
	}
	if h.provider != nil {
		h.provider.Stop()
	}
	if h.database != nil {
		h.database.Stop()
	}
	if h.ports != nil {
		h.ports.release()
	}
	os.RemoveAll(h.databaseFolder())
	os.RemoveAll(h.file("keys"))
}

func (h *house) file(name string) string { return filepath.Join(h.cfg.Dir, name) }

// log makes the log file of one part.
func (h *house) log(name string) (*os.File, error) { return os.Create(h.file(name + ".log")) }
