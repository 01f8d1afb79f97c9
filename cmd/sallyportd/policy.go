package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/approvals/policy"
)

func policyCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "policy", Short: "Work with the policy"}
	cmd.AddCommand(policyCheck(), policySchema())
	return cmd
}

func policySchema() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the policy's JSON Schema, for editors",
		Long: `Prints the JSON Schema of a policy. Keep it beside the policy, and editors that
speak to a YAML language server complete and check keys as you type, if the
policy begins with

  # yaml-language-server: $schema=policy.schema.json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(policy.Schema())
			return err
		},
	}
}

func policyCheck() *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE",
		Short: "Say whether serve would accept the policy",
		Long: `Says whether serve would accept the policy: its form, its limits and the cases
under tests. It needs nothing but the file. A fault is told with line and column.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := readPolicy(args[0])
			if err != nil {
				var at *policy.Error
				if errors.As(err, &at) && at.Excerpt != "" {
					fmt.Fprintln(cmd.ErrOrStderr(), at.Excerpt)
				}
				return fmt.Errorf("%s: %w", args[0], err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "OK: %d rules, SHA-256 %s\n", len(p.Rules), p.Hash)
			for _, r := range p.Rules {
				how := fmt.Sprintf("%d stages of approval", len(r.Stages))
				if len(r.Stages) == 1 {
					how = "1 stage of approval"
				}
				switch {
				case r.During != nil:
					how = "automatic by a schedule, else " + how
				case r.Automatic:
					how = "automatic"
				}
				fmt.Fprintf(cmd.OutOrStdout(), "  %s: %s on %s, at most %s, %s\n",
					r.Name, strings.Join(r.Logins, ", "), where(r), r.MaxDuration, how)
			}
			return nil
		},
	}
}

func where(r policy.Rule) string {
	if r.Where == nil || r.Where.Empty() {
		return "every host"
	}
	return r.Where.String()
}
