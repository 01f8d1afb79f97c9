package receipt

import (
	"bytes"
	"sync"

	"golang.org/x/mod/sumdb/note"
)

// remembered is how many signatures a remembering verifier keeps: one checkpoint
// serves a whole batch of receipts, and a few batches are on their way at a time.
const remembered = 8

// Remember is the verifier, which does not compute again what it has just found
// good: where many receipts are under one checkpoint, as in the broker, its
// signature is verified once. It is safe for concurrent use.
func Remember(v note.Verifier) note.Verifier { return &remembering{Verifier: v} }

type remembering struct {
	note.Verifier
	mu   sync.Mutex
	good [remembered]struct{ message, signature []byte }
	next int
}

// Verify holds the lock while it computes: whoever asks for the same at the same
// time waits for that instead.
func (r *remembering) Verify(message, signature []byte) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, g := range r.good {
		if g.message != nil && bytes.Equal(g.message, message) && bytes.Equal(g.signature, signature) {
			return true
		}
	}
	if !r.Verifier.Verify(message, signature) {
		return false
	}
	r.good[r.next].message, r.good[r.next].signature = bytes.Clone(message), bytes.Clone(signature)
	r.next = (r.next + 1) % remembered
	return true
}
