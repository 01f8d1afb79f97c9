// Package replay plays recordings of terminals to an auditor.
//
// What a recording shows was written by whoever is audited. A terminal does more than
// show: it can be told to answer, which the auditor's shell then takes for typed; to
// change the clipboard, the title, or its own keys. Only what draws is let through
// ([Filter]).
package replay

import (
	"strings"
	"unicode/utf8"
)

// Filter lets through what a terminal draws by: text, and those control sequences of
// ECMA-48 and of DEC that move, erase, scroll and paint. All else is left out: strings
// (OSC, DCS, APC, PM, SOS), questions to the terminal, and modes of its keys and mouse.
// Sequences may come in pieces.
type Filter struct {
	state   state
	pending []byte // of the sequence that goes on
}

type state int

const (
	text     state = iota
	escape         // after ESC
	control        // after CSI
	skipping       // in a string, which ends with ST or BEL
	skipped        // after ESC in a string
	charset        // after ESC and an intermediate
)

// maxSequence is how long a sequence may get; longer ones are left out.
const maxSequence = 64

// Next is what of a piece may be shown.
func (f *Filter) Next(piece string) string {
	var out strings.Builder
	for _, r := range piece {
		f.next(&out, r)
	}
	return out.String()
}

func (f *Filter) next(out *strings.Builder, r rune) {
	switch f.state {
	case text:
		switch {
		case r == 0x1b:
			f.begin(escape)
		case r == '\n' || r == '\r' || r == '\t' || r == '\b':
			out.WriteRune(r)
		case r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == utf8.RuneError:
			// Of the others some ring, and some switch. C1 controls are sequences, too.
			if r == 0x90 || r == 0x98 || r >= 0x9d && r <= 0x9f {
				f.begin(skipping)
			}
		default:
			out.WriteRune(r)
		}
	case escape:
		switch {
		case r == '[':
			f.state = control
		case r == ']' || r == 'P' || r == '_' || r == '^' || r == 'X':
			f.begin(skipping)
		case r == '(' || r == ')':
			f.pending = append(f.pending, byte(r))
			f.state = charset
		case strings.ContainsRune("78DEM", r): // cursor saved and restored, lines
			out.WriteString("\x1b" + string(r))
			f.state = text
		case r >= 0x20 && r <= 0x2f:
			f.pending = append(f.pending, 0)
			f.state = charset
		default:
			f.state = text
			if r == 0x1b {
				f.begin(escape)
			}
		}
	case charset:
		if f.pending[0] != 0 && strings.ContainsRune("0AB", r) { // line drawing, and back
			out.WriteString("\x1b" + string(f.pending[0]) + string(r))
		}
		f.state = text
	case control:
		f.sequence(out, r)
	case skipping:
		switch r {
		case 0x1b:
			f.state = skipped
		case 0x07, 0x9c, 0x18, 0x1a:
			f.state = text
		}
	case skipped:
		f.state = skipping
		if r == '\\' {
			f.state = text
		}
	}
}

func (f *Filter) begin(s state) { f.state, f.pending = s, f.pending[:0] }

// sequence takes a character after CSI.
func (f *Filter) sequence(out *strings.Builder, r rune) {
	switch {
	case r == 0x1b:
		f.begin(escape)
	case r >= 0x20 && r <= 0x3f:
		if len(f.pending) < maxSequence {
			f.pending = append(f.pending, byte(r))
		}
	case r >= 0x40 && r <= 0x7e:
		if p := string(f.pending); len(p) < maxSequence && draws(p, byte(r)) {
			out.WriteString("\x1b[" + p + string(r))
		}
		f.state = text
	default: // no sequence goes on so
		f.state = text
	}
}

// modes are those of DEC that change what is drawn, and nothing else.
var modes = map[string]bool{"5": true, "6": true, "7": true, "12": true, "25": true, "47": true, "1047": true, "1048": true, "1049": true, "2026": true}

// draws reports whether a control sequence with these parameters only draws.
func draws(parameters string, final byte) bool {
	if private, ok := strings.CutPrefix(parameters, "?"); ok {
		if final != 'h' && final != 'l' {
			return final == 'J' || final == 'K'
		}
		for _, m := range strings.Split(private, ";") {
			if !modes[m] {
				return false
			}
		}
		return true
	}
	if strings.Trim(parameters, "0123456789;:") != "" {
		return false
	}
	// Moves, erases, inserts, deletes, scrolls, repeats; colours; the scrolling region.
	return strings.IndexByte("@ABCDEFGHIJKLMPSTXZ`abdefmr", final) >= 0 || final == 'h' && parameters == "4" || final == 'l' && parameters == "4" ||
		(final == 's' || final == 'u') && parameters == ""
}

// Reset brings a terminal back to what it was before, as far as Next changed it.
const Reset = "\x1b(B\x1b[0m\x1b[4l\x1b[?5l\x1b[?6l\x1b[?7h\x1b[?25h\x1b[?1049l\x1b[r"
