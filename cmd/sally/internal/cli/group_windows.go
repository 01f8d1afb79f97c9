package cli

import (
	"os"
	"syscall"
)

// ownGroup puts a program into a process group of its own.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}

// endGroup ends a program: there is no asking.
func endGroup(p *os.Process) error { return p.Kill() }

// killGroup has nothing left to do.
func killGroup(*os.Process) {}
