package agents

import (
	"strings"
	"testing"
)

func FuzzReadToken(f *testing.F) {
	f.Add("eyJhbGciOiJSUzI1NiIsImtpZCI6ImsifQ.eyJpc3MiOiJpIiwic3ViIjoicyIsImF1ZCI6ImEifQ.eA")
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Add("..")
	f.Fuzz(func(t *testing.T, text string) {
		read, err := readToken(text)
		if err != nil {
			return
		}
		if read.text != text || !strings.HasPrefix(text, read.signed+".") || read.keyID == "" || read.claims.Issuer == "" {
			t.Fatalf("%q is read as %+v", text, read)
		}
		if !strings.HasPrefix(read.id(), "jti:") && !strings.HasPrefix(read.id(), "sha256:") {
			t.Fatalf("%q has the id %q", text, read.id())
		}
	})
}
