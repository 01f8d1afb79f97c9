package session

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"sallyport/cmd/sally-host/internal/place"
)

// A session that has to be recorded has a cgroup in its own for each of its recordings.
// What runs outside of these, and is not sshd's, nobody records.

// recordedPrefix begins the names of those cgroups.
const recordedPrefix = "recorded-"

// Startup is how long what sshd starts may take until it asks to be recorded: sshd starts
// it through the login's shell, which may read files first.
const Startup = 10 * time.Second

// letGo is how long it may take from then on until it has what it gets instead of sshd's
// terminal.
const letGo = 10 * time.Second

// records says why this host could not record a session now, if it could not.
func (h Hook) records() error {
	c, err := net.DialTimeout("unixpacket", h.Place.Recorder(), time.Second)
	if err != nil {
		return errors.New("its session has to be recorded, and nothing on this host records: see systemctl status sally-host")
	}
	return c.Close()
}

// Channel reports whether sshd started the process for the session: it is the shell, or
// command, of one of its channels.
func (t Tree) Channel(s Session, pid int) bool {
	if now, err := ProcessOf(t.Place, s.Monitor.PID); err != nil || now != s.Monitor {
		return false
	}
	parent, err := ParentOf(t.Place, pid)
	return err == nil && (parent == s.Monitor.PID || t.serves(s, parent)) && !ofSSHD(t.Place, pid)
}

// serves reports whether the process is sshd's own for the session: its monitor, or that
// which the monitor started in its person's name.
func (t Tree) serves(s Session, pid int) bool {
	if pid == s.Monitor.PID {
		return true
	}
	parent, err := ParentOf(t.Place, pid)
	return err == nil && parent == s.Monitor.PID && ofSSHD(t.Place, pid)
}

// Program reports whether the process runs sally-host as it is installed.
func (t Tree) Program(pid int) bool {
	runs, err := os.Stat(t.Place.Join(fmt.Sprintf("proc/%d/exe", pid)))
	if err != nil {
		return false
	}
	installed, err := os.Stat(t.Place.Join(place.Program))
	return err == nil && os.SameFile(runs, installed)
}

// Record puts a channel's process, and all that it will start, with what is recorded
// under the number. There is nothing under it yet.
func (t Tree) Record(s Session, pid, number int) error {
	t.Follow(&s)
	dir := cgroupOf(t.Place, pid)
	if !slices.Contains(s.Cgroups, dir) {
		return errors.New("it is not where its session is")
	}
	dir = filepath.Join(dir, recordedPrefix+strconv.Itoa(number))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
}

// Recorded is the highest number that Record was called with; 0: it was not.
func (t Tree) Recorded(s Session) (last int) {
	for _, dir := range s.Cgroups {
		found, _ := filepath.Glob(dir + "/" + recordedPrefix + "*") // the pattern is good
		for _, name := range found {
			n, _ := strconv.Atoi(strings.TrimPrefix(filepath.Base(name), recordedPrefix))
			last = max(last, n)
		}
	}
	return last
}

// Unrecorded says what of a session that has to be recorded nobody records; nothing, if
// all is well:
//
//   - a process that is not sshd's and has not asked to be recorded within Startup: the
//     login's own files started it, before the recording began;
//   - one that holds a terminal of sshd's, behind whose back what it shows and reads would
//     pass.
func (t Tree) Unrecorded(s Session) (what string, err error) {
	for _, dir := range s.Cgroups {
		text, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if ignoreGone(err) != nil {
			return "", err
		}
		for _, f := range strings.Fields(string(text)) {
			pid, _ := strconv.Atoi(f)
			st, err := stat(t.Place, pid)
			if err != nil || st.dead || t.serves(s, pid) {
				continue
			}
			if age, err := t.age(st); err == nil && age < Startup {
				continue
			}
			return fmt.Sprintf("process %d (%s) runs beside what is recorded", pid, clip(st.name, 15)), nil
		}
	}
	return t.holder(s)
}

// age is how long a process has run.
func (t Tree) age(st status) (time.Duration, error) {
	text, err := os.ReadFile(t.Place.Join("proc/uptime"))
	if err != nil {
		return 0, err
	}
	up, _, _ := strings.Cut(string(text), " ")
	seconds, err := strconv.ParseFloat(up, 64)
	const ticks = 100 // a second: USER_HZ, the same for all programs on all that Go runs on
	return time.Duration((seconds - float64(st.Start)/ticks) * float64(time.Second)), err
}

// holder finds a process that holds one of sshd's terminals. What has not asked to be
// recorded yet, what was told a moment ago that it is, and root's own outside of the
// session, may.
func (t Tree) holder(s Session) (what string, err error) {
	terminals := t.terminals(s)
	if len(terminals) == 0 {
		return "", nil
	}
	all, err := processes(t.Place)
	if err != nil {
		return "", err
	}
	for pid, st := range all {
		dir := cgroupOf(t.Place, pid)
		inside := slices.ContainsFunc(s.Cgroups, func(c string) bool { return strings.HasPrefix(dir, c+"/") })
		if pid == os.Getpid() || slices.Contains(s.Cgroups, dir) || !inside && owner(t.Place, pid) == 0 {
			continue
		}
		fds, _ := filepath.Glob(t.Place.Join(fmt.Sprintf("proc/%d/fd", pid)) + "/*")
		for _, fd := range fds {
			if info, err := os.Stat(fd); err == nil && slices.Contains(terminals, device(info)) && !t.handsOver(s, pid, st) {
				return fmt.Sprintf("process %d (%s) holds the terminal behind the recorded one", pid, clip(st.name, 15)), nil
			}
		}
	}
	return "", nil
}

// handsOver reports whether the process has just handed the terminal that sshd gave it to
// the daemon, and is about to let go of it; or is its child, about to become the shell.
// Nobody gets at it there: both run this program, which others of the login cannot look
// into.
func (t Tree) handsOver(s Session, pid int, st status) bool {
	if !t.Program(pid) {
		return false
	}
	if !t.Channel(s, pid) {
		pid = st.parent
		var err error
		if st, err = stat(t.Place, pid); err != nil || !t.Channel(s, pid) || !t.Program(pid) {
			return false
		}
	}
	age, err := t.age(st)
	return err == nil && age < Startup+letGo
}

// identity is what a file is, whatever it is called.
type identity struct{ dev, ino, rdev uint64 }

func device(info os.FileInfo) identity {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return identity{}
	}
	return identity{uint64(st.Dev), st.Ino, uint64(st.Rdev)}
}

// terminals are those whose other side sshd has, for the session: what the kernel says of
// its files (proc(5), fdinfo).
func (t Tree) terminals(s Session) (found []identity) {
	children, _ := os.ReadFile(t.Place.Join(fmt.Sprintf("proc/%d/task/%d/children", s.Monitor.PID, s.Monitor.PID)))
	for _, f := range append(strings.Fields(string(children)), strconv.Itoa(s.Monitor.PID)) {
		pid, _ := strconv.Atoi(f)
		if !t.serves(s, pid) {
			continue
		}
		infos, _ := filepath.Glob(t.Place.Join(fmt.Sprintf("proc/%d/fdinfo", pid)) + "/*")
		for _, name := range infos {
			text, err := os.ReadFile(name)
			if err != nil {
				continue
			}
			for line := range strings.Lines(string(text)) {
				n, ok := strings.CutPrefix(line, "tty-index:")
				if !ok {
					continue
				}
				if info, err := os.Stat(t.Place.Join("dev/pts/" + strings.TrimSpace(n))); err == nil {
					found = append(found, device(info))
				}
			}
		}
	}
	return found
}
