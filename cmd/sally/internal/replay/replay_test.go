package replay

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"sallyport/audit/recording"
)

// Who is audited writes what makes the auditor's terminal do something.
func TestOnlyWhatDrawsIsShown(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct{ in, out string }{
		"text":                           {"grüße\r\n\tx\b", "grüße\r\n\tx\b"},
		"colours and moves":              {"\x1b[1;31mred\x1b[0m\x1b[2J\x1b[10;20H\x1b[38:2:1:2:3mx", "\x1b[1;31mred\x1b[0m\x1b[2J\x1b[10;20H\x1b[38:2:1:2:3mx"},
		"a full screen":                  {"\x1b[?1049h\x1b[?25lx\x1b[?25h\x1b[?1049l", "\x1b[?1049h\x1b[?25lx\x1b[?25h\x1b[?1049l"},
		"lines are drawn":                {"\x1b(0qq\x1b(B", "\x1b(0qq\x1b(B"},
		"the clipboard":                  {"a\x1b]52;c;cm0gLXJmIC8=\x07b", "ab"},
		"the clipboard, by ST":           {"a\x1b]52;c;cm0=\x1b\\b", "ab"},
		"the clipboard, by C1":           {"a\u009d52;c;cm0=\u009cb", "ab"},
		"the title":                      {"\x1b]0;you are root\x07", ""},
		"a link":                         {"\x1b]8;;http://evil.example\x1b\\click\x1b]8;;\x1b\\", "click"},
		"a device string":                {"a\x1bP$qm\x1b\\b\x1b_x\x1b\\c\x1b^x\x1b\\d\x1bXx\x1b\\e", "abcde"},
		"where is the cursor":            {"a\x1b[6nb\x1b[cb\x1b[>cb\x1b[=cb\x1b[5n\x1b[?6n\x1b[x", "abbbb"},
		"what is your title":             {"\x1b[21ta\x1b[14t", "a"},
		"what modes have you":            {"\x1b[?2004$pa\x1b[4$p\x1b[!p\x1b[\"q\x1b[>q", "a"},
		"answer back":                    {"a\x05b", "ab"},
		"the mouse, and pasting":         {"\x1b[?1000h\x1b[?1006;25h\x1b[?2004ha", "a"},
		"keys":                           {"\x1b=\x1b>\x1b[>4;2ma\x1b[?1h", "a"},
		"reset":                          {"\x1bca", "a"},
		"C1 controls":                    {"a\u009b31mb\u0085", "a31mb"},
		"a bell, and others":             {"a\x07\x0e\x0f\x00\x7fb", "ab"},
		"a string that never ends":       {"a\x1b]0;xxxx", "a"},
		"a sequence of any length":       {"a\x1b[" + strings.Repeat("1;", 5000) + "mb", "ab"},
		"a sequence within another":      {"\x1b[\x1b]52;c;x\x07a\x1b[1\x1b[31mb", "a\x1b[31mb"},
		"an escape within an escape":     {"\x1b\x1b]0;x\x07a", "a"},
		"a character set of our own":     {"\x1b(Za\x1b%Gb\x1b#8c", "abc"},
		"a title within a device string": {"\x1bP\x1b]0;x\x07a", "a"},
	} {
		var whole Filter
		if got := whole.Next(c.in); got != c.out {
			t.Errorf("%s: %q, want %q", what, got, c.out)
		}
		var pieces Filter
		got := ""
		for _, r := range c.in {
			got += pieces.Next(string(r))
		}
		if got != c.out {
			t.Errorf("%s, in pieces: %q, want %q", what, got, c.out)
		}
	}
}

func FuzzFilter(f *testing.F) {
	f.Add("\x1b]0;x\x07\x1b[31mred\x1b[6n")
	f.Fuzz(func(t *testing.T, in string) {
		var one, two Filter
		out := one.Next(in)
		if again := two.Next(out); again != out {
			t.Errorf("%q becomes %q, and that %q", in, out, again)
		}
		for _, bad := range []string{"\x1b]", "\x1bP", "\x1b_", "\x1b^", "\x1bX", "\x1bc", "\x05"} {
			if strings.Contains(out, bad) {
				t.Errorf("%q lets %q through", in, bad)
			}
		}
	})
}

func cast(t *testing.T, lines ...string) *recording.Cast {
	t.Helper()
	c, err := recording.ReadCast(strings.NewReader(strings.Join(lines, "\n") + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestPlayKeepsTime(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	var slept []time.Duration
	o := Options{Speed: 2, Idle: 3 * time.Second, Sleep: func(_ context.Context, d time.Duration) error {
		slept = append(slept, d)
		return nil
	}}
	err := Play(t.Context(), &out, cast(t, `{"version":2,"width":80,"height":24,"sallyport":{"terminal":true,"serial":"1"}}`,
		`[0,"o","a"]`, `[1,"i","secret"]`, `[2,"o","b\u001b[6n"]`, `[1,"o","c"]`, `[3600,"o","d"]`, `[3600,"zz","e"]`), o)
	if err != nil || out.String() != "abcd" {
		t.Errorf("%q, %v", out.String(), err)
	}
	if len(slept) != 3 || slept[0] != 500*time.Millisecond || slept[1] != 500*time.Millisecond || slept[2] != 3*time.Second {
		t.Errorf("it slept %v", slept)
	}
	gone := errors.New("gone")
	o.Sleep = func(context.Context, time.Duration) error { return gone }
	if err := Play(t.Context(), &out, cast(t, `{"version":2,"sallyport":{"serial":"1"}}`, `[1,"o","a"]`), o); !errors.Is(err, gone) {
		t.Errorf("%v", err)
	}
}

func TestACommandIsShownWithWhatItRead(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	err := Play(t.Context(), &out, cast(t, `{"version":2,"command":"cat\u001b]0;x\u0007","sallyport":{"serial":"1"}}`,
		`[0,"i","in\n"]`, `[0,"o","out\n"]`, `[0,"ob","/wA="]`), Options{Speed: 1, Idle: time.Second})
	if want := "$ cat\r\nin\nout\n\r\n[wrote 2 bytes that are no text]\r\n"; err != nil || out.String() != want {
		t.Errorf("%q, %v", out.String(), err)
	}
}
