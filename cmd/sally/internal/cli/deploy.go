package cli

import "github.com/spf13/cobra"

func (s *sally) deployCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "deploy",
		Short: "Deploy from a pipeline, and find out whether it may",
		Long: `Deploy from a job of a pipeline, which shows the OIDC token that its CI system gives
it. The policy says which hosts, in which batches, and what must hold between them;
a login exists only for the hosts of the batch that is open.

"sally deploy run" does all of it around the command that you deploy with. The others
are its steps, for pipelines that want them one by one.`,
		Example: `  sally deploy run --service redis --environment prod --artifact redis.tar -- ./deploy.sh
  sally deploy status
  sally deploy explain --token-file token.jwt`,
	}
	c.AddCommand(s.deployRunCommand(), s.deployOpenCommand(), s.deployBatchCommand(), s.deployCertCommand(), s.deployReportCommand(),
		s.deployFinishCommand(), s.deployAbortCommand(), s.deployRollbackCommand(), s.deployStatusCommand(),
		s.deployExplainCommand(), s.deployCertifyCommand())
	return c
}
