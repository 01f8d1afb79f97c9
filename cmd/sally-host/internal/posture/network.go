package posture

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"sallyport/api/hostapi"
	"sallyport/cmd/sally-host/internal/session"
)

// listener is a socket that takes what comes from outside.
type listener struct {
	network string
	address string // as people read it
	port    uint16
	program string // "" if it cannot be told
}

func (l listener) String() string {
	program := l.program
	if program == "" {
		program = "an unknown program"
	}
	return fmt.Sprintf("%s/%d on %s: %s", l.network, l.port, l.address, program)
}

// again is after how long the sockets are looked at a second time: what a resolver or the
// like has open for a moment is not there any more. Meanwhile nothing is done.
const again = time.Second

func (h *Host) lookAtListening(ctx context.Context) (findings []string, err error) {
	asked, err := h.ask(ctx)
	if err != nil {
		return nil, err
	}
	first, err := h.listeners()
	if err != nil {
		return nil, err
	}
	select {
	case <-time.After(again):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	second, err := h.listeners()
	if err != nil {
		return nil, err
	}
	ports := asked[0].settings["port"]
	h.facts.ports = []int{}
	for _, l := range second {
		if !slices.Contains(first, l) || h.sshd(l, ports) {
			continue
		}
		h.facts.ports = append(h.facts.ports, int(l.port))
		if !h.allowed(l) {
			findings = append(findings, l.String())
		}
	}
	slices.Sort(h.facts.ports)
	h.facts.ports = slices.Compact(h.facts.ports)
	return findings, nil
}

// sshd reports whether it is sshd on its own port.
func (h *Host) sshd(l listener, ports []string) bool {
	return l.network == "tcp" && slices.Contains(ports, strconv.Itoa(int(l.port))) && (path.Base(l.program) == "sshd" || l.program == systemd)
}

// allowed reports whether it is one of those that the broker said may listen.
func (h *Host) allowed(l listener) bool {
	return slices.ContainsFunc(h.Settings.Settings.Listen, func(a hostapi.Listener) bool {
		fits, err := path.Match(a.Program, l.program)
		return a.Network == l.network && a.Port == l.port && (a.Program == "" || err == nil && fits)
	})
}

// systemd listens for sshd where that is started by its first connection.
const systemd = "/usr/lib/systemd/systemd"

// Tables of sockets, and the state in them that listens (proc(5), include/net/tcp_states.h).
var tables = []struct{ file, network, state string }{
	{"tcp", "tcp", "0A"}, {"tcp6", "tcp", "0A"}, {"udp", "udp", "07"}, {"udp6", "udp", "07"},
}

func (h *Host) listeners() ([]listener, error) {
	owners, err := h.owners()
	if err != nil {
		return nil, err
	}
	var all []listener
	for _, t := range tables {
		text, err := os.ReadFile(h.Place.Join("proc/net/" + t.file))
		if errors.Is(err, fs.ErrNotExist) && strings.HasSuffix(t.file, "6") {
			continue // a host without IPv6
		}
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line)
			if len(f) < 10 || f[3] != t.state {
				continue
			}
			local, err := session.Endpoint(f[1])
			if err != nil {
				return nil, err
			}
			if local.Addr().IsLoopback() {
				continue
			}
			all = append(all, listener{t.network, local.Addr().String(), local.Port(), owners[f[9]]})
		}
	}
	return all, nil
}

// owners are the programs that have each socket open, by its inode.
func (h *Host) owners() (map[string]string, error) {
	entries, err := os.ReadDir(h.Place.Join("proc"))
	if err != nil {
		return nil, err
	}
	owners := map[string]string{}
	for _, e := range entries {
		dir := h.Place.Join("proc/" + e.Name())
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		fds, err := os.ReadDir(dir + "/fd")
		if err != nil {
			continue // it has ended; whose socket it was stays unknown
		}
		program, _ := os.Readlink(dir + "/exe")
		for _, fd := range fds {
			to, err := os.Readlink(dir + "/fd/" + fd.Name())
			if inode, ok := strings.CutPrefix(to, "socket:["); err == nil && ok {
				owners[strings.TrimSuffix(inode, "]")] = program
			}
		}
	}
	return owners, nil
}

func notDir(err error) bool { return errors.Is(err, syscall.ENOTDIR) }
