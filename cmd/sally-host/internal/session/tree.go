package session

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"sallyport/cmd/sally-host/internal/place"
)

// Tree finds and ends the processes of sessions. A process is a session's if
//
//   - it is in one of the session's cgroups, which it cannot leave unless it is root;
//   - the kernel's number of its login is the session's (pam_loginuid(8));
//   - it was started with the connection's SSH_CONNECTION;
//   - it is sshd's for the connection, or was seen to be the session's before;
//   - or one of these started it.
//
// Without a cgroup, a process can leave that empties its environment and detaches itself
// from all of its ancestors within the time between two looks, where the kernel has no
// number for the login.
type Tree struct{ Place place.Place }

// Has is what the host can do to keep sessions apart: ByCgroup or BySession.
func (t Tree) Has() string {
	if root := cgroupRoot(t.Place); root != "" && syscall.Access(root, 2 /* W_OK */) == nil {
		return ByCgroup
	}
	return BySession
}

// Enclose moves the session's monitor into a cgroup of its own, and says so in the
// session; where it cannot, it says that.
func (t Tree) Enclose(s *Session) {
	s.Isolation = BySession
	if dir := cgroupOf(t.Place, s.Monitor.PID); scope(dir) { // systemd-logind was first
		s.Isolation, s.Cgroups = ByCgroup, []string{dir}
		return
	}
	root := cgroupRoot(t.Place)
	if root == "" {
		return
	}
	dir := filepath.Join(root, "sallyport", s.ID)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return
	}
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(s.Monitor.PID)), 0); err != nil {
		_ = os.Remove(dir)
		return
	}
	s.Isolation, s.Cgroups = ByCgroup, []string{dir}
}

var scopeName = regexp.MustCompile(`^session-[A-Za-z0-9]+\.scope$`)

// scope reports whether systemd-logind made the cgroup for one session.
func scope(dir string) bool { return scopeName.MatchString(filepath.Base(dir)) }

// Follow notes where the session's monitor is now: pam_systemd(8), whose turn is after
// ours, moves it to another cgroup of its own; and what the hook, which sshd's own rights
// and SELinux confine, could not see. It reports whether anything is news.
func (t Tree) Follow(s *Session) (news bool) {
	if now, err := ProcessOf(t.Place, s.Monitor.PID); err != nil || now != s.Monitor {
		return false
	}
	if s.Connection == "" {
		s.Connection = connection(t.Place, s.Monitor.PID, s.Peer)
		news = s.Connection != ""
	}
	if dir := cgroupOf(t.Place, s.Monitor.PID); scope(dir) && !slices.Contains(s.Cgroups, dir) {
		s.Isolation, s.Cgroups, news = ByCgroup, append(s.Cgroups, dir), true
	}
	return news
}

// apart are sshd's processes that are none of the session's, whatever it looks like: a
// person who starts sshd anew by hand starts it in their session, and all that come in by
// it would end with them, and nobody could come in any more.
func (t Tree) apart(all map[int]status, s Session) map[int]bool {
	found := map[int]bool{}
	for pid, st := range all {
		if !st.sshd() || pid == s.Monitor.PID || owner(t.Place, pid) != 0 || !ofSSHD(t.Place, pid) {
			continue
		}
		below := false
		for up := st; up.parent > 1 && !below; up = all[up.parent] {
			below = up.parent == s.Monitor.PID
		}
		if !below {
			found[pid] = true
		}
	}
	for pid, st := range all { // which have their people's numbers
		if st.sshd() && found[st.parent] && pid != s.Monitor.PID {
			found[pid] = true
		}
	}
	return found
}

// release moves what is apart out of the session's cgroups.
func (t Tree) release(s Session, pids []int) {
	all := map[int]status{}
	for _, pid := range pids {
		if st, err := stat(t.Place, pid); err == nil && st.sshd() && pid != s.Monitor.PID {
			all, _ = processes(t.Place)
			break
		}
	}
	apart := t.apart(all, s)
	for _, pid := range pids {
		// Who came in by a sshd of this session may have a cgroup of their own by now.
		at := cgroupOf(t.Place, pid)
		if apart[pid] && (at == "" || slices.ContainsFunc(s.Cgroups, func(dir string) bool { return at == dir || strings.HasPrefix(at, dir+"/") })) {
			_ = os.WriteFile(filepath.Join(cgroupRoot(t.Place), "cgroup.procs"), []byte(strconv.Itoa(pid)), 0) // or the next time
		}
	}
}

