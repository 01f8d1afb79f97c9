package daemon

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"

	"sallyport/api/hostapi"
)

// report sends what waits in the spool, in order, until the broker has it.
func (d *Daemon) report(ctx context.Context) {
	failures := 0
	var sent os.FileInfo // what the head was when all had been sent: each is another file
	for {
		head, err := os.Stat(filepath.Join(d.Place.Spool(), "head.json"))
		if err == nil && (sent == nil || !os.SameFile(head, sent)) {
			var more bool
			if more, err = d.send(ctx); err == nil && !more {
				sent = head
			}
			if ctx.Err() != nil {
				return
			}
			d.complain("reporting to the broker", err)
			if err == nil {
				failures = 0
				continue // there may be more
			}
			failures++
		}
		pause := lookEvery
		if failures > 0 {
			pause = max(pause, backoff(failures))
		}
		if !sleepOr(ctx, pause, d.back) {
			return
		}
	}
}

// maxCall is how many bytes of reports go into one call, below the broker's bound.
const maxCall = hostapi.MaxBody - 64<<10

// send sends as many reports as one call takes, and reports whether it sent any.
func (d *Daemon) send(ctx context.Context) (any bool, err error) {
	list, err := d.Spool.Pending(hostapi.MaxReports)
	if err != nil || len(list) == 0 {
		return false, err
	}
	size := 0
	for i, r := range list {
		if size += len(r.Data) + 512; i > 0 && size > maxCall {
			list = list[:i]
			break
		}
	}
	accepted, err := d.client.Report(ctx, list)
	if coded(err, hostapi.CodeConflict) {
		return true, d.renumber(ctx)
	}
	if err != nil {
		d.refused(err)
		return false, err
	}
	for _, r := range accepted.Refused {
		d.Log("the broker did not believe report " + text(r))
	}
	last := list[len(list)-1].Seq
	if accepted.Seq > last { // it has reports that this host did not make, or forgot
		return true, d.Spool.Renumber(accepted.Seq)
	}
	return true, d.Spool.Forget(accepted.Seq)
}

// renumber goes on after the reports that the broker has.
func (d *Daemon) renumber(ctx context.Context) error {
	e, err := d.client.Renew(ctx)
	if err != nil {
		return err
	}
	return d.Spool.Renumber(e.LastReport)
}

// endOf is the session whose end a report tells, or empty.
func endOf(r hostapi.Report) string {
	var e hostapi.SessionEnded
	if r.Kind != hostapi.KindSessionEnded || json.Unmarshal(r.Data, &e) != nil || e.Survived > 0 {
		return ""
	}
	return e.Session
}

func text(v any) string {
	t, _ := json.Marshal(v)
	return string(t)
}
