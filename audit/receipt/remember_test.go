package receipt_test

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"sallyport/audit/receipt"
)

// counting counts how often it computes.
type counting struct {
	note.Verifier
	n atomic.Int64
}

func (c *counting) Verify(message, signature []byte) bool {
	c.n.Add(1)
	return c.Verifier.Verify(message, signature)
}

func TestRemember(t *testing.T) {
	t.Parallel()
	m := newLog(t, 11)
	c := &counting{Verifier: m.vkey}
	v := receipt.Remember(c)
	if v.Name() != m.vkey.Name() || v.KeyHash() != m.vkey.KeyHash() {
		t.Error("it is another verifier")
	}
	text := m.receipt(t, 5).Format()
	var all sync.WaitGroup
	for range 64 {
		all.Go(func() {
			if _, err := receipt.Verify(leaf(5), text, v); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := c.n.Load(); n != 1 {
		t.Errorf("64 at once computed %d times, want once", n)
	}
	// What is remembered is the message with its signature, and only if it is good.
	signature, err := m.signer.Sign([]byte("message\n"))
	if err != nil {
		t.Fatal(err)
	}
	bad := slices.Clone(signature)
	bad[0] ^= 1
	for range 2 {
		if !v.Verify([]byte("message\n"), signature) || v.Verify([]byte("message\n"), bad) || v.Verify([]byte("other\n"), signature) {
			t.Error("a wrong verdict")
		}
	}
	// Many checkpoints later, it computes anew.
	for i := range 100 {
		message := fmt.Appendf(nil, "message %d\n", i)
		signature, err := m.signer.Sign(message)
		if err != nil || !v.Verify(message, signature) {
			t.Fatal(err)
		}
	}
	before := c.n.Load()
	if !v.Verify([]byte("message\n"), signature) || c.n.Load() != before+1 {
		t.Error("it remembers for ever")
	}
}
