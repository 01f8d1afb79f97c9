package cli

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"charm.land/huh/v2"
	"github.com/spf13/cobra"

	"sallyport/api"
	"sallyport/cmd/sally/internal/grantkey"
	"sallyport/cmd/sally/internal/show"
	"sallyport/cmd/sally/internal/sshrun"
)

// alarm is how an emergency is written, wherever there are colours.
const alarm show.Style = "1;31"

func (s *sally) emergencyCommand() *cobra.Command {
	var (
		a          ask
		drill, yes bool
	)
	c := &cobra.Command{
		Use:   "emergency LOGIN@HOST [COMMAND | -- SSH ARGUMENTS] | LOGIN@LABEL=VALUE,…",
		Short: "Log in before anybody has approved, in an emergency",
		Long: `Open a door before anybody has approved, where a rule lets you, and log in: one
command asks, gets the certificate, and runs your own ssh.

Everybody who would have approved is told at once. Somebody independent reviews
afterwards what was done, and until then you get no second emergency. Sally says
who and until when, and asks back before anything happens.

With --drill it is a rehearsal. The door opens for real, and people are told and
review it, but everything says that it was one.

Labels instead of the host's name open the doors of all hosts that have them, under
one rule, at most 50; log in to each with "sally ssh".

If a grant of yours for the place runs already, it is used, and nothing is asked.
A command, and whatever follows --, goes to ssh as it is. Exits with ssh's own code
once ssh runs.`,
		Example: `  sally emergency dba@db-1 --reason "the primary is down, orders fail"
  sally emergency dba@db-1 --drill --reason "quarterly rehearsal" --yes
  sally emergency dba@db-1 --reason "disk full" df -h
  sally emergency dba@class=database,env=prod --reason "the cluster is down"`,
		ValidArgsFunction: s.completePlaces,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage("sally emergency takes a LOGIN@HOST").hinting("sally emergency --help")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			where, err := parsePlace(args[0])
			if err != nil {
				return err
			}
			// As with sally ssh, options may also follow the host.
			if err := c.Flags().Parse(args[1:]); err != nil {
				return sshUsage(c, err)
			}
			if help, err := c.Flags().GetBool("help"); help && err == nil {
				return c.Help()
			}
			if err := s.checkOutput(); err != nil {
				return sshUsage(c, err)
			}
			in, err := a.input(where)
			if err != nil {
				return err
			}
			in.Emergency, in.Drill = true, drill
			return s.emergency(c.Context(), where, in, yes, c.Flags().Args())
		},
	}
	c.SetFlagErrorFunc(sshUsage)
	flags := c.Flags()
	flags.StringVarP(&a.duration, "duration", "d", "", "how long, from now on (default: the rule's for emergencies)")
	flags.StringVarP(&a.reason, "reason", "r", "", "what is wrong; everybody who is told reads it")
	flags.StringVar(&a.ticket, "ticket", "", "the ticket that it is for, if there is one")
	flags.BoolVar(&drill, "drill", false, "rehearse: the door opens, and everything says that it was a drill")
	flags.BoolVarP(&yes, "yes", "y", false, "do not ask back")
	flags.SetInterspersed(false)
	return c
}

func (s *sally) emergency(ctx context.Context, where place, in api.RequestInput, yes bool, extra []string) error {
	program, err := sshrun.Find() // before anybody is told of anything
	if err != nil {
		return err
	}
	if err := s.signedIn(ctx); err != nil {
		return err
	}
	client, err := s.client()
	if err != nil {
		return err
	}
	if err := s.keys().Sweep(ctx); err != nil {
		return err
	}
	r, key, err := s.running(ctx, client, where)
	if err != nil {
		return err
	}
	if where.selector != nil && len(extra) > 0 {
		return usage("several hosts have no one command").hinting("open them, then: sally ssh LOGIN@HOST COMMAND")
	}
	if key != nil {
		s.err.Line("your grant %s for %s runs already, it ends %s", r.ID, where.String(), s.err.Relative(*r.EndsAt))
		return s.enter(ctx, client, program, where, r, key, extra)
	}
	if r, err = s.breakGlass(ctx, client, where, in, yes); err != nil {
		return err
	}
	if key, err = s.keyOf(ctx, client, r, false); err != nil {
		return err
	}
	return s.enter(ctx, client, program, where, r, key, extra)
}

// enter is connect to the one host, and of several says how.
func (s *sally) enter(ctx context.Context, client *api.Client, program string, where place, r api.Request, key *grantkey.Key, extra []string) error {
	if where.selector == nil {
		return s.connect(ctx, client, program, where, r, key, extra)
	}
	s.err.Line("next: sally ssh %s", anyHost(r))
	return s.printState(r)
}

