package pages

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
)

// Trends of the house: invented, with a week in which nothing was, and one with
// much.
func (h *house) Trends(_ context.Context, c identity.Caller, weeks int) (api.Trends, error) {
	h.saw(weeks)
	switch {
	case len(c.Roles) == 0:
		return api.Trends{}, approvals.ErrNotReader
	case weeks < 1 || weeks > api.MaxTrendWeeks:
		return api.Trends{}, approvals.ErrBadFilter
	}
	now := h.clock.Now()
	monday := now.Truncate(24*time.Hour).AddDate(0, 0, -(int(now.Weekday())+6)%7)
	var out api.Trends
	for i := range weeks {
		ago := weeks - 1 - i
		from := monday.AddDate(0, 0, -7*ago)
		year, number := from.ISOWeek()
		w := api.Week{Week: fmt.Sprintf("%d-W%02d", year, number), From: from, To: from.AddDate(0, 0, 7)}
		if ago != 7 {
			w.Approved, w.Automatic, w.Denied, w.Expired, w.Cancelled = 18+(i*7)%13+i%4*3, 6+(i*5)%7, i*3%4, i%3, i*5%2
			w.Emergencies, w.Drills = (i*i+3)%7/4, i%5/4
			median, p90 := 4*time.Minute+time.Duration(i*37%11)*time.Minute, 22*time.Minute+time.Duration(i*53%41)*time.Minute
			w.TimeToApprove = &api.Spread{Median: median.String(), P90: p90.String()}
			if w.Emergencies > 0 && ago == 4 {
				w.Emergencies, w.ReviewsLate = 4, 1
			}
			if ago == 0 {
				w.Approved, w.Waiting = 7, 3
			}
		}
		w.Requests = w.Approved + w.Automatic + w.Emergencies + w.Drills + w.NotGranted() + w.Waiting
		out.Weeks = append(out.Weeks, w)
	}
	return out, nil
}

// The page has three pictures, which say what they show, and all their figures
// once more as a table.
func TestTrendsPage(t *testing.T) {
	t.Parallel()
	h, v := open(t)
	for _, as := range []string{"auditor", "operator"} {
		page := v.page(as, "/trends")
		if n := strings.Count(page, `role="img" aria-labelledby="`); n != 3 {
			t.Errorf("%d pictures", n)
		}
		contains(t, page, "<title id=\"requests-title\">Requests by week</title>", "<desc id=\"time-to-approve-desc\">How long",
			"2026-W47", "16–22 Nov, so far", `aria-current="page">12 weeks`)
		found, err := h.Trends(t.Context(), h.people[as], 12)
		if err != nil {
			t.Fatal(err)
		}
		body := regexp.MustCompile(`\s+`).ReplaceAllString(page[strings.Index(page, "<tbody>"):], " ")
		for _, w := range found.Weeks {
			row := fmt.Sprintf(`</th> <td class="number">%d</td><td class="number">%d</td><td class="number">%d</td>`, w.Requests, w.Approved, w.Automatic)
			if !strings.Contains(body, row) {
				t.Errorf("the table lacks %s: %s", w.Week, row)
			}
		}
	}
	for _, weeks := range []string{"26", "52", "1"} {
		page := v.page("auditor", "/trends?weeks="+weeks)
		if n := strings.Count(page, `<th scope="row">`); fmt.Sprint(n) != weeks {
			t.Errorf("of %s weeks %d are there", weeks, n)
		}
	}
	for path, want := range map[string]int{"/trends?weeks=0": 422, "/trends?weeks=53": 422, "/trends?weeks=x": 422, "/trends?weeks=-1": 422, "/trends?weeks=99999999999999999999": 422} {
		if w := v.get("auditor", path); w.Code != want {
			t.Errorf("%s: %d, want %d", path, w.Code, want)
		}
	}
	if w := v.get("engineer", "/trends"); w.Code != 403 {
		t.Errorf("an engineer gets %d", w.Code)
	}
}
