package cli

import (
	"errors"

	"github.com/spf13/cobra"

	"sallyport/api"
	"sallyport/cmd/sally/internal/deploy/jobkey"
)

func (s *sally) deployFinishCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "finish [DEPLOYMENT]",
		Short: "Say that the job has nothing left to do",
		Long: `Says that the job has nothing left to do, once every batch has passed. The deployment
is complete when every host has once more shown that it is sealed. The job's key is
removed.`,
		Example: `  sally deploy finish
  sally deploy finish dep-4f8k2m9qhx1z`,
		Args:              maybeDeployment,
		ValidArgsFunction: s.completeDeployments,
		RunE: func(c *cobra.Command, args []string) error {
			t, err := s.step(first(args))
			if err != nil {
				return err
			}
			d, err := t.client.FinishDeployment(c.Context(), t.kept.Deployment, api.EndInput{Epoch: t.kept.Epoch})
			if err != nil {
				return err
			}
			if err := s.jobKeys().Forget(d.ID); err != nil {
				return err
			}
			return s.printDeployment(d)
		},
	}
	return c
}

func (s *sally) deployAbortCommand() *cobra.Command {
	return s.deployEndCommand("abort", &cobra.Command{
		Short: "End a deployment as it is",
		Long: `Ends a deployment as it is: what is open closes, and is sealed. The job that opened it
can do that, and people who control it, who say why.`,
		Example: `  sally deploy abort
  sally deploy abort dep-4f8k2m9qhx1z --reason "the wrong artifact"`,
	})
}

func (s *sally) deployRollbackCommand() *cobra.Command {
	return s.deployEndCommand("rollback", &cobra.Command{
		Short: "Begin to put back the artifact that was verified last",
		Long: `Begins to put back the artifact that was verified last, on the hosts that this
deployment has opened. It is a batch of its own, which a job opens and deploys:
"sally deploy batch", or the "sally deploy run" that is waiting. The job that opened
the deployment can begin it, and people who control it, who say why.`,
		Example: `  sally deploy rollback
  sally deploy rollback dep-4f8k2m9qhx1z --reason "errors since the canary"`,
	})
}

// deployEndCommand is abort or rollback.
func (s *sally) deployEndCommand(name string, c *cobra.Command) *cobra.Command {
	var reason string
	c.Use = name + " [DEPLOYMENT]"
	c.Args, c.ValidArgsFunction = maybeDeployment, s.completeDeployments
	c.RunE = func(c *cobra.Command, args []string) error {
		t, err := s.step(first(args))
		if errors.Is(err, jobkey.ErrNoKey) && len(args) == 1 {
			return s.deployControl(c, args[0], name, reason)
		}
		if err != nil {
			return err
		}
		in, call := api.EndInput{Epoch: t.kept.Epoch, Reason: reason}, t.client.AbortDeployment
		if name == "rollback" {
			call = t.client.RollBackDeployment
		}
		d, err := call(c.Context(), t.kept.Deployment, in)
		if err != nil {
			return err
		}
		if name == "abort" { // nothing can follow, though the hosts are still being sealed
			if err := s.jobKeys().Forget(d.ID); err != nil {
				return err
			}
		}
		return t.after(d)
	}
	c.Flags().StringVar(&reason, "reason", "", "why; people must say")
	c.RegisterFlagCompletionFunc("reason", cobra.NoFileCompletions)
	return c
}

// deployControl is a person's word on a deployment that some job has opened.
func (s *sally) deployControl(c *cobra.Command, id, action, reason string) error {
	if reason == "" {
		return usage("%s was not opened here, and people say why they end one", id).hinting("--reason \"…\"")
	}
	if err := s.signedIn(c.Context()); err != nil {
		return err
	}
	client, err := s.client()
	if err != nil {
		return err
	}
	d, err := client.ControlDeployment(c.Context(), id, api.ControlInput{Action: action, Reason: reason})
	if err != nil {
		return err
	}
	return s.printDeployment(d)
}

// maybeDeployment accepts at most one argument, a deployment's id.
func maybeDeployment(c *cobra.Command, args []string) error {
	if len(args) > 1 {
		return usage("%s takes one DEPLOYMENT, not %d", c.CommandPath(), len(args)).hinting("%s --help", c.CommandPath())
	}
	if len(args) == 1 {
		return jobkey.CheckID(args[0])
	}
	return nil
}

func first(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}
