package policy

import (
	"slices"
	"time"
)

// AutomaticAt reports whether an ask at the time is approved with nobody asked.
func (r *Rule) AutomaticAt(t time.Time) bool {
	return r.Automatic && (r.During == nil || r.During.Contains(t))
}

// Contains reports whether the time is in the schedule, as the clock on the wall
// of its zone shows it. So where clocks are put forward, an hour that the wall
// never shows is never reached, and where they are put back, the hour that it
// shows twice counts twice: who reads 09:00 to 17:00 is right on every day.
func (s *Schedule) Contains(t time.Time) bool {
	wall := t.In(s.Zone)
	hour, minute, second := wall.Clock()
	since := time.Duration(hour)*time.Hour + time.Duration(minute)*time.Minute +
		time.Duration(second)*time.Second + time.Duration(wall.Nanosecond())
	return slices.ContainsFunc(s.Times, func(h Hours) bool {
		return slices.Contains(h.Days, wall.Weekday()) && since >= h.From && since < h.To
	})
}
