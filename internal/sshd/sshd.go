// Package sshd starts hosts for the demo and the tests: the machine's own, real
// sshd, or another release's, each in namespaces and a file system of its own with its own name,
// people and /etc, yet on the machine's loopback addresses.
//
// A host is in memory only and ends with this process, however that ends. Many
// can run at once, from many processes. Making one takes root.
package sshd

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"sallyport/internal/child"
	"sallyport/internal/loopback"
	"sallyport/internal/names"
	"sallyport/internal/refusal"
)

// What a machine may lack.
var (
	ErrNotRoot = refusal.New(refusal.Unavailable, "hosts-need-root",
		"hosts with accounts of their own can only be made by root",
		"run it as root, or through sudo")
	ErrNotInstalled = refusal.New(refusal.Unavailable, "sshd-not-installed",
		"no OpenSSH server in /usr/sbin/sshd",
		"install it: apt-get install openssh-server")
)

// Config says what kind of host to start. All up to Logins but Listen is required.
type Config struct {
	// Name of the host, as its prompt shows it.
	Name string
	// Listen is a loopback address and port, such as 127.0.0.3:2222. Port 0, or
	// an empty Listen, means a free port (of 127.0.0.1).
	Listen string
	// HostKey identifies the host, and HostCertificate (authorized_keys format)
	// is what the broker made of it.
	HostKey         *HostKey
	HostCertificate string
	// UserCA is the public key (authorized_keys format) that users' certificates
	// must be signed with.
	UserCA string
	// Principals are, for each login, what its certificates may say. A login
	// without any opens to nobody.
	Principals map[string][]string
	// Logins are the host's Unix accounts, root perhaps among them.
	Logins []string
	// Accounts are others that nobody can log in to, as services have them.
	Accounts []string
	// Settings are lines of sshd_config that come before the kit's own: sshd takes
	// the first value that it finds.
	Settings string
	// System is a folder with the files of another system (see [Debian]), whose programs
	// the host has in place of this machine's.
	System string
	// Log receives sshd's log besides Host.Log; nil means nobody else does.
	Log io.Writer
}

// Host is a running host.
type Host struct {
	addr    string
	log     *logBuffer
	process *child.Process
}

// validName is a host's own name to its kernel.
var validName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

func (cfg Config) check() error {
	switch {
	case !validName.MatchString(cfg.Name):
		return fmt.Errorf("%q is not a host name", cfg.Name)
	case cfg.HostKey == nil || cfg.HostCertificate == "":
		return errors.New("a host needs its key and certificate")
	case cfg.UserCA == "":
		return errors.New("a host needs the user CA")
	case len(cfg.Logins) == 0:
		return errors.New("a host needs a login")
	}
	known := map[string]bool{}
	for _, login := range cfg.Logins {
		if !names.Login(login) || known[login] {
			return fmt.Errorf("%q is not a login, or there twice", login)
		}
		known[login] = true
	}
	for _, account := range cfg.Accounts {
		if !names.Login(account) || known[account] {
			return fmt.Errorf("%q is not an account, or there twice", account)
		}
		known[account] = true
	}
	for login := range cfg.Principals {
		if !known[login] {
			return fmt.Errorf("principals for %q, which is not a login of the host", login)
		}
	}
	return nil
}

// Start makes the host, starts its sshd and waits until that listens.
func Start(ctx context.Context, cfg Config) (*Host, error) {
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:0"
	}
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("sshd: %w", err)
	}
	if os.Geteuid() != 0 {
		return nil, ErrNotRoot
	}
	if cfg.System == "" {
		cfg.System = "/"
	}
	if _, err := os.Stat(filepath.Join(cfg.System, "/usr/sbin/sshd")); err != nil {
		return nil, ErrNotInstalled.Because(err)
	}
	ip, port, err := net.SplitHostPort(cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("sshd: address to listen on: %w", err)
	}
	if port != "0" {
		return launch(ctx, cfg, cfg.Listen)
	}
	// Another process may take a free port before sshd does; then we try the next.
	var last error
	for range 5 {
		addr, err := loopback.Address(ip)
		if err != nil {
			return nil, err
		}
		h, err := launch(ctx, cfg, addr)
		if err == nil || ctx.Err() != nil {
			return h, err
		}
		last = err
	}
	return nil, last
}

//go:embed host.sh
var script string

func launch(ctx context.Context, cfg Config, addr string) (*Host, error) {
	files, err := cfg.files(addr)
	if err != nil {
		return nil, err
	}
	h := &Host{addr: addr, log: newLogBuffer(cfg.Log)}
	cmd := exec.Command("/bin/sh", "-c", script, "host", cfg.Name, cfg.System)
	cmd.Stdin = bytes.NewReader(files)
	cmd.Stdout, cmd.Stderr = h.log, h.log
	cmd.Dir = "/"
	cmd.WaitDelay = 5 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC | syscall.CLONE_NEWPID,
	}
	// It is process 1 of its namespace: when the kernel kills it, all of the
	// host's processes go, and with the last of them its mounts.
	if h.process, err = child.Start(cmd, syscall.SIGKILL); err != nil {
		return nil, fmt.Errorf("starting host %s: %w", cfg.Name, err)
	}
	if err := h.waitReady(ctx); err != nil {
		h.Stop()
		return nil, fmt.Errorf("host %s did not come up: %w\n%s", cfg.Name, err, h.Log())
	}
	return h, nil
}

// waitReady waits for sshd's own word that it listens: whatever answers on the
// port might be somebody else.
func (h *Host) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	err := h.WaitLog(ctx, "Server listening on ")
	select {
	case <-h.process.Done():
		return errors.Join(errors.New("it ended at once"), h.process.Err())
	default:
		return err
	}
}

// Addr is where sshd listens, ip:port.
func (h *Host) Addr() string { return h.addr }

// Log is what sshd, at level VERBOSE, has said so far.
func (h *Host) Log() string { return h.log.String() }

// WaitLog waits until sshd's log contains the text, the host ends or ctx does.
func (h *Host) WaitLog(ctx context.Context, text string) error {
	for {
		changed := h.log.changed()
		if strings.Contains(h.Log(), text) {
			return nil
		}
		select {
		case <-changed:
		case <-h.process.Done():
			return fmt.Errorf("the host ended before its log said %q", text)
		case <-ctx.Done():
			return fmt.Errorf("waiting for sshd to say %q: %w", text, ctx.Err())
		}
	}
}

// Done is closed when the host has ended, for whatever reason.
func (h *Host) Done() <-chan struct{} { return h.process.Done() }

// Stop ends the host, its connections and all that runs there, at once.
func (h *Host) Stop() { h.process.Stop(syscall.SIGKILL, 5*time.Second) }
