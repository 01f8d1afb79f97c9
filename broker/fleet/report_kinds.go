package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"sallyport/api/hostapi"
	"sallyport/approvals/notify"
	"sallyport/audit/event"
	"sallyport/broker"
	"sallyport/broker/certs"
	"sallyport/broker/revocations"
	"sallyport/broker/sessions"
	"sallyport/internal/ids"
)

// Codes of alarms about sessions.
const (
	alarmNoCertificate  = "no-certificate"      // sshd let in something else
	alarmUnknown        = "unknown-certificate" // it was never issued
	alarmOtherHost      = "other-host"          // it was issued for another host
	alarmDiffers        = "certificate-differs" // it was issued, and is not what the host saw
	alarmOutsideTime    = "outside-validity"    // it was not good then
	alarmAfterEnd       = "after-end"           // it was revoked, or its grant had ended
	alarmSurvived       = "processes-survived"  // its end did not end all
	alarmReportsMissing = "reports-lost"
)

const (
	// clockSkew is how far a host's clock may be off, before a session is an alarm.
	clockSkew = time.Minute
	// endReaches is how long the news of an end may take to a host.
	endReaches = 2 * time.Minute
	maxText    = 256
	maxDetail  = 2000
)

var (
	sessionName = regexp.MustCompile(`^[0-9a-f]{32}$`)
	alarmCode   = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)
)

// one takes the report that is next.
func (in *intake) one(ctx context.Context) error {
	if !clean(in.report.BootID, 64) || in.report.Time.IsZero() {
		return errReportData
	}
	switch in.report.Kind {
	case hostapi.KindSessionStarted:
		return in.started(ctx)
	case hostapi.KindSessionEnded:
		return in.ended(ctx)
	case hostapi.KindSessionRecorded:
		return in.recorded(ctx)
	case hostapi.KindPosture:
		return in.looked(ctx)
	case hostapi.KindAlarm:
		return in.alarmed()
	}
	return errReportKind
}

// data reads the report's data. Fields that this broker does not know are left alone:
// a newer host sends them.
func data[T any](r hostapi.Report) (v T, err error) {
	if len(r.Data) > hostapi.MaxReportSize || json.Unmarshal(r.Data, &v) != nil {
		return v, errReportData
	}
	return v, nil
}

// started takes the start of a session. Whatever is wrong with it, it is written down:
// somebody may be on the host.
func (in *intake) started(ctx context.Context) error {
	d, err := data[hostapi.SessionStarted](in.report)
	if err != nil {
		return err
	}
	fits := sessionName.MatchString(d.Session) && !d.StartedAt.IsZero() && d.Login != ""
	for _, text := range []string{d.KeyID, d.Principal, d.Key, d.Certificate, d.Method, d.Login, d.Peer, d.Isolation, d.Problem} {
		fits = fits && clean(text, maxText)
	}
	if !fits || d.Serial > 1<<63-1 {
		return errReportData
	}
	if before, err := sessions.Find(ctx, in.tx, in.host.ID, d.Session); err != nil || before != nil {
		return orKnown(err)
	}
	cert, code, why, err := in.opened(ctx, d)
	if err != nil {
		return err
	}
	row := &sessions.Session{ID: ids.New(ids.Session), HostID: in.host.ID, HostSession: d.Session, Serial: d.Serial,
		Login: d.Login, Client: d.Peer, StartedAt: d.StartedAt, Alarm: code}
	about := in.about(row, cert)
	if err := sessions.Insert(ctx, in.tx, row, in.now); err != nil {
		return err
	}
	e := event.SessionStarted{SessionID: row.ID, Number: in.report.Seq, BootID: in.report.BootID, Serial: d.Serial, KeyID: d.KeyID,
		Principal: d.Principal, Key: d.Key, Certificate: d.Certificate, Method: d.Method, Login: d.Login, Host: in.host.Name,
		Client: d.Peer, StartedAt: d.StartedAt, Isolation: d.Isolation, Problem: d.Problem}
	if d.EndsAt != nil {
		e.EndsAt = *d.EndsAt
	}
	in.add(about, e)
	if code != "" {
		in.sessionAlarm(about, row, code, why)
	}
	return nil
}

