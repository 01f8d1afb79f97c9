package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"sallyport/cmd/sally-host/internal/place"
	"sallyport/cmd/sally-host/internal/recording"
)

var recordCommand = command{
	name:    "record",
	summary: "have the daemon record this session, for sshd",
	help: `Usage: sally-host record

For sshd to start in place of the login's shell, or of $SSH_ORIGINAL_COMMAND, where the
rule wants a recording: the door says so. It hands what sshd gave it to the daemon, and
starts the shell behind it. Without the daemon nothing is started.
`,
	run: func(args []string) int {
		if len(args) > 0 {
			return misused("record takes no arguments: it goes by what sshd says")
		}
		state, err := recording.Run(place.Here.Recorder())
		if err != nil {
			fmt.Fprintf(os.Stderr, "Sallyport: your session has to be recorded, and does not begin: %v\n", err)
			return exitFailed
		}
		status, _ := state.Sys().(syscall.WaitStatus)
		if status.Signaled() { // and so does this process, for sshd to tell
			signal.Reset()
			_ = syscall.Kill(os.Getpid(), status.Signal())
			time.Sleep(time.Second)
		}
		return state.ExitCode()
	},
}
