package show_test

import (
	"bytes"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"sallyport/api"
	"sallyport/cmd/sally/internal/show"
	"sallyport/internal/clock"
)

func text(colour bool) (*show.Text, *bytes.Buffer) {
	var b bytes.Buffer
	now := clock.NewManual(time.Date(2026, 3, 14, 15, 9, 26, 0, time.UTC))
	return show.NewText(&b, colour, now, time.FixedZone("CET", 3600)), &b
}

func TestTimesAreTheReaders(t *testing.T) {
	t.Parallel()
	s, _ := text(false)
	now := time.Date(2026, 3, 14, 15, 9, 26, 0, time.UTC)
	for _, tc := range []struct {
		at             time.Time
		when, relative string
	}{
		{now, "16:09:26", "now"},
		{now.Add(24 * time.Minute), "16:33:26", "in 24 min"},
		{now.Add(90 * time.Minute), "17:39:26", "in 1 h 30 min"},
		{now.Add(2 * time.Hour), "18:09:26", "in 2 h"},
		{now.Add(8 * time.Hour), "Sun 15 Mar 00:09", "in 8 h"},
		{now.Add(-59 * time.Second), "16:08:27", "59 s ago"},
		{now.Add(-30 * time.Hour), "Fri 13 Mar 10:09", "1 day ago"},
		{now.Add(-400 * 24 * time.Hour), "7 Feb 2025 16:09", "400 days ago"},
	} {
		if when, relative := s.When(tc.at), s.Relative(tc.at); when != tc.when || relative != tc.relative {
			t.Errorf("%s: %q, %q; want %q, %q", tc.at, when, relative, tc.when, tc.relative)
		}
	}
	for in, want := range map[string]string{"30m0s": "30m", "2h0m0s": "2h", "1h30m0s": "1h30m", "45s": "45s", "1m30s": "1m30s", "x": "x"} {
		if got := show.Duration(in); got != want {
			t.Errorf("Duration(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestColumns(t *testing.T) {
	t.Parallel()
	s, b := text(true)
	s.Table([]string{"A", "B"}, [][]show.Cell{{{Text: "ä long one"}, show.State(api.Denied)}, {{Text: "x"}, {Text: "y"}}})
	want := "\x1b[2mA\x1b[0m           \x1b[2mB\x1b[0m\nä long one  \x1b[31mdenied\x1b[0m\nx           y\n"
	if b.String() != want {
		t.Errorf("got  %q\nwant %q", b.String(), want)
	}
}

// Whatever somebody writes into a reason, it stays in its line and is seen.
func FuzzClean(f *testing.F) {
	for _, s := range []string{"plain", "naïve 日本 ✓", "\x1b[2J", "a\r\nb", "\u202egnp.exe", "\u009b31m", "\xff\xfe", "\u2028", "\u200b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := show.Clean(s)
		if !utf8.ValidString(got) {
			t.Errorf("%q became %q", s, got)
		}
		for _, r := range got {
			if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == '\u2028' || r == '\u2029' {
				t.Errorf("%q let %U through", s, r)
			}
		}
		if show.Clean(got) != got {
			t.Errorf("%q is cleaned twice differently", s)
		}
	})
}

func TestLineCleansWhatItIsGiven(t *testing.T) {
	t.Parallel()
	s, b := text(true)
	s.Line("%s %s", "\x1b[2Kx", show.Cell{Text: "\x1b[1Ay", Style: show.Bold})
	if got := b.String(); strings.Count(got, "\x1b") != 2 || !strings.Contains(got, "<U+001B>[2Kx") {
		t.Errorf("%q", got)
	}
}

func TestProgressElsewhereThanOnATerminal(t *testing.T) {
	t.Parallel()
	s, b := text(false)
	p := s.Progress(0, "waiting")
	p.Say("waiting")
	p.Say("nearly\x1b")
	p.Stop()
	if b.String() != "waiting\nnearly<U+001B>\n" {
		t.Errorf("%q", b.String())
	}
}
