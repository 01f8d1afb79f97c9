package recording

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// What is said at the socket: one packet with what sshd started, and its files; and one
// with the answer, and other files.
const (
	maxPacket = 160 << 10 // a command has at most 128 KiB (execve(2))
	// patience is how long either waits for the other.
	patience = 10 * time.Second
)

// Ask is what sshd started.
type Ask struct {
	Command string `json:"command,omitempty"` // empty: the login's shell
	Term    string `json:"term,omitempty"`    // kind of its terminal
}

type answer struct {
	Refused string `json:"refused,omitempty"`
	TTY     string `json:"tty,omitempty"`
}

// Peer is who asks, as the kernel says.
type Peer struct {
	PID int
	UID uint32
}

// Listen makes the socket. Everybody on the host may connect: who may ask is looked at
// with each.
func Listen(name string) (*net.UnixListener, error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return nil, err
	}
	if err := os.Chmod(filepath.Dir(name), 0o755); err != nil { // the daemon's umask is narrow
		return nil, err
	}
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: name, Net: "unixpacket"})
	if err != nil {
		return nil, err
	}
	return l, os.Chmod(name, 0o666)
}

// Request is somebody who asks.
type Request struct {
	Ask
	Peer
	conn  *net.UnixConn
	files [3]*os.File
}

// PeerOf is who connected, before they ask anything.
func PeerOf(conn *net.UnixConn) (Peer, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return Peer{}, err
	}
	var cred *unix.Ucred
	var inner error
	if err := raw.Control(func(fd uintptr) { cred, inner = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil || inner != nil {
		return Peer{}, errors.Join(err, inner)
	}
	return Peer{int(cred.Pid), cred.Uid}, nil
}

// Receive reads what they ask.
func Receive(conn *net.UnixConn, from Peer) (*Request, error) {
	r := &Request{Peer: from, conn: conn}
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	text, files, err := receive(conn)
	if err != nil {
		return nil, err
	}
	for i, f := range files { // so that whoever waits for them can be woken
		files[i] = waiting(f)
	}
	if copied := copy(r.files[:], files); copied != 3 || len(files) != 3 || json.Unmarshal(text, &r.Ask) != nil {
		for _, f := range files {
			f.Close()
		}
		return nil, errors.New("it is not asked as it should be")
	}
	return r, nil
}

// Refuse says why not.
func (r *Request) Refuse(why string) {
	for _, f := range r.files {
		_ = f.Close()
	}
	_ = send(r.conn, answer{Refused: why})
}

// Size is the terminal's, or what players take for a command without one.
func (r *Request) Size() (width, height int) {
	if size, err := sizeOf(r.files[0]); err == nil && size.Col > 0 && size.Row > 0 {
		return int(size.Col), int(size.Row)
	}
	return 80, 24
}

// Terminal reports whether it has one.
func (r *Request) Terminal() bool { return isTerminal(r.files[0]) }

// Grant makes the channel and hands its other side over. From then on the program runs.
func (r *Request) Grant() (*Channel, error) {
	c, err := newChannel(r.files, r.UID)
	if err != nil {
		r.Refuse("this host cannot make a terminal for you: " + err.Error())
		c.Close()
		return nil, err
	}
	err = errors.Join(send(r.conn, answer{TTY: c.tty}, c.program...), c.handOver())
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Refused is why Run started nothing.
type Refused struct{ Why string }

func (r *Refused) Error() string { return r.Why }

// Run asks the daemon to record what sshd started, as this process's environment says,
// and runs it behind the daemon. It returns how it ended, once all that it wrote has gone
// to the client: sshd goes by this process, and does not wait for more when it ends. That
// is all that this process is for; to stop it stops nothing else.
func Run(socket string) (*os.ProcessState, error) {
	// Nobody of the same login looks into this process or changes it.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return nil, err
	}
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: socket, Net: "unixpacket"})
	if err != nil {
		return nil, errors.New("nothing on this host records")
	}
	defer conn.Close()
	command := os.Getenv("SSH_ORIGINAL_COMMAND")
	a, files, err := ask(conn, Ask{command, os.Getenv("TERM")})
	if err != nil {
		return nil, err
	}
	signals := make(chan os.Signal, 8) // sshd passes on what the client sends
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	child, err := start(command, a.TTY, files)
	if err != nil {
		return nil, err
	}
	// From here on nothing of sshd's is open in this process.
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, errors.Join(err, child.Kill())
	}
	for i, f := range files {
		f.Close()
		if err := unix.Dup2(int(null.Fd()), i); err != nil {
			return nil, errors.Join(err, child.Kill())
		}
	}
	for i := len(files); i < 3; i++ {
		if err := unix.Dup2(int(null.Fd()), i); err != nil {
			return nil, errors.Join(err, child.Kill())
		}
	}
	go func() {
		for s := range signals {
			_ = syscall.Kill(-child.Pid, s.(syscall.Signal)) // or it has ended
		}
	}()
	state, err := child.Wait()
	if err == nil {
		_ = conn.SetDeadline(time.Time{})
		_, _ = conn.Read(make([]byte, 1)) // until the daemon is through
	}
	return state, err
}

