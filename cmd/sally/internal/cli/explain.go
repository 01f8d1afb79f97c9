package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/api"
	"sallyport/cmd/sally/internal/show"
)

// shownVerdicts is how many rules sally why prints; --output json has them all.
const shownVerdicts = 10

func (s *sally) whyCommand() *cobra.Command {
	in := api.ExplainInput{}
	c := &cobra.Command{
		Use:   "why LOGIN@HOST",
		Short: "Say why you can or cannot ask for a login, and who could approve it",
		Long: `Says what would become of a request made now, and why: the rule that decides, who
would have to approve, and if nobody lets you in, which conditions of which rules
you do not meet. Nothing is asked.

Operators and auditors may ask for anybody with --person.`,
		Example: `  sally why root@db-1
  sally why root@db-1 --for 4h
  sally why root@db-1 --person engineer@example.com`,
		Args:              one("LOGIN@HOST"),
		ValidArgsFunction: s.completePlaces,
		RunE: func(c *cobra.Command, args []string) error {
			where, err := parseTarget(args[0])
			if err != nil {
				return err
			}
			in.Host, in.Login = where.host, where.login
			client, err := s.client()
			if err != nil {
				return err
			}
			e, err := client.Explain(c.Context(), in)
			if err != nil {
				return err
			}
			if s.output == "json" {
				return s.json(e)
			}
			s.printExplanation(e)
			return nil
		},
	}
	flags := c.Flags()
	flags.StringVar(&in.Person, "person", "", "somebody else's id or address (operators and auditors)")
	flags.StringVar(&in.Duration, "for", "", "for how long, such as 30m (default: the rule's)")
	flags.BoolVar(&in.Emergency, "emergency", false, "as an emergency")
	return c
}

func (s *sally) printExplanation(e api.Explanation) {
	can, who := show.Cell{Text: "can", Style: show.Green}, name(e.Person)
	if !e.Allowed {
		can = show.Cell{Text: "cannot", Style: show.Red}
	}
	s.out.Line("%s %s ask for %s", who, can, show.Cell{Text: e.Login + "@" + e.Host, Style: show.Bold})
	how := ""
	if e.Allowed {
		how = needs(e.Automatic, e.Approvers)
	}
	rule, reason, ticket := "", "", ""
	if e.Rule != nil {
		rule = fmt.Sprintf("%s, up to %s", e.Rule.Rule, show.Duration(e.Rule.MaxDuration))
		reason, ticket = wants(e.Rule.Reason), wants(e.Rule.Ticket)
	}
	s.fields("because", e.Detail, "rule", rule, "needs", how, "reason", reason, "ticket", ticket, "hint", e.Hint)
	if e.Allowed || len(e.Rules) == 0 {
		return
	}
	s.out.Line("\nrules, nearest first")
	var rows [][]show.Cell
	for _, v := range e.Rules[:min(len(e.Rules), shownVerdicts)] {
		why := "fits, and decides"
		if !v.Decides {
			why = "fits, but an earlier one decides"
		}
		var unmet []string
		for _, u := range v.Unmet {
			unmet = append(unmet, u.Detail)
		}
		if len(unmet) > 0 {
			why = strings.Join(unmet, "; ")
		}
		rows = append(rows, []show.Cell{{Text: "  " + v.Rule, Style: show.Bold}, {Text: why}})
	}
	s.out.Columns(rows)
	if more := len(e.Rules) - len(rows) + e.More; more > 0 {
		s.out.Line("  and %d more that do not fit", more)
	}
}

// wants says what a rule wants of a text, if anything.
func wants(t *api.TextRule) string {
	if t == nil || !t.Required {
		return ""
	}
	return or(t.Message, "required")
}

// needs says who would have to approve.
func needs(automatic bool, slots []api.Slot) string {
	if automatic {
		return "nobody's approval"
	}
	return who(slots)
}

