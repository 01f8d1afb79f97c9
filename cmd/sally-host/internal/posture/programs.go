package posture

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"sallyport/cmd/sally-host/internal/session"
)

// process is one that runs.
type process struct {
	pid, parent int

	name string // of the program, as the kernel has it
	line string // with its arguments
}

// entered is the login that somebody entered by, or says they are, if the process is
// sshd's for their connection. Its title says so, of the monitor, which is root's, and of
// what it starts in the login's name, or of the one process for both that root has before
// OpenSSH 10.0:
//
//	sshd: dba [priv]
//	sshd: dba
//	sshd-session: dba@pts/0,pts/1
//
// Whatever is not known to be something else is somebody.
func (p process) entered() string {
	program, title, _ := strings.Cut(p.line, ": ")
	if !strings.HasPrefix(p.name, "sshd") || !strings.HasPrefix(program, "sshd") || strings.Contains(program, " ") {
		return ""
	}
	login, monitor := strings.CutSuffix(title, " [priv]")
	if strings.Contains(login, "[") || strings.HasPrefix(login, "/") { // accepted, net, pam; and the listener's command line
		return ""
	}
	if i := strings.LastIndex(login, "@"); i > 0 && onTerminals(login[i+1:]) && !monitor {
		login = login[:i]
	}
	return login
}

// onTerminals reports whether it is what sshd puts behind a login and @.
func onTerminals(s string) bool {
	return s == "notty" || s == "internal-sftp" || strings.HasPrefix(s, "pts/") || strings.HasPrefix(s, "tty")
}

// monitors reports whether the process is sshd's that watches over another for the
// connection.
func (p process) monitors() bool { return strings.HasSuffix(p.line, " [priv]") }

// asks reports whether the process is sshd's for somebody who has not been let in yet.
func (p process) asks() bool {
	return strings.HasPrefix(p.name, "sshd") && strings.HasSuffix(p.line, " [net]")
}

// running are the processes, read once.
func (h *Host) running() ([]process, error) {
	if h.processes != nil {
		return h.processes, nil
	}
	entries, err := os.ReadDir(h.Place.Join("proc"))
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		name, err := os.ReadFile(h.Place.Join("proc/" + e.Name() + "/comm"))
		if err != nil {
			continue // it has ended
		}
		line, _ := os.ReadFile(h.Place.Join("proc/" + e.Name() + "/cmdline"))
		parent, err := session.ParentOf(h.Place, pid)
		if err != nil {
			continue
		}
		h.processes = append(h.processes, process{pid, parent, strings.TrimSpace(string(name)),
			strings.TrimRight(strings.ReplaceAll(string(line), "\x00", " "), " ")})
	}
	return h.processes, nil
}

// exist are those of the files that are there, with content.
func (h *Host) exist(patterns ...string) (found []string, err error) {
	for _, p := range patterns {
		files, err := filepath.Glob(h.Place.Join(p))
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			if _, err := os.Lstat(f); err == nil {
				found = append(found, strings.TrimPrefix(f, strings.TrimSuffix(h.Place.Root, "/")))
			}
		}
	}
	return found, nil
}

// screens are programs that let somebody in at the machine itself.
var screens = []string{"gdm", "gdm3", "lightdm", "sddm", "xdm", "lxdm", "greetd"}

// A console asks for a password, and none fits (check passwords). What does not ask for
// one is found here.
func (h *Host) lookAtConsoles(context.Context) (findings []string, err error) {
	all, err := h.running()
	if err != nil {
		return nil, err
	}
	for _, p := range all {
		f := strings.Fields(p.line)
		switch {
		case slices.Contains(screens, p.name):
			findings = append(findings, p.name+" offers a login screen")
		case strings.HasSuffix(p.name, "getty") && slices.ContainsFunc(f, func(a string) bool {
			return a == "-a" || strings.HasPrefix(a, "--autologin") || a == "-n" || a == "--skip-login" || a == "-l" || strings.HasPrefix(a, "--login-program")
		}):
			findings = append(findings, "a console logs in by itself: "+p.line)
		}
	}
	line, err := h.Place.ReadAtMost("proc/cmdline", maxFile)
	if err != nil {
		return nil, err
	}
	for _, word := range strings.Fields(string(line)) {
		if name, _, _ := strings.Cut(word, "="); slices.Contains([]string{"systemd.debug-shell", "systemd.debug_shell", "single", "rd.break", "SYSTEMD_SULOGIN_FORCE"}, name) {
			findings = append(findings, "the kernel was started with "+word)
		}
	}
	files, err := h.exist("etc/systemd/system/*.wants/debug-shell.service", "etc/systemd/system/*getty*.d/*.conf")
	for _, f := range files {
		text, rerr := h.Place.ReadAtMost(f, maxFile)
		if strings.HasSuffix(f, "debug-shell.service") || rerr != nil || strings.Contains(string(text), "autologin") {
			findings = append(findings, "a console asks for nothing: "+f)
		}
	}
	return findings, err
}

