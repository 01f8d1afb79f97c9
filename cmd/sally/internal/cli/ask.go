package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"charm.land/huh/v2"
	"github.com/spf13/cobra"

	"sallyport/api"
	"sallyport/cmd/sally/internal/show"
)

// ask is what a person says when asking for a grant.
type ask struct {
	duration, reason, ticket string
	notBefore                *time.Time
	noWait                   bool
}

// askFlags adds the flags of the commands that may ask for a grant. ticket is
// the short form of --ticket.
func (a *ask) askFlags(c *cobra.Command, ticket string) {
	flags := c.Flags()
	flags.StringVarP(&a.duration, "duration", "d", "", "how long, from the approval on, such as 30m (default: the rule's)")
	flags.StringVarP(&a.reason, "reason", "r", "", "why you need it; approvers and auditors read it")
	flags.StringVarP(&a.ticket, "ticket", ticket, "", "the ticket that it is for")
	flags.BoolVar(&a.noWait, "no-wait", false, "exit with code 4 instead of waiting for approval")
}

// input is the request that an ask makes.
func (a ask) input(where place) (api.RequestInput, error) {
	if err := checkDuration(a.duration); err != nil {
		return api.RequestInput{}, usage("%s", err)
	}
	return api.RequestInput{Host: where.host, Selector: where.selector, Login: where.login, Duration: a.duration,
		Reason: a.reason, Ticket: a.ticket, NotBefore: a.notBefore}, nil
}

// ask asks for a grant. Before it does, it tells who would have to approve; if
// something is missing and somebody is there to answer, it asks them for it.
func (s *sally) ask(ctx context.Context, client *api.Client, where place, a ask) (api.Request, error) {
	in, err := a.input(where)
	if err != nil {
		return api.Request{}, err
	}
	rule, err := ruleFor(ctx, client, where)
	if err != nil {
		return api.Request{}, err
	}
	if rule == nil {
		// The broker says best why not, and records that somebody tried. To
		// those whom no rule lets ask for it, a host does not even exist.
		r, err := client.Ask(ctx, in)
		if p, ok := errors.AsType[*api.Problem](err); ok && p.Status == http.StatusNotFound {
			err = errNoRule.With("%s", p.Detail).Hinting("%s", p.Hint)
		}
		return r, err
	}
	if err := s.complete(ctx, where, rule, &in); err != nil {
		return api.Request{}, err
	}
	preview, err := client.Preview(ctx, in)
	if err != nil {
		return api.Request{}, err
	}
	s.announce(s.err, where, preview.Duration, preview.Automatic, preview.Approvers)
	s.printHosts(s.err, where, preview.Hosts)
	return client.Ask(ctx, in)
}

// announce tells how a request would be approved.
func (s *sally) announce(to *show.Text, where place, duration string, automatic bool, slots []api.Slot) {
	how := "approved automatically"
	if !automatic {
		how = "needs " + who(slots)
	}
	to.Line("%s for %s: %s", show.Cell{Text: where.String(), Style: show.Bold}, show.Duration(duration), how)
}

// complete finds out what is missing in a request, and asks for it if somebody
// is there to answer.
func (s *sally) complete(ctx context.Context, where place, rule *api.HostRule, in *api.RequestInput) error {
	noReason := rule.Reason != nil && rule.Reason.Required && in.Reason == ""
	noTicket := rule.Ticket != nil && rule.Ticket.Required && in.Ticket == ""
	switch {
	// Where nobody is asked and nothing must be said, no question is worth the
	// person's time.
	case s.interactive() && (noReason || noTicket || !rule.Automatic && in.Reason == ""):
		return s.form(ctx, where, rule, in)
	case noReason:
		return missing("reason", where, rule.Reason)
	case noTicket:
		return missing("ticket", where, rule.Ticket)
	}
	return nil
}

func missing(what string, where place, rule *api.TextRule) error {
	hint := fmt.Sprintf("--%s TEXT", what)
	if rule.Message != "" {
		hint += ": " + rule.Message
	}
	return usage("%s needs a %s", where, what).hinting("%s", hint)
}

// ruleFor is the rule under which the caller would ask, or nil if there is none.
func ruleFor(ctx context.Context, client *api.Client, where place) (*api.HostRule, error) {
	if where.selector != nil {
		return ruleForAny(ctx, client, where)
	}
	host, err := client.Host(ctx, where.host)
	if p, ok := errors.AsType[*api.Problem](err); ok && p.Status == http.StatusNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for i := range host.Rules {
		if host.Rules[i].Login == where.login {
			return &host.Rules[i], nil
		}
	}
	return nil, nil
}

func checkDuration(text string) error {
	if d, err := time.ParseDuration(text); text != "" && (err != nil || d <= 0) {
		return fmt.Errorf("%q is not a duration; write it like 30m or 1h30m", text)
	}
	return nil
}

