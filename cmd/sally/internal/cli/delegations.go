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

func (s *sally) delegateCommand() *cobra.Command {
	var (
		in          api.DelegationInput
		from, until string
	)
	c := &cobra.Command{
		Use:   "delegate PERSON",
		Short: "Let somebody decide for you for a while",
		Long: `Let somebody decide on requests for you, between two times. PERSON is an id or an
address, exactly. Both of you are told, every decision names both, and either of you
can end it: "sally delegations end".

Nobody decides by it on a request of their own, of whom they decide for, or of
whoever made the delegation; and of the two of you only one decides on each request.

Operators can let somebody decide for another person with --for, but not for
themselves. It lasts for 90 days at most.`,
		Example: `  sally delegate dora@example.com --until "2026-12-05 18:00" --reason "on leave"
  sally delegate dora@example.com --from 9:00 --until 14d --groups dba-leads --reason "on leave"
  sally delegate dora@example.com --until 24h --reason "ill today" --for arne@example.com`,
		Args: one("PERSON"),
		RunE: func(c *cobra.Command, args []string) error {
			in.Delegate = args[0]
			switch {
			case until == "":
				return usage("that needs an end").hinting("--until 14d")
			case strings.TrimSpace(in.Reason) == "":
				return usage("that needs a reason").hinting("--reason TEXT")
			}
			end, err := s.parseTime("--until", until)
			if err != nil {
				return err
			}
			if in.From, err = s.parseTime("--from", from); err != nil {
				return err
			}
			in.Until = *end
			client, err := s.client()
			if err != nil {
				return err
			}
			d, err := client.Delegate(c.Context(), in)
			if err != nil {
				return err
			}
			if s.output == "json" {
				return s.json(d)
			}
			s.out.Line("%s  %s", d.ID, s.lends(d))
			s.fields("groups", strings.Join(d.Groups, ", "), "end it", "sally delegations end "+d.ID)
			return nil
		},
	}
	flags := c.Flags()
	flags.StringVar(&from, "from", "", `from when on: 9:00, "2026-12-01 9:00", RFC 3339, or how long from now, such as 2h or 3d (default: now)`)
	flags.StringVar(&until, "until", "", "until when, in the same forms")
	flags.StringSliceVar(&in.Groups, "groups", nil, "only these approver groups (default: all that you are in)")
	flags.StringVarP(&in.Reason, "reason", "r", "", "why; everybody concerned and auditors read it")
	flags.StringVar(&in.Delegator, "for", "", "for whom, by id or address, if not for you (operators)")
	return c
}

func (s *sally) delegationsCommand() *cobra.Command {
	var (
		mine, toMe bool
		f          api.DelegationFilter
	)
	c := &cobra.Command{
		Use:   "delegations",
		Short: "List who decides for whom: for you, and you for others",
		Long: `List who decides for you, and for whom you decide. Operators and auditors see all
delegations.`,
		Example: `  sally delegations
  sally delegations --to-me --past
  sally delegations --output json
  sally delegations end del-4f8k2m9qhx1z`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			switch {
			case mine && toMe:
				return usage("--mine and --to-me exclude each other: nobody decides for themselves")
			case mine:
				f.Scope = "mine"
			case toMe:
				f.Scope = "to-me"
			}
			client, err := s.client()
			if err != nil {
				return err
			}
			all, more, err := pages(f.Limit, func(cursor string, limit int) (api.Page[api.Delegation], error) {
				f.Cursor, f.Limit = cursor, limit
				return client.Delegations(c.Context(), f)
			})
			if err != nil {
				return err
			}
			if s.output == "json" {
				return s.json(api.Page[api.Delegation]{Items: all, Next: more})
			}
			if len(all) == 0 {
				s.err.Line("no delegations")
				return nil
			}
			s.delegationTable(all)
			if more != "" {
				s.err.Line("there are more: --limit")
			}
			return nil
		},
	}
	flags := c.Flags()
	flags.BoolVar(&mine, "mine", false, "only those by which others decide for you")
	flags.BoolVar(&toMe, "to-me", false, "only those by which you decide for others")
	flags.BoolVar(&f.Past, "past", false, "also those that are over or were ended")
	flags.IntVar(&f.Limit, "limit", 50, "how many at most")
	c.AddCommand(s.delegationsEndCommand())
	return c
}

