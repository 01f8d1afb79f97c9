package daemon

import (
	"context"
	"time"

	"sallyport/api/hostapi"
)

const (
	// settle is how long the daemon waits after something ended, for what ends with it.
	settle = 2 * time.Second
	// share is how many times longer it waits than it looks, however often people leave.
	share = 10
	// examineAtLeast is how often it looks at the host if the broker did not say.
	examineAtLeast = 10 * time.Minute
)

// examine looks at the host when the daemon starts, after each session and change, and
// every so often.
func (d *Daemon) examine(ctx context.Context) {
	pause := settle
	for {
		if !sleep(ctx, pause) {
			return
		}
		began := time.Now()
		p := d.Look(ctx, d.known())
		pause = max(settle, share*time.Since(began))
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
