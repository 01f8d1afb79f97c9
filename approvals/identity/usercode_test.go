package identity

import "testing"

func FuzzUserCode(f *testing.F) {
	for _, s := range []string{"BCDF-GHJK", "bcdfghjk", " BCDF GHJK", "AEIO-UAEI", "ß", "BCDF-GHJ\u212a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, typed string) {
		code, ok := normalUserCode(typed)
		if !ok {
			return
		}
		if again, ok := normalUserCode(code); !ok || again != code || len(code) != 9 || code[4] != '-' {
			t.Errorf("%q became %q, which became %q", typed, code, again)
		}
	})
}
