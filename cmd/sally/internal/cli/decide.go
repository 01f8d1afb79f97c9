package cli

import (
	"bufio"
	"context"
	"errors"
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
hash.

Where the rule wants the identity provider to sign the decision, sally opens the
page for it in your browser, and waits until you have passed by the provider.`,
		Example: `  sally approve req-4f8k2m9qhx1z
  sally approve req-4f8k2m9qhx1z --comment "as agreed" --yes`,
	})
}

func (s *sally) denyCommand() *cobra.Command {
	return s.decideCommand(api.Deny, &cobra.Command{
		Use:   "deny REQUEST",
		Short: "Deny a request",
		Long: `Deny a request of somebody else. One deny closes it.

Where the rule wants the identity provider to sign the decision, sally opens the
page for it in your browser, and waits until you have passed by the provider.`,
		Example: `  sally deny req-4f8k2m9qhx1z --comment "please wait for the backup"
  sally deny req-4f8k2m9qhx1z --yes`,
	})
}

func (s *sally) decideCommand(verdict api.Verdict, c *cobra.Command) *cobra.Command {
	var d decide
	c.Args = oneRequest
	c.ValidArgsFunction = s.completeRequests(api.RequestFilter{Scope: "waiting"})
	c.RunE = func(c *cobra.Command, args []string) error {
		return s.decide(c.Context(), args[0], verdict, d)
	}
	c.Flags().StringVarP(&d.comment, "comment", "c", "", "what to tell the requester")
	c.Flags().BoolVarP(&d.yes, "yes", "y", false, "do not ask back")
	c.Flags().BoolVar(&d.noWait, "no-wait", false, "exit with code 4 instead of waiting for the browser")
	return c
}

// decide is what a person says when deciding.
type decide struct {
	comment     string
	yes, noWait bool
}

func (s *sally) decide(ctx context.Context, id string, verdict api.Verdict, d decide) error {
	if !d.yes && !s.interactive() {
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
	if !d.yes {
		if err := mayDecide(r, verdict); err != nil {
			return err
		}
		s.printTerms(r, verdict)
		if err := s.confirm(ctx, string(verdict)+"?"); err != nil {
			return err
		}
	}
	// What was shown: should the terms be others, or it be for another, the broker refuses.
	decided, err := client.Decide(ctx, r.ID, api.DecisionInput{Verdict: verdict, Comment: d.comment, TermsHash: r.TermsHash, For: shownFor(r, verdict)})
	if p, ok := errors.AsType[*api.Problem](err); ok && p.Continue != "" {
		decided, err = s.decideInBrowser(ctx, client, r, verdict, p.Continue, d.noWait)
	}
	if err != nil {
		return err
	}
	if err := s.printState(decided); err != nil {
		return err
	}
	s.tellDelegated(decided)
	return nil
}

// decideInBrowser has the person give the verdict on the page.
func (s *sally) decideInBrowser(ctx context.Context, client *api.Client, r api.Request, verdict api.Verdict, page string, noWait bool) (api.Request, error) {
	me, err := client.Me(ctx)
	if err != nil {
		return r, err
	}
	err = s.inBrowser(ctx, client, page, errand{about: r.ID, see: "sally show " + r.ID, noWait: noWait, until: r.ApproveBy,
		look: func(ctx context.Context) (bool, error) {
			next, err := client.WaitDecided(ctx, r.ID, r.State, len(r.Decisions), poll)
			if err != nil {
				return false, err
			}
			r = next
			mine := decisionOf(r, me.Person.ID)
			switch {
			case mine != nil && mine.Verdict != verdict:
				return false, errOver.With("you decided otherwise in the browser: %s", mine.Verdict).Hinting("sally show %s", r.ID)
			case mine == nil && r.State != api.Requested:
				return false, errOver.With("%s is %s; your decision was not taken", r.ID, r.State).Hinting("sally show %s", r.ID)
			}
			return mine != nil, nil
		}})
	return r, err
}

// decisionOf is the person's decision on the request, or nil.
func decisionOf(r api.Request, person string) *api.Decision {
	for i := range r.Decisions {
		if r.Decisions[i].Approver.ID == person {
			return &r.Decisions[i]
		}
	}
	return nil
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
func (s *sally) printTerms(r api.Request, verdict api.Verdict) {
	s.err.Line("%s asks for %s for %s", show.Cell{Text: person(r.Requester), Style: show.Bold},
		show.Cell{Text: target(r), Style: show.Bold}, show.Cell{Text: show.Duration(r.Duration), Style: show.Bold})
	decide := s.decidesFor(r, verdict)
	if decide != "" {
		decide = "decide " + decide
	}
	start := "when it is approved"
	if r.NotBefore != nil {
		start = s.moment(r.NotBefore) + ", or when it is approved if that is later"
	}
	for _, f := range [][2]string{
		{"reason", or(r.Reason, "none given")}, {"ticket", r.Ticket}, {"starts", start},
		{"host", hostIDs(r)}, {"rule", r.Rule}, {"needs", who(r.Approvers)},
		{"you", decide},
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
