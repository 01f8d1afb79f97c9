package main

import (
	"github.com/spf13/cobra"

	"sallyport/internal/demo"
)

func demoCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Start everything on this machine, to try",
		Long: `Start a private PostgreSQL, an OpenID provider with sample people, the broker and
five hosts with real sshd, all on loopback addresses, and say what to try. Three of
them run sally-host, which has to be beside this program. The hosts need root,
which it gets by sudo. Its files are in .demo, fresh at each start. Ctrl-C stops
all of it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return demo.Run(cmd.Context(), demo.Config{Dir: ".demo", Out: cmd.OutOrStdout()})
		},
	}
}
