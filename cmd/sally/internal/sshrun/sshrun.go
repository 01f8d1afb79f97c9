// Package sshrun runs the person's own ssh with a grant's certificate.
//
// Everything that the person has configured for ssh stays in force, but for what
// decides which key is shown and which host is trusted: that is given on the
// command line, which ssh reads before any file. What comes from the broker is
// checked first, because ssh would take much of it for options or commands.
package sshrun

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/crypto/ssh"

	"sallyport/api"
	"sallyport/cmd/sally/internal/grantkey"
	"sallyport/internal/refusal"
)

var (
	errNoSSH = refusal.New(refusal.Unavailable, "no-ssh",
		"there is no ssh on this computer", "install OpenSSH's client, or use: sally cert")
	errUnfit = refusal.New(refusal.Unavailable, "unfit-answer",
		"the broker's answer does not fit what was asked", "tell whoever runs the broker")
)

var (
	hostName = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9._-]{0,252}[A-Za-z0-9_.])?$`)
	login    = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,31}$`)
	hostLine = regexp.MustCompile(`^@cert-authority [A-Za-z0-9._:,\[\]-]+ [a-z0-9@.-]+ [A-Za-z0-9+/=]+( [ -~]*)?$`)
)

// Check makes sure that a certificate is what was asked for, a login on the host of
// that id, and that how to
// connect is safe to hand to ssh.
func Check(c api.Certificate, publicKey, wantedLogin, wantedHost string) error {
	connect := c.Connect
	_, notIP := netip.ParseAddr(connect.Address)
	switch {
	case connect.Login != wantedLogin || !login.MatchString(connect.Login):
		return errUnfit.With("the broker's answer is about login %q", connect.Login)
	case notIP != nil && !hostName.MatchString(connect.Address), strings.Contains(connect.Address, "%"):
		return errUnfit.With("the broker says the host's address is %q", connect.Address)
	case connect.Port < 1 || connect.Port > 65535:
		return errUnfit.With("the broker says the host's port is %d", connect.Port)
	case connect.HostKeyAlias != wantedHost || !hostName.MatchString(connect.HostKeyAlias):
		return errUnfit.With("the broker calls the host %q", connect.HostKeyAlias)
	case len(c.KnownHosts) == 0:
		return errUnfit.With("the broker does not say which host key to trust")
	}
	for _, line := range c.KnownHosts {
		if !hostLine.MatchString(line) {
			return errUnfit.With("the broker wants this host key trusted: %q", line)
		}
	}
	parsed, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(c.Certificate))
	certificate, ok := parsed.(*ssh.Certificate)
	if err != nil || !ok || len(rest) > 0 || certificate.CertType != ssh.UserCert {
		return errUnfit.With("the broker's answer is not one user certificate").Because(err)
	}
	ours, _, _, _, err := ssh.ParseAuthorizedKey([]byte(publicKey))
	if err != nil || !bytes.Equal(ours.Marshal(), certificate.Key.Marshal()) {
		return errUnfit.With("the broker certified another key").Because(err)
	}
	// P2: one login on one host. A certificate for more is not what anybody
	// approved, and not ours to use.
	want := connect.Login + "@" + connect.HostKeyAlias
	if len(certificate.ValidPrincipals) != 1 || certificate.ValidPrincipals[0] != want {
		return errUnfit.With("the broker's certificate is for %q, not for %s", certificate.ValidPrincipals, want)
	}
	return nil
}

// option is one line of ssh_config.
type option struct{ name, value string }

// options are what decides about keys and hosts.
func options(c api.Connect, f grantkey.Files, inAgent bool) []option {
	o := []option{
		{"HostName", c.Address},
		{"Port", strconv.Itoa(c.Port)},
		{"User", c.Login},
		// This key with this certificate, before any other, and with an agent
		// full of keys no others: hosts count wrong ones (MaxAuthTries).
		{"IdentityFile", Quote(f.Identity)},
		{"CertificateFile", Quote(f.Certificate)},
		{"IdentitiesOnly", "yes"},
		{"PreferredAuthentications", "publickey"},
		// The host shows a certificate of the broker's host CA, under the host's
		// id. Nothing else that the person trusts counts, and nothing is asked.
		{"HostKeyAlias", c.HostKeyAlias},
		{"UserKnownHostsFile", Quote(f.KnownHosts)},
		{"GlobalKnownHostsFile", "/dev/null"},
		{"StrictHostKeyChecking", "yes"},
		{"NoHostAuthenticationForLocalhost", "no"},
		{"VerifyHostKeyDNS", "no"},
		{"UpdateHostKeys", "no"},
		// A connection shared with an earlier ssh would go on under that one's
		// certificate, and past its grant.
		{"ControlMaster", "no"},
		{"ControlPath", "none"},
	}
	if inAgent {
		o = append(o, option{"IdentityAgent", "SSH_AUTH_SOCK"})
	}
	return o
}

// Quote makes a path one word for ssh's configuration: it may hold spaces, and
// per cent signs are ssh's.
func Quote(path string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `%`, `%%`).Replace(path) + `"`
}

// ShellWord quotes a path for a shell, if it needs that.
func ShellWord(path string) string {
	safe := func(r rune) bool {
		return r == '/' || r == '.' || r == '-' || r == '_' || r == '@' || r == '+' ||
			'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
	}
	if strings.IndexFunc(path, func(r rune) bool { return !safe(r) }) < 0 {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}

// Command is ssh's command line. host is what the person calls the host, so that
// their own configuration for that name applies; extra is theirs.
func Command(host string, c api.Connect, f grantkey.Files, inAgent bool, extra []string) ([]string, error) {
	if !hostName.MatchString(host) {
		return nil, fmt.Errorf("%q is no name of a host", host)
	}
	command := []string{"ssh"}
	for _, o := range options(c, f, inAgent) {
		command = append(command, "-o", o.name+"="+o.value)
	}
	return append(append(command, host), extra...), nil
}

// Config is the same for an ssh_config file.
func Config(host string, c api.Connect, f grantkey.Files, inAgent bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Host %s\n", host)
	for _, o := range options(c, f, inAgent) {
		fmt.Fprintf(&b, "  %s %s\n", o.name, o.value)
	}
	return b.String()
}

// Find is the person's ssh.
func Find() (string, error) {
	path, err := exec.LookPath("ssh")
	if err != nil {
		return "", errNoSSH.Because(err)
	}
	return path, nil
}

// Become replaces this process by ssh. It returns only if that fails.
func Become(path string, command []string) error {
	return fmt.Errorf("run ssh: %w", syscall.Exec(path, command, os.Environ()))
}

// Run runs ssh on this process's terminal and returns its exit code, for callers
// that have something to clean up afterwards.
func Run(path string, command []string) (int, error) {
	// ssh gets what the terminal sends to the foreground (Ctrl-C goes to both
	// of us) and decides what it means; what is sent to this process alone is
	// passed on.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	cmd := &exec.Cmd{Path: path, Args: command, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("run ssh: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case s := <-signals:
			if s == syscall.SIGTERM || s == syscall.SIGHUP {
				cmd.Process.Signal(s)
			}
		case err := <-ended:
			if failed, ok := errors.AsType[*exec.ExitError](err); ok {
				if status, ok := failed.Sys().(syscall.WaitStatus); ok && status.Signaled() {
					return 128 + int(status.Signal()), nil // as shells report it
				}
				return failed.ExitCode(), nil
			}
			return 0, err
		}
	}
}
