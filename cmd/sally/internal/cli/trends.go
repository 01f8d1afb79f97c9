package cli

import (
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"sallyport/api"
	"sallyport/cmd/sally/internal/show"
)

func (s *sally) auditTrendsCommand() *cobra.Command {
	var weeks int
	c := &cobra.Command{
		Use:   "trends",
		Short: "Count requests, emergencies and the time to approve by week (auditors and operators)",
		Long: `Count what was asked for in each of the last weeks, this one included, and what
became of it. A request belongs to the week in which it was asked for. Weeks are
those of ISO 8601, in UTC. BEFORE APPROVAL are emergencies, and drills after the
plus sign; NOT GRANTED are denied, cancelled and expired. HALF WITHIN and 9 IN 10
WITHIN are how long it took until people had approved.`,
		Example: `  sally audit trends
  sally audit trends --weeks 52 --output json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if weeks < 1 || weeks > api.MaxTrendWeeks {
				return usage("--weeks is from 1 to %d, not %d", api.MaxTrendWeeks, weeks)
			}
			client, err := s.client()
			if err != nil {
				return err
			}
			trends, err := client.Trends(c.Context(), weeks)
			if err != nil {
				return err
			}
			if s.output == "json" {
				return s.json(trends)
			}
			rows := make([][]show.Cell, len(trends.Weeks))
			for i, w := range trends.Weeks {
				rows[i] = trendRow(w)
			}
			s.out.Table([]string{"WEEK", "FROM", "REQUESTS", "APPROVED", "AUTOMATIC", "BEFORE APPROVAL", "REVIEW LATE", "NOT GRANTED", "WAITING", "HALF WITHIN", "9 IN 10 WITHIN"}, rows)
			return nil
		},
	}
	c.Flags().IntVar(&weeks, "weeks", 12, "how many, this one included")
	return c
}

func trendRow(w api.Week) []show.Cell {
	before := strconv.Itoa(w.Emergencies)
	if w.Drills > 0 {
		before += "+" + strconv.Itoa(w.Drills)
	}
	row := show.Cells(w.Week, w.From.Format(time.DateOnly), strconv.Itoa(w.Requests), strconv.Itoa(w.Approved), strconv.Itoa(w.Automatic),
		before, strconv.Itoa(w.ReviewsLate), strconv.Itoa(w.NotGranted()), strconv.Itoa(w.Waiting), "-", "-")
	if w.Emergencies > 0 {
		row[5].Style = show.Red
	}
	if w.ReviewsLate > 0 {
		row[6].Style = show.Red
	}
	if t := w.TimeToApprove; t != nil {
		row[9].Text, row[10].Text = spanOf(t.Median), spanOf(t.P90)
	}
	return row
}

// spanOf is a Go duration as people read it.
func spanOf(text string) string {
	d, err := time.ParseDuration(text)
	if err != nil {
		return text
	}
	return show.Span(d)
}