// Lives reports whether anything of the session runs. Without a cgroup it notes in the
// session what, and reports whether that is news.
func (t Tree) Lives(s *Session) (lives, news bool, err error) {
	if s.Isolation == ByCgroup {
		for _, dir := range s.Cgroups {
			pids, err := members(dir)
			if err != nil {
				return true, false, err
			}
			t.release(*s, pids)
			lives = lives || len(pids) > 0
		}
		if !lives {
			lives, err = t.bringBack(*s)
		}
		return lives, false, err
	}
	found, err := t.find(*s)
	if err != nil {
		return true, false, err
	}
	seen := make([]Process, len(found))
	for i, st := range found {
		seen[i] = st.Process
	}
	news = !slices.Equal(seen, s.Seen)
	s.Seen = seen
	return len(seen) > 0, news, nil
}

// bringBack puts what runs of the session outside of its cgroups into them again, and
// reports whether anything does: root can move processes, and [Tree.release] can do so
// in the moment in which a session begins.
func (t Tree) bringBack(s Session) (any bool, err error) {
	found, err := t.find(s)
	if err != nil || len(found) == 0 {
		return err != nil, err
	}
	for _, st := range found { // or at the next look; End finds them anyway
		_ = os.WriteFile(filepath.Join(s.Cgroups[0], "cgroup.procs"), []byte(strconv.Itoa(st.PID)), 0)
	}
	return true, nil
}

// find returns what runs of the session, by number.
func (t Tree) find(s Session) ([]status, error) {
	all, err := processes(t.Place)
	if err != nil {
		return nil, err
	}
	apart := t.apart(all, s)
	mine := map[int]bool{}
	for _, dir := range s.Cgroups {
		pids, err := members(dir)
		if err != nil {
			return nil, err
		}
		for _, pid := range pids {
			mine[pid] = true
		}
	}
	for _, pr := range append(s.Seen, s.Monitor) {
		if st, ok := all[pr.PID]; ok && st.Process == pr {
			mine[pr.PID] = true
		}
	}
	for pid := range all {
		if !mine[pid] && (s.Audit != "" && auditSession(t.Place, pid) == s.Audit ||
			s.Connection != "" && environ(t.Place, pid, "SSH_CONNECTION") == s.Connection) {
			mine[pid] = true
		}
	}
	for more := true; more; {
		more = false
		for pid, st := range all {
			if !mine[pid] && mine[st.parent] && !apart[pid] && !apart[st.parent] {
				mine[pid], more = true, true
			}
		}
	}
	var out []status
	for pid := range mine {
		if st, ok := all[pid]; ok && pid > 1 && pid != os.Getpid() && !apart[pid] {
			out = append(out, st)
		}
	}
	slices.SortFunc(out, func(a, b status) int { return a.PID - b.PID })
	return out, nil
}

