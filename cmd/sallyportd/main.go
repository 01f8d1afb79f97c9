// Command sallyportd runs the Sallyport broker.
//
// sallyportd serve answers people, the sally command and programs; the other
// commands prepare what it needs: migrate the database, ca the keys, policy the
// rules, notify whom to tell; audit looks after the log. sallyportd witness watches the log from elsewhere. sallyportd demo starts everything at once on this machine, to try.
//
// Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	_ "time/tzdata" // a policy names time zones; the image has none

	"github.com/spf13/cobra"

	"sallyport/internal/refusal"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	began := false
	root := &cobra.Command{
		Use:           "sallyportd",
		Short:         "The Sallyport access broker",
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRun: func(*cobra.Command, []string) {
			began = true
		},
	}
	root.AddCommand(serveCommand(), migrateCommand(), auditCommand(), caCommand(), policyCommand(), notifyCommand(), witnessCommand(), demoCommand(),
		healthcheckCommand(), versionCommand())
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, "sallyportd:", err)
	if r := refusal.As(err); r != nil && r.Hint != "" {
		fmt.Fprintln(os.Stderr, "hint:", r.Hint)
	}
	var wrong usageError
	switch {
	case errors.As(err, &wrong):
		return 2
	case !began: // cobra refused the command line
		fmt.Fprintln(os.Stderr, "hint: sallyportd --help lists the commands")
		return 2
	}
	return 1
}

// usageError is a mistake in flags, environment or configuration file.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }
