package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/api"
	"sallyport/cmd/sally/internal/show"
)

func (s *sally) hostsCommand() *cobra.Command {
	list := s.hostsListCommand()
	c := &cobra.Command{
		Use:   "hosts",
		Short: "List hosts that you may ask for; operators also keep them",
		Example: `  sally hosts
  sally hosts show db-1
  sally hosts add db-1 --address 10.0.3.7 --login dba --label class=database --host-key db-1.pub`,
		Args: cobra.NoArgs,
		RunE: list.RunE,
	}
	c.Flags().AddFlagSet(list.Flags())
	c.AddCommand(list, s.hostsShowCommand(), s.hostsAddCommand(), s.hostsChangeCommand(),
		s.hostsRemoveCommand(), s.hostsCertificateCommand(),
		s.hostsJoinCommand(), s.hostsPendingCommand(), s.hostsApproveCommand(), s.hostsRefuseCommand(), s.hostsLabelCommand(),
		s.hostsPostureCommand(), s.hostsSessionsCommand(), s.hostsQuarantineCommand(), s.hostsReleaseCommand())
	return c
}

func (s *sally) hostsListCommand() *cobra.Command {
	var f api.HostFilter
	var states []string
	c := &cobra.Command{
		Use:   "list",
		Short: "List hosts",
		Example: `  sally hosts list --selector 'class=database,env in (prod,stage)'
  sally hosts list --state drifted,silent
  sally hosts list --search db --output json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := s.client()
			if err != nil {
				return err
			}
			for _, state := range states {
				f.States = append(f.States, api.HostState(state))
			}
			all, more, err := pages(f.Limit, func(cursor string, limit int) (api.Page[api.Host], error) {
				f.Cursor, f.Limit = cursor, limit
				return client.Hosts(c.Context(), f)
			})
			if err != nil {
				return err
			}
			if s.output == "json" {
				return s.json(api.Page[api.Host]{Items: all, Next: more})
			}
			if len(all) == 0 {
				s.err.Line("no hosts")
				return nil
			}
			rows := make([][]show.Cell, len(all))
			for i, h := range all {
				rows[i] = []show.Cell{{Text: h.Name, Style: show.Bold}, hostState(h.State),
					{Text: strings.Join(h.Logins, ", ")}, {Text: labels(h.Labels)}, {Text: sessions(h.Sessions)}}
			}
			s.out.Table([]string{"HOST", "STATE", "LOGINS", "LABELS", "SESSIONS"}, rows)
			if more != "" {
				s.err.Line("there are more: --limit, --search, --selector, --state")
			}
			return nil
		},
	}
	flags := c.Flags()
	flags.StringVarP(&f.Selector, "selector", "l", "", "only hosts whose labels fit, in Kubernetes syntax")
	flags.StringVar(&f.Search, "search", "", "only hosts with this in their name")
	flags.StringSliceVar(&states, "state", nil, "only hosts in this state: drifted, silent, unknown, quarantined, open or sealed; may be repeated")
	_ = c.RegisterFlagCompletionFunc("state", cobra.FixedCompletions(hostStates, cobra.ShellCompDirectiveNoFileComp))
	flags.IntVar(&f.Limit, "limit", 200, "how many at most")
	return c
}

// hostStates are those that a host can be in; one that waits to be let in is none yet.
var hostStates = []string{string(api.HostDrifted), string(api.HostSilent), string(api.HostUnknown), string(api.HostQuarantined),
	string(api.HostOpen), string(api.HostSealed)}

func hostState(state api.HostState) show.Cell {
	style := show.Faint
	switch state {
	case api.HostOpen, api.HostUnknown:
		style = show.Yellow
	case api.HostDrifted, api.HostSilent, api.HostQuarantined:
		style = show.Red
	}
	return show.Cell{Text: string(state), Style: style}
}

func sessions(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

func labels(m map[string]string) string {
	var texts []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		texts = append(texts, k+"="+m[k])
	}
	return strings.Join(texts, ",")
}

func (s *sally) hostsShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "show HOST",
		Short:             "Show a host and how its logins are asked for",
		Example:           "  sally hosts show db-1",
		Args:              one("HOST"),
		ValidArgsFunction: s.completeHosts,
		RunE: func(c *cobra.Command, args []string) error {
			client, err := s.client()
			if err != nil {
				return err
			}
			h, err := client.Host(c.Context(), args[0])
			if err != nil {
				return err
			}
			return s.printHost(h)
		},
	}
}

func (s *sally) printHost(h api.Host) error {
	if s.output == "json" {
		return s.json(h)
	}
	s.out.Line("%s  %s", show.Cell{Text: h.Name, Style: show.Bold}, hostState(h.State))
	for _, why := range h.StateWhy {
		s.out.Line("  %s", why)
	}
	if h.Quarantine != nil {
		s.out.Line("  in quarantine since %s: %s", s.out.When(h.Quarantine.Since), h.Quarantine.Reason)
	}
	s.fields("id", h.ID, "address", h.Address, "labels", labels(h.Labels),
		"logins", strings.Join(h.Logins, ", "), "host key", h.HostKey)
	if len(h.Rules) == 0 {
		return nil
	}
	s.out.Line("\nyou may ask for")
	rows := make([][]show.Cell, len(h.Rules))
	for i, r := range h.Rules {
		how := "automatic"
		if !r.Automatic {
			how = who(r.Approvers)
		}
		rows[i] = show.Cells("  "+r.Login+"@"+h.Name, "up to "+show.Duration(r.MaxDuration), how)
	}
	s.out.Columns(rows)
	return nil
}

// hostFlags are the flags that describe a host.
type hostFlags struct {
	name, address, hostKey string
	logins                 []string
	labels                 map[string]string
}

func (f *hostFlags) add(c *cobra.Command) {
	flags := c.Flags()
	flags.StringVar(&f.address, "address", "", "where ssh connects to: host or host:port")
	flags.StringSliceVar(&f.logins, "login", nil, "a Unix account that may be asked for; may be repeated")
	flags.StringToStringVar(&f.labels, "label", nil, "a label, name=value; may be repeated")
	flags.StringVar(&f.hostKey, "host-key", "", "file with the host's public key (ssh_host_ed25519_key.pub); - reads it from the standard input")
	c.MarkFlagFilename("host-key", "pub")
}

// apply puts the flags that were given into a description.
func (s *sally) apply(c *cobra.Command, f hostFlags, in *api.HostInput) error {
	given := c.Flags().Changed
	if given("name") {
		in.Name = f.name
	}
	if given("address") {
		in.Address = f.address
	}
	if given("login") {
		in.Logins = f.logins
	}
	if given("label") {
		in.Labels = f.labels
	}
	if !given("host-key") {
		return nil
	}
	var (
		key []byte
		err error
	)
	if f.hostKey == "-" {
		key, err = io.ReadAll(io.LimitReader(s.In, 64<<10))
	} else {
		key, err = os.ReadFile(f.hostKey)
	}
	if err != nil {
		return usage("read the host key: %s", err)
	}
	if in.HostKey = strings.TrimSpace(string(key)); strings.Contains(in.HostKey, "PRIVATE KEY") {
		// P6, also for hosts: nobody's private key leaves their computer.
		return usage("%s is a private key", f.hostKey).hinting("give the file that ends in .pub")
	}
	return nil
}

func (s *sally) hostsAddCommand() *cobra.Command {
	var f hostFlags
	c := &cobra.Command{
		Use:   "add NAME --address ADDRESS --login LOGIN",
		Short: "Register a host (operators)",
		Example: `  sally hosts add db-1 --address 10.0.3.7 --login dba --login root \
      --label class=database --label env=prod --host-key ssh_host_ed25519_key.pub
  ssh-keyscan -t ed25519 10.0.3.7 | cut -d' ' -f2- | sally hosts add db-1 --address 10.0.3.7 --login dba --host-key -`,
		Args: one("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			in := api.HostInput{Name: args[0]}
			if err := s.apply(c, f, &in); err != nil {
				return err
			}
			if in.Address == "" || len(in.Logins) == 0 {
				return usage("a host needs --address and at least one --login").hinting("sally hosts add --help")
			}
			client, err := s.client()
			if err != nil {
				return err
			}
			h, err := client.AddHost(c.Context(), in)
			if err != nil {
				return err
			}
			return s.printHost(h)
		},
	}
	f.add(c)
	return c
}

func (s *sally) hostsChangeCommand() *cobra.Command {
	var f hostFlags
	c := &cobra.Command{
		Use:   "change HOST",
		Short: "Change a host's description (operators)",
		Long:  `Change what is given, and leave the rest. All logins, or all labels, are replaced by those given.`,
		Example: `  sally hosts change db-1 --address 10.0.3.8
  sally hosts change db-1 --login dba --login root --label class=database`,
		Args:              one("HOST"),
		ValidArgsFunction: s.completeHosts,
		RunE: func(c *cobra.Command, args []string) error {
			if c.Flags().NFlag() == 0 {
				return usage("nothing is to be changed").hinting("sally hosts change --help")
			}
			client, err := s.client()
			if err != nil {
				return err
			}
			h, err := client.Host(c.Context(), args[0])
			if err != nil {
				return err
			}
			in := api.HostInput{Name: h.Name, Address: h.Address, Labels: h.Labels, Logins: h.Logins, HostKey: h.HostKey}
			if err := s.apply(c, f, &in); err != nil {
				return err
			}
			if h, err = client.ChangeHost(c.Context(), h.ID, in); err != nil {
				return err
			}
			return s.printHost(h)
		},
	}
	f.add(c)
	c.Flags().StringVar(&f.name, "name", "", "a new name")
	return c
}

func (s *sally) hostsRemoveCommand() *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use:   "remove HOST",
		Short: "Remove a host: it can no longer be asked for (operators)",
		Long: `Remove a host from the registry. It can no longer be asked for, and running grants
on it yield no more certificates. Its history stays in the log.`,
		Example: `  sally hosts remove db-1
  sally hosts remove db-1 --yes`,
		Args:              one("HOST"),
		ValidArgsFunction: s.completeHosts,
		RunE: func(c *cobra.Command, args []string) error {
			if !yes && !s.interactive() {
				return needsYes("remove " + args[0])
			}
			return s.removeHost(c.Context(), args[0], yes)
		},
	}
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask back")
	return c
}

func (s *sally) removeHost(ctx context.Context, nameOrID string, yes bool) error {
	client, err := s.client()
	if err != nil {
		return err
	}
	h, err := client.Host(ctx, nameOrID)
	if err != nil {
		return err
	}
	if !yes {
		if err := s.confirm(ctx, fmt.Sprintf("remove %s (%s), which is %s?", h.Name, h.Address, h.State)); err != nil {
			return err
		}
	}
	if err := client.RemoveHost(ctx, h.ID); err != nil {
		return err
	}
	s.err.Line("%s is removed", h.Name)
	return nil
}

func (s *sally) hostsCertificateCommand() *cobra.Command {
	var out string
	c := &cobra.Command{
		Use:   "certificate HOST",
		Short: "Certify a host's own key, so that ssh never asks \"are you sure\" (operators)",
		Long: `Issue a certificate for the host key in the registry. Copy it to the host, name it
in sshd_config with HostCertificate, and reload sshd.`,
		Example:           "  sally hosts certificate db-1 --out ssh_host_ed25519_key-cert.pub",
		Args:              one("HOST"),
		ValidArgsFunction: s.completeHosts,
		RunE: func(c *cobra.Command, args []string) error {
			client, err := s.client()
			if err != nil {
				return err
			}
			hc, err := client.CertifyHost(c.Context(), args[0])
			if err != nil {
				return err
			}
			if s.output == "json" {
				return s.json(hc)
			}
			text := strings.TrimSpace(hc.Certificate)
			if out == "" {
				s.out.Line("%s", text)
				return nil
			}
			if err := os.WriteFile(out, []byte(text+"\n"), 0o644); err != nil {
				return fmt.Errorf("write the certificate: %w", err)
			}
			s.err.Line("%s: certificate %d, good until %s", out, hc.Serial, s.moment(&hc.ValidBefore))
			return nil
		},
	}
	c.Flags().StringVar(&out, "out", "", "file to write to (default: the standard output)")
	return c
}
