package ids

import (
	"regexp"
	"testing"
)

func TestNewIsValidAndSafe(t *testing.T) {
	t.Parallel()
	safe := regexp.MustCompile(`^req-[0-9a-hjkmnp-tv-z]{12}$`)
	seen := map[string]bool{}
	for range 10_000 {
		id := New(Request)
		if !safe.MatchString(id) || !Valid(Request, id) {
			t.Fatalf("%q is not a safe identifier", id)
		}
		if seen[id] {
			t.Fatalf("%q came twice", id)
		}
		seen[id] = true
	}
}

func TestValidRefuses(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		"", "req", "req-", "req-short", "req-4f8k2m9qhx1", "req-4f8k2m9qhx1zz", "per-4f8k2m9qhx1z",
		"req-4F8K2M9QHX1Z", "req-4f8k2m9qhxil", "req-4f8k2m9qhx1/", "req-4f8k2m9qhx1\n", " req-4f8k2m9qhx1z",
	} {
		if Valid(Request, s) {
			t.Errorf("%q passes as an identifier", s)
		}
	}
}
