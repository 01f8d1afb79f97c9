package enrol

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/broker/certs"
)

// Server is this host's sshd.
type Server struct {
	Program string // /usr/sbin/sshd
	Config  string // /etc/ssh/sshd_config
}

// HereServer is where every distribution has it.
var HereServer = Server{"/usr/sbin/sshd", "/etc/ssh/sshd_config"}

// oldest is the first version that was tried.
var oldest = Version{8, 4}

// Version asks sshd. Those before 9.2 say it with their usage.
func (s Server) Version(ctx context.Context) (Version, error) {
	out, err := exec.CommandContext(ctx, s.Program, "-V").CombinedOutput()
	// Compiled when it is needed: this program is started at every login.
	found := regexp.MustCompile(`OpenSSH_(\d+)\.(\d+)`).FindSubmatch(out)
	if found == nil {
		return Version{}, fmt.Errorf("%s does not say its version: %w", s.Program, errors.Join(err, errors.New(string(bytes.TrimSpace(out)))))
	}
	major, _ := strconv.Atoi(string(found[1])) // digits
	minor, _ := strconv.Atoi(string(found[2]))
	v := Version{major, minor}
	if v.before(oldest.Major, oldest.Minor) {
		return v, fmt.Errorf("this host has OpenSSH %s; %s or newer is needed", v, oldest)
	}
	return v, nil
}

// Test has sshd check a configuration. Before systemd has started it for the first time
// it misses a folder, and gets it.
func (s Server) Test(ctx context.Context, config string) error {
	out, err := exec.CommandContext(ctx, s.Program, "-t", "-f", config).CombinedOutput()
	if _, missing, found := strings.Cut(string(out), "Missing privilege separation directory: "); err != nil && found {
		missing, _, _ = strings.Cut(missing, "\n")
		if err := os.MkdirAll(strings.TrimSpace(missing), 0o755); err != nil {
			return err
		}
		out, err = exec.CommandContext(ctx, s.Program, "-t", "-f", config).CombinedOutput()
	}
	if err != nil {
		return fmt.Errorf("sshd -t: %w\n%s", err, bytes.TrimSpace(out))
	}
	return nil
}

// Effective is what sshd -T says: settings by keyword, in lower case; several values of
// those that can stand there more than once.
type Effective map[string][]string

func (e Effective) one(keyword string) string {
	if len(e[keyword]) == 0 {
		return "none"
	}
	return e[keyword][0]
}

// Effective asks sshd for the settings that apply to a login from an address.
func (s Server) Effective(ctx context.Context, config, login, addr string) (Effective, error) {
	cmd := exec.CommandContext(ctx, s.Program, "-T", "-f", config, "-C", "user="+login+",host="+addr+",addr="+addr)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("sshd -T: %w\n%s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	e := Effective{}
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		keyword, value, _ := strings.Cut(lines.Text(), " ")
		e[keyword] = append(e[keyword], value)
	}
	return e, nil
}

// hostKey is the file of the key that the host is to be known by: the first of sshd's
// that Sallyport takes, Ed25519 before others.
func hostKey(e Effective) (string, error) {
	best := ""
	for _, file := range e["hostkey"] {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // sshd does without, too
		}
		key, err := ssh.ParsePrivateKey(text)
		if err != nil || certs.CheckKey(key.PublicKey()) != nil {
			continue
		}
		if key.PublicKey().Type() == ssh.KeyAlgoED25519 {
			return file, nil
		}
		if best == "" {
			best = file
		}
	}
	if best == "" {
		return "", fmt.Errorf("sshd has no host key that can be used (of %s): make one with ssh-keygen -A", strings.Join(e["hostkey"], ", "))
	}
	return best, nil
}

// hasSystemd reports whether systemd runs this host (sd_booted(3)).
func hasSystemd() bool { return exists("/run/systemd/system") }

// Reload has sshd read its configuration, and returns when it listens with it.
// Connections stay.
func (s Server) Reload(ctx context.Context, e Effective) error {
	_, port, err := e.listening()
	if err != nil {
		return err
	}
	before, err := listeners(port)
	if err != nil {
		return err
	}
	again, err := s.signal(ctx, e)
	if err != nil || !again {
		return err
	}
	// sshd starts anew, in the same process, and its sockets are others then. Until it
	// does, it goes on with the old settings; and for a moment nothing listens.
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		now, err := listeners(port)
		if err != nil {
			return err
		}
		if now != "" && now != before {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("sshd was told to read its configuration, and has not within %s", patience)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// signal tells sshd, and says whether it starts anew for that.
func (s Server) signal(ctx context.Context, e Effective) (again bool, err error) {
	if hasSystemd() {
		// Debian calls it ssh, others sshd. Where a socket starts it, the socket is
		// systemd's, and sshd may not run yet: it reads the configuration when it does.
		socket := systemctl(ctx, "is-active", "--quiet", "ssh.socket") == nil || systemctl(ctx, "is-active", "--quiet", "sshd.socket") == nil
		for _, unit := range []string{"ssh.service", "sshd.service"} {
			if systemctl(ctx, "is-active", "--quiet", unit) == nil {
				return !socket, systemctl(ctx, "reload", unit)
			}
		}
		if socket {
			return false, nil
		}
	}
	file := e.one("pidfile")
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("sshd cannot be told to read its configuration: it is no unit of systemd's, and there is no %s", file)
	}
	if err != nil {
		return false, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 0 {
		return false, fmt.Errorf("%s is not sshd's", file)
	}
	if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err != nil || !strings.HasPrefix(filepath.Base(exe), "sshd") {
		return false, fmt.Errorf("process %d of %s is not sshd", pid, file)
	}
	return true, syscall.Kill(pid, syscall.SIGHUP)
}

// listeners are the inodes of the TCP sockets that listen on the port; "": none do.
func listeners(port string) (string, error) {
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return "", fmt.Errorf("sshd's port: %w", err)
	}
	suffix := fmt.Sprintf(":%04X", n)
	var inodes []string
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, err := os.ReadFile(table)
		if errors.Is(err, fs.ErrNotExist) { // no IPv6
			continue
		}
		if err != nil {
			return "", err
		}
		for line := range strings.Lines(string(text)) {
			const local, state, inode, listen = 1, 3, 9, "0A" // proc(5)
			if f := strings.Fields(line); len(f) > inode && f[state] == listen && strings.HasSuffix(f[local], suffix) {
				inodes = append(inodes, f[inode])
			}
		}
	}
	return strings.Join(inodes, " "), nil
}

func systemctl(ctx context.Context, args ...string) error {
	if out, err := exec.CommandContext(ctx, "systemctl", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("systemctl %s: %w\n%s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
