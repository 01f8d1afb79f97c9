// Package cli is the sally command: its subcommands, what they print, and the
// codes they exit with.
//
// What a command was asked for goes to the standard output, as text or with
// --output json; everything else, such as progress, questions and errors, goes
// to the standard error output. Errors come as `sally: …`, mostly followed by a
// `hint: …` about what to do.
package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"sallyport/api"
	"sallyport/cmd/sally/internal/grantkey"
	"sallyport/cmd/sally/internal/home"
	"sallyport/cmd/sally/internal/show"
	"sallyport/cmd/sally/internal/signin"
	"sallyport/internal/clock"
)

// System is what a run of sally has of the machine. All of it must be set.
type System struct {
	In, Out, Err *os.File
	Getenv       func(string) string
	Clock        clock.Clock
	Zone         *time.Location // the reader's
}

// Process is the machine as this process has it.
func Process() System {
	return System{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv,
		Clock: clock.System, Zone: time.Local}
}

// sally is one run of the command.
type sally struct {
	System
	home home.Home
	out  *show.Text // the result
	err  *show.Text // everything else
	http *http.Client

	// started: cobra has understood the command line, so that errors from now
	// on are not about usage.
	started bool

	// Flags of every command.
	url     string
	output  string
	verbose bool
}

// Run runs sally with arguments and returns its exit code.
func Run(system System, args []string) int {
	s := &sally{System: system}
	s.out = show.NewText(s.Out, s.colours(s.Out), s.Clock, s.Zone)
	s.err = show.NewText(s.Err, s.colours(s.Err), s.Clock, s.Zone)
	s.http = &http.Client{Transport: s.transport(), Timeout: 30 * time.Second}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if s.home, err = home.Find(s.Getenv); err == nil || offline(args) {
		root := s.root()
		root.SetArgs(args)
		err = root.ExecuteContext(ctx)
	}
	return s.exit(ctx, err)
}

// offline reports whether a command needs nothing of the computer but its files.
func offline(args []string) bool { return len(args) > 1 && args[0] == "audit" && args[1] == "verify" }

func (s *sally) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "sally",
		Short: "Ask for a login on a host, and log in when it is approved",
		Long: `Sally asks a Sallyport broker for access to servers: one login on one host for
a limited time, approved by other people, and in a log that nobody can quietly
rewrite.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 denied by policy or by a person,
4 still waiting (with --no-wait), 130 interrupted. "sally ssh" exits with ssh's
own code once ssh runs.

Environment: SALLYPORT_URL is the broker's URL, SALLYPORT_TOKEN an access token
to use instead of signing in, NO_COLOR turns colours off.`,
		Example: `  sally login --url https://sallyport.example.com
  sally hosts
  sally ssh dba@db-1
  sally requests --waiting`,
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			s.started = true
			return s.checkOutput()
		},
	}
	flags := root.PersistentFlags()
	flags.StringVar(&s.url, "url", "", "the broker's URL (default: $SALLYPORT_URL, or as of the last sign-in)")
	flags.StringVarP(&s.output, "output", "o", "text", "how to print data: text or json")
	flags.BoolVar(&s.verbose, "verbose", false, "tell which calls are made and which ssh is run")
	root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))

	for _, group := range []struct {
		title    string
		commands []*cobra.Command
	}{
		{"Signing in", []*cobra.Command{s.loginCommand(), s.logoutCommand(), s.whoamiCommand()}},
		{"Getting in", []*cobra.Command{s.sshCommand(), s.emergencyCommand(), s.requestCommand(), s.certCommand(), s.extendCommand(), s.cancelCommand(), s.finishCommand()}},
		{"Requests and decisions", []*cobra.Command{s.requestsCommand(), s.showCommand(), s.approveCommand(), s.denyCommand(), s.reviewCommand(), s.delegateCommand(), s.delegationsCommand()}},
		{"People", []*cobra.Command{s.peopleCommand(), s.revokeCommand()}},
		{"Hosts", []*cobra.Command{s.hostsCommand(), s.whyCommand(), s.reachCommand()}},
		{"Deployments", []*cobra.Command{s.deployCommand()}},
		{"Policy", []*cobra.Command{s.policyCommand()}},
		{"Auditing", []*cobra.Command{s.auditCommand()}},
	} {
		root.AddGroup(&cobra.Group{ID: group.title, Title: group.title + ":"})
		for _, c := range group.commands {
			c.GroupID = group.title
			root.AddCommand(c)
		}
	}
	root.AddCommand(s.versionCommand())
	return root
}

