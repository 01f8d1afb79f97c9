package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"sallyport/api"
	"sallyport/cmd/sally/internal/show"
)

// hostCall changes one host, for a reason.
type hostCall func(c *api.Client, ctx context.Context, nameOrID, reason string) (api.Host, error)

func (s *sally) hostsPostureCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "posture HOST",
		Short: "Show how a host is, and what says so (operators, auditors)",
		Long: `Show what a host found on itself and what the broker saw from outside. It is sealed only
if both are fresh and agree; what could not be found out is unknown, never passed.`,
		Example:           "  sally hosts posture db-1",
		Args:              one("HOST"),
		ValidArgsFunction: s.completeHosts,
		RunE: func(c *cobra.Command, args []string) error {
			client, err := s.client()
			if err != nil {
				return err
			}
			p, err := client.HostPosture(c.Context(), args[0])
			if err != nil {
				return err
			}
			if s.output == "json" {
				return s.json(p)
			}
			s.printPosture(args[0], p)
			return nil
		},
	}
}

func (s *sally) printPosture(name string, p api.HostPosture) {
	s.out.Line("%s  %s", show.Cell{Text: name, Style: show.Bold}, hostState(p.State))
	for _, why := range p.StateWhy {
		s.out.Line("  %s", why)
	}
	if p.Enrolled == nil {
		return
	}
	e := p.Enrolled
	s.fields("enrolled", s.moment(&e.At)+", let in by "+person(e.LetInBy), "heard of", s.moment(p.SeenAt), "posture of", s.moment(p.TakenAt),
		"sessions now", fmt.Sprint(p.Sessions), "system", e.OS, "OpenSSH", e.OpenSSH, "kernel", e.Kernel, "sally-host", e.Helper)
	s.out.Line("\nits own checks")
	var rows [][]show.Cell
	for _, c := range p.Checks {
		rows = append(rows, []show.Cell{{Text: "  " + c.ID}, result(c.Result), {}})
		for _, f := range c.Findings {
			rows = append(rows, []show.Cell{{}, {}, {Text: f}})
		}
		if c.Remedy != "" && c.Result != "pass" {
			rows = append(rows, []show.Cell{{}, {}, {Text: "hint: " + c.Remedy, Style: show.Faint}})
		}
	}
	s.out.Columns(rows)
	if p.Probe == nil {
		return
	}
	s.out.Line("\nfrom outside, %s, as %s", s.out.Relative(p.Probe.At), p.Probe.Login)
	rows = [][]show.Cell{{{Text: "  shut"}, result(p.Probe.Result), {}}}
	for _, f := range p.Probe.Findings {
		rows = append(rows, []show.Cell{{}, {}, {Text: f}})
	}
	s.out.Columns(rows)
}

func result(text string) show.Cell {
	return show.Cell{Text: text, Style: map[string]show.Style{"pass": show.Green, "fail": show.Red, "unknown": show.Yellow}[text]}
}

func (s *sally) hostsSessionsCommand() *cobra.Command {
	f := api.SessionFilter{}
	c := &cobra.Command{
		Use:   "sessions HOST",
		Short: "List sessions on a host: your own; operators and auditors see all",
		Example: `  sally hosts sessions db-1
  sally hosts sessions db-1 --live --output json`,
		Args:              one("HOST"),
		ValidArgsFunction: s.completeHosts,
		RunE: func(c *cobra.Command, args []string) error {
			client, err := s.client()
			if err != nil {
				return err
			}
			all, more, err := pages(f.Limit, func(cursor string, limit int) (api.Page[api.Session], error) {
				f.Cursor, f.Limit = cursor, limit
				return client.HostSessions(c.Context(), args[0], f)
			})
			if err != nil {
				return err
			}
			if s.output == "json" {
				return s.json(api.Page[api.Session]{Items: all, Next: more})
			}
			if len(all) == 0 {
				s.err.Line("no sessions")
				return nil
			}
			rows := make([][]show.Cell, len(all))
			for i, v := range all {
				end := show.Cell{Text: "now", Style: show.Yellow}
				if v.EndedAt != nil {
					end = show.Cell{Text: fmt.Sprintf("%s, %s", s.out.When(*v.EndedAt), v.EndReason)}
				}
				began := "(lost)"
				if v.StartedAt != nil {
					began = s.out.When(*v.StartedAt)
				}
				rows[i] = []show.Cell{{Text: began}, end, {Text: v.Login}, {Text: or(or(person(v.Person), v.Deployment), "nobody known")}, {Text: v.Client},
					{Text: v.Request}, {Text: v.Alarm, Style: show.Red}}
			}
			s.out.Table([]string{"BEGAN", "ENDED", "LOGIN", "PERSON", "FROM", "REQUEST", "ALARM"}, rows)
			return nil
		},
	}
	c.Flags().BoolVar(&f.Live, "live", false, "only those that have not ended")
	c.Flags().IntVar(&f.Limit, "limit", 50, "how many at most")
	return c
}
