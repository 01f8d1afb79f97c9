package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/api"
	"sallyport/cmd/sally/internal/deploy/jobkey"
	"sallyport/cmd/sally/internal/show"
)

func (s *sally) deployStatusCommand() *cobra.Command {
	var f api.DeploymentFilter
	var all bool
	c := &cobra.Command{
		Use:   "status [DEPLOYMENT]",
		Short: "Say how a deployment stands, or list those that are under way",
		Long: `Says how a deployment stands: its batches and hosts, its gates, and what keeps it from
going on. Within the job that opened one it is that one; people who are signed in see
those that they may see, and who was on the hosts since.`,
		Example: `  sally deploy status
  sally deploy status dep-4f8k2m9qhx1z
  sally deploy status --service redis --all --output json`,
		Args:              maybeDeployment,
		ValidArgsFunction: s.completeDeployments,
		RunE: func(c *cobra.Command, args []string) error {
			f.Running = !all
			listing := all || f.Service != "" || f.Environment != ""
			if !listing {
				t, err := s.step(first(args))
				if err == nil {
					d, err := t.client.DeploymentProgress(c.Context(), t.kept.Deployment)
					if err != nil {
						return err
					}
					return s.printDeployment(d)
				}
				if !errors.Is(err, jobkey.ErrNoKey) {
					return err
				}
			}
			if err := s.signedIn(c.Context()); err != nil {
				return err
			}
			client, err := s.client()
			if err != nil {
				return err
			}
			if len(args) == 1 {
				d, err := client.Deployment(c.Context(), args[0])
				if err != nil {
					return err
				}
				return s.printDeployment(d)
			}
			return s.deploymentList(c.Context(), client, f)
		},
	}
	c.Flags().StringVar(&f.Service, "service", "", "list only those of the service")
	c.Flags().StringVar(&f.Environment, "environment", "", "list only those there")
	c.Flags().BoolVar(&all, "all", false, "list also those that have ended")
	c.Flags().IntVar(&f.Limit, "limit", 50, "how many to list at most")
	for _, name := range []string{"service", "environment", "limit"} {
		c.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
	return c
}

func (s *sally) deploymentList(ctx context.Context, client *api.Client, f api.DeploymentFilter) error {
	list, more, err := pages(f.Limit, func(cursor string, limit int) (api.Page[api.Deployment], error) {
		f.Cursor, f.Limit = cursor, limit
		return client.Deployments(ctx, f)
	})
	if err != nil {
		return err
	}
	if s.output == "json" {
		return s.json(api.Page[api.Deployment]{Items: list, Next: more})
	}
	if len(list) == 0 {
		if f.Running {
			s.err.Line("no deployments are under way; --all lists those that have ended, too")
		} else {
			s.err.Line("no deployments")
		}
		return nil
	}
	rows := make([][]show.Cell, len(list))
	for i, d := range list {
		rows[i] = []show.Cell{{Text: d.ID}, deploymentState(d.State), {Text: d.Service}, {Text: d.Environment},
			{Text: passed(d)}, {Text: s.out.Relative(d.OpenedAt)}, {Text: shortDigest(d.Digest)}, {Text: blockers(d)}}
	}
	s.out.Table([]string{"DEPLOYMENT", "STATE", "SERVICE", "WHERE", "BATCHES", "OPENED", "ARTIFACT", "WAITS FOR"}, rows)
	if more != "" {
		s.err.Line("there are more: --limit")
	}
	return nil
}

// passed is how many batches have.
func passed(d api.Deployment) string {
	n := 0
	for _, b := range d.Batches {
		if b.State == "passed" {
			n++
		}
	}
	return fmt.Sprintf("%d of %d", n, len(d.Batches))
}

func blockers(d api.Deployment) string {
	var list []string
	for _, b := range d.Blockers {
		list = append(list, b.Why)
	}
	return strings.Join(list, "; ")
}

// shortDigest is enough of a digest to tell one from another in a table.
func shortDigest(digest string) string { return digest[:min(len(digest), len("sha256:")+12)] }

// printDeployment prints how a deployment stands.
func (s *sally) printDeployment(d api.Deployment) error {
	if s.output == "json" {
		return s.json(d)
	}
	s.out.Line("%s  %s  %s in %s", show.Cell{Text: d.ID, Style: show.Bold}, deploymentState(d.State), d.Service, d.Environment)
	failures := ""
	if d.Spent > 0 {
		failures = fmt.Sprintf("%s, of %d that may", count(d.Spent, "host"), d.Budget)
	}
	s.fields("why", d.Why, "artifact", d.Digest, "before", d.Previous, "opened", s.moment(&d.OpenedAt), "by", d.OpenedBy,
		"ended", s.moment(d.EndedAt), "failed", failures)
	for _, b := range d.Blockers {
		until := ""
		if b.Until != nil {
			until = ", until " + s.moment(b.Until)
		}
		s.out.Line("  %s %s", show.Cell{Text: "waits:", Style: show.Yellow}, b.Why+until)
		if b.Hint != "" {
			s.out.Line("         %s", b.Hint)
		}
	}
	for _, b := range d.Batches {
		s.printBatch(b)
	}
	s.printVisits(d.Visits)
	return nil
}

// printVisits prints which people were on a deployment's hosts since it was opened.
func (s *sally) printVisits(visits []api.DeploymentVisit) {
	if len(visits) == 0 {
		return
	}
	s.out.Line("people on its hosts since it was opened")
	rows := make([][]show.Cell, len(visits))
	for i, v := range visits {
		why := show.Cell{Text: v.RequestID}
		if v.RequestID == "" {
			why = show.Cell{Text: "without a certificate that is known", Style: show.Red}
		}
		ended := show.Cell{Text: "is on it", Style: show.Yellow}
		if v.EndedAt != nil {
			ended = show.Cell{Text: "until " + s.moment(v.EndedAt)}
		}
		rows[i] = []show.Cell{{Text: "  " + v.Host}, {Text: v.Login}, why, {Text: s.moment(&v.At)}, ended}
	}
	s.out.Columns(rows)
}

func (s *sally) printBatch(b api.DeploymentBatch) {
	state := show.Cell{Text: b.State, Style: stateStyle(b.State)}
	until := ""
	if b.Until != nil {
		until = ", until " + s.moment(b.Until)
	}
	if b.Why != "" {
		until += ": " + b.Why
	}
	s.out.Line("%s  %s%s", batchName(b), state, until)
	if b.State == "pending" {
		s.out.Line("  %s", strings.Join(hostNames(b.Hosts), " "))
		return
	}
	var rows [][]show.Cell
	for _, h := range b.Hosts {
		rows = append(rows, []show.Cell{{Text: "  " + h.Name}, {Text: h.State, Style: stateStyle(h.State)},
			{Text: h.Result, Style: resultStyle(h.Result)}, {Text: h.Why}})
	}
	for _, g := range b.Gates {
		text := g.Why
		if g.Verdict == "waiting" && len(g.Needs) > 0 {
			text = "needs " + strings.Join(g.Needs, " and ")
		} else if g.Times > 1 {
			text = strings.TrimSuffix(fmt.Sprintf("%d of %d: %s", g.Passes, g.Times, g.Why), ": ")
		}
		rows = append(rows, []show.Cell{{Text: "  gate " + g.Name}, {Text: g.Verdict, Style: resultStyle(g.Verdict)}, {}, {Text: text}})
	}
	s.out.Columns(rows)
}

func deploymentOver(d api.Deployment) bool {
	return slices.Contains([]string{"complete", "aborted", "rolled_back", "rollback_failed"}, d.State)
}

func deploymentState(state string) show.Cell {
	return show.Cell{Text: strings.ReplaceAll(state, "_", " "), Style: stateStyle(state)}
}

func stateStyle(state string) show.Style {
	switch state {
	case "active", "verifying", "complete", "open", "passed", "deployed":
		return show.Green
	case "planned", "awaiting_approval", "held", "rolling_back", "inconclusive", "closing", "sealing", "soaking", "gating":
		return show.Yellow
	case "aborted", "rollback_failed", "failed", "drifted", "quarantined":
		return show.Red
	}
	return show.Plain
}

func resultStyle(result string) show.Style {
	switch result {
	case "ok", "pass":
		return show.Green
	case "failed", "fail":
		return show.Red
	case "missing", "inconclusive":
		return show.Yellow
	}
	return show.Plain
}

// completeDeployments completes ids of deployments that are under way.
func (s *sally) completeDeployments(c *cobra.Command, args []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return s.completer(func(ctx context.Context, client *api.Client) ([]cobra.Completion, error) {
		list, err := client.Deployments(ctx, api.DeploymentFilter{Running: true, Limit: 200})
		var found []cobra.Completion
		for _, d := range list.Items {
			found = append(found, cobra.CompletionWithDesc(d.ID, show.Clean(d.State+" "+d.Service+" "+d.Environment)))
		}
		return found, err
	})(c, args, word)
}

// completeOpenHosts completes the hosts of the batch that was opened here.
func (s *sally) completeOpenHosts(c *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	t, err := s.step("")
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(c.Context(), completionTime)
	defer cancel()
	d, err := t.client.DeploymentProgress(ctx, t.kept.Deployment)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var found []cobra.Completion
	for _, b := range d.Batches {
		if b.State != "open" {
			continue
		}
		for _, h := range b.Hosts {
			if c.Name() == "report" {
				found = append(found, h.Name+"=ok", h.Name+"=failed", h.Name+"=skipped")
			} else {
				found = append(found, h.Name)
			}
		}
	}
	return found, cobra.ShellCompDirectiveNoFileComp
}