func ask(conn *net.UnixConn, q Ask) (a answer, files []*os.File, err error) {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return a, nil, err
	}
	if err := send(conn, q, os.Stdin, os.Stdout, os.Stderr); err != nil {
		return a, nil, err
	}
	text, files, err := receive(conn)
	if err != nil {
		return a, nil, fmt.Errorf("the recorder does not answer: %w", err)
	}
	if err := json.Unmarshal(text, &a); err != nil {
		return a, nil, err
	}
	switch {
	case a.Refused != "":
		return a, nil, &Refused{a.Refused}
	case a.TTY != "" && len(files) != 1, a.TTY == "" && len(files) != 3:
		return a, nil, errors.New("the recorder gave other files than it should")
	}
	return a, files, nil
}

// start starts what sshd would have started, in a session of its own, with nothing open
// but the files.
func start(command, tty string, files []*os.File) (*os.Process, error) {
	// The login's own files, which its shell has read, may have left something open.
	if err := unix.CloseRange(3, ^uint(0)>>1, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		for fd := 3; fd < 4096; fd++ { // before Linux 5.11
			unix.CloseOnExec(fd)
		}
	}
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "SSH_ORIGINAL_COMMAND=") && !strings.HasPrefix(v, "SSH_TTY=") {
			env = append(env, v)
		}
	}
	how := &syscall.SysProcAttr{Setsid: true}
	if tty != "" {
		env = append(env, "SSH_TTY="+tty)
		how.Setctty = true
		files = []*os.File{files[0], files[0], files[0]}
	}
	shell := os.Getenv("SHELL")
	if !filepath.IsAbs(shell) {
		shell = "/bin/sh"
	}
	args := []string{"-" + filepath.Base(shell)} // a login shell
	if command != "" {
		args = []string{filepath.Base(shell), "-c", command}
	}
	return os.StartProcess(shell, args, &os.ProcAttr{Env: env, Files: files, Sys: how})
}

func send(conn *net.UnixConn, v any, files ...*os.File) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(text) > maxPacket {
		return errors.New("the command is too long to be recorded")
	}
	var fds []int
	for _, f := range files {
		if err := control(f, func(fd int) error { fds = append(fds, fd); return nil }); err != nil {
			return err
		}
	}
	_, _, err = conn.WriteMsgUnix(text, unix.UnixRights(fds...), nil)
	return err
}

// receive reads a packet and its files.
func receive(conn *net.UnixConn) ([]byte, []*os.File, error) {
	text, control := make([]byte, maxPacket+1), make([]byte, unix.CmsgSpace(4*4))
	n, m, flags, _, err := conn.ReadMsgUnix(text, control)
	if err != nil {
		return nil, nil, err
	}
	var files []*os.File
	messages, err := unix.ParseSocketControlMessage(control[:m])
	for _, msg := range messages {
		fds, ferr := unix.ParseUnixRights(&msg)
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "passed"))
		}
		err = errors.Join(err, ferr)
	}
	if n == 0 {
		err = errors.Join(err, os.ErrClosed)
	}
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		err = errors.Join(err, errors.New("the packet is too large"))
	}
	if err != nil {
		for _, f := range files {
			f.Close()
		}
		return nil, nil, err
	}
	return text[:n], files, nil
}
