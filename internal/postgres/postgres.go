// Package postgres starts private PostgreSQL clusters for the demo and the
// tests: the real server, on a loopback port and a folder of its own, gone when
// the process is gone, however that ends.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/internal/child"
	"sallyport/internal/loopback"
	"sallyport/internal/refusal"
)

// ErrNotInstalled says that no PostgreSQL server binaries were found.
var ErrNotInstalled = refusal.New(refusal.Unavailable, "postgres-not-installed",
	"no PostgreSQL server on PATH or in /usr/lib/postgresql",
	"install it: apt-get install postgresql")

// Superuser is the name of the cluster's administrator.
const Superuser = "postgres"

// Config says what kind of cluster to start.
type Config struct {
	// Dir is where the cluster's data goes. If it holds a cluster already, that
	// one is started again. Empty means a new folder that Stop removes, in
	// memory (/dev/shm) unless Durable.
	Dir string
	// Durable turns fsync on. Off, a crash of the machine loses data, and tests
	// are several times faster.
	Durable bool
	// Log receives the server's messages; nil drops them.
	Log *os.File
}

// Cluster is a running PostgreSQL server.
type Cluster struct {
	dir       string
	port      string // chosen at the first start
	temporary bool
	bin       string
	cfg       Config
	server    *child.Process
	stopOnce  sync.Once
}

// Start makes the cluster if need be, starts it and waits until it answers.
func Start(ctx context.Context, cfg Config) (*Cluster, error) {
	bin, err := findBinaries()
	if err != nil {
		return nil, err
	}
	c := &Cluster{bin: bin, cfg: cfg, dir: cfg.Dir}
	cred, err := serverCredential()
	if err != nil {
		return nil, err
	}
	if c.dir == "" {
		parent := os.TempDir()
		if _, err := os.Stat("/dev/shm"); err == nil && !cfg.Durable {
			parent = "/dev/shm"
		}
		if c.dir, err = os.MkdirTemp(parent, "sallyport-pg-"); err != nil {
			return nil, err
		}
		c.temporary = true
	} else if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return nil, err
	}
	if cred != nil {
		if err := os.Chown(c.dir, int(cred.Uid), int(cred.Gid)); err != nil {
			return nil, err
		}
	}
	if _, err := os.Stat(filepath.Join(c.dir, "PG_VERSION")); errors.Is(err, os.ErrNotExist) {
		if err := c.init(ctx, cred); err != nil {
			c.Stop()
			return nil, err
		}
	}
	if err := c.launch(ctx, cred); err != nil {
		c.Stop()
		return nil, err
	}
	return c, nil
}

func (c *Cluster) init(ctx context.Context, cred *syscall.Credential) error {
	cmd := exec.CommandContext(ctx, filepath.Join(c.bin, "initdb"),
		"--pgdata", c.dir, "--username", Superuser, "--auth", "trust",
		"--encoding", "UTF8", "--locale", "C", "--no-sync", "--no-instructions")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	return nil
}

// launch starts the server on the cluster's port, which it must have back after a
// crash because its clients know no other. Only for the first start another may be
// chosen, when some process has taken it in the meantime.
func (c *Cluster) launch(ctx context.Context, cred *syscall.Credential) error {
	first := c.port == ""
	var last error
	for range 5 {
		if first {
			address, err := loopback.Address("127.0.0.1")
			if err != nil {
				return err
			}
			if _, c.port, err = net.SplitHostPort(address); err != nil {
				return err
			}
		}
		args := []string{"-D", c.dir, "-p", c.port,
			"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=",
			"-c", "max_connections=300", "-c", "max_prepared_transactions=0"}
		if !c.cfg.Durable {
			args = append(args, "-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off")
		}
		cmd := exec.Command(filepath.Join(c.bin, "postgres"), args...)
		cmd.Dir = "/"
		if c.cfg.Log != nil {
			cmd.Stdout, cmd.Stderr = c.cfg.Log, c.cfg.Log
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
		// SIGINT asks for a fast shutdown.
		var err error
		if c.server, err = child.Start(cmd, syscall.SIGINT); err != nil {
			return fmt.Errorf("starting postgres: %w", err)
		}
		if last = c.waitReady(ctx); last == nil {
			return nil
		}
		c.kill(syscall.SIGKILL)
		if ctx.Err() != nil {
			break
		}
	}
	return fmt.Errorf("postgres did not come up: %w", last)
}

func (c *Cluster) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, c.URL("postgres", Superuser))
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-c.server.Done():
			return errors.New("the server exited at once")
		case <-ctx.Done():
			return err
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// URL is a connection string for one database and user of the cluster, which
// trusts whoever reaches its loopback port.
func (c *Cluster) URL(database, user string) string {
	u := url.URL{Scheme: "postgres", User: url.User(user),
		Host: net.JoinHostPort("127.0.0.1", c.port), Path: "/" + database,
		RawQuery: "sslmode=disable"}
	return u.String()
}

// Done is closed when the server has ended, for whatever reason. Restart replaces it.
func (c *Cluster) Done() <-chan struct{} { return c.server.Done() }

// Kill ends the server as a crash would, with SIGKILL to all its processes,
// keeping the data; Restart brings it back.
func (c *Cluster) Kill() {
	c.kill(syscall.SIGKILL)
}

// Restart starts a killed server on the same data and the same port.
func (c *Cluster) Restart(ctx context.Context) error {
	cred, err := serverCredential()
	if err != nil {
		return err
	}
	os.Remove(filepath.Join(c.dir, "postmaster.pid"))
	return c.launch(ctx, cred)
}

// Stop ends the server and removes its data if Start chose the folder.
func (c *Cluster) Stop() {
	c.stopOnce.Do(func() {
		c.kill(syscall.SIGINT)
		if c.temporary {
			os.RemoveAll(c.dir)
		}
	})
}

func (c *Cluster) kill(sig syscall.Signal) {
	if c.server == nil {
		return
	}
	children := childrenOf(c.server.PID())
	c.server.Stop(sig, 20*time.Second)
	if sig == syscall.SIGKILL {
		for _, pid := range children {
			syscall.Kill(pid, sig)
		}
	}
}

func childrenOf(pid int) []int {
	out, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return nil
	}
	var pids []int
	for _, f := range strings.Fields(string(out)) {
		if n, err := strconv.Atoi(f); err == nil {
			pids = append(pids, n)
		}
	}
	return pids
}

// findBinaries looks for the server's programs on PATH, then where Debian puts
// them (the newest version wins).
func findBinaries() (string, error) {
	if p, err := exec.LookPath("initdb"); err == nil {
		if p, err = filepath.EvalSymlinks(p); err == nil {
			return filepath.Dir(p), nil
		}
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	best, bestVersion := "", -1
	for _, p := range found {
		dir := filepath.Dir(p)
		if v, err := strconv.Atoi(filepath.Base(filepath.Dir(dir))); err == nil && v > bestVersion {
			best, bestVersion = dir, v
		}
	}
	if best == "" {
		return "", ErrNotInstalled
	}
	return best, nil
}

// serverCredential is the user to run as: PostgreSQL refuses root.
func serverCredential() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("postgres will not run as root, and there is no user postgres or nobody to run it as")
}
