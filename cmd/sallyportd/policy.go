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
	cmd.AddCommand(&cobra.Command{
		Use:   "check FILE",
		Short: "Say whether serve would accept the policy",
		Args:  cobra.ExactArgs(1),
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
				if r.Automatic {
					how = "automatic"
				}
				fmt.Fprintf(cmd.OutOrStdout(), "  %s: %s on %s, at most %s, %s\n",
					r.Name, strings.Join(r.Logins, ", "), where(r), r.MaxDuration, how)
			}
			return nil
		},
	})
	return cmd
}

func where(r policy.Rule) string {
	if r.Where == nil || r.Where.Empty() {
		return "every host"
	}
	return r.Where.String()
}
