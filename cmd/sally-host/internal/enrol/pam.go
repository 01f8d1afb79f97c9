package enrol

import (
	"bytes"
	"fmt"
	"os"
	"strings"

	"sallyport/cmd/sally-host/internal/place"
)

// PAM is the service that sshd is to PAM (pam.conf(5)).
const PAM = "/etc/pam.d/sshd"

// Hook is the line by which sessions are seen. It is required: a session that nobody
// writes down does not begin.
const Hook = "session    required     pam_exec.so quiet stdout " + place.Program + " session"

// hook adds the line.
func (e *Enroller) hook(c *changes) error {
	text, err := os.ReadFile(PAM)
	if err != nil {
		return fmt.Errorf("how sshd uses PAM: %w", err)
	}
	return c.write(PAM, hooked(text), modeOf(PAM))
}

// hooked is the service with our line: before the others' common session lines, which
// Debian includes by @include and Red Hat by include, and else before the first one.
func hooked(text []byte) []byte {
	if bytes.Contains(text, []byte(Hook)) {
		return text
	}
	text = unmark(text) // of another version
	lines := strings.SplitAfter(string(text), "\n")
	at, first := -1, -1
	for i, line := range lines {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		session := strings.TrimPrefix(f[0], "-") == "session"
		if session && first < 0 {
			first = i
		}
		if f[0] == "@include" && strings.HasPrefix(f[1], "common-session") || session && (f[1] == "include" || f[1] == "substack") {
			at = i
			break
		}
	}
	if at < 0 {
		at = first
	}
	if at < 0 {
		at = len(lines)
		if n := len(text); n > 0 && text[n-1] != '\n' {
			lines = append(lines, "\n")
			at++
		}
	}
	added := marked + "\n" + Hook + "\n"
	return []byte(strings.Join(lines[:at], "") + added + strings.Join(lines[at:], ""))
}
