// Package door answers the question that sshd asks at every login: does this
// certificate open this login here and now? It asks nobody else. What it needs stands
// in the certificate, with the proof that it is in the broker's log, and in files that
// only root writes; so a host without a network answers as well, and a stolen CA key
// opens nothing.
//
// sshd asks twice for each login, for certificates that have ended as well, and
// before the client has shown that it holds the key. Asking changes nothing.
package door

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"sallyport/api/hostapi"
	"sallyport/broker/certs"
	"sallyport/cmd/sally-host/internal/place"
)

// Deadline is the longest that an answer may take. sshd itself would wait for as long
// as LoginGraceTime.
const Deadline = time.Second

// The reasons of this package, beside those of certs.
const (
	Closed      certs.Reason = "closed"       // the host takes no certificates now
	Revoked     certs.Reason = "revoked"      // the broker took it back
	Ended       certs.Reason = "ended"        // it is over, whatever this host's clock says
	Silent      certs.Reason = "silent"       // it is newer than what the host has last heard
	NotRecorded certs.Reason = "not-recorded" // it wants a recording, and there is nobody to record for
	NoAnswer    certs.Reason = "no-answer"    // the host cannot tell
)

// Door is what an answer rests on.
type Door struct {
	Trust       place.Trust
	Closed      string // why no certificate opens anything now, or empty
	Revocations hostapi.Revocations
}

// Open reads the door's files.
func Open(p place.Place) (d Door, err error) {
	s, err := p.Read()
	if err != nil {
		return d, err
	}
	if d.Trust, err = s.Trust(); err != nil {
		return d, fmt.Errorf("%s: %w", p.Settings(), err)
	}
	if d.Closed, err = p.WhyClosed(); err != nil {
		return d, err
	}
	_, d.Revocations, err = p.ReadRevocations(d.Trust.LogKey)
	return d, err
}

// Refused is why a certificate opens nothing here.
type Refused struct {
	Reason certs.Reason
	Err    error
}

func (r *Refused) Error() string { return r.Err.Error() }
func (r *Refused) Unwrap() error { return r.Err }

// Ask returns what the log says of a certificate, in wire format, that opens the login
// now. Errors are *Refused. The rules, beside those of certs.Admit:
//
//  1. the host is not closed;
//  2. the certificate is not over by the broker's clock either, as far as the host has
//     heard: setting its own clock back brings nothing;
//  3. neither it nor its grant is on the list of revocations, and its deployment has not
//     sealed this host since it was issued;
//  4. it was issued before the broker was last heard, or that was not long ago;
//  5. if its session has to be recorded, there is somebody to record it for.
func (d Door) Ask(wire []byte, login string, now time.Time) (certs.Logged, error) {
	if d.Closed != "" {
		return certs.Logged{}, &Refused{Closed, fmt.Errorf("this host takes no certificates: %s", d.Closed)}
	}
	l, err := certs.Admit(wire, d.Trust.Trust, login, d.Trust.HostID, now)
	if err != nil {
		return l, &Refused{certs.ReasonOf(err), errors.Unwrap(err)} // which names the reason, too
	}
	heard, end := d.Revocations.MadeAt, time.Unix(int64(l.Certificate.ValidBefore), 0)
	if !heard.Before(end) {
		return l, &Refused{Ended, fmt.Errorf("it ended at %s, and the broker was last heard at %s: the clock of this host is behind", stamp(end), stamp(heard))}
	}
	if d.Revocations.Revoked(l.Certificate.Serial) {
		return l, &Refused{Revoked, fmt.Errorf("certificate %d was revoked", l.Certificate.Serial)}
	}
	if g, over := d.Revocations.Ended(l.RequestID); over {
		return l, &Refused{Revoked, fmt.Errorf("the grant of %s ended at %s: %s", l.RequestID, stamp(g.EndedAt), g.Reason)}
	}
	if at, sealed := d.Revocations.SealedAt(d.Trust.HostID, l.Deployment, l.Time); sealed {
		return l, &Refused{Revoked, fmt.Errorf("deployment %s sealed this host at %s", l.Deployment, stamp(at))}
	}
	if err := d.silent(l.Time, now); err != nil {
		return l, &Refused{Silent, err}
	}
	if l.Record && !d.Trust.Records {
		return l, &Refused{NotRecorded, errors.New("its session has to be recorded, and this host knows no auditor's key to record it for")}
	}
	return l, nil
}

// silent says why a certificate that was decided on at issued is not taken: it may have
// been revoked since, and nobody could have told the host. Or nil.
func (d Door) silent(issued, now time.Time) error {
	heard := d.Revocations.MadeAt
	switch {
	case heard.IsZero():
		return errors.New("this host has never heard from the broker")
	case now.Sub(heard) <= d.Trust.MaxSilence || issued.Before(heard):
		return nil
	}
	return fmt.Errorf("this host last heard from the broker at %s, longer ago than %s, and the certificate is newer", stamp(heard), d.Trust.MaxSilence)
}

// For is what the certificate was issued for, as people find it again.
func For(l certs.Logged) string {
	if l.Deployment != "" {
		return fmt.Sprintf("deployment %s, batch %d", l.Deployment, l.Batch)
	}
	return "request " + l.RequestID
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// Line is the answer to sshd: the only principal that opens the login, with nothing
// allowed that the certificate does not allow itself (sshd(8), AUTHORIZED_KEYS FILE
// FORMAT). restrict also shuts what OpenSSH may come to allow some day. What has to be
// recorded runs under the recorder, and gets no forwardings, which nothing records.
func Line(l certs.Logged) string {
	options, allow := []string{"restrict"}, []string{"pty", "agent-forwarding", "port-forwarding", "X11-forwarding"}
	if l.Record {
		options, allow = append(options, `command="exec `+place.Program+` record"`), allow[:1]
	}
	for _, o := range allow {
		if _, ok := l.Certificate.Extensions["permit-"+o]; ok {
			options = append(options, o)
		}
	}
	return strings.Join(options, ",") + " " + l.Certificate.ValidPrincipals[0]
}
