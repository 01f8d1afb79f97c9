package api

import "testing"

// The message is a contract: other programs make it with printf.
func TestProofMessage(t *testing.T) {
	t.Parallel()
	want := "sallyport certificate request v1\nhttps://sallyport.example.com\nreq-4f8k2m9qhx1z\n"
	for _, url := range []string{"https://sallyport.example.com", "https://sallyport.example.com/"} {
		if got := string(ProofMessage(url, "req-4f8k2m9qhx1z")); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