// Tell writes a line to the session's terminals, and reports whether there is one. A
// terminal that does not take it now is left alone.
func (t Tree) Tell(s Session, line string) bool {
	found, err := t.find(s)
	if err != nil {
		return false
	}
	told := map[int]bool{}
	for _, st := range found {
		n, ok := st.pts()
		if !ok || told[n] || t.Program(st.PID) { // what stands behind a recorded terminal shows the same
			continue
		}
		f, err := os.OpenFile(t.Place.Join("dev/pts/"+strconv.Itoa(n)), os.O_WRONLY|syscall.O_NOCTTY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		_, err = f.WriteString("\r\n*** " + line + " ***\r\n")
		f.Close()
		told[n] = err == nil
	}
	return len(told) > 0
}

// How End goes about it.
const (
	// Grace is how long processes have to end by themselves.
	Grace = 300 * time.Millisecond
	// lastWords is how long sshd has to pass on what they said.
	lastWords = 50 * time.Millisecond
	// patience is how long the kernel has to end them.
	patience = 5 * time.Second
)

// End ends all that runs of the session: first what it started, with SIGTERM; then sshd;
// then, after Grace, what is left, with SIGKILL. It returns how many it ended, beside
// sshd's own, and how many are left.
func (t Tree) End(s Session) (killed, survived int, err error) {
	s.Cgroups = append(slices.Clone(s.Cgroups), managers(s)...)
	e := ending{Tree: t, session: s, ours: map[Process]bool{}}
	late := time.Now().Add(Grace)
	terminated := func(st status) bool { return !st.sshd() }
	left, err := e.until(late, terminated, syscall.SIGTERM, false)
	if err == nil && !slices.ContainsFunc(left, terminated) && len(e.ours) > 0 {
		time.Sleep(lastWords)
		left, err = e.until(late.Add(lastWords), status.sshd, syscall.SIGTERM, false)
	}
	if err == nil && len(left) > 0 {
		for _, dir := range s.Cgroups {
			pids, _ := members(dir)
			t.release(s, pids)
			// All at once, so that none can start another meanwhile (since Linux 5.14).
			if os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0) == nil {
				continue
			}
			freeze := filepath.Join(dir, "cgroup.freeze")
			_ = os.WriteFile(freeze, []byte("1"), 0) // or they are chased one by one
			defer os.WriteFile(freeze, []byte("0"), 0)
		}
		left, err = e.until(time.Now().Add(patience), func(status) bool { return true }, syscall.SIGKILL, true)
	}
	for pr, other := range e.ours {
		if other && !slices.ContainsFunc(left, func(st status) bool { return st.Process == pr }) {
			killed++
		}
	}
	return killed, len(left), err
}

// managers are the cgroups of what systemd runs for the person outside of any session
// (user@.service, which runs timers and systemd-run --user), if this is the last one.
func managers(s Session) (found []string) {
	for _, dir := range s.Cgroups {
		if !scope(dir) {
			continue
		}
		slice := filepath.Dir(dir)
		others, err := filepath.Glob(slice + "/session-*.scope")
		if err != nil || slices.ContainsFunc(others, func(other string) bool {
			pids, err := members(other)
			return other != dir && (err != nil || len(pids) > 0)
		}) {
			continue
		}
		more, _ := filepath.Glob(slice + "/user@*.service") // the pattern is good
		found = append(found, more...)
	}
	return found
}

// ending is the end of one session.
type ending struct {
	Tree
	session Session
	ours    map[Process]bool // all that were found; true: not sshd's
}

// until sends a signal to those processes of the session that which picks, once or again
// and again, until none of them is left or the time has come. It returns what is left of
// the session.
func (e *ending) until(late time.Time, which func(status) bool, sig syscall.Signal, again bool) ([]status, error) {
	for told := map[Process]bool{}; ; time.Sleep(10 * time.Millisecond) {
		left, err := e.find(e.session)
		if err != nil {
			return nil, err
		}
		waits := false
		for _, st := range left {
			if _, known := e.ours[st.Process]; !known {
				e.ours[st.Process] = !st.sshd()
				e.session.Seen = append(e.session.Seen, st.Process) // wherever it hides from now on
			}
			if !which(st) {
				continue
			}
			if waits = true; again || !told[st.Process] {
				st.signal(e.Place, sig)
				told[st.Process] = true
			}
		}
		if !waits || time.Now().After(late) {
			return left, nil
		}
	}
}

// Clean takes away the cgroups that Enclose made.
func (t Tree) Clean(s Session) error {
	var problem error
	for _, dir := range s.Cgroups {
		if scope(dir) || !strings.HasSuffix(dir, "/sallyport/"+s.ID) {
			continue
		}
		within, _ := filepath.Glob(dir + "/" + recordedPrefix + "*") // the pattern is good
		for _, name := range append(within, dir) {
			problem = errors.Join(problem, ignoreGone(os.Remove(name)))
		}
	}
	return problem
}
