package certs_test

import (
	"regexp"
	"strings"
	"testing"

	"sallyport/broker/certs"
)

// The form is that of this expression, which is not compiled at every login.
func FuzzDomain(f *testing.F) {
	form := regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?$`)
	for _, origin := range []string{"example.com/log", "example.com", "a.b", "a", "1.2.3.4", "a.1b", "-a.b", "a-.b", "a..b", ".a", "a.", "A.b", "a_b.c", strings.Repeat("a", 63) + ".b", strings.Repeat("a", 64) + ".b"} {
		f.Add(origin)
	}
	f.Fuzz(func(t *testing.T, origin string) {
		want, _, _ := strings.Cut(origin, "/")
		good := len(want) <= 253 && form.MatchString(want)
		got, err := certs.Domain(origin)
		if (err == nil) != good || good && got != want {
			t.Errorf("%q: %q, %v", origin, got, err)
		}
	})
}