// form asks for what has not been said.
func (s *sally) form(ctx context.Context, where place, rule *api.HostRule, in *api.RequestInput) error {
	var fields []huh.Field
	if in.Reason == "" {
		fields = append(fields, textField("Reason", "Approvers and auditors read it.", rule.Reason, 2000, &in.Reason))
	}
	if in.Ticket == "" && rule.Ticket != nil && rule.Ticket.Required {
		fields = append(fields, textField("Ticket", "", rule.Ticket, 200, &in.Ticket))
	}
	if in.Duration == "" {
		in.Duration = show.Duration(rule.DefaultDuration)
		fields = append(fields, huh.NewInput().Title("Duration").
			Description("From the approval on, at most "+show.Duration(rule.MaxDuration)+".").
			CharLimit(32).Validate(checkDuration).Value(&in.Duration))
	}
	s.announce(s.err, where, or(in.Duration, rule.DefaultDuration), rule.Automatic, rule.Approvers)
	err := huh.NewForm(huh.NewGroup(fields...)).
		WithInput(s.In).WithOutput(s.Err).
		WithTheme(huh.ThemeFunc(huh.ThemeBase16)).
		WithAccessible(!s.colours(s.Err)). // plain questions, for readers aloud too
		RunWithContext(ctx)
	if errors.Is(err, huh.ErrUserAborted) {
		return &interrupted{"nothing was asked for"}
	}
	if err != nil {
		return fmt.Errorf("ask for what is missing: %w", err)
	}
	return nil
}

func textField(title, description string, rule *api.TextRule, most int, value *string) *huh.Input {
	required := rule != nil && rule.Required
	if rule != nil && rule.Message != "" {
		description = rule.Message
	}
	if !required {
		title += " (may be empty)"
	}
	return huh.NewInput().Title(title).Description(show.Clean(description)).CharLimit(most).Value(value).
		Validate(func(text string) error {
			if required && strings.TrimSpace(text) == "" {
				return errors.New("this is needed")
			}
			return nil
		})
}

func (s *sally) requestCommand() *cobra.Command {
	var (
		a            ask
		several      selection
		start        string
		dryRun, link bool
	)
	c := &cobra.Command{
		Use:   "request LOGIN@HOST | LOGIN@LABEL=VALUE,…",
		Short: "Ask for a login on a host, or on several",
		Long: `Ask for a login on a host for some time. Before anything is asked, sally says who
can approve; then it waits until somebody has decided.

Labels instead of the host's name ask for all hosts that have them, under one rule,
at most 50. Which those are is decided now; each gets certificates of its own.

The time starts to run when the request is approved, or at --start if that is later.
With --link, nothing is asked: sally prints an address that opens the page for it,
filled in, for a ticket or a runbook.`,
		Example: `  sally request dba@db-1 --reason "slow query, INC-123" --duration 30m
  sally request dba@db-1 --dry-run
  sally request root@web-1 --reason "kernel update" --start 22:00 --no-wait
  sally request root@web-1 --start 2026-01-31T22:00:00Z --duration 1h
  sally request dba@db-1 --ticket INC-123 --link
  sally request dba@class=database,env=prod --reason "rotate the passwords, INC-124"
  sally request --login dba --select class=database,env=prod --dry-run`,
		Args:              several.args,
		ValidArgsFunction: s.completePlaces,
		RunE: func(c *cobra.Command, args []string) error {
			where, err := several.place(args)
			if err != nil {
				return err
			}
			if a.notBefore, err = s.parseTime("--start", start); err != nil {
				return err
			}
			if link {
				return s.link(where, a)
			}
			if err := s.signedIn(c.Context()); err != nil {
				return err
			}
			client, err := s.client()
			if err != nil {
				return err
			}
			if dryRun {
				return s.preview(c.Context(), client, where, a)
			}
			r, err := s.ask(c.Context(), client, where, a)
			if err != nil {
				return err
			}
			r, outcome := s.await(c.Context(), client, r, a.noWait)
			if err := s.printState(r); err != nil {
				return err
			}
			if outcome == nil {
				s.err.Line("next: sally ssh %s", anyHost(r))
			}
			return outcome
		},
	}
	a.askFlags(c, "t")
	several.flags(s, c)
	c.Flags().StringVar(&start, "start", "", `start later, at most 30 days ahead: 22:00, "2026-01-31 22:00", RFC 3339, or 2h or 3d from now`)
	c.Flags().BoolVar(&link, "link", false, "only print an address that opens the page for this request, filled in")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would happen and who could approve")
	return c
}

// preview prints what would happen to a request.
func (s *sally) preview(ctx context.Context, client *api.Client, where place, a ask) error {
	in, err := a.input(where)
	if err != nil {
		return err
	}
	preview, err := client.Preview(ctx, in)
	if err != nil {
		return err
	}
	if s.output == "json" {
		return s.json(preview)
	}
	s.announce(s.out, where, preview.Duration, preview.Automatic, preview.Approvers)
	s.printHosts(s.out, where, preview.Hosts)
	s.fields("rule", preview.Rule,
		"time to approve", "until "+s.moment(&preview.ApproveBy),
		"not before", s.moment(preview.NotBefore),
		"time to start using", show.Duration(preview.StartWithin),
		"time of use", show.Duration(preview.Duration),
		"certificates for", show.Duration(preview.CertificateLifetime))
	return nil
}
