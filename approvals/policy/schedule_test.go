package policy

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func scheduleOf(t testing.TB, zone string, times ...Hours) *Schedule {
	t.Helper()
	z, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	return &Schedule{Zone: z, Times: times}
}

// What the clock on the wall shows decides, also on the days when it is put
// forward or back.
func TestScheduleGoesByTheWallClock(t *testing.T) {
	t.Parallel()
	everyday := []time.Weekday{0, 1, 2, 3, 4, 5, 6}
	office := scheduleOf(t, "Europe/Berlin", Hours{[]time.Weekday{time.Monday}, 9 * time.Hour, 17 * time.Hour})
	morning := scheduleOf(t, "Europe/Berlin", Hours{everyday, 9 * time.Hour, 10 * time.Hour})
	night := scheduleOf(t, "Europe/Berlin", Hours{everyday, 2 * time.Hour, 3 * time.Hour})
	evening := scheduleOf(t, "Pacific/Auckland", Hours{[]time.Weekday{time.Saturday}, 22 * time.Hour, 24 * time.Hour})
	for _, c := range []struct {
		name string
		s    *Schedule
		at   string
		want bool
	}{
		{"from is in it", office, "2026-03-02T08:00:00Z", true},
		{"just before", office, "2026-03-02T07:59:59.999999Z", false},
		{"just before to", office, "2026-03-02T15:59:59.999999Z", true},
		{"to is not", office, "2026-03-02T16:00:00Z", false},
		{"another day", office, "2026-03-03T10:00:00Z", false},
		{"summer time", office, "2026-07-06T07:00:00Z", true},
		{"no longer winter time", office, "2026-07-06T15:30:00Z", false},
		{"the zone's day, not the machine's", evening, "2026-03-07T10:00:00Z", true}, // Saturday 23:00
		{"the end of the day", evening, "2026-03-07T11:00:00Z", false},               // Sunday 00:00

		// 2026-03-29, 02:00 becomes 03:00.
		{"nine is nine after the change", morning, "2026-03-29T07:00:00Z", true},
		{"ten is ten after the change", morning, "2026-03-29T08:00:00Z", false},
		{"before the hour that is not", night, "2026-03-29T00:59:59Z", false},
		{"after the hour that is not", night, "2026-03-29T01:00:00Z", false},
		// 2026-10-25, 03:00 becomes 02:00.
		{"nine is nine after the change back", morning, "2026-10-25T08:00:00Z", true},
		{"the hour for the first time", night, "2026-10-25T00:30:00Z", true},
		{"the hour for the second time", night, "2026-10-25T01:30:00Z", true},
		{"after the second time", night, "2026-10-25T02:00:00Z", false},
	} {
		at, err := time.Parse(time.RFC3339, c.at)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.s.Contains(at); got != c.want {
			t.Errorf("%s: %v at %s", c.name, got, at.In(c.s.Zone))
		}
	}
}

func TestAutomaticAt(t *testing.T) {
	t.Parallel()
	in, out := time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC), time.Date(2026, 3, 2, 20, 0, 0, 0, time.UTC)
	office := scheduleOf(t, "UTC", Hours{[]time.Weekday{time.Monday}, 9 * time.Hour, 17 * time.Hour})
	for _, c := range []struct {
		r       Rule
		in, out bool
	}{
		{Rule{}, false, false},
		{Rule{Automatic: true}, true, true},
		{Rule{Automatic: true, During: office}, true, false},
		{Rule{During: office}, false, false},
		{Rule{Automatic: true, During: &Schedule{Zone: time.UTC}}, false, false}, // never, not always
	} {
		if c.r.AutomaticAt(in) != c.in || c.r.AutomaticAt(out) != c.out {
			t.Errorf("%+v: %v, %v", c.r, c.r.AutomaticAt(in), c.r.AutomaticAt(out))
		}
	}
}

// Whatever the zone, the answer is the same for all instants that the wall shows alike.
func TestScheduleKnowsOnlyTheWall(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		zone, err := time.LoadLocation(rapid.SampledFrom([]string{"UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Asia/Kathmandu"}).Draw(t, "zone"))
		if err != nil {
			t.Fatal(err)
		}
		from := time.Duration(rapid.IntRange(0, 1438).Draw(t, "from")) * time.Minute
		to := from + time.Duration(rapid.IntRange(1, 1440-int(from/time.Minute)).Draw(t, "length"))*time.Minute
		days := rapid.SliceOfDistinct(rapid.Map(rapid.IntRange(0, 6), func(i int) time.Weekday { return time.Weekday(i) }), rapid.ID[time.Weekday]).Draw(t, "days")
		at := time.Unix(rapid.Int64Range(1.7e9, 1.9e9).Draw(t, "at"), 0)
		// An independent reading: the wall, written out.
		wall := at.In(zone)
		clock := wall.Format("15:04:05")
		write := func(d time.Duration) string {
			if d == 24*time.Hour {
				return "24:00:00"
			}
			return time.Time{}.Add(d).Format("15:04:05")
		}
		day := false
		for _, d := range days {
			day = day || d.String() == wall.Format("Monday")
		}
		want := day && clock >= write(from) && clock < write(to)
		s := &Schedule{Zone: zone, Times: []Hours{{Days: days, From: from, To: to}}}
		if got := s.Contains(at); got != want {
			t.Fatalf("%v at %s in %v", got, wall, s.Times)
		}
	})
}
