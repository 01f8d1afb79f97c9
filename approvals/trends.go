package approvals

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals/identity"
	"sallyport/audit/event"
)

const (
	week              = 7 * 24 * time.Hour // in UTC they are all as long
	defaultTrendWeeks = 12
)

// errNotTrends is ErrNotReader where figures about everybody's requests are read.
var errNotTrends = ErrNotReader.With("only operators and auditors see figures about everybody's requests").
	Hinting("your own requests: sally requests")

// Trends counts what was asked for in each of the last so many ISO weeks, this one
// included, and what became of it by now, for operators and auditors; that anybody
// else tried is an event (P10). There are at most api.MaxTrendWeeks; 0 means 12.
//
// A request is one of these, the first that is true:
//
//  1. an emergency or a drill, if it opened a door before approval,
//  2. approved, if it has a grant and a person decided on it,
//  3. automatic, if it has a grant,
//  4. expired, if nobody decided in time, also by the clock alone,
//  5. what its state says.
//
// The time to approve ends with the last decision, which completed the quorum: a
// grant may start later, if that was asked for.
func (s *Service) Trends(ctx context.Context, c identity.Caller, weeks int) (api.Trends, error) {
	if !reads(c) {
		return api.Trends{}, s.refusedTo(ctx, c, "audit.trends", event.Subject{}, errNotTrends)
	}
	if weeks == 0 {
		weeks = defaultTrendWeeks
	}
	if weeks < 1 || weeks > api.MaxTrendWeeks {
		return api.Trends{}, ErrBadFilter.On("weeks")
	}
	now := s.cfg.Clock.Now().UTC()
	out := api.Trends{Weeks: weeksUntil(now, weeks)}
	if open := s.settled.fill(out.Weeks); len(open) > 0 {
		if err := s.countWeeks(ctx, open, now); err != nil {
			return api.Trends{}, fmt.Errorf("counting requests by week: %w", err)
		}
	}
	return out, nil
}

// countWeeks counts the requests of weeks that follow each other, and remembers
// those weeks in which nothing can change any more.
func (s *Service) countWeeks(ctx context.Context, weeks []api.Week, now time.Time) error {
	rows, err := s.cfg.Pool.Query(ctx, `
		WITH asked AS (
			SELECT floor(extract(epoch FROM created_at - @from) / @week)::integer AS number,
				CASE
					WHEN drill THEN 'drill'
					WHEN e.request_id IS NOT NULL THEN 'emergency'
					WHEN starts_at IS NOT NULL AND decided_at IS NOT NULL THEN 'approved'
					WHEN starts_at IS NOT NULL THEN 'automatic'
					WHEN state = 'requested' AND approve_by <= @now THEN 'expired'
					ELSE state END AS became,
				least(reviewed_at, @now) > review_by AS late,
				review_by >= @now AND reviewed_at IS NULL AS to_review,
				extract(epoch FROM decided_at - created_at)::float8 AS waited
			FROM requests r
			LEFT JOIN emergencies e ON e.request_id = r.id
			LEFT JOIN reviews v ON v.request_id = r.id
			LEFT JOIN LATERAL (
				SELECT decided_at FROM decisions d WHERE d.request_id = r.id ORDER BY position DESC LIMIT 1) d ON starts_at IS NOT NULL
			WHERE created_at >= @from AND created_at < @to)
		SELECT number, count(*),
			count(*) FILTER (WHERE became = 'approved'), count(*) FILTER (WHERE became = 'automatic'),
			count(*) FILTER (WHERE became = 'emergency'), count(*) FILTER (WHERE became = 'drill'),
			count(*) FILTER (WHERE became = 'denied'), count(*) FILTER (WHERE became = 'cancelled'),
			count(*) FILTER (WHERE became = 'expired'), count(*) FILTER (WHERE became = 'requested'),
			count(*) FILTER (WHERE late), count(*) FILTER (WHERE to_review),
			percentile_cont(ARRAY[0.5, 0.9]) WITHIN GROUP (ORDER BY waited) FILTER (WHERE became = 'approved')
		FROM asked GROUP BY number`,
		pgx.NamedArgs{"from": weeks[0].From, "to": weeks[len(weeks)-1].To, "week": week.Seconds(), "now": now})
	if err != nil {
		return err
	}
	var (
		number, toReview int
		n                api.Week
		waited           []float64
		unsettled        = map[int]bool{}
	)
	if _, err := pgx.ForEachRow(rows, []any{&number, &n.Requests, &n.Approved, &n.Automatic, &n.Emergencies, &n.Drills,
		&n.Denied, &n.Cancelled, &n.Expired, &n.Waiting, &n.ReviewsLate, &toReview, &waited}, func() error {
		w := &weeks[number]
		n.Week, n.From, n.To, n.TimeToApprove = w.Week, w.From, w.To, spread(waited)
		*w, unsettled[number] = n, n.Waiting+toReview > 0
		return nil
	}); err != nil {
		return err
	}
	for i, w := range weeks {
		if !unsettled[i] && now.Sub(w.To) > latecomers {
			s.settled.keep(w)
		}
	}
	return nil
}

// latecomers is how long after a week's end requests of it may still appear: those
// of a replica whose clock is behind.
const latecomers = time.Hour

// settledWeeks remembers the figures of weeks in which nothing can change, so that
// a look at a year costs little more than one at the last weeks. They are few.
type settledWeeks struct {
	mu    sync.Mutex
	weeks map[time.Time]api.Week // by their beginning
}

// fill puts what is remembered into the weeks, oldest first, and returns those
// from the first on that is not.
func (s *settledWeeks) fill(weeks []api.Week) (rest []api.Week) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, w := range weeks {
		known, ok := s.weeks[w.From]
		if !ok {
			return weeks[i:]
		}
		weeks[i] = known
	}
	return nil
}

func (s *settledWeeks) keep(w api.Week) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.weeks == nil {
		s.weeks = map[time.Time]api.Week{}
	}
	for from := range s.weeks {
		if w.From.Sub(from) > api.MaxTrendWeeks*week {
			delete(s.weeks, from)
		}
	}
	s.weeks[w.From] = w
}

// weeksUntil are the ISO weeks up to the one of the time, oldest first.
func weeksUntil(now time.Time, n int) []api.Week {
	sinceMonday := (int(now.Weekday()) + 6) % 7
	monday := time.Date(now.Year(), now.Month(), now.Day()-sinceMonday, 0, 0, 0, 0, time.UTC)
	all := make([]api.Week, n)
	for i := range all {
		from := monday.Add(-time.Duration(n-1-i) * week)
		year, number := from.ISOWeek()
		all[i] = api.Week{Week: fmt.Sprintf("%d-W%02d", year, number), From: from, To: from.Add(week)}
	}
	return all
}

// spread is the median and the ninth decile, in seconds, for people.
func spread(seconds []float64) *api.Spread {
	if len(seconds) != 2 {
		return nil
	}
	text := func(s float64) string { return (time.Duration(s) * time.Second).String() }
	return &api.Spread{Median: text(seconds[0]), P90: text(seconds[1])}
}
