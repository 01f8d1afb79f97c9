package daemon

import (
	"context"
	"syscall"
	"time"

	"sallyport/api/hostapi"
)

const (
	// settle is how long the daemon waits after something ended, for what ends with it.
	settle = 2 * time.Second
	// share is how many times longer it rests than a look has the processor work, however
	// often people leave.
	share = 10
	// examineAtLeast is how often it looks at the host if the broker did not say.
	examineAtLeast = 10 * time.Minute
)

// examine looks at the host when the daemon starts, after each session and change, and
// every so often.
func (d *Daemon) examine(ctx context.Context) {
	var rested time.Time
	for {
		if !sleep(ctx, max(settle, time.Until(rested))) {
			return
		}
		before := worked()
		p := d.Look(ctx, d.known())
		rested = time.Now().Add(share * (worked() - before))
		if ctx.Err() != nil {
			return
		}
		_, err := d.Spool.AppendFor(hostapi.KindPosture, func(number uint64) (any, error) {
			p.Number = number
			return hostapi.SignPosture(p, d.Key)
		})
		d.complain("looking at the host", err)
		d.mu.Lock()
		every := d.settings.Settings.PostureEvery()
		d.mu.Unlock()
		if every <= 0 {
			every = examineAtLeast
		}
		if !sleepOr(ctx, every, d.look) {
			return
		}
	}
}

// worked is how long processors have worked for this program and for those that it has
// started and waited for.
func worked() (all time.Duration) {
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var used syscall.Rusage
		if err := syscall.Getrusage(who, &used); err == nil { // which fails for no who that there is
			all += time.Duration(used.Utime.Nano() + used.Stime.Nano())
		}
	}
	return all
}