func (s *sally) reachCommand() *cobra.Command {
	var (
		host, login, person string
		limit               int
		f                   api.HostFilter
	)
	c := &cobra.Command{
		Use:   "reach",
		Short: "Say what a person can reach, or who can reach a host",
		Long: `Says what you can reach: the hosts and logins that you may ask for, with the rule
that would decide. Operators and auditors may ask for anybody with --person, and
with --host and --login who can reach one login on one host: by which rules members
of which groups, and who of those who have signed in.`,
		Example: `  sally reach
  sally reach --person engineer@example.com --selector env=prod
  sally reach --host db-1 --login root`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			given := c.Flags().Changed
			switch {
			case (host == "") != (login == ""):
				return usage("--host and --login go together").hinting("sally reach --host db-1 --login root")
			case host != "" && (given("person") || given("selector") || given("search")):
				return usage("--host asks for people; --person, --selector and --search are about hosts").hinting("%s --help", c.CommandPath())
			}
			client, err := s.client()
			if err != nil {
				return err
			}
			if host != "" {
				var out api.HostReach
				items, next, err := pages(limit, func(cursor string, limit int) (api.Page[api.ReachPerson], error) {
					out, err = client.HostReach(c.Context(), host, login, cursor, limit)
					return out.People, err
				})
				if err != nil {
					return err
				}
				out.People = api.Page[api.ReachPerson]{Items: items, Next: next}
				return s.printHostReach(out)
			}
			var out api.PersonReach
			items, next, err := pages(limit, func(cursor string, limit int) (api.Page[api.ReachHost], error) {
				f.Cursor, f.Limit = cursor, limit
				out, err = client.PersonReach(c.Context(), person, f)
				return out.Hosts, err
			})
			if err != nil {
				return err
			}
			out.Hosts = api.Page[api.ReachHost]{Items: items, Next: next}
			return s.printPersonReach(out)
		},
	}
	flags := c.Flags()
	flags.StringVar(&person, "person", "me", "somebody else's id or address (operators and auditors)")
	flags.StringVar(&host, "host", "", "who can reach this host (operators and auditors)")
	flags.StringVar(&login, "login", "", "the login on the host")
	flags.StringVarP(&f.Selector, "selector", "l", "", "only hosts whose labels fit, in Kubernetes syntax")
	flags.StringVar(&f.Search, "search", "", "only hosts with this in their name")
	flags.IntVar(&limit, "limit", 200, "how many hosts or people at most")
	c.RegisterFlagCompletionFunc("host", s.completeHosts)
	return c
}

func (s *sally) printHostReach(r api.HostReach) error {
	if s.output == "json" {
		return s.json(r)
	}
	s.out.Line("%s  people: %d, rules: %d", show.Cell{Text: r.Login + "@" + r.Host, Style: show.Bold}, r.Count, len(r.Rules))
	var rows [][]show.Cell
	for _, rule := range r.Rules {
		rows = append(rows, []show.Cell{{Text: "  " + rule.Rule, Style: show.Bold},
			{Text: "members of " + strings.Join(rule.Groups, ", ")}, {Text: "needs " + needs(rule.Automatic, rule.Approvers)}})
	}
	s.out.Columns(rows)
	if len(r.People.Items) == 0 {
		return nil
	}
	s.out.Line("")
	rows = nil
	for _, p := range r.People.Items {
		rows = append(rows, show.Cells(person(p.Person), p.Rule, ways(p.Automatic, p.Emergency)))
	}
	s.out.Table([]string{"PERSON", "RULE", ""}, rows)
	if r.People.Next != "" {
		s.err.Line("there are more: --limit")
	}
	return nil
}

func (s *sally) printPersonReach(r api.PersonReach) error {
	if s.output == "json" {
		return s.json(r)
	}
	if len(r.Hosts.Items) == 0 {
		s.err.Line("%s can ask for nothing here", name(r.Person))
		return nil
	}
	var rows [][]show.Cell
	for _, h := range r.Hosts.Items {
		for _, l := range h.Logins {
			rows = append(rows, []show.Cell{{Text: l.Login + "@" + h.Host, Style: show.Bold}, {Text: l.Rule},
				{Text: show.Duration(l.MaxDuration)}, {Text: ways(l.Automatic, l.Emergency)}, {Text: labels(h.Labels), Style: show.Faint}})
		}
	}
	s.out.Table([]string{"LOGIN", "RULE", "UP TO", "", "LABELS"}, rows)
	if r.Hosts.Next != "" {
		s.err.Line("there are more: --limit, --search, --selector")
	}
	return nil
}

// ways says what is out of the ordinary about somebody's way in.
func ways(automatic, emergency bool) string {
	var words []string
	if automatic {
		words = append(words, "automatic")
	}
	if emergency {
		words = append(words, "emergency")
	}
	return strings.Join(words, ", ")
}
