package recording

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// terminal is a pseudo-terminal: what is written to one side is read at the other.
type terminal struct {
	master, slave *os.File
	name          string // of the slave
}

// openTerminal makes one for somebody, like another.
func openTerminal(owner uint32, like *os.File) (*terminal, error) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	t := &terminal{master: master}
	if err := t.prepare(owner, like); err != nil {
		return nil, errors.Join(fmt.Errorf("making a terminal: %w", err), t.close())
	}
	return t, nil
}

func (t *terminal) prepare(owner uint32, like *os.File) error {
	var number int
	err := control(t.master, func(fd int) (err error) {
		if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
			return err
		}
		number, err = unix.IoctlGetInt(fd, unix.TIOCGPTN)
		return err
	})
	if err != nil {
		return err
	}
	t.name = fmt.Sprintf("/dev/pts/%d", number)
	// Not by package os, which has files wait in a way that programs do not expect.
	fd, err := unix.Open(t.name, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	t.slave = os.NewFile(uintptr(fd), t.name)
	const group = 5 // tty, as sshd has it; mesg(1) decides whether it may write
	if err := errors.Join(t.slave.Chown(int(owner), group), t.slave.Chmod(0o620)); err != nil {
		return err
	}
	var modes *unix.Termios
	if err := control(like, func(fd int) (err error) {
		modes, err = unix.IoctlGetTermios(fd, unix.TCGETS)
		return err
	}); err != nil {
		return err
	}
	if err := control(t.slave, func(fd int) error { return unix.IoctlSetTermios(fd, unix.TCSETS, modes) }); err != nil {
		return err
	}
	size, err := sizeOf(like)
	if err != nil {
		return err
	}
	return t.resize(size)
}

func (t *terminal) resize(size unix.Winsize) error {
	return control(t.master, func(fd int) error { return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &size) })
}

func (t *terminal) close() (err error) {
	for _, f := range []*os.File{t.slave, t.master} {
		if f != nil {
			err = errors.Join(err, ignoreClosed(f.Close()))
		}
	}
	return err
}

// waiting is the file so that its Read ends when it is closed. Whoever shares it is sshd's
// process for the channel, which is about to have others.
func waiting(f *os.File) *os.File {
	var copied int
	err := control(f, func(fd int) (err error) {
		if copied, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3); err != nil {
			return err
		}
		return unix.SetNonblock(copied, true)
	})
	if err != nil {
		return f
	}
	f.Close()
	return os.NewFile(uintptr(copied), "sshd")
}

func ignoreClosed(err error) error {
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// sizeOf is the size of a terminal.
func sizeOf(f *os.File) (size unix.Winsize, err error) {
	err = control(f, func(fd int) error {
		s, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
		if err == nil {
			size = *s
		}
		return err
	})
	return size, err
}

// isTerminal reports whether the file is one.
func isTerminal(f *os.File) bool {
	return control(f, func(fd int) error {
		_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		return err
	}) == nil
}

// makeRaw has a terminal pass everything on as it is.
func makeRaw(f *os.File) error {
	return control(f, func(fd int) error {
		t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		if err != nil {
			return err
		}
		t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON | unix.IXOFF
		t.Oflag &^= unix.OPOST
		t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
		t.Cflag = t.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
		t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
		return unix.IoctlSetTermios(fd, unix.TCSETS, t)
	})
}

// control calls f with the file's number, and leaves the file as it was.
func control(file *os.File, f func(fd int) error) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil {
		return err
	}
	return inner
}
