package sshd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
)

// Path is where this machine finds a file of the host: to look at it, or to put it
// there. It is good for as long as the host runs.
func (h *Host) Path(name string) string {
	return filepath.Join("/proc", strconv.Itoa(h.process.PID()), "root", name)
}

// Command is a program that runs on the host as its root, in its namespaces and with its files.
func (h *Host) Command(ctx context.Context, program string, args ...string) *exec.Cmd {
	inside := []string{"--target", strconv.Itoa(h.process.PID()), "--mount", "--uts", "--ipc", "--pid", "--root", "--wd=/",
		"env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", program}
	return exec.CommandContext(ctx, "nsenter", append(inside, args...)...)
}

// Journal listens as the host's system log, at /dev/log, until the host ends: each
// line that a program of the host writes there is in Host.Log from then on, after
// "journal: ".
func (h *Host) Journal() error {
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: h.Path("/dev/log"), Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("listening as the host's journal: %w", err)
	}
	if err := h.Command(context.Background(), "chmod", "666", "/dev/log").Run(); err != nil {
		return errors.Join(fmt.Errorf("opening the host's journal: %w", err), c.Close())
	}
	go func() {
		<-h.process.Done()
		c.Close()
	}()
	go func() {
		line := make([]byte, 64<<10)
		for {
			n, err := c.Read(line)
			if err != nil {
				return
			}
			_, _ = fmt.Fprintf(h.log, "journal: %s\n", line[:n])
		}
	}()
	return nil
}
