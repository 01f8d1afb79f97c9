package posture

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"sallyport/cmd/sally-host/internal/place"
)

// account is a line of /etc/passwd (passwd(5)).
type account struct {
	name, password, home, shell string
	uid                         uint32
}

// enters reports whether the account's shell lets anybody in.
func (a account) enters() bool {
	return !strings.HasSuffix(a.shell, "/nologin") && !strings.HasSuffix(a.shell, "/false") && !strings.HasSuffix(a.shell, "/sync")
}

const maxFile = 4 << 20

// people are the host's accounts. Those of a directory service cannot be listed.
func (h *Host) people() ([]account, error) {
	if h.accounts != nil {
		return h.accounts, nil
	}
	if text, err := h.Place.ReadAtMost("etc/nsswitch.conf", maxFile); err == nil {
		for line := range strings.Lines(string(text)) {
			names, ok := strings.CutPrefix(strings.TrimSpace(line), "passwd:")
			for _, source := range strings.Fields(names) {
				if ok && !slices.Contains([]string{"files", "compat", "systemd"}, source) && !strings.HasPrefix(source, "[") {
					return nil, fmt.Errorf("accounts come from %s as well, which does not list them (/etc/nsswitch.conf)", source)
				}
			}
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	text, err := h.Place.ReadAtMost("etc/passwd", maxFile)
	if err != nil {
		return nil, err
	}
	var all []account
	for line := range strings.Lines(string(text)) {
		f := strings.Split(strings.TrimRight(line, "\n"), ":")
		if len(f) != 7 {
			return nil, fmt.Errorf("/etc/passwd has a line that is no account: %q", line)
		}
		uid, err := strconv.ParseUint(f[2], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("/etc/passwd: the number of %s cannot be read", f[0])
		}
		all = append(all, account{name: f[0], password: f[1], uid: uint32(uid), home: f[5], shell: f[6]})
	}
	h.accounts = all
	return all, nil
}

func (h *Host) lookAtRoot(context.Context) (findings []string, err error) {
	all, err := h.people()
	for _, a := range all {
		if a.uid == 0 && a.name != "root" {
			findings = append(findings, fmt.Sprintf("%s has the number of root", a.name))
		}
	}
	return findings, err
}

func (h *Host) lookAtPasswords(context.Context) (findings []string, err error) {
	all, err := h.people()
	if err != nil {
		return nil, err
	}
	for _, a := range all {
		if a.password != "x" && !locked(a.password) {
			findings = append(findings, fmt.Sprintf("%s has a password, or none to be asked for, in /etc/passwd", a.name))
		}
	}
	text, err := h.Place.ReadAtMost("etc/shadow", maxFile)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Split(line, ":")
		switch {
		case len(f) < 2:
			return nil, errors.New("/etc/shadow has a line that is no account")
		case f[1] == "":
			findings = append(findings, fmt.Sprintf("%s needs no password", f[0]))
		case !locked(f[1]):
			findings = append(findings, fmt.Sprintf("%s has a password", f[0]))
		}
	}
	return findings, nil
}

// locked reports whether no password fits (shadow(5)).
func locked(password string) bool {
	return strings.HasPrefix(password, "!") || strings.HasPrefix(password, "*")
}

func (h *Host) lookAtSudo(ctx context.Context) (findings []string, err error) {
	if text, err := h.Place.ReadAtMost("etc/doas.conf", maxFile); err == nil && strings.Contains(string(text), "permit") {
		findings = append(findings, "doas has rules (/etc/doas.conf)")
	}
	if _, err := h.Place.ReadAtMost("etc/sudoers", maxFile); errors.Is(err, fs.ErrNotExist) {
		return findings, nil // there is no sudo
	}
	all, err := h.people()
	if err != nil {
		return nil, err
	}
	for _, a := range all {
		if a.uid == 0 || slices.Contains(h.Settings.Logins, a.name) || a.name == place.Account {
			continue
		}
		out, err := h.Run(ctx, "sudo", "-n", "-l", "-U", a.name)
		switch {
		case strings.Contains(string(out), "is not allowed to run sudo"):
		case strings.Contains(string(out), "may run the following"):
			findings = append(findings, fmt.Sprintf("%s may use sudo", a.name))
		case err != nil:
			return nil, err
		default:
			return nil, fmt.Errorf("sudo did not say what %s may do", a.name)
		}
	}
	return findings, nil
}
