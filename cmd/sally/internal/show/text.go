// Package show is how sally writes for people: columns, times in the reader's
// zone, colours where there is a terminal that wants them, and progress while
// something takes time.
//
// Much of what sally shows was written by somebody else: reasons, comments,
// names. It goes through [Clean], so that nobody can move the cursor of an
// approver's terminal and make a request look like another.
package show

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"sallyport/api"
	"sallyport/internal/clock"
)

// Style is one look of text.
type Style string

// The styles, as ECMA-48 SGR parameters of the terminal's own palette.
const (
	Plain  Style = ""
	Bold   Style = "1"
	Faint  Style = "2"
	Red    Style = "31"
	Green  Style = "32"
	Yellow Style = "33"
)

// Text writes to one place for one reader.
type Text struct {
	w      io.Writer
	colour bool
	clock  clock.Clock
	zone   *time.Location
}

// NewText returns a Text. Relative times are relative to what the clock shows
// when they are written.
func NewText(w io.Writer, colour bool, clock clock.Clock, zone *time.Location) *Text {
	return &Text{w, colour, clock, zone}
}

// Paint gives text a style, if the reader has colours.
func (t *Text) Paint(s Style, text string) string {
	if !t.colour || s == Plain || text == "" {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + "\x1b[0m"
}

// Line writes a line; strings among its arguments are cleaned, cells also painted.
func (t *Text) Line(format string, args ...any) {
	for i, a := range args {
		switch a := a.(type) {
		case string:
			args[i] = Clean(a)
		case Cell:
			args[i] = t.Paint(a.Style, Clean(a.Text))
		}
	}
	fmt.Fprintf(t.w, format+"\n", args...)
}

// Cell is text in a style.
type Cell struct {
	Text  string
	Style Style
}

// Cells makes plain cells.
func Cells(texts ...string) []Cell {
	row := make([]Cell, len(texts))
	for i, s := range texts {
		row[i] = Cell{Text: s}
	}
	return row
}

// Table writes rows below a faint heading, in columns as wide as they need to be.
func (t *Text) Table(heading []string, rows [][]Cell) {
	top := Cells(heading...)
	for i := range top {
		top[i].Style = Faint
	}
	t.Columns(append([][]Cell{top}, rows...))
}

// Columns writes rows in columns as wide as they need to be.
func (t *Text) Columns(rows [][]Cell) {
	var widths []int
	for _, row := range rows {
		for i := range row {
			row[i].Text = Clean(row[i].Text)
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i].Text))
		}
	}
	for _, row := range rows {
		var line strings.Builder
		for i, c := range row {
			line.WriteString(t.Paint(c.Style, c.Text))
			if i < len(row)-1 {
				line.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.Text)+2))
			}
		}
		fmt.Fprintln(t.w, strings.TrimRight(line.String(), " "))
	}
}

// Clean makes text of unknown origin safe for a terminal: what would not be
// seen, or would change how other text is seen, is shown by its code point.
func Clean(s string) string {
	if strings.IndexFunc(s, unsafe) < 0 && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '\n' || r == '\r' || r == '\t':
			b.WriteByte(' ')
		case unsafe(r):
			fmt.Fprintf(&b, "<%U>", r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// unsafe: controls (escape sequences begin with one, C1 has one-byte ones),
// formats (which turn the direction of text, or are invisible), and the
// separators that break lines.
func unsafe(r rune) bool {
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Co, unicode.Zl, unicode.Zp)
}

// State is a request's state in its colour.
func State(s api.State) Cell {
	style := Plain
	switch s {
	case api.Requested:
		style = Yellow
	case api.Approved, api.Active:
		style = Green
	case api.Denied:
		style = Red
	case api.Ended, api.Cancelled, api.Expired:
		style = Faint
	}
	return Cell{string(s), style}
}

// When is a time in the reader's zone: the clock time today, with the date on
// other days.
func (t *Text) When(at time.Time) string {
	at, now := at.In(t.zone), t.clock.Now().In(t.zone)
	if at.YearDay() == now.YearDay() && at.Year() == now.Year() {
		return at.Format("15:04:05")
	}
	if at.Year() == now.Year() {
		return at.Format("Mon 2 Jan 15:04")
	}
	return at.Format("2 Jan 2006 15:04")
}

// Relative is how far a time is from now: "in 24 min", "3 h ago".
func (t *Text) Relative(at time.Time) string {
	d := at.Sub(t.clock.Now())
	switch {
	case d > 0:
		return "in " + Span(d)
	case d > -time.Second:
		return "now"
	}
	return Span(-d) + " ago"
}

// Span is a length of time in at most two units, rounded to the last.
func Span(d time.Duration) string {
	if d = d.Round(time.Second); d >= time.Minute {
		d = d.Round(time.Minute)
	}
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%d min", d/time.Minute)
	case d < 24*time.Hour:
		if m := d % time.Hour / time.Minute; m > 0 {
			return fmt.Sprintf("%d h %d min", d/time.Hour, m)
		}
		return fmt.Sprintf("%d h", d/time.Hour)
	case d < 48*time.Hour:
		return "1 day"
	}
	return fmt.Sprintf("%d days", d/(24*time.Hour))
}

// Duration is a Go duration without the units that are zero: "30m", not "30m0s".
func Duration(text string) string {
	if d, err := time.ParseDuration(text); err == nil && d >= time.Minute {
		text = d.String()
		if s, ok := strings.CutSuffix(text, "m0s"); ok {
			text = s + "m"
		}
		if s, ok := strings.CutSuffix(text, "h0m"); ok {
			text = s + "h"
		}
	}
	return text
}
