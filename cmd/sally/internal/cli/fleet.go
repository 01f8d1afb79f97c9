package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/api"
	"sallyport/cmd/sally/internal/show"
)

func (s *sally) hostsJoinCommand() *cobra.Command {
	var in api.JoinTokenInput
	c := &cobra.Command{
		Use:   "join NAME",
		Short: "Make a token with which one host enrols (operators)",
		Long: `Make a join token for one host. It is good once, for an hour if --expires does not
say otherwise, and for the name. A host that is registered under it keeps its labels and
logins; a new one gets those given here. The token is shown now and never again.`,
		Example: `  sally hosts join db-1 --label class=database --label env=prod --login dba --login root
  sally hosts join db-1 --expires 15m`,
		Args: one("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := s.client()
			if err != nil {
				return err
			}
			in.Name = args[0]
			t, err := client.MakeJoinToken(c.Context(), in)
			if err != nil {
				return err
			}
			if s.output == "json" {
				return s.json(t)
			}
			s.err.Line("%s lets %s enrol, once, until %s. On the host, as root:", t.ID, t.Name, s.moment(&t.ExpiresAt))
			s.out.Line("sally-host enroll --url %s --token %s", client.URL(), t.Token)
			return nil
		},
	}
	flags := c.Flags()
	flags.StringVar(&in.Address, "address", "", "where ssh reaches a new host (default: as the host says)")
	flags.StringToStringVar(&in.Labels, "label", nil, "a label of a new host, name=value; may be repeated")
	flags.StringSliceVar(&in.Logins, "login", nil, "a Unix account of a new host; may be repeated")
	flags.StringVar(&in.Expires, "expires", "", "how long it is good: 1m to 24h (default 1h)")
	c.AddCommand(s.hostsTokensCommand(), s.hostsWithdrawCommand())
	return c
}

func (s *sally) hostsTokensCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the join tokens of the last week (operators)",
		Example: "  sally hosts join list",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := s.client()
			if err != nil {
				return err
			}
			page, err := client.JoinTokens(c.Context())
			if err != nil {
				return err
			}
			if s.output == "json" {
				return s.json(page)
			}
			rows := make([][]show.Cell, len(page.Items))
			for i, t := range page.Items {
				rows[i] = show.Cells(t.ID, t.Name, t.State, person(t.MadeBy), s.out.Relative(t.ExpiresAt))
			}
			s.out.Table([]string{"TOKEN", "HOST", "STATE", "MADE BY", "EXPIRES"}, rows)
			return nil
		},
	}
}

func (s *sally) hostsWithdrawCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "withdraw TOKEN-ID",
		Short:   "Make a join token good for nothing (operators)",
		Example: "  sally hosts join withdraw join-4f8k2m9qhx1z",
		Args:    one("TOKEN-ID"),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := s.client()
			if err != nil {
				return err
			}
			if err := client.WithdrawJoinToken(c.Context(), args[0]); err != nil {
				return err
			}
			s.err.Line("%s is withdrawn", args[0])
			return nil
		},
	}
}

func (s *sally) hostsPendingCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "pending",
		Short: "List hosts that wait to be let in (operators)",
		Long: `List hosts that enrolled without a token and wait for an operator. What they say of
themselves is nobody's word: compare the fingerprint with what the host itself shows,
ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub`,
		Example: "  sally hosts pending",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := s.client()
			if err != nil {
				return err
			}
			page, err := client.PendingHosts(c.Context())
			if err != nil {
				return err
			}
			if s.output == "json" {
				return s.json(page)
			}
			if len(page.Items) == 0 {
				s.err.Line("no host waits")
				return nil
			}
			rows := make([][]show.Cell, len(page.Items))
			for i, h := range page.Items {
				rows[i] = show.Cells(h.ID, or(h.Name, "(unnamed)"), h.Address, h.Source, h.Fingerprint, s.out.Relative(h.AskedAt))
			}
			s.out.Table([]string{"ID", "SAYS IT IS", "AT", "FROM", "FINGERPRINT", "ASKED"}, rows)
			return nil
		},
	}
}

func (s *sally) hostsApproveCommand() *cobra.Command {
	var in api.PendingDecision
	c := &cobra.Command{
		Use:   "approve ID --fingerprint SHA256:…",
		Short: "Let a pending host in (operators)",
		Long: `Let a host in that waits. The fingerprint is the one that you read on the host itself,
not the one in the list. What is not given is as the host proposes, but for labels, which
only operators give.`,
		Example: `  sally hosts approve enr-4f8k2m9qhx1z --fingerprint SHA256:iVqz0XXa… --label class=database --login dba`,
		Args:    one("ID"),
		RunE: func(c *cobra.Command, args []string) error {
			if in.Fingerprint == "" {
				return usage("that needs the fingerprint of the host's key").
					hinting("on the host: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub")
			}
			client, err := s.client()
			if err != nil {
				return err
			}
			h, err := client.ApproveHost(c.Context(), args[0], in)
			if err != nil {
				return err
			}
			return s.printHost(h)
		},
	}
	flags := c.Flags()
	flags.StringVar(&in.Fingerprint, "fingerprint", "", "of the host's key, as the host itself shows it")
	flags.StringVar(&in.Name, "name", "", "another name than it proposes")
	flags.StringVar(&in.Address, "address", "", "another address than it proposes")
	flags.StringToStringVar(&in.Labels, "label", nil, "a label, name=value; may be repeated")
	flags.StringSliceVar(&in.Logins, "login", nil, "a Unix account that may be asked for; may be repeated")
	return c
}

