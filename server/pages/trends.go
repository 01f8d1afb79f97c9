package pages

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/web"
)

// TrendsPath is where the page is that shows Trends.
const TrendsPath = "/trends"

// Trends is what the page of plots needs.
type Trends interface {
	Trends(ctx context.Context, c identity.Caller, weeks int) (api.Trends, error)
}

// trendsPage is figures by week, as plots and as a table.
type trendsPage struct {
	Spans []int // how many weeks one can choose
	Span  int
	Weeks []trendWeek // newest first
	Total api.Week
	Plots []web.Plot
}

// trendWeek is a week as the table shows it.
type trendWeek struct {
	api.Week
	Now         bool // it is not over
	Median, P90 string
}

// Days says which days the week has.
func (w trendWeek) Days() string { return days(w.Week) }

func (p *Pages) trends(w http.ResponseWriter, r *http.Request, c identity.Caller) error {
	page := trendsPage{Spans: []int{12, 26, 52}}
	var err error
	if page.Span, err = strconv.Atoi(cmp.Or(r.URL.Query().Get("weeks"), "12")); err != nil {
		return approvals.ErrBadFilter
	}
	found, err := p.cfg.Approvals.Trends(r.Context(), c, page.Span)
	if err != nil {
		return err
	}
	for _, week := range found.Weeks {
		page.Weeks = append(page.Weeks, trendWeek{Week: week})
		page.Total.Requests += week.Requests
		page.Total.Emergencies += week.Emergencies
		page.Total.Drills += week.Drills
		page.Total.ReviewsLate += week.ReviewsLate
		if t, last := week.TimeToApprove, &page.Weeks[len(page.Weeks)-1]; t != nil {
			last.Median, last.P90 = web.Brief(duration(t.Median)), web.Brief(duration(t.P90))
		}
	}
	page.Weeks[len(page.Weeks)-1].Now = true
	page.Plots = plots(page.Weeks)
	slices.Reverse(page.Weeks)
	web.Render(w, r, http.StatusOK, "trends", page)
	return nil
}

// plots are the pictures of the weeks, which are oldest first.
func plots(weeks []trendWeek) []web.Plot {
	series := func(name, class string, of func(api.Week) int) web.Series {
		s := web.Series{Name: name, Class: class}
		for _, w := range weeks {
			s.Values = append(s.Values, float64(of(w.Week)))
		}
		return s
	}
	times := func(name, class string, of func(api.Spread) string) web.Series {
		s := web.Series{Name: name, Class: class}
		for _, w := range weeks {
			v := math.NaN()
			if t := w.TimeToApprove; t != nil {
				v = duration(of(*t)).Seconds()
			}
			s.Values = append(s.Values, v)
		}
		return s
	}
	span := fmt.Sprintf("for each of the %d weeks until %s", len(weeks), weeks[len(weeks)-1].Week.Week)
	return []web.Plot{
		web.Stacked(web.Plot{ID: "requests", Title: "Requests", Desc: "How many requests were made " + span + ", and what became of them. The table below has the same figures."},
			labels(weeks, requestsSaid),
			series("Approved by people", "approved", func(w api.Week) int { return w.Approved }),
			series("Automatic", "automatic", func(w api.Week) int { return w.Automatic }),
			series("Emergency or drill", "emergency", func(w api.Week) int { return w.Emergencies + w.Drills }),
			series("Not granted", "refused", api.Week.NotGranted),
			series("Waiting", "waiting", func(w api.Week) int { return w.Waiting })),
		web.Stacked(web.Plot{ID: "emergencies", Title: "Emergencies", Desc: "How many doors were opened before approval, and how many drills there were, " + span + ". The table below has the same figures."},
			labels(weeks, emergenciesSaid),
			series("Emergencies", "emergency", func(w api.Week) int { return w.Emergencies }),
			series("Drills", "drill", func(w api.Week) int { return w.Drills })),
		web.Spreads(web.Plot{ID: "time-to-approve", Title: "Time to approve", Desc: "How long it took until people had approved a request, in the median and for nine in ten, " + span + ". The table below has the same figures."},
			labels(weeks, timeSaid),
			times("Median: half were faster", "median", func(s api.Spread) string { return s.Median }),
			times("90th percentile: nine in ten were faster", "p90", func(s api.Spread) string { return s.P90 })),
	}
}

// labels are the weeks' names below a plot, as many as there is room for counted
// from the newest, and what is said of each when it is pointed at.
func labels(weeks []trendWeek, said func(trendWeek) string) []web.Label {
	step := 1 + (len(weeks)-1)/13 // on a desk; half as many on a phone
	all := make([]web.Label, len(weeks))
	for i, w := range weeks {
		all[i].Long = w.Week.Week + ", " + days(w.Week)
		if w.Now {
			all[i].Long += ", so far"
		}
		all[i].Long += ": " + said(w)
		if fromNow := len(weeks) - 1 - i; fromNow%step == 0 {
			_, all[i].Text, _ = strings.Cut(w.Week.Week, "-")
			all[i].Wide = fromNow%(2*step) != 0
		}
		first := w.To.AddDate(0, 0, -1) // a month begins in the week that its first day is in
		if first.Day() <= 7 {
			all[i].Under = first.Format("Jan")
			if first.Month() == time.January {
				all[i].Under = first.Format("2006")
			}
			all[i].UnderWide = len(weeks) > 26 && first.Month()%2 == 0
		}
	}
	return all
}

// days of a week, such as 16–22 Nov or 27 Jul – 2 Aug.
func days(w api.Week) string {
	first, last := w.From, w.To.AddDate(0, 0, -1)
	if first.Month() == last.Month() {
		return first.Format("2") + "–" + last.Format("2 Jan")
	}
	return first.Format("2 Jan") + " – " + last.Format("2 Jan")
}

func requestsSaid(w trendWeek) string {
	return fmt.Sprintf("%d requests; %d approved by people, %d automatic, %d emergencies or drills, %d not granted, %d waiting",
		w.Requests, w.Approved, w.Automatic, w.Emergencies+w.Drills, w.NotGranted(), w.Waiting)
}

func emergenciesSaid(w trendWeek) string {
	said := fmt.Sprintf("%d emergencies, %d drills", w.Emergencies, w.Drills)
	if w.ReviewsLate > 0 {
		said += fmt.Sprintf("; %d reviewed late or not at all", w.ReviewsLate)
	}
	return said
}

func timeSaid(w trendWeek) string {
	if w.TimeToApprove == nil {
		return "nothing was approved by people"
	}
	return fmt.Sprintf("half of %d within %s, nine in ten within %s", w.Approved, w.Median, w.P90)
}

// duration of a text that the approvals room wrote.
func duration(text string) time.Duration {
	d, _ := time.ParseDuration(text)
	return d
}