// running is a grant of the caller's for the place that can be used from here now,
// with its key; the key is nil if there is none.
func (s *sally) running(ctx context.Context, client *api.Client, where place) (api.Request, *grantkey.Key, error) {
	grants, err := s.grants(ctx, client, where)
	if later, ok := errors.AsType[*waitingError](err); ok && later != nil {
		return api.Request{}, nil, nil // what starts later is no help now
	}
	if err != nil {
		return api.Request{}, nil, err
	}
	for _, r := range grants {
		key, err := s.key(ctx, client, r, false)
		if err == nil || !errors.Is(err, grantkey.ErrGone) {
			return r, key, err
		}
	}
	return api.Request{}, nil, nil
}

// breakGlass asks for the emergency, once its person has heard what follows.
func (s *sally) breakGlass(ctx context.Context, client *api.Client, where place, in api.RequestInput, yes bool) (api.Request, error) {
	if !yes && !s.interactive() {
		return api.Request{}, needsYes("open " + where.String() + " in an emergency")
	}
	if strings.TrimSpace(in.Reason) == "" {
		if !s.interactive() {
			return api.Request{}, usage("an emergency needs a reason").hinting("--reason TEXT: everybody who is told reads it")
		}
		if err := s.askReason(ctx, &in); err != nil {
			return api.Request{}, err
		}
	}
	preview, err := client.Preview(ctx, in)
	if p, ok := errors.AsType[*api.Problem](err); ok && p.Status == http.StatusNotFound {
		err = errNoRule.With("%s", p.Detail).Hinting("%s", p.Hint)
	}
	if err != nil {
		return api.Request{}, err
	}
	if preview.Emergency == nil {
		return api.Request{}, errOver.With("the broker does not know emergencies").Hinting("sally ssh %s", where)
	}
	s.consequences(where, preview)
	if !yes {
		if err := s.confirm(ctx, "open it now?"); err != nil {
			return api.Request{}, err
		}
	}
	r, err := client.Ask(ctx, in)
	if err != nil {
		return api.Request{}, err
	}
	s.err.Line("%s %s: told %s; somebody from %s reviews it", show.Cell{Text: mark(r), Style: alarm}, r.ID,
		strings.Join(preview.Emergency.Told, ", "), strings.Join(preview.Emergency.ReviewGroups, " or "))
	return r, nil
}

// consequences says what an emergency brings about, before it does.
func (s *sally) consequences(where place, p api.Preview) {
	e := p.Emergency
	head, second := "EMERGENCY", "emergency"
	if e.Drill {
		head, second = "EMERGENCY DRILL", "drill"
	}
	s.err.Line("%s  %s opens now, before anybody has approved, for %s", show.Cell{Text: head, Style: alarm},
		show.Cell{Text: where.String(), Style: show.Bold}, show.Cell{Text: show.Duration(p.Duration), Style: show.Bold})
	s.printHosts(s.err, where, p.Hosts)
	s.err.Line("  told at once: %s", strings.Join(e.Told, ", "))
	s.err.Line("  reviewed by:  somebody from %s, until %s (%s)", strings.Join(e.ReviewGroups, " or "),
		s.err.When(e.ReviewBy), s.err.Relative(e.ReviewBy))
	s.err.Line("  until then:   no second %s for you; ordinary requests go on", second)
	s.err.Line("  for good:     your reason and all you get are in the log")
}

func (s *sally) askReason(ctx context.Context, in *api.RequestInput) error {
	err := huh.NewForm(huh.NewGroup(textField("What is wrong?", "Everybody who is told reads it.",
		&api.TextRule{Required: true}, 2000, &in.Reason))).
		WithInput(s.In).WithOutput(s.Err).
		WithTheme(huh.ThemeFunc(huh.ThemeBase16)).
		WithAccessible(!s.colours(s.Err)).
		RunWithContext(ctx)
	if errors.Is(err, huh.ErrUserAborted) {
		return &interrupted{"nothing was opened"}
	}
	return err
}

// mark says of an emergency that it is one; it is empty for other requests.
func mark(r api.Request) string {
	switch {
	case r.Emergency == nil:
		return ""
	case r.Emergency.Drill:
		return "EMERGENCY DRILL"
	}
	return "EMERGENCY"
}

// marked is what a request is for, loud if it is an emergency.
func marked(r api.Request) show.Cell {
	if m := mark(r); m != "" {
		return show.Cell{Text: target(r) + " " + m, Style: alarm}
	}
	return show.Cell{Text: target(r)}
}
