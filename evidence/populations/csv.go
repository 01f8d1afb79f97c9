package populations

import (
	"encoding/csv"
	"io"
	"strings"
	"time"
)

// Table writes one CSV file (RFC 4180, lines end in LF): a header and rows of the
// same length, every cell made neutral.
type Table struct {
	w     *csv.Writer
	width int
	cells []string
	rows  int64
}

// NewTable begins a file with its header.
func NewTable(w io.Writer, header []string) (*Table, error) {
	t := &Table{w: csv.NewWriter(w), width: len(header)}
	return t, t.w.Write(header)
}

// Row writes one row; missing cells at its end are empty.
func (t *Table) Row(cells ...string) error {
	t.cells = t.cells[:0]
	for _, c := range cells {
		t.cells = append(t.cells, Neutral(c))
	}
	for len(t.cells) < t.width {
		t.cells = append(t.cells, "")
	}
	t.rows++
	return t.w.Write(t.cells)
}

// Rows is how many rows were written, the header not counted.
func (t *Table) Rows() int64 { return t.rows }

// Flush writes what is buffered.
func (t *Table) Flush() error {
	t.w.Flush()
	return t.w.Error()
}

// Neutral keeps a spreadsheet from taking text for a formula. Whoever asks for
// access writes the reason, and whoever opens the list is somebody else.
//
// An apostrophe goes before =, +, -, @ and their full-width forms, at the start of
// the cell and wherever a program that splits at other separators than the comma
// would start a cell: after a line end, a tab, a semicolon or a bar; blanks and
// quotes in between are skipped. The exact text is in the log.
func Neutral(cell string) string {
	if !strings.ContainsAny(cell, formulas) {
		return cell
	}
	var b strings.Builder
	start := true
	for _, r := range cell {
		switch {
		case start && strings.ContainsRune(formulas, r):
			b.WriteByte('\'')
			start = false
		case strings.ContainsRune("\n\r\t;|", r):
			start = true
		case !strings.ContainsRune(" \"\u00a0\u200b\u200e\u200f\ufeff", r):
			start = false
		}
		b.WriteRune(r)
	}
	return b.String()
}

const formulas = "=+-@\uff1d\uff0b\uff0d\uff20\u2212"

// Time is a time as cells have it; "" for none.
func Time(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}
