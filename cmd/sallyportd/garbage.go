package main

import (
	"context"
	"math"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// gcPercent is GOGC where nobody has set it. Usually a few dozen megabytes live, and
	// a certificate leaves a hundred kilobytes behind: collecting less often buys a tenth
	// of the time with memory that a server has.
	gcPercent = 400
	// maxGarbage is how much may pile up: thousands of hosts that wait for news are
	// hundreds of megabytes that live, and four times that much again would be no bargain.
	maxGarbage = 256 << 20
	// adjustEvery is how often what lives is looked at.
	adjustEvery = 5 * time.Second
)

// keepGarbage lets garbage pile up to gcPercent of what lives and to maxGarbage, until
// ctx ends; unless GOGC says otherwise.
func keepGarbage(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	set := gcPercent
	debug.SetGCPercent(set)
	tick := time.NewTicker(adjustEvery)
	defer tick.Stop()
	lives := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		metrics.Read(lives)
		if next := garbagePercent(lives[0].Value.Uint64()); next != set {
			set = next
			debug.SetGCPercent(set)
		}
	}
}

// garbagePercent is GOGC for so many bytes that live. It goes in steps, since setting it
// stops the world for a moment; and not below 25, where collecting would cost too much.
func garbagePercent(live uint64) int {
	const step, least = 25, 25
	percent := math.Floor(maxGarbage*100/math.Max(float64(live), 1)/step) * step
	return int(min(max(percent, least), gcPercent))
}
