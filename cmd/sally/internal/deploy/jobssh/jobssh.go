// Package jobssh lets the command that deploys a batch log in on the batch's hosts by
// the ssh that it has, and on nothing else.
//
// The job's key stays in this process's memory: ssh uses it through an agent of its own,
// on a socket that its owner alone can reach, which signs logins with the certificates
// of this batch and nothing else, no call of the API either. Certificates are minted when
// ssh asks, since they live for minutes and a batch may take hours: the ssh_config has ssh
// run `sally deploy certify` for the host first, which asks here through the same socket.
package jobssh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"sallyport/api"
	"sallyport/cmd/sally/internal/home"
	"sallyport/cmd/sally/internal/sshrun"
	"sallyport/internal/clock"
)

// longestSocket is how long the name of a socket may be, in bytes: 108 with its end on
// Linux, 104 elsewhere (sys/un.h).
const longestSocket = 103

// fresh is how long a certificate must still be good to be handed out again.
const fresh = time.Minute

// Config is what a door is made of. All of it must be set.
type Config struct {
	// Runtime is the folder below which the door has one of its own.
	Runtime string
	// Program is sally, as ssh can run it.
	Program string
	Key     ssh.Signer
	// Mint gets a certificate for the key and a host.
	Mint  func(ctx context.Context, host string) (api.Certificate, error)
	Clock clock.Clock
}

// Host is a host of the batch.
type Host struct{ ID, Name string }

// Files are what a command needs to log in.
type Files struct {
	Folder     string
	SSHConfig  string
	KnownHosts string
	Hosts      string // names of the batch's hosts, one on each line
	Results    string // to which the command may write what became of hosts
	Socket     string // of the agent
}

// Door is the way to the hosts of one batch. Close it.
type Door struct {
	cfg      Config
	files    Files
	hosts    []Host
	listener net.Listener
	ctx      context.Context
	cancel   context.CancelFunc
	serving  sync.WaitGroup

	turns map[string]*sync.Mutex // by the host's name: who asks for the same host waits

	mu     sync.Mutex // guards what follows
	known  []string
	issued map[string]*issued // by the host's name
	conns  map[net.Conn]struct{}
}

// issued is a host's newest certificate.
type issued struct {
	certificate *ssh.Certificate
	used        bool
}

