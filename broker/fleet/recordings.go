package fleet

import (
	"context"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/api/hostapi"
	"sallyport/approvals/notify"
	"sallyport/audit/event"
	"sallyport/audit/recording"
	"sallyport/broker/recordings"
	"sallyport/broker/sessions"
	"sallyport/internal/refusal"
)

const (
	alarmRecordingDiffers = "recording-differs" // the broker has other bytes than the host told of
	alarmRecordingMissing = "recording-missing" // the broker has not got all of a session that had to be recorded

	// A host brings so many pieces of recordings at once, and then so many a second:
	// 1 MiB.
	piecesBurst, piecesRate = 120, 4
)

var errRecordingKnown = refusal.New(refusal.Conflict, "recording-known",
	"another end of this recording was told before", "each recording ends once")

// Record takes a piece of a recording of one of the host's sessions. Of another host's it
// knows none.
func (s *Service) Record(ctx context.Context, c Caller, session string, number int, offset int64, piece []byte) (hostapi.Recorded, error) {
	if !s.pieces.Allow(c.ID) {
		return hostapi.Recorded{}, ErrTooManyCalls
	}
	if !sessionName.MatchString(session) {
		return hostapi.Recorded{}, recordings.ErrPiece
	}
	var out hostapi.Recorded
	err := s.change(ctx, func(tx pgx.Tx) error {
		now := s.cfg.Clock.Now()
		row, err := sessions.Find(ctx, tx, c.ID, session)
		if err != nil {
			return err
		}
		if row == nil {
			return recordings.ErrSession
		}
		var differs bool
		if out.Bytes, differs, err = recordings.Append(ctx, tx, c.ID, row.ID, number, offset, piece, now); err != nil || !differs {
			return err
		}
		in := &intake{Service: s, tx: tx, host: c, now: now}
		in.otherRecording(row, number)
		return in.flush(ctx)
	})
	return out, err
}

// expectRecording expects all of a session that has ended, if its certificate says so.
func (in *intake) expectRecording(ctx context.Context, row *sessions.Session) error {
	if row.RequestID == "" { // no certificate of ours, which is an alarm of its own
		return nil
	}
	cert, err := in.cfg.Broker.Issued(ctx, in.tx, row.Serial)
	if err != nil || cert == nil || !cert.Record {
		return err
	}
	return recordings.Expect(ctx, in.tx, row.ID, in.now)
}

// TellMissing tells of sessions that had to be recorded, and of which not all has come.
func (s *Service) TellMissing(ctx context.Context) error {
	return s.change(ctx, func(tx pgx.Tx) error {
		now := s.cfg.Clock.Now()
		overdue, err := recordings.Overdue(ctx, tx, now)
		if err != nil || len(overdue) == 0 {
			return err
		}
		var events []event.Event
		for _, o := range overdue {
			why := fmt.Sprintf("it had to be recorded, and not all of it has come in the hour since its end was reported: %d recordings are whole", o.Whole)
			if err := s.cfg.Approvals.TellAlarm(ctx, tx, notify.Alarm{HostID: o.HostID, Host: o.Host, Code: alarmRecordingMissing,
				Text: fmt.Sprintf("session of %s from %s: %s", o.Login, o.Client, why)}); err != nil {
				return err
			}
			events = append(events, event.New(now, event.Actor{Kind: event.Broker}, "",
				event.Subject{RequestID: o.RequestID, PersonID: o.PersonID, HostID: o.HostID},
				event.SessionAlarm{SessionID: o.SessionID, Serial: o.Serial, Login: o.Login, Host: o.Host, Client: o.Client,
					Code: alarmRecordingMissing, Reason: why}))
		}
		return s.cfg.Log.Stage(ctx, tx, events...)
	})
}

// flush writes down what the intake found.
func (in *intake) flush(ctx context.Context) error {
	for _, a := range in.alarms {
		if err := in.cfg.Approvals.TellAlarm(ctx, in.tx, a); err != nil {
			return err
		}
	}
	return in.cfg.Log.Stage(ctx, in.tx, in.events...)
}

// recorded takes the end of a recording.
func (in *intake) recorded(ctx context.Context) error {
	d, err := data[hostapi.SessionRecorded](in.report)
	if err != nil {
		return err
	}
	digest, err := hex.DecodeString(d.SHA256)
	fits := err == nil && len(digest) == 32 && hex.EncodeToString(digest) == d.SHA256 && sessionName.MatchString(d.Session) &&
		d.Number >= 1 && d.Number <= recordings.MaxNumber && d.Bytes >= 0 && d.Bytes <= recording.MaxSize && !d.StartedAt.IsZero() && !d.EndedAt.IsZero() &&
		clean(d.Cut, maxText) && len(d.Recipients) > 0 && len(d.Recipients) <= recording.MaxKeys
	for _, r := range d.Recipients {
		fits = fits && r != "" && clean(r, maxDetail)
	}
	if !fits {
		return errReportData
	}
	row, err := sessions.Find(ctx, in.tx, in.host.ID, d.Session)
	if err != nil {
		return err
	}
	if row == nil {
		return recordings.ErrSession
	}
	e := event.New(in.now, in.host.Actor(), in.host.Source, event.Subject{RequestID: row.RequestID, PersonID: row.PersonID, HostID: in.host.ID},
		event.SessionRecorded{SessionID: row.ID, Recording: d.Number, Number: in.report.Seq, BootID: in.report.BootID, Serial: row.Serial,
			Login: row.Login, Host: in.host.Name, Bytes: uint64(d.Bytes), Digest: d.SHA256, Recipients: d.Recipients,
			StartedAt: d.StartedAt.UTC().Truncate(time.Microsecond), EndedAt: d.EndedAt.UTC().Truncate(time.Microsecond), Terminal: d.Terminal, Cut: d.Cut})
	first, differs, err := recordings.End(ctx, in.tx, row.ID, d, e.ID, in.now)
	switch {
	case err != nil:
		return err
	case first:
		in.events = append(in.events, e)
	case differs:
		return errRecordingKnown
	default: // its host was killed between telling and noting that it had
		return nil
	}
	if differs {
		in.otherRecording(row, d.Number)
	}
	return nil
}

func (in *intake) otherRecording(row *sessions.Session, number int) {
	in.sessionAlarm(event.Subject{RequestID: row.RequestID, PersonID: row.PersonID, HostID: in.host.ID}, row, alarmRecordingDiffers,
		fmt.Sprintf("recording %d is not what the host told of it", number))
}