func (s *sally) delegationsEndCommand() *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use:   "end DELEGATION",
		Short: "End a delegation at once",
		Long: `End a delegation at once: one of yours, one given to you, or, for operators, any.
What was decided under it stands.`,
		Example: `  sally delegations end del-4f8k2m9qhx1z
  sally delegations end del-4f8k2m9qhx1z --yes`,
		Args:              oneDelegation,
		ValidArgsFunction: s.completeDelegations,
		RunE: func(c *cobra.Command, args []string) error {
			if !yes && !s.interactive() {
				return needsYes("end " + args[0])
			}
			client, err := s.client()
			if err != nil {
				return err
			}
			if !yes {
				d, err := client.Delegation(c.Context(), args[0])
				if err != nil {
					return err
				}
				if err := s.confirm(c.Context(), fmt.Sprintf("end it: %s (%s)?", s.lends(d), strings.Join(d.Groups, ", "))); err != nil {
					return err
				}
			}
			d, err := client.EndDelegation(c.Context(), args[0])
			if err != nil {
				return err
			}
			if s.output == "json" {
				return s.json(d)
			}
			s.out.Line("%s  %s no longer decides for %s", d.ID, person(d.Delegate), person(d.Delegator))
			return nil
		},
	}
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask back")
	return c
}

// oneDelegation accepts one argument that is a delegation's id.
func oneDelegation(c *cobra.Command, args []string) error {
	if err := one("DELEGATION")(c, args); err != nil {
		return err
	}
	if !ids.Valid(ids.Delegation, args[0]) {
		return usage("%q is no delegation's id", args[0]).hinting("like: del-4f8k2m9qhx1z (see: sally delegations)")
	}
	return nil
}

// completeDelegations completes ids of delegations that the caller can end.
func (s *sally) completeDelegations(c *cobra.Command, args []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return s.completer(func(ctx context.Context, client *api.Client) ([]cobra.Completion, error) {
		list, err := client.Delegations(ctx, api.DelegationFilter{})
		var found []cobra.Completion
		for _, d := range list.Items {
			if d.CanEnd {
				found = append(found, cobra.CompletionWithDesc(d.ID, show.Clean(name(d.Delegate)+" for "+name(d.Delegator))))
			}
		}
		return found, err
	})(c, args, word)
}

// lends says who decides for whom, and when.
func (s *sally) lends(d api.Delegation) string {
	from := ""
	if d.From.After(s.Clock.Now()) {
		from = fmt.Sprintf(" from %s", s.moment(&d.From))
	}
	return fmt.Sprintf("%s decides for %s%s until %s", person(d.Delegate), person(d.Delegator), from, s.moment(&d.Until))
}

func (s *sally) delegationTable(list []api.Delegation) {
	rows := make([][]show.Cell, len(list))
	for i, d := range list {
		state := show.Cell{Text: d.State, Style: show.Faint}
		switch d.State {
		case "running":
			state.Style = show.Green
		case "planned":
			state.Style = show.Yellow
		}
		why := d.Reason
		if d.MadeBy.ID != d.Delegator.ID {
			why += " (made by " + name(d.MadeBy) + ")"
		}
		if d.EndedBy != nil {
			why += " (ended by " + name(*d.EndedBy) + ")"
		}
		rows[i] = append([]show.Cell{{Text: d.ID}, state},
			show.Cells(person(d.Delegate), person(d.Delegator), strings.Join(d.Groups, ", "), s.out.When(d.From), s.out.When(d.Until), why)...)
	}
	s.out.Table([]string{"DELEGATION", "STATE", "WHO DECIDES", "FOR", "GROUPS", "FROM", "UNTIL", "REASON"}, rows)
}

// behalf is by which delegation the caller would decide on the request; nil if
// they would not, or would for themselves.
func behalf(r api.Request) *api.Delegate {
	for _, a := range r.Actions {
		if a.Allowed && a.Delegate != nil {
			return a.Delegate
		}
	}
	return nil
}

// deciding is the action of giving the verdict, if it is allowed.
func deciding(r api.Request, v api.Verdict) *api.Action {
	for i, a := range r.Actions {
		if a.Name == string(v) && a.Allowed {
			return &r.Actions[i]
		}
	}
	return nil
}

// decidesFor says for whom the caller would give the verdict, if not for themselves.
func (s *sally) decidesFor(r api.Request, v api.Verdict) string {
	a := deciding(r, v)
	if a == nil || a.Delegate == nil {
		return ""
	}
	return fmt.Sprintf("for %s, by %s until %s", person(a.Delegate.For), a.Delegate.Delegation, s.moment(&a.Delegate.Until))
}

// shownFor is for whom the caller was shown that they would give the verdict, in
// the words of the API.
func shownFor(r api.Request, v api.Verdict) string {
	switch a := deciding(r, v); {
	case a == nil:
		return ""
	case a.Delegate != nil:
		return a.Delegate.For.ID
	}
	return "me"
}

// tellDelegated says for whom the last decision on the request was given, if it
// was for somebody.
func (s *sally) tellDelegated(r api.Request) {
	if len(r.Decisions) == 0 {
		return
	}
	if d := r.Decisions[len(r.Decisions)-1]; d.OnBehalfOf != nil {
		s.err.Line("%s decided for %s", name(d.Approver), name(*d.OnBehalfOf))
	}
}