// opened finds the certificate that opened a session, if it is one of ours for this host
// and login; and says what is wrong, by a code and in words, if something is.
func (in *intake) opened(ctx context.Context, d hostapi.SessionStarted) (cert *broker.Issued, code, why string, err error) {
	if d.Serial == 0 {
		return nil, alarmNoCertificate, "sshd let it in without a certificate: " + d.Method, nil
	}
	cert, err = in.cfg.Broker.Issued(ctx, in.tx, d.Serial)
	if err != nil {
		return nil, "", "", err
	}
	principal, _ := certs.Principal(d.Login, in.host.ID) // no login of ours: it equals none
	switch {
	case cert == nil:
		return nil, alarmUnknown, fmt.Sprintf("no certificate %d was ever issued", d.Serial), nil
	case cert.HostID != in.host.ID:
		return nil, alarmOtherHost, fmt.Sprintf("certificate %d was issued for another host", d.Serial), nil
	case cert.KeyID != d.KeyID || cert.Principal != d.Principal || cert.Principal != principal || cert.Fingerprint != d.Key:
		return nil, alarmDiffers, fmt.Sprintf("certificate %d was issued for another login, person or key", d.Serial), nil
	case d.StartedAt.Before(cert.ValidAfter.Add(-clockSkew)) || !d.StartedAt.Before(cert.ValidBefore.Add(clockSkew)):
		return cert, alarmOutsideTime, fmt.Sprintf("certificate %d was good from %s to %s", d.Serial,
			cert.ValidAfter.Format(time.RFC3339), cert.ValidBefore.Format(time.RFC3339)), nil
	}
	over, err := in.over(ctx, cert)
	if err == nil && !over.IsZero() && d.StartedAt.After(over.Add(endReaches)) {
		code, why = alarmAfterEnd, fmt.Sprintf("certificate %d was revoked, or its grant or deployment had ended, at %s", d.Serial, over.Format(time.RFC3339))
	}
	return cert, code, why, err
}

// over is when the certificate's grant, its deployment's hold on the host, or itself ended
// before its time; zero if it has not.
func (in *intake) over(ctx context.Context, cert *broker.Issued) (time.Time, error) {
	if cert.DeploymentID != "" {
		return revocations.SealedAt(ctx, in.tx, cert.DeploymentID, cert.HostID, cert.IssuedAt)
	}
	return revocations.EndedAt(ctx, in.tx, cert.Serial, cert.RequestID)
}

