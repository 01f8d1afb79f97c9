package web

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"
)

// Plot is a picture of figures over time, which the template "plot" draws as SVG.
// It has no style of its own: what is a series' colour and shape says the
// stylesheet, by the series' Class.
//
// Across, all is in percent of the width, so that one drawing fits a phone and a
// desk and its writing keeps its size; down, all is in pixels.
type Plot struct {
	ID    string // of the element; Title and Desc are known by it
	Title string
	Desc  string // what it shows, in a sentence, for those who cannot see it
	Kind  string // bars or spread
	Marks []Series

	Ticks   []Tick
	Columns []Column
	Joins   []Join
}

// Series is one figure of every column.
type Series struct {
	Name, Class string
	Values      []float64 // NaN where there is none
}

// Label is what a column is called.
type Label struct {
	Text  string // below it; empty: nothing
	Wide  bool   // only where there is room
	Under string // a second line, such as the month that begins
	// UnderWide is what Wide is, for the second line.
	UnderWide bool
	Long      string // all that is to be said of it, shown when it is pointed at
}

// Tick is a line across, at a round number.
type Tick struct {
	Y    float64
	Text string
}

// Column is what stands above one label.
type Column struct {
	Label
	Middle      string // percent
	Left, Width string // of its slot
	Bars        []Bar
	Spread      *Span
}

// Bar is a part of a stack.
type Bar struct {
	Class       string
	Left, Width string
	Y, Height   float64
}

// Span is from a usual figure to a high one.
type Span struct{ Usual, High float64 }

// Join is a line between the usual figures of two columns.
type Join struct {
	FromX, ToX string
	FromY, ToY float64
}

// How high a plot is, in pixels: the room above the highest line, that for the
// figures, and with the writing below.
const (
	plotTop    = 14
	plotFloor  = plotTop + 190
	plotHeight = plotFloor + 42
)

// Floor is where the figures stand on, and Height that of the whole; UnderY is
// where the second line of labels is written, and LabelY the first.
func (Plot) Floor() int  { return plotFloor }
func (Plot) Height() int { return plotHeight }
func (Plot) LabelY() int { return plotFloor + 18 }
func (Plot) UnderY() int { return plotFloor + 34 }

// Many reports whether columns are narrow.
func (p Plot) Many() bool { return len(p.Columns) > 26 }

// Stacked is a plot of counts, the series on top of each other, the first one
// below.
func Stacked(p Plot, labels []Label, series ...Series) Plot {
	p.Kind, p.Marks = "bars", series
	most := 0.0
	for i := range labels {
		sum := 0.0
		for _, s := range series {
			sum += s.Values[i]
		}
		most = max(most, sum)
	}
	most = max(most, 4) // one of something shall not look like a flood
	y := p.scale(most, countStep(most), func(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) })
	p.Columns = columns(labels)
	for i := range p.Columns {
		sum := 0.0
		for _, s := range series {
			v := s.Values[i]
			if v <= 0 {
				continue
			}
			top, bottom := y(sum+v), y(sum)
			sum += v
			p.Columns[i].Bars = append(p.Columns[i].Bars, Bar{Class: s.Class, Left: p.percent(float64(i)+.2, len(labels)),
				Width: p.percent(.6, len(labels)), Y: top, Height: max(1, bottom-top-1)})
		}
	}
	return p
}

// Spreads is a plot of how long something took, in seconds, usually and at most.
func Spreads(p Plot, labels []Label, usual, high Series) Plot {
	p.Kind, p.Marks = "spread", []Series{usual, high}
	most := 0.0
	for i := range labels {
		if !math.IsNaN(high.Values[i]) {
			most = max(most, high.Values[i])
		}
	}
	step := timeStep(most)
	y := p.scale(most, step, inUnits(step))
	p.Columns = columns(labels)
	last := -1
	for i := range p.Columns {
		if math.IsNaN(usual.Values[i]) {
			continue
		}
		c := &p.Columns[i]
		c.Spread = &Span{Usual: y(usual.Values[i]), High: y(high.Values[i])}
		if last >= 0 && last == i-1 {
			p.Joins = append(p.Joins, Join{FromX: p.Columns[last].Middle, ToX: c.Middle, FromY: p.Columns[last].Spread.Usual, ToY: c.Spread.Usual})
		}
		last = i
	}
	return p
}

// scale puts lines across the plot, one for each step up to the first that is not
// below the highest figure, and returns where a figure is.
func (p *Plot) scale(most, step float64, text func(float64) string) (y func(float64) float64) {
	steps := max(1, math.Ceil(most/step))
	y = func(v float64) float64 {
		return math.Round(10*(plotFloor-(plotFloor-plotTop)*v/(steps*step))) / 10
	}
	for i := 0.0; i <= steps; i++ {
		p.Ticks = append(p.Ticks, Tick{Y: y(i * step), Text: text(i * step)})
	}
	return y
}

// countStep is a round number that goes into the highest count at most five times.
func countStep(most float64) float64 {
	for power := 1.0; ; power *= 10 {
		for _, n := range []float64{1, 2, 5} {
			if most <= 5*n*power {
				return n * power
			}
		}
	}
}

// timeSteps are round lengths of time, in seconds.
var timeSteps = []float64{1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 2 * 3600, 3 * 3600, 6 * 3600, 12 * 3600}

// timeStep is countStep for seconds.
func timeStep(most float64) float64 {
	for _, step := range timeSteps {
		if most <= 5*step {
			return step
		}
	}
	const day = 24 * 3600
	return day * countStep(most/day)
}

type unit struct {
	size float64
	name string
}

// units of time, in seconds.
var units = []unit{{24 * 3600, "d"}, {3600, "h"}, {60, "min"}, {1, "s"}}

// inUnits writes lengths of time that are multiples of the step, all in the largest
// unit of which the step is a half or more: 15 min, 75 min; 0.5 h, 1 h.
func inUnits(step float64) func(seconds float64) string {
	i := slices.IndexFunc(units, func(u unit) bool { return math.Mod(2*step, u.size) == 0 })
	return func(seconds float64) string {
		if seconds == 0 {
			return "0"
		}
		return strconv.FormatFloat(seconds/units[i].size, 'f', -1, 64) + " " + units[i].name
	}
}

// Brief is a length of time in at most two units: 45 s, 4 min 10 s, 1 h 15 min.
func Brief(d time.Duration) string {
	rest := d.Seconds()
	for i, u := range units {
		if rest < u.size {
			continue
		}
		text := fmt.Sprintf("%.0f %s", math.Floor(rest/u.size), u.name)
		if rest = math.Mod(rest, u.size); i+1 < len(units) && rest >= units[i+1].size {
			text += fmt.Sprintf(" %.0f %s", math.Floor(rest/units[i+1].size), units[i+1].name)
		}
		return text
	}
	return "0 s"
}

func columns(labels []Label) []Column {
	var p Plot
	all := make([]Column, len(labels))
	for i, label := range labels {
		all[i] = Column{Label: label, Middle: p.percent(float64(i)+.5, len(labels)),
			Left: p.percent(float64(i), len(labels)), Width: p.percent(1, len(labels))}
	}
	return all
}

// percent is how far n of so many columns reach.
func (Plot) percent(n float64, of int) string { return fmt.Sprintf("%.3f%%", 100*n/float64(of)) }