// openers are programs by which somebody gets in beside sshd, or that put keys, accounts
// and sshd's settings back.
var openers = map[string]string{
	"amazon-ssm-agen": "AWS Systems Manager opens shells", // the kernel keeps 15 characters
	"ssm-agent-worke": "AWS Systems Manager opens shells",
	"google_guest_ag": "Google's guest agent makes accounts and keys",
	"google_osconfig": "Google's OS configuration agent runs what the project says",
	"waagent":         "Azure's agent makes accounts and runs extensions",
	"WALinuxAgent":    "Azure's agent makes accounts and runs extensions",
	"qemu-ga":         "QEMU's guest agent runs what the machine's owner says",
	"vmtoolsd":        "VMware's tools run what the machine's owner says",
	"cockpit-ws":      "Cockpit has a terminal in the browser",
	"cockpit-tls":     "Cockpit has a terminal in the browser",
	"tailscaled":      "Tailscale can serve SSH itself",
	"teleport":        "Teleport serves SSH itself",
	"dropbear":        "another SSH server runs: dropbear",
	"in.telnetd":      "telnet is served",
	"ttyd":            "ttyd has a terminal in the browser",
	"shellinaboxd":    "Shell In A Box has a terminal in the browser",
	"snmpd":           "snmpd can run programs",
}

func (h *Host) lookAtReopeners(context.Context) (findings []string, err error) {
	all, err := h.running()
	if err != nil {
		return nil, err
	}
	for _, p := range all {
		if why, found := openers[p.name]; found {
			findings = append(findings, why)
		}
	}
	people, err := h.people()
	if err != nil {
		return nil, err
	}
	patterns := []string{"var/spool/cron/crontabs/*", "var/spool/cron/[a-z_]*", "var/spool/cron/atjobs/[a-z]*", "var/spool/at/[a-z]*", "var/lib/systemd/linger/*"}
	for _, a := range people {
		if a.uid != 0 && a.enters() {
			patterns = append(patterns, filepath.Join(a.home, ".config/systemd/user/*"))
		}
	}
	files, err := h.exist(patterns...)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		switch {
		case slices.Contains([]string{"crontabs", "atjobs", "atspool", "spool"}, filepath.Base(f)) || filepath.Base(f) == "root":
			// folders; and root's crontab, which is the host's own
		default:
			findings = append(findings, "something is set up to run after a session: "+f)
		}
	}
	if files, err := h.exist("usr/bin/cloud-init"); err != nil {
		return nil, err
	} else if len(files) > 0 {
		if off, err := h.exist("etc/cloud/cloud-init.disabled"); err != nil || len(off) == 0 {
			findings = append(findings, "cloud-init may put keys and accounts back at the next start (touch /etc/cloud/cloud-init.disabled)")
		}
	}
	sockets, err := h.exist("run/docker.sock", "run/podman/podman.sock", "run/containerd/containerd.sock", "run/crio/crio.sock", "var/snap/lxd/common/lxd/unix.socket")
	for _, f := range sockets {
		findings = append(findings, "whoever may write to it is root: "+f)
	}
	return findings, err
}

// lookAtRunning compares when sshd last read its settings with when they were changed.
// sshd keeps its number and its start when it is reloaded; its pid file is new then.
func (h *Host) lookAtRunning(ctx context.Context) (findings []string, err error) {
	if exe, err := os.Readlink(h.Place.Join("proc/self/exe")); err == nil && strings.HasSuffix(exe, " (deleted)") {
		findings = append(findings, "the daemon's program was replaced since it was started")
	}
	all, err := h.running()
	if err != nil {
		return nil, err
	}
	read := time.Time{}
	for _, p := range all {
		if p.name != "sshd" || strings.HasPrefix(p.line, "sshd: ") && !strings.Contains(p.line, "[listener]") {
			continue
		}
		at, err := h.startOf(p.pid)
		if err != nil {
			continue // it has ended
		}
		if at.After(read) {
			read = at
		}
	}
	if read.IsZero() {
		listening, err := h.listeners()
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(listening, func(l listener) bool { return l.program == systemd }) {
			return findings, nil // it is started, and reads, when somebody comes
		}
		return append(findings, "sshd does not run"), nil
	}
	asked, err := h.ask(ctx)
	if err != nil {
		return nil, err
	}
	if name := asked[0].settings["pidfile"]; len(name) == 1 && name[0] != "none" {
		if info, err := os.Stat(h.Place.Join(name[0])); err == nil && info.ModTime().After(read) {
			read = info.ModTime()
		}
	}
	for _, file := range h.sshdFiles() {
		info, err := os.Stat(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return nil, errors.New("the file system does not say when files were changed")
		}
		if time.Unix(st.Ctim.Unix()).After(read) {
			findings = append(findings, fmt.Sprintf("sshd has not read %s since it was changed", strings.TrimPrefix(file, strings.TrimSuffix(h.Place.Root, "/"))))
		}
	}
	return findings, nil
}

// startOf is when a process was started, to the second.
func (h *Host) startOf(pid int) (time.Time, error) {
	text, err := h.Place.ReadAtMost("proc/stat", maxFile)
	if err != nil {
		return time.Time{}, err
	}
	p, err := session.ProcessOf(h.Place, pid)
	if err != nil {
		return time.Time{}, err
	}
	for line := range strings.Lines(string(text)) {
		if seconds, ok := strings.CutPrefix(line, "btime "); ok {
			boot, err := strconv.ParseInt(strings.TrimSpace(seconds), 10, 64)
			const ticks = 100 // of a second, whatever the kernel's own (time(7), USER_HZ)
			return time.Unix(boot+1, 0).Add(time.Duration(p.Start) * time.Second / ticks), err
		}
	}
	return time.Time{}, errors.New("the kernel does not say when it was started")
}