// ended takes the end of a session, also of one whose start was lost.
func (in *intake) ended(ctx context.Context) error {
	d, err := data[hostapi.SessionEnded](in.report)
	if err != nil {
		return err
	}
	reasons := []hostapi.EndReason{hostapi.EndClosed, hostapi.EndTime, hostapi.EndFinished, hostapi.EndRevoked, hostapi.EndRefused,
		hostapi.EndReboot, hostapi.EndLost, hostapi.EndUnrecorded}
	if !sessionName.MatchString(d.Session) || d.EndedAt.IsZero() || !slices.Contains(reasons, d.Reason) || d.Serial > 1<<63-1 ||
		d.Killed < 0 || d.Survived < 0 || d.Login == "" || !clean(d.KeyID, maxText) || !clean(d.Login, maxText) || !clean(d.Peer, maxText) {
		return errReportData
	}
	row, err := sessions.Find(ctx, in.tx, in.host.ID, d.Session)
	if err != nil {
		return err
	}
	var about event.Subject
	switch {
	case row == nil:
		row = &sessions.Session{ID: ids.New(ids.Session), HostID: in.host.ID, HostSession: d.Session, Serial: d.Serial,
			Login: d.Login, Client: d.Peer, EndedAt: d.EndedAt, EndReason: string(d.Reason)}
		cert, err := in.cfg.Broker.Issued(ctx, in.tx, d.Serial)
		if err != nil {
			return err
		}
		if cert != nil && (cert.HostID != in.host.ID || cert.KeyID != d.KeyID || cert.Principal != d.Login+"@"+in.host.ID) {
			cert = nil
		}
		if cert == nil {
			row.Alarm = alarmUnknown
		}
		about = in.about(row, cert)
		if err := sessions.Insert(ctx, in.tx, row, in.now); err != nil {
			return err
		}
		if cert == nil {
			defer in.sessionAlarm(about, row, row.Alarm, "no certificate of ours opened it, and its start was not reported")
		}
	case !row.EndedAt.IsZero():
		return errSessionKnown
	default:
		about = event.Subject{RequestID: row.RequestID, PersonID: row.PersonID, HostID: in.host.ID}
		if err := sessions.End(ctx, in.tx, row.ID, d.EndedAt, string(d.Reason)); err != nil {
			return err
		}
	}
	if d.Reason != hostapi.EndRefused { // then nothing ever ran
		if err := in.expectRecording(ctx, row); err != nil {
			return err
		}
	}
	// What the session was, its start has said.
	in.add(about, event.SessionEnded{SessionID: row.ID, Number: in.report.Seq, BootID: in.report.BootID, Serial: row.Serial, KeyID: d.KeyID,
		Login: row.Login, Host: in.host.Name, Client: row.Client, StartedAt: row.StartedAt, EndedAt: d.EndedAt,
		Reason: string(d.Reason), Killed: d.Killed, Survived: d.Survived})
	if d.Survived > 0 {
		in.sessionAlarm(about, row, alarmSurvived, fmt.Sprintf("%d processes outlived its end", d.Survived))
	}
	return nil
}

// alarmed takes what the host found that must not be.
func (in *intake) alarmed() error {
	d, err := data[hostapi.Alarm](in.report)
	if err != nil {
		return err
	}
	if !alarmCode.MatchString(d.Code) || !clean(d.Login, maxText) || !clean(d.Peer, maxText) || len(d.Detail) > maxDetail || !utf8.ValidString(d.Detail) {
		return errReportData
	}
	in.add(event.Subject{HostID: in.host.ID}, event.HostAlarm{Number: in.report.Seq, BootID: in.report.BootID, At: in.report.Time,
		Code: d.Code, Reason: d.Detail, Serial: d.Serial, Login: d.Login, Client: d.Peer})
	in.alarm(d.Code, d.Detail)
	return nil
}

// about is what an event about the session names; the request only if its certificate
// opened the session.
func (in *intake) about(row *sessions.Session, cert *broker.Issued) event.Subject {
	if cert != nil {
		row.RequestID, row.PersonID, row.Deployment = cert.RequestID, cert.PersonID, cert.DeploymentID
	}
	return event.Subject{RequestID: row.RequestID, PersonID: row.PersonID, HostID: in.host.ID}
}

func (in *intake) sessionAlarm(about event.Subject, row *sessions.Session, code, why string) {
	in.add(about, event.SessionAlarm{SessionID: row.ID, Serial: row.Serial, Login: row.Login, Host: in.host.Name, Client: row.Client,
		Code: code, Reason: why})
	in.alarm(code, fmt.Sprintf("session of %s from %s: %s", row.Login, row.Client, why))
}

// alarm tells the operators. Of the same host and kind once an hour is enough, and once a
// call in any case.
func (in *intake) alarm(code, text string) {
	if slices.ContainsFunc(in.alarms, func(a notify.Alarm) bool { return a.Code == code }) {
		return
	}
	in.alarms = append(in.alarms, notify.Alarm{HostID: in.host.ID, Host: in.host.Name, Code: code, Text: text})
}

func (in *intake) add(about event.Subject, d event.Data) {
	about.HostID = in.host.ID
	in.events = append(in.events, event.New(in.now, in.host.Actor(), in.host.Source, about, d))
}

// clean reports whether a text is one line of at most so many bytes.
func clean(s string, most int) bool {
	return len(s) <= most && utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

func clip(s string, most int) string {
	if !clean(s, most) {
		return "?"
	}
	return s
}

func orKnown(err error) error {
	if err == nil {
		return errSessionKnown
	}
	return err
}
