package session

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"sallyport/cmd/sally-host/internal/place"
)

// Process is one that the kernel started once: numbers are given again, with another
// start.
type Process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // in clock ticks after the machine's
}

// status is what the kernel says of a process (proc(5), /proc/[pid]/stat).
type status struct {
	Process
	name    string
	parent  int
	session int
	tty     uint64
	dead    bool // and not yet waited for
}

func stat(p place.Place, pid int) (status, error) {
	text, err := os.ReadFile(p.Join(fmt.Sprintf("proc/%d/stat", pid)))
	if err != nil {
		return status{}, err
	}
	// The name is in parentheses and may hold some itself.
	open, shut := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if open < 0 || shut < open {
		return status{}, errors.New("the kernel's word on a process cannot be read")
	}
	f := strings.Fields(string(text[shut+1:]))
	if len(f) < 20 {
		return status{}, errors.New("the kernel's word on a process cannot be read")
	}
	s := status{Process: Process{PID: pid}, name: string(text[open+1 : shut]), dead: f[0] == "Z" || f[0] == "X"}
	s.parent, _ = strconv.Atoi(f[1])
	s.session, _ = strconv.Atoi(f[3])
	s.tty, _ = strconv.ParseUint(f[4], 10, 32)
	s.Start, err = strconv.ParseUint(f[19], 10, 64)
	return s, err
}

// ProcessOf is the process that has the number now.
func ProcessOf(p place.Place, pid int) (Process, error) {
	s, err := stat(p, pid)
	return s.Process, err
}

// ParentOf is the number of the process that started one, or took it over.
func ParentOf(p place.Place, pid int) (int, error) {
	s, err := stat(p, pid)
	return s.parent, err
}

// processes are all that run now.
func processes(p place.Place) (map[int]status, error) {
	entries, err := os.ReadDir(p.Join("proc"))
	if err != nil {
		return nil, err
	}
	all := map[int]status{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if s, err := stat(p, pid); err == nil && !s.dead {
			all[pid] = s
		}
	}
	return all, nil
}

// pts is the number of the pseudo-terminal that the process is on.
func (s status) pts() (int, bool) {
	major, minor := s.tty>>8&0xfff, s.tty&0xff|s.tty>>12&0xfff00
	if major < 136 || major > 143 { // admin-guide/devices.txt: UNIX98 slaves
		return 0, false
	}
	return int((major-136)<<8 | minor), true
}

// sshds are the names of sshd's own processes: 10.x has several programs.
func (s status) sshd() bool { return strings.HasPrefix(s.name, "sshd") }

// owner is whose the process is; nobody's if that cannot be told.
func owner(p place.Place, pid int) uint32 {
	info, err := os.Stat(p.Join(fmt.Sprintf("proc/%d", pid)))
	if err != nil {
		return ^uint32(0)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Uid
	}
	return ^uint32(0)
}

// ofSSHD reports whether the process runs a program of sshd's, and does not just bear its
// name.
func ofSSHD(p place.Place, pid int) bool {
	program, err := os.Readlink(p.Join(fmt.Sprintf("proc/%d/exe", pid)))
	return err == nil && strings.HasPrefix(filepath.Base(program), "sshd")
}

// signal sends a signal to the process, if it is still that one.
func (pr Process) signal(p place.Place, sig syscall.Signal) {
	if s, err := stat(p, pr.PID); err == nil && s.Start == pr.Start && pr.PID > 1 && pr.PID != os.Getpid() {
		_ = syscall.Kill(pr.PID, sig) // or it has just ended
	}
}

// auditSession is the kernel's number of a process's login, or empty.
func auditSession(p place.Place, pid int) string {
	text, err := os.ReadFile(p.Join(fmt.Sprintf("proc/%d/sessionid", pid)))
	if s := strings.TrimSpace(string(text)); err == nil && s != "4294967295" {
		return s
	}
	return ""
}

// environ is one variable that a process was started with.
func environ(p place.Place, pid int, name string) string {
	text, err := os.ReadFile(p.Join(fmt.Sprintf("proc/%d/environ", pid)))
	if err != nil {
		return ""
	}
	for _, v := range bytes.Split(text, []byte{0}) {
		if value, ok := bytes.CutPrefix(v, []byte(name+"=")); ok {
			return string(value)
		}
	}
	return ""
}

// cgroupRoot is where the host's cgroups of version 2 are, or empty.
func cgroupRoot(p place.Place) string {
	text, err := os.ReadFile(p.Join("proc/self/mountinfo"))
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		before, after, _ := strings.Cut(line, " - ")
		f := strings.Fields(before)
		if strings.HasPrefix(after, "cgroup2 ") && len(f) > 4 {
			return p.Join(f[4])
		}
	}
	return ""
}

// cgroupOf is the folder of the cgroup that a process is in, or empty.
func cgroupOf(p place.Place, pid int) string {
	root := cgroupRoot(p)
	text, err := os.ReadFile(p.Join(fmt.Sprintf("proc/%d/cgroup", pid)))
	if root == "" || err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok && !strings.Contains(path, "..") {
			return filepath.Join(root, path)
		}
	}
	return ""
}

// members are the processes in a cgroup and those below it.
func members(dir string) (pids []int, err error) {
	err = filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return ignoreGone(err)
		}
		text, err := os.ReadFile(filepath.Join(name, "cgroup.procs"))
		for _, f := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(f); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
		return ignoreGone(err)
	})
	return pids, err
}

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) {
		return nil
	}
	return err
}