func (s *sally) hostsRefuseCommand() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use:     "refuse ID",
		Short:   "Send a pending host away (operators)",
		Example: `  sally hosts refuse enr-4f8k2m9qhx1z --reason "not one of ours"`,
		Args:    one("ID"),
		RunE: func(c *cobra.Command, args []string) error {
			if strings.TrimSpace(reason) == "" {
				return usage("that needs a reason").hinting("--reason TEXT")
			}
			client, err := s.client()
			if err != nil {
				return err
			}
			if err := client.RefuseHost(c.Context(), args[0], reason); err != nil {
				return err
			}
			s.err.Line("%s is refused", args[0])
			return nil
		},
	}
	c.Flags().StringVarP(&reason, "reason", "r", "", "why; auditors read it")
	return c
}

func (s *sally) hostsLabelCommand() *cobra.Command {
	var in api.LabelsInput
	c := &cobra.Command{
		Use:   "label --selector SELECTOR",
		Short: "Set and remove labels of many hosts (operators)",
		Long: `Set and remove labels of all hosts that a selector fits, all together or none.
Labels decide which rules of the policy apply: look first, with --dry-run.`,
		Example: `  sally hosts label -l class=web --set env=prod --dry-run
  sally hosts label -l 'env in (stage)' --set env=test --remove tier`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if in.Selector == "" || len(in.Set)+len(in.Remove) == 0 {
				return usage("say which hosts, and what to change").hinting("--selector, with --set or --remove")
			}
			client, err := s.client()
			if err != nil {
				return err
			}
			page, err := client.LabelHosts(c.Context(), in)
			if err != nil {
				return err
			}
			if s.output == "json" {
				return s.json(page)
			}
			rows := make([][]show.Cell, len(page.Items))
			for i, h := range page.Items {
				rows[i] = []show.Cell{{Text: h.Name, Style: show.Bold}, {Text: labels(h.Labels)}}
			}
			s.out.Columns(rows)
			done := "changed"
			if in.DryRun {
				done = "would change"
			}
			s.err.Line("%d hosts %s", len(rows), done)
			return nil
		},
	}
	flags := c.Flags()
	flags.StringVarP(&in.Selector, "selector", "l", "", "which hosts, in Kubernetes syntax")
	flags.StringToStringVar(&in.Set, "set", nil, "a label, name=value; may be repeated")
	flags.StringSliceVar(&in.Remove, "remove", nil, "a label's name; may be repeated")
	flags.BoolVar(&in.DryRun, "dry-run", false, "say what would change, and change nothing")
	return c
}

func (s *sally) hostsQuarantineCommand() *cobra.Command {
	return s.shutCommand("quarantine HOST", "Keep a host shut (operators)",
		`Keep a host shut: it gets no certificates, those that there are open nothing any more,
and sessions end on hosts that run sally-host. Grants go on, and are good again once it
is released; to end them too: sally revoke host-….`, "put %s into quarantine?", "is in quarantine", (*api.Client).QuarantineHost)
}

func (s *sally) hostsReleaseCommand() *cobra.Command {
	return s.shutCommand("release HOST", "End a host's quarantine (operators)", "", "let %s out of quarantine?", "is released", (*api.Client).ReleaseHost)
}

func (s *sally) shutCommand(use, short, long, question, done string, call hostCall) *cobra.Command {
	var reason string
	var yes bool
	name, _, _ := strings.Cut(use, " ")
	c := &cobra.Command{
		Use: use, Short: short, Long: long, Example: fmt.Sprintf(`  sally hosts %s db-1 --reason "odd packets at night"`, name),
		Args: one("HOST"), ValidArgsFunction: s.completeHosts,
		RunE: func(c *cobra.Command, args []string) error {
			client, err := s.client()
			if err != nil {
				return err
			}
			if err := s.sure(c.Context(), nil, args[0], question, reason, yes); err != nil {
				return err
			}
			h, err := call(client, c.Context(), args[0], reason)
			if err != nil {
				return err
			}
			if s.output == "json" {
				return s.json(h)
			}
			s.err.Line("%s %s", h.Name, done)
			return nil
		},
	}
	whyFlags(c, &reason, &yes)
	return c
}
