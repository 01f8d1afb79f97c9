package cli

import (
	"bufio"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/api"
	"sallyport/cmd/sally/internal/show"
)

func (s *sally) approveCommand() *cobra.Command {
	return s.decideCommand(api.Approve, &cobra.Command{
		Use:   "approve REQUEST",
		Short: "Approve a request",
		Long: `Approve a request of somebody else. Sally shows who asks for what and asks back;
what you approve are the terms shown, and nothing else: the decision names their
hash.`,
		Example: `  sally approve req-4f8k2m9qhx1z
  sally approve req-4f8k2m9qhx1z --comment "as agreed" --yes`,
	})
}

func (s *sally) denyCommand() *cobra.Command {
	return s.decideCommand(api.Deny, &cobra.Command{
		Use:   "deny REQUEST",
		Short: "Deny a request",
		Long:  `Deny a request of somebody else. One deny closes it.`,
		Example: `  sally deny req-4f8k2m9qhx1z --comment "please wait for the backup"
  sally deny req-4f8k2m9qhx1z --yes`,
	})
}

func (s *sally) decideCommand(verdict api.Verdict, c *cobra.Command) *cobra.Command {
	var (
		comment string
		yes     bool
	)
	c.Args = oneRequest
	c.ValidArgsFunction = s.completeRequests(api.RequestFilter{Scope: "waiting"})
	c.RunE = func(c *cobra.Command, args []string) error {
		return s.decide(c.Context(), args[0], verdict, comment, yes)
	}
	c.Flags().StringVarP(&comment, "comment", "c", "", "what to tell the requester")
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask back")
	return c
}

func (s *sally) decide(ctx context.Context, id string, verdict api.Verdict, comment string, yes bool) error {
	if !yes && !s.interactive() {
		return needsYes(fmt.Sprintf("%s %s", verdict, id))
	}
	client, err := s.client()
	if err != nil {
		return err
	}
	r, err := client.Request(ctx, id)
	if err != nil {
		return err
	}
	if !yes {
		if err := mayDecide(r, verdict); err != nil {
			return err
		}
		s.printTerms(r)
		if err := s.confirm(ctx, string(verdict)+"?"); err != nil {
			return err
		}
	}
	// The hash of what was shown: should the terms be others, the broker refuses.
	r, err = client.Decide(ctx, r.ID, api.DecisionInput{Verdict: verdict, Comment: comment, TermsHash: r.TermsHash})
	if err != nil {
		return err
	}
	return s.printState(r)
}

// mayDecide spares people a question whose answer would be refused. The broker
// decides by itself.
func mayDecide(r api.Request, verdict api.Verdict) error {
	for _, a := range r.Actions {
		if a.Name != string(verdict) || a.Allowed {
			continue
		}
		if r.State != api.Requested {
			return errOver.With("%s is %s: %s", r.ID, r.State, or(a.Why, "it cannot be decided on any more")).Hinting("sally show %s", r.ID)
		}
		return errNoAction.With("you cannot %s %s: %s", verdict, r.ID, or(a.Why, "the policy does not let you")).
			Hinting("see who can: sally show %s", r.ID)
	}
	return nil
}

// printTerms shows what is decided on.
func (s *sally) printTerms(r api.Request) {
	s.err.Line("%s asks for %s for %s", show.Cell{Text: person(r.Requester), Style: show.Bold},
		show.Cell{Text: target(r), Style: show.Bold}, show.Cell{Text: show.Duration(r.Duration), Style: show.Bold})
	start := "when it is approved"
	if r.NotBefore != nil {
		start = s.moment(r.NotBefore) + ", or when it is approved if that is later"
	}
	for _, f := range [][2]string{
		{"reason", or(r.Reason, "none given")}, {"ticket", r.Ticket}, {"starts", start},
		{"host", r.HostID}, {"rule", r.Rule}, {"needs", who(r.Approvers)},
	} {
		if f[1] != "" {
			s.err.Line("  %s  %s", show.Cell{Text: fmt.Sprintf("%-6s", f[0]), Style: show.Faint}, f[1])
		}
	}
}

// needsYes refuses to do what cannot be undone when nobody is there to ask.
func needsYes(what string) error {
	return usage("there is no terminal to ask on whether to %s", what).hinting("--yes")
}

// confirm asks a question that only a yes lets pass.
func (s *sally) confirm(ctx context.Context, question string) error {
	fmt.Fprintf(s.Err, "%s [y/N] ", show.Clean(question))
	answers := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(s.In).ReadString('\n')
		answers <- line
	}()
	select {
	case <-ctx.Done():
		fmt.Fprintln(s.Err)
		return ctx.Err()
	case line := <-answers:
		switch strings.ToLower(strings.TrimSpace(line)) {
		case "y", "yes":
			return nil
		}
		return errUndecided
	}
}
