package enrol

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
)

// marked begins each line that we add to a file of others, so that it can be found.
const marked = "# sallyport: the next line was added by sally-host enroll"

// disabled begins each line of others that we had to make a comment.
const disabled = "#sallyport# "

// configs are the files of sshd's configuration, as distributions have them.
func (e *Enroller) configs() []string {
	more, _ := filepath.Glob(filepath.Join(filepath.Dir(DropIn), "*.conf")) // the pattern is good
	return append([]string{e.Server.Config}, slices.DeleteFunc(more, func(name string) bool { return name == DropIn })...)
}

// retire takes other certificates of the host's key out of sshd's configuration: of
// several it shows the last one, which is not ours.
func (e *Enroller) retire(c *changes, key ssh.PublicKey) error {
	for _, name := range e.configs() {
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		var out []string
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(strings.Replace(line, "=", " ", 1)); len(f) == 2 && strings.EqualFold(f[0], "HostCertificate") && certifies(strings.Trim(f[1], `"`), key) {
				line = disabled + line
			}
			out = append(out, line)
		}
		if err := c.write(name, []byte(strings.Join(out, "")), modeOf(name)); err != nil {
			return err
		}
	}
	return nil
}

// certifies reports whether the file has a certificate of the key.
func certifies(name string, key ssh.PublicKey) bool {
	text, err := os.ReadFile(name)
	if err != nil {
		return false
	}
	public, _, _, _, err := ssh.ParseAuthorizedKey(text)
	cert, ok := public.(*ssh.Certificate)
	return err == nil && ok && bytes.Equal(cert.Key.Marshal(), key.Marshal())
}

// include has sshd's configuration read our file before anything else. Where it does so
// already, as Debian's and Red Hat's do, nothing is changed.
func (e *Enroller) include(c *changes) error {
	text, err := os.ReadFile(e.Server.Config)
	if err != nil {
		return err
	}
	if includes(text) || bytes.Contains(text, []byte(marked)) {
		return nil
	}
	return c.write(e.Server.Config, append([]byte(marked+"\nInclude "+DropIn+"\n"), text...), modeOf(e.Server.Config))
}

// includes reports whether the first thing that the configuration says is to read our
// file, be it among others.
func includes(config []byte) bool {
	for line := range strings.Lines(string(config)) {
		fields := strings.Fields(strings.Replace(line, "=", " ", 1))
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		return strings.EqualFold(fields[0], "include") && slices.ContainsFunc(fields[1:], func(pattern string) bool {
			pattern = strings.Trim(pattern, `"`)
			if !filepath.IsAbs(pattern) {
				pattern = filepath.Join("/etc/ssh", pattern) // sshd_config(5)
			}
			fits, _ := filepath.Match(pattern, DropIn)
			return fits
		})
	}
	return false
}

// unmark takes our lines out of a file of others, and gives it back its own.
func unmark(text []byte) []byte {
	var out []string
	skip := false
	for line := range strings.Lines(string(text)) {
		switch {
		case strings.TrimSuffix(line, "\n") == marked:
			skip = true
		case skip:
			skip = false
		default:
			out = append(out, strings.TrimPrefix(line, disabled))
		}
	}
	return []byte(strings.Join(out, ""))
}
