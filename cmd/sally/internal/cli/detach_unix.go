//go:build unix

package cli

import "syscall"

// detached keeps Ctrl-C in the terminal, which is for sally, from another program.
func detached() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }
