package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/api"
	"sallyport/cmd/sally/internal/show"
	"sallyport/internal/ids"
)

func (s *sally) peopleCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "people",
		Short: "List people, keep leavers out, and let them in again (operators; auditors see the list)",
		Example: `  sally people list
  sally people remove per-4f8k2m9qhx1z --reason "left the company"`,
	}
	c.AddCommand(s.peopleListCommand(), s.peopleRemoveCommand(), s.peopleRestoreCommand())
	return c
}

func (s *sally) peopleListCommand() *cobra.Command {
	var f api.PeopleFilter
	c := &cobra.Command{
		Use:   "list [PART OF A NAME OR ADDRESS]",
		Short: "List everybody who has ever signed in",
		Example: `  sally people list
  sally people list erin@example.com
  sally people list --removed --output json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			f.Search = strings.Join(args, "")
			client, err := s.client()
			if err != nil {
				return err
			}
			all, more, err := pages(f.Limit, func(cursor string, limit int) (api.Page[api.KnownPerson], error) {
				f.Cursor, f.Limit = cursor, limit
				return client.People(c.Context(), f)
			})
			if err != nil {
				return err
			}
			if s.output == "json" {
				return s.json(api.Page[api.KnownPerson]{Items: all, Next: more})
			}
			if len(all) == 0 {
				s.err.Line("nobody")
				return nil
			}
			rows := make([][]show.Cell, len(all))
			for i, p := range all {
				state := show.Cell{}
				if p.Removed != nil {
					state = show.Cell{Text: fmt.Sprintf("removed %s by %s: %s", s.out.Relative(p.Removed.At), name(p.Removed.By), p.Removed.Reason), Style: show.Red}
				}
				rows[i] = append(show.Cells(p.ID, person(p.Person), strings.Join(p.Groups, ", "), s.out.Relative(p.SignedInAt)), state)
			}
			s.out.Table([]string{"PERSON", "NAME", "GROUPS", "SIGNED IN", ""}, rows)
			if more != "" {
				s.err.Line("there are more: --limit")
			}
			return nil
		},
	}
	c.Flags().BoolVar(&f.Removed, "removed", false, "only who has been removed")
	c.Flags().IntVar(&f.Limit, "limit", 50, "how many at most")
	return c
}

func (s *sally) peopleRemoveCommand() *cobra.Command {
	var (
		reason string
		yes    bool
	)
	c := &cobra.Command{
		Use:   "remove PERSON",
		Short: "Keep a person out, and end all that is theirs",
		Long: `Keep a person out, whatever the identity provider says of them. All their sign-ins
end, their waiting requests are cancelled, their grants end, and no certificate is
issued to them any more. Approvals of theirs that have not opened anything count no
more. What they had approved before goes on; sally names it, for "sally revoke".`,
		Example: `  sally people remove per-4f8k2m9qhx1z --reason "left the company"`,
		Args:    onePerson,
		RunE: func(c *cobra.Command, args []string) error {
			ctx := c.Context()
			client, err := s.client()
			if err != nil {
				return err
			}
			if err := s.sure(ctx, client, args[0], "keep %s out, and end all that is theirs?", reason, yes); err != nil {
				return err
			}
			out, err := client.RemovePerson(ctx, args[0], api.WhyInput{Reason: reason})
			if err != nil {
				return err
			}
			if s.output == "json" {
				return s.json(out)
			}
			s.out.Line("removed %s", person(out.Person.Person))
			s.fields("sign-ins", fmt.Sprintf("%d ended", out.SignIns),
				"grants ended", strings.Join(out.Ended, " "), "requests cancelled", strings.Join(out.Cancelled, " "),
				"approvals void on", strings.Join(out.Voided, " "), "still running, by their approval", strings.Join(out.Stand, " "))
			return nil
		},
	}
	whyFlags(c, &reason, &yes)
	return c
}

func (s *sally) peopleRestoreCommand() *cobra.Command {
	var (
		reason string
		yes    bool
	)
	c := &cobra.Command{
		Use:     "restore PERSON",
		Short:   "Let a removed person sign in again; what ended stays ended",
		Example: `  sally people restore per-4f8k2m9qhx1z --reason "came back"`,
		Args:    onePerson,
		RunE: func(c *cobra.Command, args []string) error {
			ctx := c.Context()
			client, err := s.client()
			if err != nil {
				return err
			}
			if err := s.sure(ctx, client, args[0], "let %s sign in again?", reason, yes); err != nil {
				return err
			}
			out, err := client.RestorePerson(ctx, args[0], api.WhyInput{Reason: reason})
			if err != nil {
				return err
			}
			if s.output == "json" {
				return s.json(out)
			}
			s.out.Line("restored %s", person(out.Person))
			return nil
		},
	}
	whyFlags(c, &reason, &yes)
	return c
}

func (s *sally) revokeCommand() *cobra.Command {
	var (
		reason string
		yes    bool
	)
	c := &cobra.Command{
		Use:   "revoke REQUEST|PERSON|HOST|SERIAL|RUN",
		Short: "End a grant, all of a person's or a host's, one certificate or an agent's run, at once (operators)",
		Long: `End a grant, with those that extend it, or all grants of a person or for a host, and
cancel what waits; or one certificate by its serial, while its grant goes on. Sessions end
on hosts that run sally-host. No certificate is issued any more. Who may ask can ask again; to keep
somebody out, remove the person. Your own you can revoke too: it is "sally finish".

A run of a deploy agent loses what it has open, and its deployment is held; another job of
the pipeline can go on with it.`,
		Example: `  sally revoke req-4f8k2m9qhx1z --reason "unexpected commands"
  sally revoke per-4f8k2m9qhx1z --reason "laptop stolen" --yes
  sally revoke host-7k3m9q2x4f8h --reason "broken into"
  sally revoke 4711 --reason "copied by mistake"
  sally revoke run-4f8k2m9qhx1z --reason "nobody started this job"`,
		Args: one("REQUEST, PERSON, HOST, SERIAL or RUN"),
		RunE: func(c *cobra.Command, args []string) error {
			ctx := c.Context()
			in := api.RevocationInput{Reason: reason}
			switch {
			case ids.Valid(ids.Request, args[0]):
				in.Request = args[0]
			case ids.Valid(ids.Person, args[0]):
				in.Person = args[0]
			case ids.Valid(ids.Host, args[0]):
				in.Host = args[0]
			case ids.Valid(ids.Run, args[0]):
				in.Agent = args[0]
			case strings.Trim(args[0], "0123456789") == "" && args[0] != "":
				in.Serial = args[0]
			default:
				return usage("%q is neither a request's id, nor a person's, nor a host's, nor a run's, nor a serial", args[0]).
					hinting("like: req-4f8k2m9qhx1z, per-4f8k2m9qhx1z, host-7k3m9q2x4f8h or 4711")
			}
			client, err := s.client()
			if err != nil {
				return err
			}
			if err := s.sure(ctx, nil, args[0], "revoke %s?", reason, yes); err != nil {
				return err
			}
			out, err := client.Revoke(ctx, in)
			if err != nil {
				return err
			}
			if s.output == "json" {
				return s.json(out)
			}
			if len(out.Ended)+len(out.Cancelled)+len(out.Serials)+len(out.Runs) == 0 {
				s.out.Line("nothing was open")
				return nil
			}
			s.fields("grants ended", strings.Join(out.Ended, " "), "requests cancelled", strings.Join(out.Cancelled, " "),
				"certificates revoked", strings.Join(out.Serials, " "), "runs revoked", strings.Join(out.Runs, " "))
			return nil
		},
	}
	whyFlags(c, &reason, &yes)
	return c
}

func whyFlags(c *cobra.Command, reason *string, yes *bool) {
	c.Flags().StringVarP(reason, "reason", "r", "", "why; everybody concerned and auditors read it")
	c.Flags().BoolVarP(yes, "yes", "y", false, "do not ask back")
}

// onePerson accepts one argument that is a person's id.
func onePerson(c *cobra.Command, args []string) error {
	if err := one("PERSON")(c, args); err != nil {
		return err
	}
	if !ids.Valid(ids.Person, args[0]) {
		return usage("%q is no person's id", args[0]).hinting("like: per-4f8k2m9qhx1z (see: sally people list)")
	}
	return nil
}

// sure wants a reason, and asks back on a terminal; with a client, about the
// person by name.
func (s *sally) sure(ctx context.Context, client *api.Client, id, question, reason string, yes bool) error {
	if strings.TrimSpace(reason) == "" {
		return usage("that needs a reason").hinting("--reason TEXT")
	}
	if yes {
		return nil
	}
	who := id
	if client != nil {
		found, err := client.People(ctx, api.PeopleFilter{Search: id})
		if err != nil {
			return err
		}
		for _, p := range found.Items {
			who = fmt.Sprintf("%s (%s)", person(p.Person), p.ID)
		}
	}
	what := fmt.Sprintf(question, who)
	if !s.interactive() {
		return needsYes(strings.TrimSuffix(what, "?"))
	}
	return s.confirm(ctx, what)
}
