package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/api"
	"sallyport/cmd/sally/internal/grantkey"
	"sallyport/cmd/sally/internal/sshrun"
)

func (s *sally) sshCommand() *cobra.Command {
	var a ask
	c := &cobra.Command{
		Use:   "ssh LOGIN@HOST [COMMAND | -- SSH ARGUMENTS]",
		Short: "Log in to a host, asking for whatever is missing",
		Long: `Log in to a host with your own ssh. Sally signs you in if needed, uses a grant that
runs or asks for one and waits until it is approved, gets a certificate, and runs
ssh with it.

The grant's key is made on this computer and stays here: in your ssh-agent, if one
runs, else in a file that only you can read. A grant works from the computer that
used it first.

A command, and whatever follows --, goes to ssh as it is. Exits with ssh's own code once ssh runs.`,
		Example: `  sally ssh dba@db-1
  sally ssh dba@db-1 --reason "slow query, INC-123" --duration 30m
  sally ssh dba@db-1 uptime -p
  sally ssh dba@db-1 -- -L 5432:localhost:5432 -N`,
		ValidArgsFunction: s.completePlaces,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage("sally ssh takes a LOGIN@HOST").hinting("sally ssh --help")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			where, err := parseTarget(args[0])
			if err != nil {
				return err
			}
			// As with ssh, options may also follow the host; the first word that
			// is none begins the command.
			if err := c.Flags().Parse(args[1:]); err != nil {
				return sshUsage(c, err)
			}
			if help, err := c.Flags().GetBool("help"); help && err == nil {
				return c.Help()
			}
			if err := s.checkOutput(); err != nil {
				return sshUsage(c, err)
			}
			return s.ssh(c.Context(), where, a, c.Flags().Args())
		},
	}
	c.SetFlagErrorFunc(sshUsage)
	// ssh has a -t of its own, which people are used to: it is not to become
	// the number of a ticket.
	a.askFlags(c, "")
	c.Flags().SetInterspersed(false)
	return c
}

// sshUsage is for those who give ssh's options to sally.
func sshUsage(_ *cobra.Command, err error) error {
	return usage("%s", err).hinting("ssh's own arguments follow --: sally ssh LOGIN@HOST -- ARGUMENTS")
}

func (s *sally) ssh(ctx context.Context, where place, a ask, extra []string) error {
	program, err := sshrun.Find() // before anybody is asked for anything
	if err != nil {
		return err
	}
	if err := s.signedIn(ctx); err != nil {
		return err
	}
	client, err := s.client()
	if err != nil {
		return err
	}
	if err := s.keys().Sweep(ctx); err != nil {
		return err
	}
	r, key, err := s.usable(ctx, client, where, a, false)
	if err != nil {
		return err
	}
	return s.connect(ctx, client, program, where, r, key, extra)
}

// connect gets a certificate under the grant and runs ssh with it.
func (s *sally) connect(ctx context.Context, client *api.Client, program string, where place, r api.Request, key *grantkey.Key, extra []string) error {
	certificate, files, err := s.certify(ctx, client, r, where.host, key)
	if err != nil {
		return err
	}
	command, err := sshrun.Command(where.host, certificate.Connect, files, key.InAgent, extra)
	if err != nil {
		return err
	}
	if s.verbose || s.interactive() {
		s.err.Line("certificate %d until %s; the grant ends %s (done earlier? sally finish %s)",
			certificate.Serial, s.err.When(certificate.ValidBefore), s.err.Relative(*r.EndsAt), where.String())
	}
	if s.verbose {
		s.err.Line("%s", strings.Join(command, " "))
	}
	if key.InAgent {
		return sshrun.Become(program, command) // the agent forgets the key by itself
	}
	watching, stop := context.WithCancel(ctx)
	go s.warnBeforeEnd(watching, client, r)
	code, err := sshrun.Run(program, command)
	stop()
	// ssh may have run past the grant's end: its key goes at once.
	if err := s.keys().Sweep(context.WithoutCancel(ctx)); err != nil {
		s.err.Line("sally: %s", err.Error())
	}
	if err != nil {
		return err
	}
	return exitStatus(code)
}

// certify gets a certificate for the grant's key and one of its hosts, and keeps it
// beside the key.
func (s *sally) certify(ctx context.Context, client *api.Client, r api.Request, nameOrID string, key *grantkey.Key) (api.Certificate, grantkey.Files, error) {
	host, err := hostOf(r, nameOrID)
	if err != nil {
		return api.Certificate{}, grantkey.Files{}, err
	}
	proof, err := key.Prove()
	if err != nil {
		return api.Certificate{}, grantkey.Files{}, err
	}
	input := api.CertificateInput{PublicKey: key.Public(), Proof: proof}
	if len(r.Hosts) > 1 {
		input.Host = host.ID
	}
	c, err := client.Certify(ctx, r.ID, input)
	if again, ok := s.signInAgain(ctx, client.URL(), err); ok {
		if err = again; err == nil {
			c, err = client.Certify(ctx, r.ID, input)
		}
	}
	if err != nil {
		return c, grantkey.Files{}, err
	}
	if err := sshrun.Check(c, key.Public(), r.Login, host.ID); err != nil {
		return c, grantkey.Files{}, err
	}
	files, err := key.Keep(input.Host, c.Certificate, c.KnownHosts)
	return c, files, err
}
