package fleet

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/api/hostapi"
	"sallyport/approvals"
	"sallyport/approvals/notify"
	"sallyport/audit/event"
	"sallyport/internal/refusal"
)

// digestsKept is for how many of a host's last reports it is known what they said.
const digestsKept = 1000

// intake is one host's call with reports, in its transaction.
type intake struct {
	*Service
	tx     pgx.Tx
	host   Caller
	now    time.Time
	report hostapi.Report // the one that is taken now
	// session is the number of the last one about a session; 0: there was none.
	session uint64
	events  []event.Event
	alarms  []notify.Alarm
}

// Report takes what a host reports. The rules:
//
//  1. Reports come in the order of their numbers, and each number is taken once. What
//     comes again is passed over if it says the same as before, and refused with all that
//     comes with it if it does not: then the host was put back to an older state, and
//     what it saw since would be lost.
//  2. A gap in the numbers is an event.
//  3. What cannot be read, or is not so, is an event too, and taken, so that it does not
//     hold up what follows.
//
// All of a call is taken, or none.
func (s *Service) Report(ctx context.Context, c Caller, list []hostapi.Report) (hostapi.Accepted, error) {
	if !s.reports.Allow(c.ID) {
		return hostapi.Accepted{}, ErrTooManyCalls
	}
	if len(list) == 0 || len(list) > hostapi.MaxReports {
		return hostapi.Accepted{}, ErrReports
	}
	for i, r := range list {
		if r.Seq == 0 || r.Seq > 1<<53 || i > 0 && r.Seq <= list[i-1].Seq {
			return hostapi.Accepted{}, ErrReports
		}
	}
	var out hostapi.Accepted
	err := s.change(ctx, func(tx pgx.Tx) error {
		in := &intake{Service: s, tx: tx, host: c, now: s.cfg.Clock.Now()}
		var err error
		out, err = in.take(ctx, list)
		return err
	})
	return out, err
}

func (in *intake) take(ctx context.Context, list []hostapi.Report) (hostapi.Accepted, error) {
	var out hostapi.Accepted
	if err := in.lock(ctx, &out.Seq); err != nil {
		return out, err
	}
	before := out.Seq
	for _, r := range list {
		sum := sha256.Sum256(canonical(r))
		if r.Seq <= out.Seq {
			if err := in.same(ctx, r.Seq, sum[:]); err != nil {
				return out, err
			}
			continue
		}
		if r.Seq > out.Seq+1 {
			in.add(event.Subject{}, event.ReportsLost{From: out.Seq + 1, To: r.Seq - 1})
			in.alarm(alarmReportsMissing, fmt.Sprintf("%d reports of the host were lost", r.Seq-out.Seq-1))
		}
		in.report = r
		err := in.one(ctx)
		why := refusal.As(err)
		if err != nil && (why == nil || why.Kind == refusal.Unavailable) {
			return out, err
		}
		if r.Kind == hostapi.KindSessionStarted || r.Kind == hostapi.KindSessionEnded {
			in.session = r.Seq
		}
		if why != nil {
			out.Refused = append(out.Refused, hostapi.Refused{Seq: r.Seq, Code: why.Code, Detail: why.Detail})
			in.add(event.Subject{}, event.ReportRefused{Number: r.Seq, Kind: clip(string(r.Kind), 63), Code: why.Code, Reason: why.Detail})
		}
		if _, err = in.tx.Exec(ctx, `INSERT INTO host_reports (host_id, number, digest) VALUES ($1, $2, $3)`, in.host.ID, r.Seq, sum[:]); err != nil {
			return out, fmt.Errorf("writing down a report: %w", err)
		}
		out.Seq = r.Seq
	}
	if out.Seq == before {
		return out, nil
	}
	if _, err := in.tx.Exec(ctx, `
		UPDATE enrolled_hosts SET last_report = $2, session_report = greatest(session_report, $3),
			session_at = CASE WHEN $3 > session_report THEN $4 ELSE session_at END
		WHERE host_id = $1`, in.host.ID, out.Seq, in.session, in.now); err != nil {
		return out, fmt.Errorf("writing down a host's last report: %w", err)
	}
	if _, err := in.tx.Exec(ctx, `DELETE FROM host_reports WHERE host_id = $1 AND number <= $2`, in.host.ID, int64(out.Seq)-digestsKept); err != nil {
		return out, fmt.Errorf("forgetting reports: %w", err)
	}
	return out, in.flush(ctx)
}

// lock keeps the host from being removed or rekeyed meanwhile, and the same reports in
// another replica waiting. The registry's row comes first, as wherever both are locked.
func (in *intake) lock(ctx context.Context, last *uint64) error {
	h, err := in.cfg.Hosts.Hold(ctx, in.tx, in.host.ID)
	if errors.Is(err, approvals.ErrUnknownHost) {
		return ErrUnknownHost
	}
	if err != nil {
		return err
	}
	var key string
	if err := in.tx.QueryRow(ctx, `SELECT host_key, last_report FROM enrolled_hosts WHERE host_id = $1 FOR UPDATE`, in.host.ID).Scan(&key, last); err != nil {
		return fmt.Errorf("locking a host's reports: %w", err)
	}
	if key != h.HostKey {
		return ErrUnknownHost
	}
	return nil
}

// same refuses a number that was taken for another report. Of what came so long ago that
// it is forgotten nothing can be said.
func (in *intake) same(ctx context.Context, number uint64, digest []byte) error {
	rows, err := in.tx.Query(ctx, `SELECT digest FROM host_reports WHERE host_id = $1 AND number = $2`, in.host.ID, number)
	if err != nil {
		return fmt.Errorf("looking for a report: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
	if err != nil {
		return fmt.Errorf("looking for a report: %w", err)
	}
	if len(list) > 0 && !bytes.Equal(list[0], digest) {
		return ErrReportConflict.With("report %d was accepted before, and said something else", number)
	}
	return nil
}

// canonical is what a report says, however it is written.
func canonical(r hostapi.Report) []byte {
	r.Time = r.Time.UTC()
	var data bytes.Buffer
	if json.Compact(&data, r.Data) == nil {
		r.Data = data.Bytes()
	}
	text, _ := json.Marshal(r) // what was read can be written
	return text
}