func (s *sally) checkOutput() error {
	if s.output != "text" && s.output != "json" {
		return usage("--output is text or json, not %q", s.output)
	}
	return nil
}

func (s *sally) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print sally's version",
		Example: "  sally version --output json",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if s.output == "json" {
				return s.json(map[string]string{"version": version()})
			}
			s.out.Line("sally %s", version())
			return nil
		},
	}
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

// json prints data for programs.
func (s *sally) json(v any) error {
	e := json.NewEncoder(s.Out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// colours reports whether the reader of f has and wants colours
// (https://no-color.org).
func (s *sally) colours(f *os.File) bool {
	return term.IsTerminal(int(f.Fd())) && s.Getenv("NO_COLOR") == "" && s.Getenv("TERM") != "dumb"
}

// interactive reports whether somebody is there to answer questions.
func (s *sally) interactive() bool {
	return term.IsTerminal(int(s.In.Fd())) && term.IsTerminal(int(s.Err.Fd()))
}

// columns is how wide the terminal is that errors and progress go to; 0 if that
// is none that lets lines be drawn again.
func (s *sally) columns() int {
	width, _, err := term.GetSize(int(s.Err.Fd()))
	if err != nil || s.Getenv("TERM") == "dumb" {
		return 0
	}
	return width
}

// broker is the URL of the broker to talk to.
func (s *sally) broker() (string, error) {
	text := s.url
	if text == "" {
		text = s.Getenv("SALLYPORT_URL")
	}
	if text == "" {
		settings, err := s.home.Settings()
		if err != nil {
			return "", err
		}
		text = settings.URL
	}
	if text == "" {
		return "", usage("no broker is known").hinting("sally login --url https://sallyport.example.com")
	}
	url, err := api.CheckURL(text)
	if err != nil {
		return "", usage("%s", err)
	}
	return url, nil
}

func (s *sally) tokens() *signin.Tokens {
	return signin.NewTokens(s.home.State, s.http, s.Clock)
}

// client calls the broker as whoever is signed in.
func (s *sally) client() (*api.Client, error) {
	broker, err := s.broker()
	if err != nil {
		return nil, err
	}
	var source api.TokenSource = s.tokens().Source(broker)
	if token := s.Getenv("SALLYPORT_TOKEN"); token != "" {
		source = api.StaticToken(token)
	}
	return api.NewClient(api.ClientConfig{
		URL: broker, Token: source, UserAgent: "sally/" + version(), Transport: s.transport()})
}

// keys are the grants' keys on this computer.
func (s *sally) keys() *grantkey.Ring {
	return grantkey.NewRing(grantkey.Config{
		Dir: filepath.Join(s.home.Runtime, "keys"), Agent: s.Getenv("SSH_AUTH_SOCK"), Clock: s.Clock})
}

// transport carries calls, and tells of them with --verbose.
func (s *sally) transport() http.RoundTripper { return tellingTransport{s} }

type tellingTransport struct{ s *sally }

func (t tellingTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	start := time.Now()
	resp, err := http.DefaultTransport.RoundTrip(r)
	if t.s.verbose {
		// Neither headers nor queries: the first hold tokens, the second codes.
		outcome := "failed"
		if err == nil {
			outcome = resp.Status
		}
		t.s.err.Line("%s %s%s: %s, %d ms", r.Method, r.URL.Host, r.URL.Path, outcome, time.Since(start).Milliseconds())
	}
	return resp, err
}
