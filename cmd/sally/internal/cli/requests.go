package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/api"
	"sallyport/cmd/sally/internal/show"
	"sallyport/internal/ids"
)

func (s *sally) requestsCommand() *cobra.Command {
	var (
		mine, waiting bool
		toReview      bool
		states        []string
		f             api.RequestFilter
	)
	c := &cobra.Command{
		Use:   "requests",
		Short: "List requests: your own, those that wait for you, and what else you may see",
		Example: `  sally requests --mine
  sally requests --waiting
  sally requests --to-review
  sally requests --emergency --review overdue
  sally requests --state active --host db-1 --output json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			switch {
			case mine && waiting:
				return usage("--mine and --waiting exclude each other: nobody decides on their own request")
			case toReview && (mine || waiting):
				return usage("--to-review goes with neither --mine nor --waiting")
			case toReview:
				f.Scope = "reviews"
			case mine:
				f.Scope = "mine"
			case waiting:
				f.Scope = "waiting"
			}
			for _, state := range states {
				f.States = append(f.States, api.State(state))
			}
			client, err := s.client()
			if err != nil {
				return err
			}
			all, more, err := pages(f.Limit, func(cursor string, limit int) (api.Page[api.Request], error) {
				f.Cursor, f.Limit = cursor, limit
				return client.Requests(c.Context(), f)
			})
			if err != nil {
				return err
			}
			if s.output == "json" {
				return s.json(api.Page[api.Request]{Items: all, Next: more})
			}
			if len(all) == 0 {
				s.err.Line("no requests")
				return nil
			}
			s.requestTable(all)
			if more != "" {
				s.err.Line("there are more: --limit")
			}
			return nil
		},
	}
	flags := c.Flags()
	flags.BoolVar(&mine, "mine", false, "only what you asked for")
	flags.BoolVar(&waiting, "waiting", false, "only what waits for your decision")
	flags.BoolVar(&toReview, "to-review", false, "only emergencies that wait for your review")
	flags.BoolVar(&f.Emergency, "emergency", false, "only emergencies, drills among them")
	flags.StringVar(&f.Review, "review", "", "only emergencies that nobody has reviewed: waiting (all), or overdue")
	flags.StringSliceVar(&states, "state", nil, "only these states: requested, approved, active, ended, denied, cancelled, expired")
	flags.StringVar(&f.Host, "host", "", "only this host, by name or id")
	flags.IntVar(&f.Limit, "limit", 50, "how many at most")
	c.RegisterFlagCompletionFunc("state", cobra.FixedCompletions([]string{
		"requested", "approved", "active", "ended", "denied", "cancelled", "expired"}, cobra.ShellCompDirectiveNoFileComp))
	c.RegisterFlagCompletionFunc("review", cobra.FixedCompletions([]string{"waiting", "overdue"}, cobra.ShellCompDirectiveNoFileComp))
	c.RegisterFlagCompletionFunc("host", s.completeHosts)
	return c
}

// pages reads a list until it has limit items, and returns the cursor of what
// is left.
func pages[T any](limit int, read func(cursor string, limit int) (api.Page[T], error)) ([]T, string, error) {
	if limit < 1 {
		return nil, "", usage("--limit must be at least 1")
	}
	all, cursor := []T{}, ""
	for {
		page, err := read(cursor, min(limit-len(all), 200))
		if err != nil {
			return nil, "", err
		}
		all, cursor = append(all, page.Items...), page.Next
		if cursor == "" || len(all) >= limit || len(page.Items) == 0 {
			return all, cursor, nil
		}
	}
}

func (s *sally) showCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "show REQUEST",
		Short:             "Show a request: its terms, decisions, certificates and timeline",
		Example:           "  sally show req-4f8k2m9qhx1z",
		Args:              oneRequest,
		ValidArgsFunction: s.completeRequests(api.RequestFilter{}),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := s.client()
			if err != nil {
				return err
			}
			r, err := client.Request(c.Context(), args[0])
			if err != nil {
				return err
			}
			if s.output == "json" {
				return s.json(r)
			}
			s.printRequest(r)
			return nil
		},
	}
}

// one accepts one argument and says what is missing.
func one(what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usage("%s takes one %s, not %d", c.CommandPath(), what, len(args)).
				hinting("%s --help", c.CommandPath())
		}
		return nil
	}
}

// oneRequest accepts one argument that is a request's id.
func oneRequest(c *cobra.Command, args []string) error {
	if err := one("REQUEST")(c, args); err != nil {
		return err
	}
	return checkRequest(args[0])
}

func checkRequest(id string) error {
	if !ids.Valid(ids.Request, id) {
		return usage("%q is no request's id", id).hinting("like: req-4f8k2m9qhx1z (see: sally requests)")
	}
	return nil
}

func (s *sally) cancelCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "cancel REQUEST",
		Short:             "Withdraw a request of yours that is not decided",
		Example:           "  sally cancel req-4f8k2m9qhx1z",
		Args:              oneRequest,
		ValidArgsFunction: s.completeRequests(api.RequestFilter{Scope: "mine", States: []api.State{api.Requested}}),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := s.client()
			if err != nil {
				return err
			}
			r, err := client.Cancel(c.Context(), args[0])
			if err != nil {
				return err
			}
			return s.printState(r)
		},
	}
}

func (s *sally) finishCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "finish REQUEST|LOGIN@HOST",
		Short: "End a grant of yours early: \"I'm done\"",
		Long: `End a grant of yours before its time, with those that extend it. No more
certificates are issued, and their key is removed from this computer.`,
		Example: `  sally finish dba@db-1
  sally finish req-4f8k2m9qhx1z`,
		Args:              one("REQUEST or LOGIN@HOST"),
		ValidArgsFunction: s.completeRequests(api.RequestFilter{Scope: "mine", States: []api.State{api.Approved, api.Active}}),
		RunE: func(c *cobra.Command, args []string) error {
			ctx := c.Context()
			client, err := s.client()
			if err != nil {
				return err
			}
			id := args[0]
			if strings.Contains(id, "@") {
				id, err = s.onlyGrant(ctx, client, id)
			} else {
				err = checkRequest(id)
			}
			if err != nil {
				return err
			}
			r, err := client.Finish(ctx, id)
			if err != nil {
				return err
			}
			if err := s.forget(ctx, client, r); err != nil {
				return err
			}
			return s.printState(r)
		},
	}
}

// forget removes the key of a grant that has ended, and of those that extended it.
func (s *sally) forget(ctx context.Context, client *api.Client, r api.Request) error {
	for {
		if err := s.keys().Forget(ctx, r.ID); err != nil || r.ExtendedBy == "" {
			return err
		}
		next, err := client.Request(ctx, r.ExtendedBy)
		if err != nil {
			return err
		}
		r = next
	}
}

// onlyGrant is the id of the caller's one grant for login@host.
func (s *sally) onlyGrant(ctx context.Context, client *api.Client, text string) (string, error) {
	where, err := parsePlace(text)
	if err != nil {
		return "", err
	}
	grants, err := s.grants(ctx, client, where)
	if err != nil {
		return "", err
	}
	switch len(grants) {
	case 0:
		return "", errOver.With("you have no grant for %s", text)
	case 1:
		return grants[0].ID, nil
	}
	return "", usage("you have %d grants for %s", len(grants), text).hinting("name one: sally requests --mine")
}

// printState prints what has become of a request in a line.
func (s *sally) printState(r api.Request) error {
	if s.output == "json" {
		return s.json(r)
	}
	s.out.Line("%s  %s  %s  %s", r.ID, show.State(r.State), marked(r), s.clock(r))
	return nil
}
