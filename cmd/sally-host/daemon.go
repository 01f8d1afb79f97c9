package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"sallyport/api/hostapi"
	"sallyport/cmd/sally-host/internal/daemon"
	"sallyport/cmd/sally-host/internal/journal"
	"sallyport/cmd/sally-host/internal/place"
	"sallyport/cmd/sally-host/internal/posture"
)

var daemonCommand = command{
	name:    "daemon",
	summary: "hear what has ended, end it here, and tell the broker what happens",
	help: `Usage: sally-host daemon

For systemd to run (sally-host.service), as root. It waits for the broker to say what
was revoked or finished, ends those sessions with all that they started, and reports
sessions and the host's posture. What it says is in the journal:

  journalctl -t sally-host
`,
	run: func(args []string) int {
		if len(args) > 0 {
			return misused("daemon takes no arguments")
		}
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		if err := runDaemon(ctx); err != nil {
			return failed(err)
		}
		return exitDone
	},
}

func runDaemon(ctx context.Context) error {
	// The daemon does little, for months: what it has once used it need not keep.
	debug.SetGCPercent(20)
	debug.SetMemoryLimit(16 << 20)
	if os.Geteuid() != 0 {
		return errors.New("the daemon ends other people's processes: run it as root")
	}
	s, err := place.Here.Read()
	if err != nil {
		return err
	}
	key, err := s.Key(place.Here)
	if err != nil {
		return err
	}
	if err := place.Here.MakeState(); err != nil {
		return err
	}
	reports, err := openSpool(s)
	if err != nil {
		return err
	}
	return daemon.Run(ctx, daemon.Config{Place: place.Here, Key: key, Spool: reports, HTTP: caller(), Now: time.Now,
		Log: journal.Here.Notice, Renewed: reloadSSHD,
		Look: func(ctx context.Context, k daemon.Known) hostapi.Posture {
			return posture.Host{Place: place.Here, Settings: k.Settings, List: k.List, Skew: k.Skew, Heard: k.Heard, Now: time.Now, Run: posture.Run}.Look(ctx)
		}})
}

// caller makes calls with two connections: one waits for news, the other reports.
func caller() *http.Client {
	return &http.Client{Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		// A broker that is gone without a word is noticed within half a minute.
		DialContext: (&net.Dialer{Timeout: 10 * time.Second, KeepAliveConfig: net.KeepAliveConfig{
			Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}}).DialContext,
		TLSHandshakeTimeout: 10 * time.Second,
		MaxIdleConns:        2, IdleConnTimeout: 90 * time.Second,
		Protocols: http1(),
	}}
}

func http1() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	return p
}

// reloadSSHD has sshd read its configuration and certificate anew.
func reloadSSHD() error {
	for _, unit := range []string{"ssh", "sshd"} {
		if exec.Command("systemctl", "reload", unit).Run() == nil {
			return nil
		}
	}
	text, err := os.ReadFile("/run/sshd.pid")
	if err != nil {
		return errors.New("sshd could not be reloaded: neither systemd nor /run/sshd.pid knows it")
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid < 1 {
		return fmt.Errorf("/run/sshd.pid names no process: %q", text)
	}
	return syscall.Kill(pid, syscall.SIGHUP)
}
