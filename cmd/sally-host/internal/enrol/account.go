package enrol

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"sallyport/cmd/sally-host/internal/place"
)

// account makes the account that sshd runs the helper as, unless there is one, and
// returns its group.
func (e *Enroller) account(ctx context.Context) (int, error) {
	if group, err := lookUp(place.Account); err == nil {
		return group, nil
	}
	// Nothing belongs to it, and nobody is it: no home, no shell, no password.
	cmd := exec.CommandContext(ctx, "useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent",
		"--shell", "/usr/sbin/nologin", "--comment", "asked by sshd", place.Account)
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("making the account %s: %w\n%s", place.Account, err, bytes.TrimSpace(out))
	}
	return lookUp(place.Account)
}

// openState makes the state's folder, so that what is written there from now on belongs
// to the helper's group: it can read it, and nobody else can.
func openState(p place.Place, group int) error {
	if err := os.MkdirAll(p.State(), 0o750); err != nil {
		return err
	}
	if err := errors.Join(os.Chown(p.State(), 0, group), os.Chmod(p.State(), 0o750|os.ModeSetgid)); err != nil {
		return err
	}
	return p.MakeState() // what sessions are written down in: without it none begins
}

// lookUp is the group of an account. Accounts of directories (LDAP, SSSD) are asked for
// by getent(1), as sshd would find them.
func lookUp(name string) (int, error) {
	line := ""
	if text, err := os.ReadFile("/etc/passwd"); err == nil {
		for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
			if strings.HasPrefix(lines.Text(), name+":") {
				line = lines.Text()
			}
		}
	}
	if line == "" {
		out, err := exec.Command("getent", "passwd", name).Output()
		if err != nil {
			return 0, fmt.Errorf("there is no account %s", name)
		}
		line = strings.TrimSpace(string(out))
	}
	f := strings.Split(line, ":")
	if len(f) < 4 {
		return 0, fmt.Errorf("the account %s cannot be read", name)
	}
	return strconv.Atoi(f[3])
}

// program puts this program where sshd takes it from, unless it was started there.
func (e *Enroller) program(c *changes) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if self == place.Program {
		return nil
	}
	text, err := os.ReadFile(self)
	if err != nil {
		return err
	}
	return c.write(place.Program, text, 0o755)
}
