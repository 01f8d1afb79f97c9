// Package posture looks at the host that it runs on: whether there is a way in beside
// the door, or one that somebody left for later.
//
// Each check is a collector and a rule. What a collector could not find out is unknown,
// and never a pass. Findings name nothing that changes by itself, so that two looks at a
// host on which nothing changed say the same.
//
// Root can make all of this say what it likes. So the broker looks from outside, too, and
// an honest host tells on whoever was root: their session, and what is different since.
package posture

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"sallyport/api/hostapi"
	"sallyport/cmd/sally-host/internal/place"
	"sallyport/cmd/sally-host/internal/session"
)

// Host is what is looked at.
type Host struct {
	Place    place.Place
	Settings place.Settings
	List     hostapi.Revocations
	// Skew is how far the broker's clock is ahead; Heard says that this is known.
	Skew  time.Duration
	Heard bool
	Now   func() time.Time
	// Run runs a program of the host, and returns what it writes.
	Run func(ctx context.Context, program string, args ...string) ([]byte, error)

	facts
}

// facts are what several checks use, read once.
type facts struct {
	accounts  []account
	effective []effective
	processes []process
	sessions  int
	ports     []int // nil until it is known on which something listens
}

// patience is how long a check may take.
const patience = 30 * time.Second

// check is one thing that is looked at.
type check struct {
	id, remedy string
	// look returns what is not as it should be. An error means that it cannot tell.
	look func(*Host, context.Context) (findings []string, err error)
}

var checks = []check{
	{"clock", "keep the clock right, with chrony or systemd-timesyncd", (*Host).lookAtClock},
	{"consoles", "remove automatic logins, debug shells and login screens", (*Host).lookAtConsoles},
	{"isolation", "mount cgroup v2 at /sys/fs/cgroup, so that no process can leave its session", (*Host).lookAtIsolation},
	{"keys", "remove the files; who comes in needs a certificate", (*Host).lookAtKeys},
	{"listening", "stop the program, have it listen on loopback only, or allow it in the policy of the host's class", (*Host).lookAtListening},
	{"passwords", "lock the password: passwd -l NAME (for a line in /etc/passwd: pwconv, then passwd -l NAME)", (*Host).lookAtPasswords},
	{"reopeners", "remove or disable it: it can open the host, or act on it, after everybody has left", (*Host).lookAtReopeners},
	{"revocation", "let the daemon reach the broker: systemctl status sally-host", (*Host).lookAtRevocation},
	{"root", "remove the account, or give it a number of its own: usermod -u NUMBER NAME", (*Host).lookAtRoot},
	{"running", "reload or restart what runs with older settings: systemctl reload ssh; systemctl restart sally-host", (*Host).lookAtRunning},
	{"sessions", "wait until they have ended, or end the grants: sally revoke REQUEST", (*Host).lookAtSessions},
	{"sshd", "put the settings back (sally-host enroll does) and remove Match blocks that change them", (*Host).lookAtSSHD},
	{"sudo", "remove the rule, or the account", (*Host).lookAtSudo},
}

// Look looks at the host. It leaves number and signature to the caller.
func (h Host) Look(ctx context.Context) hostapi.Posture {
	boot, _ := h.Place.BootID() // an empty one the broker refuses
	p := hostapi.Posture{HostID: h.Settings.HostID, BootID: boot, List: h.List.Number, Heard: h.List.MadeAt, TakenAt: h.Now().UTC()}
	for _, c := range checks {
		p.Checks = append(p.Checks, c.result(ctx, &h))
	}
	p.Sessions, p.Ports = h.facts.sessions, h.facts.ports
	for most := hostapi.MaxFindings; most > 1 && size(p) > maxText; most /= 2 {
		for i := range p.Checks {
			p.Checks[i].Findings = cut(p.Checks[i].Findings, most)
		}
	}
	return p
}

// maxText is how many bytes a posture has, at most, before it is signed and put into a
// report: there each of its quotation marks takes two.
const maxText = hostapi.MaxReportSize / 3

func size(p hostapi.Posture) int {
	text, _ := json.Marshal(p) // which it can be
	return len(text)
}

// cut leaves so many findings, of which one says that there were more.
func cut(findings []string, most int) []string {
	if len(findings) <= most {
		return findings
	}
	findings = append(slices.DeleteFunc(slices.Clone(findings[:most-1]), func(f string) bool { return f == more }), more)
	slices.Sort(findings)
	return findings
}

const more = "there is more"

func (c check) result(ctx context.Context, h *Host) hostapi.Check {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	findings, err := c.look(h, ctx)
	out := hostapi.Check{ID: c.id, Result: hostapi.Pass}
	switch {
	case err != nil:
		out.Result = hostapi.Unknown
		findings = append(findings, "it cannot be found out: "+err.Error())
	case len(findings) > 0 && c.id != "isolation": // which only says what the host can do
		out.Result = hostapi.Fail
	}
	if len(findings) > 0 {
		out.Findings, out.Remedy = tidy(findings), c.remedy
	}
	return out
}

