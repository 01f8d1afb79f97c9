package recording

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	cast "sallyport/audit/recording"
)

const (
	// flushEvery is how much of a recording is in memory only, in time.
	flushEvery = 2 * time.Second
	// resizeEvery is how often the daemon looks whether a terminal has another size.
	resizeEvery = 200 * time.Millisecond
	pieceSize   = 4 << 10
	// drain is how long what a program had written is looked for after its client is gone.
	drain = 100 * time.Millisecond
)

// Channel is one shell or command of a session between sshd and what it records of it.
type Channel struct {
	// outer is what sshd gave: standard input, output and errors; of a terminal they are
	// one.
	outer [3]*os.File
	// inner are the daemon's sides of what the program has instead: where its input is
	// written to, and where its output and errors are read from.
	inner [3]*os.File
	// program has the other sides, until the program has them.
	program []*os.File
	// tty is the name of the program's terminal; empty: it has none.
	tty  string
	pty  *terminal
	size unix.Winsize
}

// newChannel stands between sshd's files and those that it makes for a program of owner.
func newChannel(outer [3]*os.File, owner uint32) (*Channel, error) {
	c := &Channel{outer: outer}
	if isTerminal(outer[0]) {
		return c, c.terminal(owner)
	}
	return c, c.pipes()
}

func (c *Channel) terminal(owner uint32) (err error) {
	// Nobody else opens it any more; and who has it open is found (session.Tree.Unrecorded).
	if err := errors.Join(c.outer[0].Chown(0, 0), c.outer[0].Chmod(0o600)); err != nil {
		return err
	}
	if c.pty, err = openTerminal(owner, c.outer[0]); err != nil {
		return err
	}
	c.tty, c.program = c.pty.name, []*os.File{c.pty.slave}
	c.inner = [3]*os.File{c.pty.master, c.pty.master, nil}
	if c.size, err = sizeOf(c.outer[0]); err != nil {
		return err
	}
	return makeRaw(c.outer[0])
}

func (c *Channel) pipes() error {
	c.program = make([]*os.File, 3)
	for i := range c.inner {
		var ends [2]int
		if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
			return err
		}
		mine, its := ends[0], ends[1]
		if i == 0 {
			mine, its = its, mine
		}
		if err := unix.SetNonblock(mine, true); err != nil {
			return err
		}
		c.inner[i], c.program[i] = os.NewFile(uintptr(mine), "recorded"), os.NewFile(uintptr(its), "recorded")
	}
	return nil
}

// handOver forgets the program's sides, which it has now.
func (c *Channel) handOver() error {
	var err error
	for _, f := range c.program {
		if f != nil {
			err = errors.Join(err, ignoreClosed(f.Close()))
		}
	}
	c.program = nil
	return err
}

// Close ends the channel: the program's terminal hangs up, and sshd's does.
func (c *Channel) Close() {
	_ = c.handOver()
	for _, f := range append(c.inner[:], c.outer[:]...) {
		if f != nil {
			_ = f.Close() // it may be closed already
		}
	}
}

// Relay passes on, and records before it does, until the program or its client is gone;
// then it returns nil. Any other end is one of the recording, which the session must not
// survive. The channel is closed then.
func (c *Channel) Relay(w *Writer, began time.Time, now func() time.Time) error {
	defer c.Close()
	since := func() time.Duration { return max(now().Sub(began), 0) }
	failed := make(chan error, 4)
	done := make(chan struct{})
	var outputs sync.WaitGroup
	output := func(i int, record func([]byte) error) {
		outputs.Go(func() {
			err := pass(c.outer[i], c.inner[i], record)
			if err == nil { // the client sees no more; the auditor does
				_ = c.inner[i].SetReadDeadline(time.Now().Add(drain))
				err = pass(io.Discard, c.inner[i], record)
			}
			_ = c.inner[i].Close() // who goes on writing learns that nobody reads
			failed <- err
		})
	}
	if c.pty != nil {
		var text cast.Text
		output(1, func(p []byte) error { return w.Add(cast.Event{At: since(), Code: cast.Output, Data: text.Add(p)}) })
	} else {
		for i := 1; i <= 2; i++ {
			output(i, func(p []byte) error { return w.Add(cast.Bytes(since(), cast.Output, p)) })
		}
	}
	go func() { outputs.Wait(); close(done) }()
	go func() {
		if c.pty == nil {
			err := pass(c.inner[0], c.outer[0], func(p []byte) error { return w.Add(cast.Bytes(since(), cast.Input, p)) })
			_ = c.inner[0].Close() // it is at its end
			failed <- err
			return
		}
		// Seen as far as it is echoed. When the client is gone, so is what reads it.
		_ = pass(c.inner[0], c.outer[0], func([]byte) error { return nil })
		_ = c.inner[0].SetReadDeadline(time.Now().Add(drain))
	}()
	flush, look := time.NewTicker(flushEvery), time.NewTicker(resizeEvery)
	defer flush.Stop()
	defer look.Stop()
	for {
		var err error
		select {
		case <-done:
			select {
			case err := <-failed:
				for err == nil && len(failed) > 0 {
					err = <-failed
				}
				return err
			default:
				return nil
			}
		case err = <-failed:
		case <-flush.C:
			err = w.Flush()
		case <-look.C:
			err = c.resized(w, since())
		}
		if err != nil {
			return err
		}
	}
}

// resized passes a new size of the terminal on.
func (c *Channel) resized(w *Writer, at time.Duration) error {
	if c.pty == nil {
		return nil
	}
	size, err := sizeOf(c.outer[0])
	if err != nil || size == c.size {
		return nil // the client is gone, which the others see
	}
	c.size = size
	if err := w.Add(cast.Event{At: at, Code: cast.Resize, Data: fmt.Sprintf("%dx%d", size.Col, size.Row)}); err != nil {
		return err
	}
	_ = c.pty.resize(size) // it has just ended
	return nil
}

// pass reads from one and writes to the other, after write has taken it, until either is
// gone. An error is write's.
func pass(to io.Writer, from io.Reader, write func([]byte) error) error {
	piece := make([]byte, pieceSize)
	for {
		n, err := from.Read(piece)
		if n > 0 {
			if err := write(piece[:n]); err != nil {
				return err
			}
			if _, err := to.Write(piece[:n]); err != nil {
				return nil
			}
		}
		if err != nil {
			return nil
		}
	}
}
