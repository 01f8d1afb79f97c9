package sshd

import (
	"bytes"
	"context"
	"fmt"
	"io"
)

// Helper is where enrolment expects sally-host.
const Helper = "/usr/lib/sallyport/sally-host"

// prepare makes the host what machines are that people enrol: sshd shows no certificate
// and says who it is in /run, and there are cgroups.
const prepare = `mkdir -p /usr/lib/sallyport && cat >` + Helper + ` && chmod 755 ` + Helper + ` &&
sed -i '/^HostCertificate/d; s/^PidFile .*/PidFile \/run\/sshd.pid/' /etc/ssh/sshd_config && echo 1 >/run/sshd.pid &&
mkdir -p /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup`

// Enroll has the host speak for itself: it installs sally-host, of which program is the
// content, enrols with a join token of the broker at the URL, and starts the daemon, whose
// log goes to log. The daemon ends with the host.
func (h *Host) Enroll(ctx context.Context, program []byte, url, token string, log io.Writer) error {
	// Written by another process: what this one has open for writing, whatever it starts at
	// that moment has open, too, and then it cannot be run.
	install := h.Command(ctx, "sh", "-c", prepare)
	install.Stdin = bytes.NewReader(program)
	if out, err := install.CombinedOutput(); err != nil {
		return fmt.Errorf("installing sally-host: %w\n%s", err, out)
	}
	if err := h.Journal(); err != nil {
		return err
	}
	if out, err := h.Command(ctx, Helper, "enroll", "--non-interactive", "--url", url, "--token", token).CombinedOutput(); err != nil {
		return fmt.Errorf("enrolling: %w\n%s", err, out)
	}
	daemon := h.Command(context.WithoutCancel(ctx), Helper, "daemon")
	daemon.Stdout, daemon.Stderr = log, log
	if err := daemon.Start(); err != nil {
		return fmt.Errorf("starting sally-host: %w", err)
	}
	go func() { _ = daemon.Wait() }()
	return nil
}
