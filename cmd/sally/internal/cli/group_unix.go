//go:build unix

package cli

import (
	"os"
	"syscall"
)

// ownGroup puts a program into a process group of its own.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// endGroup asks all processes of a program's group to end.
func endGroup(p *os.Process) error { return syscall.Kill(-p.Pid, syscall.SIGTERM) }

// killGroup ends those that are left.
func killGroup(p *os.Process) { syscall.Kill(-p.Pid, syscall.SIGKILL) }
