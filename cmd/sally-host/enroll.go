package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"sallyport/api/hostapi"
	"sallyport/cmd/sally-host/internal/enrol"
	"sallyport/cmd/sally-host/internal/place"
)

var enrollCommand = command{
	name:    "enroll",
	summary: "make this machine a host of Sallyport, or bring an enrolled one up to date",
	help: `Usage: sally-host enroll --url URL [--token TOKEN] [flags]

It introduces this host to the broker, sets up sshd, proves that a right certificate
enters and wrong ones do not, and only then takes every other way in away. If anything
fails, sshd is again what it was. Run it again at any time: it changes what is not yet so.

  --url URL            of the broker, https://…; an enrolled host knows it
  --token TOKEN        join token, from: sally hosts join NAME; or in SALLYPORT_JOIN_TOKEN.
                       Without one an operator lets the host in, by its fingerprint
  --name NAME          propose a name (default: the host's own), without a token
  --address ADDRESS    propose where ssh reaches it, host or host:port
  --login LOGIN        propose a login; may be given more than once
  --log-key KEY        expect this key of the broker's log, if you have it from elsewhere
  --wait DURATION      for an operator (default 15m, with --non-interactive 0)
  --keep-other-access  leave passwords and authorized keys open, for a first stage
  --non-interactive    ask nothing, for Ansible and cloud-init
  --print-config       print what would be written, and change nothing

Exit codes: 0 done, 1 failed (nothing is changed), 2 wrong usage, 3 the broker says no,
4 no operator has let the host in yet.

Examples:
  sally-host enroll --url https://sallyport.example.com --token "$TOKEN"
  sally-host enroll --url https://sallyport.example.com --login dba --keep-other-access
  sally-host enroll                                      # later: close the other ways
  sally-host enroll --non-interactive --url "$URL"       # in Ansible; 4 means: not yet
  sally-host enroll --print-config
`,
	run: enroll,
}

var unenrollCommand = command{
	name:    "unenroll",
	summary: "give this host back the ways in that it had before",
	help: `Usage: sally-host unenroll

It takes away what enroll wrote and has sshd read its configuration again, so that
passwords and authorized keys count as they did before. An operator removes the host
from Sallyport: sally hosts remove NAME

Example:
  sally-host unenroll
`,
	run: func(args []string) int {
		if len(args) != 0 {
			return misused("unenroll takes nothing; see sally-host unenroll --help")
		}
		return perform(true, func(ctx context.Context, e *enrol.Enroller) error { return e.Unenrol(ctx) })
	},
}

func enroll(args []string) int {
	flags := flag.NewFlagSet("enroll", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	var ask enrol.Ask
	flags.StringVar(&ask.URL, "url", "", "")
	flags.StringVar(&ask.Token, "token", os.Getenv("SALLYPORT_JOIN_TOKEN"), "")
	flags.StringVar(&ask.Name, "name", "", "")
	flags.StringVar(&ask.Address, "address", "", "")
	flags.Func("login", "", func(login string) error { ask.Logins = append(ask.Logins, login); return nil })
	flags.StringVar(&ask.LogKey, "log-key", "", "")
	flags.DurationVar(&ask.Wait, "wait", -1, "")
	flags.BoolVar(&ask.KeepOtherAccess, "keep-other-access", false, "")
	silent := flags.Bool("non-interactive", false, "")
	only := flags.Bool("print-config", false, "")
	if err := flags.Parse(args); err != nil {
		return misused("%v; see sally-host enroll --help", err)
	}
	if flags.NArg() > 0 {
		return misused("enroll does not take %q; see sally-host enroll --help", flags.Arg(0))
	}
	if *only {
		return printConfig(ask)
	}
	if _, err := place.Here.Read(); ask.URL == "" && errors.Is(err, place.ErrNotEnrolled) {
		return misused("enroll needs --url; see sally-host enroll --help")
	}
	if ask.Wait < 0 {
		if ask.Wait = 15 * time.Minute; *silent {
			ask.Wait = 0
		}
	}
	return perform(*silent, func(ctx context.Context, e *enrol.Enroller) error { return e.Enrol(ctx, ask) })
}

// printConfig prints every text that enrolment writes, for the sshd of this host.
func printConfig(ask enrol.Ask) int {
	version, err := enrol.HereServer.Version(context.Background())
	if err != nil {
		return failed(err)
	}
	root := len(ask.Logins) == 0
	for _, login := range ask.Logins {
		root = root || login == "root"
	}
	drop := enrol.Drop{Version: version, Root: root, Closed: !ask.KeepOtherAccess}
	for _, file := range []struct{ name, text string }{
		{enrol.DropIn, drop.Text()},
		{enrol.PAM + ", before the common session lines", enrol.Hook + "\n"},
		{enrol.UnitFile, enrol.Unit},
	} {
		fmt.Printf("### %s\n%s\n", file.name, file.text)
	}
	return exitDone
}

// perform runs what changes the host, and says how it went. silent: nobody is there to
// be asked.
func perform(silent bool, do func(context.Context, *enrol.Enroller) error) int {
	if os.Geteuid() != 0 {
		return failed(errors.New("only root can do that"))
	}
	// Who presses Ctrl-C, or whose connection breaks, has what was begun taken back.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	err := do(ctx, &enrol.Enroller{Place: place.Here, Server: enrol.HereServer, HTTP: http.DefaultClient, Now: time.Now,
		Out: os.Stdout, Version: version(), Sure: func(question string) bool { return silent || confirmed(question) }})
	var p *hostapi.Problem
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, enrol.ErrWaiting):
		fmt.Fprintf(os.Stderr, "sally-host: %v\n", err)
		return exitWaiting
	case errors.As(err, &p) && p.Status/100 == 4:
		failed(err)
		return exitDenied
	}
	return failed(err)
}

// confirmed asks whoever sits at the terminal.
func confirmed(question string) bool {
	fmt.Printf("\n%s [yes/no] ", question)
	answer, _ := bufio.NewReader(os.Stdin).ReadString('\n') // nothing is no
	return strings.EqualFold(strings.TrimSpace(answer), "yes")
}

// version is that of this program, as Go noted it when it was built.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
