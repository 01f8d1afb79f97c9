package cli

import (
	"context"
	"errors"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/oauth2"

	"sallyport/api"
	"sallyport/cmd/sally/internal/show"
	"sallyport/cmd/sally/internal/signin"
)

// signInTime is how long sally waits for a sign-in in the browser.
const signInTime = 10 * time.Minute

func (s *sally) loginCommand() *cobra.Command {
	var device bool
	c := &cobra.Command{
		Use:   "login",
		Short: "Sign in to a broker",
		Long: `Sign in to a broker in the browser, and remember the broker for the commands that
follow. With --device, sally shows a code to enter in a browser on any computer:
use that where there is no browser.

The tokens are kept in $XDG_STATE_HOME/sally/token.json, which only you can read.`,
		Example: `  sally login --url https://sallyport.example.com
  sally login --device`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return s.login(c.Context(), device)
		},
	}
	c.Flags().BoolVar(&device, "device", false, "sign in with a code, in a browser anywhere")
	return c
}

func (s *sally) login(ctx context.Context, device bool) error {
	if s.Getenv("SALLYPORT_TOKEN") != "" {
		return usage("SALLYPORT_TOKEN is set, so a sign-in would not be used").hinting("unset SALLYPORT_TOKEN")
	}
	broker, err := s.broker()
	if err != nil {
		return err
	}
	// Whoever is signed in, and signs in again, wants to have just done so.
	if err := s.signIn(ctx, broker, device, s.tokens().Known(broker)); err != nil {
		return err
	}
	settings, err := s.home.Settings()
	if err != nil {
		return err
	}
	if settings.URL != broker {
		settings.URL = broker
		if err := s.home.Save(settings); err != nil {
			return err
		}
	}
	client, err := s.client()
	if err != nil {
		return err
	}
	me, err := client.Me(ctx)
	if err != nil {
		return err
	}
	if s.output == "json" {
		return s.json(me)
	}
	s.out.Line("signed in to %s as %s", broker, person(me.Person))
	return nil
}

// signIn gets and keeps new tokens for the broker. anew: the person goes to the
// identity provider, also if the browser is signed in.
func (s *sally) signIn(ctx context.Context, broker string, device, anew bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, signInTime, errNobody)
	defer cancel()
	server, err := signin.Discover(ctx, s.http, broker)
	if err != nil {
		return err
	}
	var token *oauth2.Token
	if device {
		token, err = server.Device(ctx, func(code *oauth2.DeviceAuthResponse) { s.showDevice(code, anew) })
	} else {
		token, err = server.Loopback(ctx, anew, s.showPage)
	}
	if err != nil {
		return err
	}
	before, err := s.tokens().Put(ctx, broker, token)
	if err != nil {
		return err
	}
	if before != "" {
		// Best effort: the broker ends it by itself when it is old enough.
		server.Revoke(ctx, before)
	}
	return nil
}

func (s *sally) showDevice(code *oauth2.DeviceAuthResponse, anew bool) {
	page, complete := code.VerificationURI, code.VerificationURIComplete
	if anew {
		page += "?prompt=login"
		if complete != "" {
			complete += "&prompt=login"
		}
	}
	s.err.Line("open this page in any browser: %s", page)
	s.err.Line("and enter this code:           %s", show.Cell{Text: code.UserCode, Style: show.Bold})
	if complete != "" {
		s.err.Line("or open: %s", complete)
	}
}

func (s *sally) showPage(page string) {
	s.err.Line("sign in on this page, if your browser does not show it by itself:\n  %s", page)
	s.openBrowser(page)
}

// browser is the program that shows a page here, or nil.
func (s *sally) browser() []string {
	if b := s.Getenv("BROWSER"); b != "" {
		return strings.Fields(b)
	}
	if runtime.GOOS == "darwin" {
		return []string{"open"}
	}
	if s.Getenv("DISPLAY") != "" || s.Getenv("WAYLAND_DISPLAY") != "" {
		return []string{"xdg-open"}
	}
	return nil
}