// tidy brings findings into the form that the broker takes.
func tidy(findings []string) []string {
	for i, f := range findings {
		f = strings.Map(func(r rune) rune {
			if r < ' ' || r >= 0x7f && r < 0xa0 {
				return ' '
			}
			return r
		}, strings.ToValidUTF8(f, "?"))
		if len(f) > hostapi.MaxFinding {
			f = strings.ToValidUTF8(f[:hostapi.MaxFinding-3], "") + "..."
		}
		findings[i] = f
	}
	slices.Sort(findings)
	findings = slices.Compact(findings)
	return cut(findings, hostapi.MaxFindings)
}

// Run runs a program of this host.
func Run(ctx context.Context, program string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		err = fmt.Errorf("%s: %w: %s", program, err, strings.TrimSpace(string(exit.Stderr)))
	}
	return out, err
}

func (h *Host) lookAtClock(context.Context) ([]string, error) {
	switch {
	case !h.Heard:
		return nil, errors.New("the broker was not heard since the daemon started")
	case h.Skew > hostapi.MaxSkew:
		return []string{fmt.Sprintf("the clock is more than %s behind the broker's", hostapi.MaxSkew)}, nil
	case h.Skew < -hostapi.MaxSkew:
		return []string{fmt.Sprintf("the clock is more than %s ahead of the broker's", hostapi.MaxSkew)}, nil
	}
	return nil, nil
}

// fresh is how old the list may be: some rounds of waiting for news.
const fresh = 5 * time.Minute

func (h *Host) lookAtRevocation(context.Context) (findings []string, err error) {
	switch {
	case h.List.MadeAt.IsZero():
		findings = append(findings, "the broker was never heard")
	case h.Now().Sub(h.List.MadeAt) > fresh:
		findings = append(findings, fmt.Sprintf("the broker was last heard more than %s ago", fresh))
	}
	why, err := h.Place.WhyClosed()
	if why != "" {
		findings = append(findings, "the host takes no certificates: "+why)
	}
	return findings, err
}

func (h *Host) lookAtIsolation(context.Context) ([]string, error) {
	if (session.Tree{Place: h.Place}).Has() == session.ByCgroup {
		return nil, nil
	}
	return []string{"there is no cgroup v2: sessions are found by the kernel's number of the login, by their environment and by descent"}, nil
}

func (h *Host) lookAtSessions(ctx context.Context) (findings []string, err error) {
	unreported, err := h.unreported()
	if err != nil {
		return nil, err
	}
	if len(unreported) > 0 { // or it began, or was let in, while this looked
		select {
		case <-time.After(again):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		first := unreported
		h.processes = nil
		if unreported, err = h.unreported(); err != nil {
			return nil, err
		}
		unreported = slices.DeleteFunc(unreported, func(p process) bool { // by number: its title changes as they go on
			return !slices.ContainsFunc(first, func(f process) bool { return f.pid == p.pid })
		})
	}
	all, err := (session.Store{Place: h.Place}).All()
	if err != nil {
		return nil, err
	}
	for _, s := range all {
		if s.Serial == 0 {
			findings = append(findings, fmt.Sprintf("a session of %s without a certificate", s.Login))
		} else {
			findings = append(findings, fmt.Sprintf("a session of %s by certificate %d", s.Login, s.Serial))
		}
	}
	for _, p := range unreported {
		findings = append(findings, fmt.Sprintf("a session of %s that PAM did not report", p.entered()))
	}
	h.facts.sessions = len(all) + len(unreported)
	return findings, nil
}

// unreported are sshd's processes for connections by which somebody entered that PAM did
// not report.
func (h *Host) unreported() (found []process, err error) {
	running, err := h.running()
	if err != nil {
		return nil, err
	}
	// After the processes: what has begun since is no stranger.
	all, err := (session.Store{Place: h.Place}).All()
	if err != nil {
		return nil, err
	}
	known, asked, entered := map[int]bool{}, map[int]bool{}, map[int]bool{}
	for _, s := range all {
		known[s.Monitor.PID] = true
	}
	for _, p := range running {
		if p.asks() { // its parent has the title already, of whoever they say they are
			asked[p.parent] = true
		}
		if p.entered() != "" {
			entered[p.pid] = true
		}
	}
	for _, p := range running {
		// What the process has started is of the same connection.
		if entered[p.pid] && !entered[p.parent] && !known[p.pid] && (!asked[p.pid] || !p.monitors()) {
			found = append(found, p)
		}
	}
	return found, nil
}
