package daemon

import (
	"context"
	"fmt"
	"time"

	"sallyport/api/hostapi"
	"sallyport/cmd/sally-host/internal/place"
)

// renewRetry is how long a renewal that failed waits; there are days until it is late.
const renewRetry = time.Minute

// renew gets the next host certificate when it is time, and with it what the broker has
// changed in settings, logins and keys.
func (d *Daemon) renew(ctx context.Context) {
	for {
		d.mu.Lock()
		due := d.settings.Settings.RenewAt
		d.mu.Unlock()
		if !d.clock.Now().Before(due) {
			err := d.renewNow(ctx)
			if ctx.Err() != nil {
				return
			}
			d.complain("renewing the host's certificate", err)
			if err != nil {
				d.refused(err)
				if !sleep(ctx, renewRetry) {
					return
				}
				continue
			}
		}
		if !sleep(ctx, tidyEvery) {
			return
		}
	}
}

func (d *Daemon) renewNow(ctx context.Context) error {
	e, err := d.client.Renew(ctx)
	if err != nil {
		return err
	}
	return d.keep(e)
}

// keep takes over what the broker says of this host. Another log's key it never takes.
func (d *Daemon) keep(e hostapi.Enrolment) error {
	d.mu.Lock()
	s := place.Settings{HostKey: d.settings.HostKey, Enrolment: e}
	d.mu.Unlock()
	if err := d.Place.Keep(s); err != nil {
		return err
	}
	d.mu.Lock()
	d.settings = s
	d.mu.Unlock()
	d.Log(fmt.Sprintf("the host's certificate is good until %s", say(e.ValidBefore)))
	nudge(d.look)
	return d.Renewed()
}
