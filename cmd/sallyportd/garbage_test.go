package main

import "testing"

// However much lives, what piles up beside it is bounded, down to a quarter of it.
func TestGarbageIsBounded(t *testing.T) {
	t.Parallel()
	const mb = 1 << 20
	for live, want := range map[uint64]int{0: 400, 30 * mb: 400, 64 * mb: 400, 65 * mb: 375, 256 * mb: 100, 400 * mb: 50, 1024 * mb: 25, 64 << 30: 25} {
		if got := garbagePercent(live); got != want {
			t.Errorf("%d MB live: GOGC=%d, want %d", live/mb, got, want)
		}
	}
}
