package signin

import (
	"net/url"
	"strings"
	"testing"
	"unicode"
)

func FuzzLocalPath(f *testing.F) {
	for _, s := range []string{"/", "/a?b#c", "//x", `/\x`, "/\t/x", "/%2f/x", "/a//b", "/@x", "/..//x", "/;//x"} {
		f.Add(s)
	}
	base, _ := url.Parse("https://sallyport.example.com/signin/callback")
	f.Fuzz(func(t *testing.T, next string) {
		got := localPath(next)
		u, err := base.Parse(got)
		if err != nil || u.Scheme != "https" || u.Host != base.Host || u.User != nil {
			t.Errorf("%q leads to %v (%v)", next, u, err)
		}
		// What browsers do besides (WHATWG URL): drop tabs and newlines, take \ for /.
		seen := strings.NewReplacer("\t", "", "\n", "", "\r", "", `\`, "/").Replace(strings.TrimFunc(got, func(r rune) bool { return r <= ' ' }))
		if strings.HasPrefix(seen, "//") || !strings.HasPrefix(seen, "/") {
			t.Errorf("%q leads browsers to %q", next, seen)
		}
	})
}

func FuzzLoopback(f *testing.F) {
	for _, s := range []string{"http://127.0.0.1:4711/callback", "http://127.0.0.1:1@x/callback", "http://127.0.0.1:65536/callback", "http://[::1]:1/callback"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		u, err := loopback(raw)
		if err != nil {
			return
		}
		if u.String() != raw || u.Scheme != "http" || u.Hostname() != "127.0.0.1" || u.Path != "/callback" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
			t.Errorf("%q was accepted", raw)
		}
	})
}

func FuzzGroups(f *testing.F) {
	for _, s := range []string{`["a"]`, `"a"`, `null`, `[1]`, `{}`, `["a\n"]`, `[null]`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		groups, err := groupsOf([]byte(raw))
		if err != nil && groups != nil {
			t.Errorf("%q gave groups and an error", raw)
		}
		for _, g := range groups {
			if g == "" || strings.ContainsFunc(g, unicode.IsControl) {
				t.Errorf("%q gave the group %q", raw, g)
			}
		}
	})
}