// openBrowser tries to show a page. That it fails is no error: the URL is on the
// terminal.
func (s *sally) openBrowser(page string) {
	program := s.browser()
	if program == nil {
		return
	}
	cmd := exec.Command(program[0], append(program[1:], page)...)
	cmd.SysProcAttr = detached()
	if cmd.Start() == nil {
		go cmd.Wait()
	}
}

// signedIn makes sure that somebody is signed in, asking them to sign in if
// there is somebody to ask.
func (s *sally) signedIn(ctx context.Context) error {
	if s.Getenv("SALLYPORT_TOKEN") != "" {
		return nil
	}
	broker, err := s.broker()
	if err != nil {
		return err
	}
	_, err = s.tokens().Source(broker).Token(ctx)
	if !s.interactive() || !(errors.Is(err, signin.ErrNone) || errors.Is(err, signin.ErrAgain)) {
		return err
	}
	s.err.Line("%s at %s", err.Error(), broker)
	return s.signIn(ctx, broker, s.browser() == nil, false)
}

// signInAgain signs in anew if the broker has refused something because the
// sign-in is too old, and somebody is there to do it. ok: that was it, and err is
// what came of it.
func (s *sally) signInAgain(ctx context.Context, broker string, refused error) (err error, ok bool) {
	p, is := errors.AsType[*api.Problem](refused)
	if !is || p.Code != "sign-in-too-old" || !s.interactive() || s.Getenv("SALLYPORT_TOKEN") != "" {
		return nil, false
	}
	s.err.Line("%s", p.Detail)
	return s.signIn(ctx, broker, s.browser() == nil, true), true
}

func (s *sally) logoutCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "logout",
		Short: "Sign out, and remove the keys of your grants from this computer",
		Long: `End the sign-in at the broker, and remove tokens and the keys of grants from this
computer. Grants that are bound to a removed key cannot be used any more.`,
		Example: "  sally logout",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx := c.Context()
			broker, err := s.broker()
			if err != nil {
				return err
			}
			refresh, err := s.tokens().Take(ctx, broker)
			if refresh != "" {
				err = s.revoke(ctx, broker, refresh)
			}
			if errors.Is(err, signin.ErrNone) {
				s.err.Line("you were not signed in to %s", broker)
				err = nil
			}
			if err = errors.Join(err, s.keys().ForgetAll(ctx, broker)); err != nil {
				return err
			}
			s.err.Line("signed out of %s", broker)
			return nil
		},
	}
}

func (s *sally) revoke(ctx context.Context, broker, refresh string) error {
	server, err := signin.Discover(ctx, s.http, broker)
	if err == nil {
		err = server.Revoke(ctx, refresh)
	}
	if err != nil {
		return &halfDone{err}
	}
	return nil
}

// halfDone says that the tokens are gone from here, but good at the broker.
type halfDone struct{ cause error }

func (e *halfDone) Error() string {
	return "the tokens are removed from this computer, but the broker did not hear of it: " + e.cause.Error()
}

func (s *sally) whoamiCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "whoami",
		Short:   "Show who you are, what you may do and which grants you have",
		Example: "  sally whoami --output json",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := s.client()
			if err != nil {
				return err
			}
			me, err := client.Me(c.Context())
			if err != nil {
				return err
			}
			if s.output == "json" {
				return s.json(me)
			}
			s.printMe(client.URL(), me)
			return nil
		},
	}
}

func (s *sally) printMe(broker string, me api.Me) {
	s.out.Line("%s", person(me.Person))
	roles := make([]string, len(me.Roles))
	for i, r := range me.Roles {
		roles[i] = string(r)
	}
	s.fields(
		"id", me.Person.ID,
		"groups", strings.Join(me.Person.Groups, ", "),
		"roles", strings.Join(roles, ", "),
		"broker", broker,
		"signed in", s.moment(&me.SignedInAt),
	)
	if len(me.Grants) > 0 {
		s.out.Line("")
		s.requestTable(me.Grants)
	}
	if me.Waiting > 0 {
		s.out.Line("\n%d waiting for your decision: sally requests --waiting", me.Waiting)
	}
	if me.Reviews > 0 {
		s.out.Line("\n%d waiting for your review: sally requests --to-review", me.Reviews)
	}
}
