// Package child starts programs that do not outlive this one: when this process
// ends, be it by kill -9, the kernel ends them too. The demo and the tests run
// their servers with it, so that nothing is ever left behind.
package child

import (
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// Process is a program that was started by Start. It is safe for concurrent use.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // of Wait; readable once done is closed
}

// Start starts the command, which gets a process group of its own, so that a
// Ctrl-C in the terminal reaches only us and we stop things in order. The kernel
// sends it death when this process ends. The caller must not wait for cmd itself.
func Start(cmd *exec.Cmd, death syscall.Signal) (*Process, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = death
	cmd.SysProcAttr.Setpgid = true
	p := &Process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The kernel sends the signal when the thread that forked ends, not the
		// process. So this goroutine keeps its thread for as long as the child
		// lives; it ends the thread, by returning locked, when the child is gone.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		p.err = cmd.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// PID is the process's number.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err says how an ended process ended, as exec.Cmd.Wait does. It waits for the end.
func (p *Process) Err() error {
	<-p.done
	return p.err
}

// Stop sends the signal and waits until the process has ended. If it has not
// after patience, it is killed. Stopping an ended process is fine.
func (p *Process) Stop(sig syscall.Signal, patience time.Duration) {
	p.cmd.Process.Signal(sig)
	select {
	case <-p.done:
	case <-time.After(patience):
		p.cmd.Process.Kill()
		<-p.done
	}
}
