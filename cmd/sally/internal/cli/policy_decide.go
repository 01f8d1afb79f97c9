package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"sallyport/api"
	"sallyport/cmd/sally/internal/show"
	"sallyport/internal/ids"
)

func (s *sally) policyDecideCommand(verdict api.Verdict) *cobra.Command {
	var (
		comment     string
		yes, noWait bool
	)
	c := &cobra.Command{
		Use:   string(verdict) + " PROPOSAL",
		Short: "Approve a proposal, which brings it into force (operators other than its author)",
		Long: `Approve another operator's proposal, which brings it into force at once. Sally
shows what it changes and asks back; what you approve is what was shown, and
nothing else: the decision names its hash.

Where the version in force wants the identity provider to sign the decision, sally
opens the page for it in your browser, and waits until you have passed by the
provider.`,
		Example: "  sally policy approve pol-4f8k2m9qhx1z",
		Args:    oneProposal,
		RunE: func(c *cobra.Command, args []string) error {
			return s.decidePolicy(c.Context(), args[0], verdict, comment, yes, noWait)
		},
		ValidArgsFunction: s.completeProposals,
	}
	if verdict == api.Deny {
		c.Short = "Deny a proposal (operators other than its author)"
		c.Long = "Deny another operator's proposal, which closes it."
		c.Example = `  sally policy deny pol-4f8k2m9qhx1z --comment "who is going to be on call then?"`
	}
	c.Flags().StringVarP(&comment, "comment", "c", "", "what to tell the author")
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask back")
	c.Flags().BoolVar(&noWait, "no-wait", false, "exit with code 4 instead of waiting for the browser")
	return c
}

func (s *sally) decidePolicy(ctx context.Context, id string, verdict api.Verdict, comment string, yes, noWait bool) error {
	if !yes && !s.interactive() {
		return needsYes(fmt.Sprintf("%s %s", verdict, id))
	}
	client, err := s.client()
	if err != nil {
		return err
	}
	p, err := client.PolicyProposal(ctx, id)
	if err != nil {
		return err
	}
	if !yes {
		for _, a := range p.Actions {
			if a.Name == string(verdict) && !a.Allowed {
				return errNoAction.With("you cannot %s %s: %s", verdict, p.ID, a.Why).Hinting("sally policy proposals")
			}
		}
		s.err.Line("%s proposes to follow version %d: %s", show.Cell{Text: person(p.Author), Style: show.Bold}, p.Base.Version, or(p.Comment, "no comment"))
		s.printChange(s.err, p)
		if err := s.confirm(ctx, string(verdict)+"?"); err != nil {
			return err
		}
	}
	decided, err := client.DecidePolicy(ctx, p.ID, api.PolicyDecisionInput{Verdict: verdict, Comment: comment, Statement: p.Statement})
	if problem, ok := errors.AsType[*api.Problem](err); ok && problem.Continue != "" {
		decided, err = s.decidePolicyInBrowser(ctx, client, p, verdict, problem.Continue, noWait)
	}
	if err != nil {
		return err
	}
	return s.printDecided(decided)
}

// decidePolicyInBrowser has the person give the verdict on the page.
func (s *sally) decidePolicyInBrowser(ctx context.Context, client *api.Client, p api.PolicyProposal, verdict api.Verdict, page string, noWait bool) (api.PolicyProposal, error) {
	me, err := client.Me(ctx)
	if err != nil {
		return p, err
	}
	see := "sally policy show " + p.ID
	err = s.inBrowser(ctx, client, page, errand{about: p.ID, see: see, noWait: noWait, until: s.Clock.Now().Add(reviewPatience),
		look: func(ctx context.Context) (bool, error) {
			next, err := client.WaitPolicyProposal(ctx, p.ID, poll)
			if err != nil {
				return false, err
			}
			p = next
			d := p.Decision
			switch {
			case d != nil && d.Approver.ID == me.Person.ID && d.Verdict == verdict:
				return true, nil
			case d != nil || p.State != api.ProposalOpen && p.State != api.ProposalStale:
				return false, errOver.With("%s is %s; your decision was not taken", p.ID, p.State).Hinting("%s", see)
			}
			return false, nil
		}})
	return p, err
}

func (s *sally) policyWithdrawCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "withdraw PROPOSAL",
		Short:   "Take back your own proposal",
		Example: "  sally policy withdraw pol-4f8k2m9qhx1z",
		Args:    oneProposal,
		RunE: func(c *cobra.Command, args []string) error {
			client, err := s.client()
			if err != nil {
				return err
			}
			p, err := client.WithdrawPolicy(c.Context(), args[0])
			if err != nil {
				return err
			}
			return s.printDecided(p)
		},
		ValidArgsFunction: s.completeProposals,
	}
}

// oneProposal accepts one argument that is a proposal's id.
func oneProposal(c *cobra.Command, args []string) error {
	if err := one("PROPOSAL")(c, args); err != nil {
		return err
	}
	if !ids.Valid(ids.Proposal, args[0]) {
		return usage("%q is no proposal's id", args[0]).hinting("like: pol-4f8k2m9qhx1z (see: sally policy proposals)")
	}
	return nil
}

// completeProposals completes ids of open proposals.
func (s *sally) completeProposals(c *cobra.Command, args []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return s.completer(func(ctx context.Context, client *api.Client) ([]cobra.Completion, error) {
		list, err := client.PolicyProposals(ctx, true, "", 0)
		var found []cobra.Completion
		for _, p := range list.Items {
			found = append(found, cobra.CompletionWithDesc(p.ID, show.Clean(name(p.Author)+" "+p.Comment)))
		}
		return found, err
	})(c, args, word)
}
