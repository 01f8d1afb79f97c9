// Command sally-host is the helper on hosts that Sallyport guards. sshd asks it at
// every login which principal opens the account; so it is small, starts fast, and needs
// no network for an answer. The same program enrols the host.
package main

import (
	"fmt"
	"io"
	"os"
)

// command is one of the things that the program does.
type command struct {
	name    string
	summary string
	help    string // with examples
	// run returns the exit code: one of those below.
	run func(args []string) int
}

// Exit codes, as sally has them.
const (
	exitDone    = 0
	exitFailed  = 1
	exitUsage   = 2
	exitDenied  = 3 // the broker, or the policy, says no
	exitWaiting = 4 // an operator has not let the host in yet
)

// commands are all of them. Each is in a file of its own.
var commands = []command{
	principalsCommand,
	explainCommand,
	enrollCommand,
	unenrollCommand,
	sessionCommand,
	recordCommand,
	daemonCommand,
	postureCommand,
	rehearseCommand,
}

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	if len(args) == 0 {
		usage(os.Stderr)
		return exitUsage
	}
	name, args := args[0], args[1:]
	switch name {
	case "help", "-h", "-help", "--help":
		if len(args) == 1 {
			if c := find(args[0]); c != nil {
				fmt.Print(c.help)
				return exitDone
			}
		}
		usage(os.Stdout)
		return exitDone
	}
	c := find(name)
	if c == nil {
		return misused("there is no command %q; see sally-host --help", name)
	}
	if len(args) == 1 && (args[0] == "--help" || args[0] == "-h") {
		fmt.Print(c.help)
		return exitDone
	}
	return c.run(args)
}

func find(name string) *command {
	for i := range commands {
		if commands[i].name == name {
			return &commands[i]
		}
	}
	return nil
}

func usage(w io.Writer) {
	fmt.Fprintln(w, "sally-host guards this host for Sallyport: nobody enters without a certificate\nthat is in its log.\n\nCommands:")
	for _, c := range commands {
		fmt.Fprintf(w, "  %-11s %s\n", c.name, c.summary)
	}
	fmt.Fprintln(w, "\nsally-host COMMAND --help says more, with examples.")
}

// misused says what is wrong with the command line.
func misused(format string, args ...any) int {
	fmt.Fprintf(os.Stderr, "sally-host: "+format+"\n", args...)
	return exitUsage
}

// failed says what went wrong.
func failed(err error) int {
	fmt.Fprintf(os.Stderr, "sally-host: %v\n", err)
	return exitFailed
}
