package web

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Whatever the figures are, every bar stands within the plot and on the one below
// it, and what is higher is drawn higher.
func TestStackedStaysWithin(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 60).Draw(t, "columns")
		values := rapid.SliceOfN(rapid.Map(rapid.Uint32Range(0, 3_000_000), func(v uint32) float64 { return float64(v) }), n, n)
		p := Stacked(Plot{}, make([]Label, n), Series{Class: "a", Values: values.Draw(t, "a")}, Series{Class: "b", Values: values.Draw(t, "b")})
		if len(p.Ticks) < 2 || len(p.Ticks) > 6 || p.Ticks[0].Y != plotFloor || p.Ticks[len(p.Ticks)-1].Y != plotTop {
			t.Fatalf("ticks %v", p.Ticks)
		}
		for i, c := range p.Columns {
			bottom := float64(plotFloor)
			for _, b := range c.Bars {
				if b.Height < 1 || b.Y < plotTop || b.Y+b.Height > bottom+1.1 {
					t.Fatalf("column %d: %+v, above %g", i, b, bottom)
				}
				bottom = b.Y
			}
		}
	})
}

func TestSpreadsStayWithin(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 60).Draw(t, "columns")
		usual, high := Series{}, Series{}
		for range n {
			u, h := math.NaN(), math.NaN()
			if rapid.Bool().Draw(t, "there") {
				u = float64(rapid.IntRange(0, 40_000_000).Draw(t, "usual"))
				h = u + float64(rapid.IntRange(0, 40_000_000).Draw(t, "more"))
			}
			usual.Values, high.Values = append(usual.Values, u), append(high.Values, h)
		}
		p := Spreads(Plot{}, make([]Label, n), usual, high)
		if len(p.Ticks) < 2 || len(p.Ticks) > 6 {
			t.Fatalf("ticks %v", p.Ticks)
		}
		for i, c := range p.Columns {
			if math.IsNaN(usual.Values[i]) != (c.Spread == nil) {
				t.Fatalf("column %d: %v of %g", i, c.Spread, usual.Values[i])
			}
			if s := c.Spread; s != nil && (s.High > s.Usual || s.High < plotTop || s.Usual > plotFloor) {
				t.Fatalf("column %d: %+v", i, s)
			}
		}
	})
}

func TestScales(t *testing.T) {
	t.Parallel()
	texts := func(p Plot) string {
		var all []string
		for _, tick := range p.Ticks {
			all = append(all, tick.Text)
		}
		return strings.Join(all, " | ")
	}
	one := make([]Label, 1)
	for most, want := range map[float64]string{
		0: "0 | 1 | 2 | 3 | 4", 1: "0 | 1 | 2 | 3 | 4", 5: "0 | 1 | 2 | 3 | 4 | 5", 6: "0 | 2 | 4 | 6", 41: "0 | 10 | 20 | 30 | 40 | 50",
		1e6: "0 | 200000 | 400000 | 600000 | 800000 | 1000000",
	} {
		if got := texts(Stacked(Plot{}, one, Series{Values: []float64{most}})); got != want {
			t.Errorf("%g: %s", most, got)
		}
	}
	for most, want := range map[time.Duration]string{
		0: "0 | 1 s", 4 * time.Second: "0 | 1 s | 2 s | 3 s | 4 s", time.Minute: "0 | 15 s | 30 s | 45 s | 60 s",
		62 * time.Minute: "0 | 15 min | 30 min | 45 min | 60 min | 75 min", 100 * time.Minute: "0 | 0.5 h | 1 h | 1.5 h | 2 h",
		9 * 24 * time.Hour: "0 | 2 d | 4 d | 6 d | 8 d | 10 d", 50 * time.Hour: "0 | 0.5 d | 1 d | 1.5 d | 2 d | 2.5 d",
	} {
		s := Series{Values: []float64{most.Seconds()}}
		if got := texts(Spreads(Plot{}, one, s, s)); got != want {
			t.Errorf("%s: %s", most, got)
		}
	}
	for d, want := range map[time.Duration]string{0: "0 s", 999 * time.Millisecond: "0 s", 45 * time.Second: "45 s", 250 * time.Second: "4 min 10 s",
		time.Hour: "1 h", 75*time.Minute + 59*time.Second: "1 h 15 min", 51 * time.Hour: "2 d 3 h", 24*time.Hour + time.Minute: "1 d"} {
		if got := Brief(d); got != want {
			t.Errorf("%s is %q", d, got)
		}
	}
}

// A plot is drawn without anything inline that the pages' policy forbids, and says
// what it shows to those who cannot see it.
func TestPlotIsStrictAndSaysWhatItShows(t *testing.T) {
	t.Parallel()
	labels := []Label{{Text: hostile, Long: hostile, Under: hostile}, {Text: "W2", Wide: true}}
	s := Series{Name: hostile, Class: "approved", Values: []float64{1, 2}}
	for _, p := range []Plot{Stacked(Plot{ID: "p", Title: hostile, Desc: hostile}, labels, s, s), Spreads(Plot{ID: "p", Title: hostile, Desc: hostile}, labels, s, s)} {
		var b strings.Builder
		if err := templates["trends"].ExecuteTemplate(&b, "plot", p); err != nil {
			t.Fatal(err)
		}
		page := b.String()
		if bad := forbidden(page); bad != "" || strings.Contains(page, "<img") {
			t.Errorf("%s has markup of others, or inline: %s", p.Kind, bad)
		}
		for _, want := range []string{`role="img" aria-labelledby="p-title p-desc"`, `<title id="p-title">&`, `<desc id="p-desc">&`, fmt.Sprintf(`height="%d"`, plotHeight)} {
			if !strings.Contains(page, want) {
				t.Errorf("%s lacks %s", p.Kind, want)
			}
		}
	}
}
