package witness

import (
	"bytes"
	"testing"
)

// What is read is exactly what would be written.
func FuzzParseRequest(f *testing.F) {
	f.Add([]byte("old 0\n\nsallyport.example.com/log\n1\nAAAA\n\n— x y\n"))
	f.Add([]byte("old 12\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\nx"))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := parseRequest(body)
		if err == nil && !bytes.Equal(r.encode(), body) {
			t.Errorf("%q comes out as %q", body, r.encode())
		}
	})
}