var hostName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,252}$`)

// Open makes the files and starts the agent.
func Open(cfg Config, hosts []Host) (*Door, error) {
	for _, h := range hosts {
		if !hostName.MatchString(h.Name) || !hostName.MatchString(h.ID) {
			return nil, fmt.Errorf("the broker calls a host %q (%q), which is no name", h.Name, h.ID)
		}
	}
	if !plain(cfg.Program) {
		return nil, fmt.Errorf("ssh cannot run a program of such a name: %s", cfg.Program)
	}
	if err := home.Folder(cfg.Runtime); err != nil {
		return nil, err
	}
	// Mode 0700, and of a name that nobody can have taken.
	folder, err := os.MkdirTemp(cfg.Runtime, "batch-")
	if err == nil && (len(filepath.Join(folder, "agent")) > longestSocket || !plain(folder)) {
		os.Remove(folder)
		folder, err = os.MkdirTemp("", "sally-")
	}
	if err != nil {
		return nil, fmt.Errorf("make a folder for the batch: %w", err)
	}
	d := &Door{cfg: cfg, hosts: hosts, turns: map[string]*sync.Mutex{}, issued: map[string]*issued{}, conns: map[net.Conn]struct{}{}, files: Files{
		Folder: folder, SSHConfig: filepath.Join(folder, "ssh_config"), KnownHosts: filepath.Join(folder, "known_hosts"),
		Hosts: filepath.Join(folder, "hosts"), Results: filepath.Join(folder, "results"), Socket: filepath.Join(folder, "agent"),
	}}
	for _, h := range hosts {
		d.turns[h.Name] = &sync.Mutex{}
	}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	if err := d.start(); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// plain reports whether a path can be a shell's word within a word of ssh_config: its
// Match knows quotes and no way to escape them, its Include takes patterns and no tokens.
func plain(path string) bool { return !strings.ContainsAny(path, "'\"\\\n%$*?[") }

func (d *Door) start() error {
	var names strings.Builder
	for _, h := range d.hosts {
		names.WriteString(h.Name + "\n")
	}
	err := errors.Join(
		home.Write(d.files.Hosts, []byte(names.String())),
		home.Write(d.files.Results, nil),
		home.Write(d.files.KnownHosts, nil),
		home.Write(d.identity(), ssh.MarshalAuthorizedKey(d.cfg.Key.PublicKey())),
		home.Write(d.files.SSHConfig, []byte(d.config())))
	if err != nil {
		return err
	}
	if d.listener, err = net.Listen("unix", d.files.Socket); err != nil {
		return fmt.Errorf("start the batch's agent: %w", err)
	}
	if err := os.Chmod(d.files.Socket, 0o600); err != nil {
		return fmt.Errorf("close the batch's agent to others: %w", err)
	}
	d.serving.Go(d.serve)
	return nil
}

// Files are where the door's files are.
func (d *Door) Files() Files { return d.files }

// Close ends the agent and removes the files.
func (d *Door) Close() error {
	d.cancel()
	if d.listener != nil {
		d.listener.Close()
	}
	d.mu.Lock()
	for conn := range d.conns {
		conn.Close()
	}
	d.mu.Unlock()
	d.serving.Wait()
	if err := os.RemoveAll(d.files.Folder); err != nil {
		return fmt.Errorf("remove the batch's files: %w", err)
	}
	return nil
}

// Sweep removes what a sally left that was killed: nothing in it opens anything, the key
// was in memory.
func Sweep(runtime string) error {
	left, err := filepath.Glob(filepath.Join(runtime, "batch-*"))
	if err != nil {
		return err
	}
	for _, folder := range left {
		conn, err := net.DialTimeout("unix", filepath.Join(folder, "agent"), time.Second)
		if err == nil { // somebody else's batch is open
			conn.Close()
			continue
		}
		if info, err := os.Stat(folder); err != nil || time.Since(info.ModTime()) < time.Minute {
			continue // it may be about to begin
		}
		if err := os.RemoveAll(folder); err != nil {
			return fmt.Errorf("remove what an earlier batch left: %w", err)
		}
	}
	return nil
}

func (d *Door) identity() string { return filepath.Join(d.files.Folder, "id.pub") }

func (d *Door) perHost(name, kind string) string {
	return filepath.Join(d.files.Folder, "host-"+name+kind)
}

// config is the ssh_config: for each host of the batch its certificate first, then what
// the broker says of it; for all others a refusal, so that nobody is let in elsewhere by
// a key or an agent that happens to be there.
func (d *Door) config() string {
	var b strings.Builder
	for _, h := range d.hosts {
		ask := sshrun.ShellWord(d.cfg.Program) + " deploy certify " + h.Name + " --socket " + sshrun.ShellWord(d.files.Socket)
		fmt.Fprintf(&b, "Match originalhost %s exec %s\n", h.Name, sshrun.Quote(ask))
		fmt.Fprintf(&b, "  Include %s\n", sshrun.Quote(d.perHost(h.Name, ".conf")))
	}
	b.WriteString("Host *\n")
	for _, o := range [][2]string{
		{"IdentityFile", sshrun.Quote(d.identity())}, {"IdentitiesOnly", "yes"}, {"IdentityAgent", sshrun.Quote(d.files.Socket)},
		{"PreferredAuthentications", "publickey"}, {"BatchMode", "yes"},
		{"UserKnownHostsFile", sshrun.Quote(d.files.KnownHosts)}, {"GlobalKnownHostsFile", "/dev/null"}, {"StrictHostKeyChecking", "yes"},
		{"NoHostAuthenticationForLocalhost", "no"}, {"VerifyHostKeyDNS", "no"}, {"UpdateHostKeys", "no"},
		{"ForwardAgent", "no"}, {"ForwardX11", "no"}, {"ClearAllForwardings", "yes"}, {"RequestTTY", "no"},
		{"ControlMaster", "no"}, {"ControlPath", "none"},
		{"ProxyCommand", `sh -c 'echo "$0: sally gave no certificate for it, or it is no host of the open batch" >&2; exit 1' %n`},
	} {
		fmt.Fprintf(&b, "  %s %s\n", o[0], o[1])
	}
	return b.String()
}

// certify makes sure that there is a certificate for the host which no login has used
// yet: it may be good for one alone.
func (d *Door) certify(name string) error {
	i := slices.IndexFunc(d.hosts, func(h Host) bool { return h.Name == name })
	if i < 0 {
		return fmt.Errorf("%s is no host of the open batch", name)
	}
	h := d.hosts[i]
	d.turns[name].Lock()
	defer d.turns[name].Unlock()
	if d.unused(name) {
		return nil
	}
	c, err := d.cfg.Mint(d.ctx, h.Name)
	if err != nil {
		return err
	}
	if err := sshrun.Check(c, string(ssh.MarshalAuthorizedKey(d.cfg.Key.PublicKey())), c.Connect.Login, h.ID); err != nil {
		return err
	}
	return d.take(name, c)
}

// unused reports whether the host's newest certificate can be handed out again.
func (d *Door) unused(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	last := d.issued[name]
	return last != nil && !last.used && time.Unix(int64(last.certificate.ValidBefore), 0).Sub(d.cfg.Clock.Now()) > fresh
}

// take writes what ssh needs for a certificate that was checked.
func (d *Door) take(name string, c api.Certificate) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	parsed, _, _, _, err := ssh.ParseAuthorizedKey([]byte(c.Certificate))
	if err != nil {
		return err
	}
	for _, line := range c.KnownHosts {
		if !slices.Contains(d.known, line) {
			d.known = append(d.known, line)
		}
	}
	conf := fmt.Sprintf("HostName %s\nPort %s\nUser %s\nHostKeyAlias %s\nCertificateFile %s\nProxyCommand none\n", c.Connect.Address,
		strconv.Itoa(c.Connect.Port), c.Connect.Login, c.Connect.HostKeyAlias, sshrun.Quote(d.perHost(name, "-cert.pub")))
	if err := errors.Join(
		home.Write(d.files.KnownHosts, []byte(strings.Join(d.known, "\n")+"\n")),
		home.Write(d.perHost(name, "-cert.pub"), []byte(strings.TrimSpace(c.Certificate)+"\n")),
		home.Write(d.perHost(name, ".conf"), []byte(conf))); err != nil {
		return err
	}
	d.issued[name] = &issued{certificate: parsed.(*ssh.Certificate)}
	return nil
}

func (d *Door) serve() {
	for {
		conn, err := d.listener.Accept()
		if err != nil {
			return
		}
		d.mu.Lock()
		d.conns[conn] = struct{}{}
		d.mu.Unlock()
		d.serving.Go(func() {
			agent.ServeAgent(keyring{d}, conn) // ends when the other side does
			conn.Close()
			d.mu.Lock()
			delete(d.conns, conn)
			d.mu.Unlock()
		})
	}
}
