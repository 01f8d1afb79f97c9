package approvals_test

import (
	"testing"

	"pgregory.net/rapid"
)

// TestP5_ModelOfRequests plays random games of random people under random policies
// with two brokers, one move after the other and several at once, and compares
// what they say after every move with the model: P3, P4, P5 and the rules of slots.
func TestP5_ModelOfRequests(t *testing.T) {
	t.Parallel()
	g := newGames(newHouse(t))
	rapid.Check(t, func(rt *rapid.T) {
		if err := g.play(rt); err != nil {
			rt.Fatal(err)
		}
	})
}
