package fleet

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/crypto/ssh"

	"sallyport/api/hostapi"
	"sallyport/approvals/notify"
	"sallyport/audit/event"
	"sallyport/broker/certs"
	"sallyport/broker/posture"
)

const (
	alarmDrift = "drift" // a check fails that did not before
	alarmProbe = "probe" // a host is not as shut as it should be, seen from outside
)

// looked takes what a host found on itself. It is taken if the host's key signed it for
// this report of this boot; and told, if it is other than before.
func (in *intake) looked(ctx context.Context) error {
	d, err := data[hostapi.PostureReport](in.report)
	if err != nil {
		return err
	}
	key, err := certs.ParseKey(in.host.key)
	if err != nil {
		return errReportData
	}
	p, err := hostapi.VerifyPosture(d, key)
	if err != nil {
		return errReportData.With("%v", err)
	}
	if p.HostID != in.host.ID || p.Number != in.report.Seq || p.BootID != in.report.BootID {
		return errReportData.With("the posture is of another host, boot or report")
	}
	before, err := posture.Last(ctx, in.tx, in.host.ID)
	if err != nil {
		return err
	}
	now := posture.Report{Number: p.Number, BootID: p.BootID, List: p.List, Ports: p.Ports, TakenAt: p.TakenAt, ReceivedAt: in.now, Checks: p.Full()}
	if err := posture.Write(ctx, in.tx, in.host.ID, now, d); err != nil {
		return err
	}
	var was []hostapi.Check
	if before != nil {
		was = before.Checks
	}
	changes := posture.Compare(was, now.Checks)
	if before != nil && len(changes) == 0 {
		return nil
	}
	sum := sha256.Sum256([]byte(d.Text))
	e := event.PostureChanged{Number: p.Number, BootID: p.BootID, TakenAt: p.TakenAt, Digest: hex.EncodeToString(sum[:])}
	e.Passed, e.Failed, e.Unknown = posture.Count(now.Checks)
	for _, c := range changes {
		e.Changes = append(e.Changes, fmt.Sprintf("%s: %s -> %s", c.Check, c.Before, c.After))
		for _, f := range c.New {
			e.New = append(e.New, c.Check+": "+f)
		}
		for _, f := range c.Gone {
			e.Gone = append(e.Gone, c.Check+": "+f)
		}
	}
	in.add(event.Subject{}, e)
	for _, c := range posture.Drift(changes) {
		text := "check " + c.Check + " fails"
		if len(c.New) > 0 {
			text += ": " + c.New[0]
		}
		in.alarm(alarmDrift, text)
	}
	return nil
}

const (
	// probeEvery is how often a host is looked at from outside, at least: soon enough that
	// the look before is still fresh.
	probeEvery = posture.Fresh / 2
	probeLease = time.Minute
	probeTick  = 5 * time.Second
	// probesAtOnce is how many hosts one process looks at, at a time.
	probesAtOnce = 32
)

// looker is posture.Look.
type looker func(ctx context.Context, d posture.Door, login string, hostCA ssh.PublicKey, allowed []hostapi.Listener, now func() time.Time) posture.Probe

// lookAround looks at hosts from outside until ctx ends.
func (s *Service) lookAround(ctx context.Context) {
	tick := time.NewTicker(probeTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := s.lookAtAll(ctx); err != nil && ctx.Err() == nil {
			s.cfg.Logger.WarnContext(ctx, "hosts could not be looked at from outside", "error", err)
		}
	}
}

// lookAtAll looks at those hosts whose turn it is.
func (s *Service) lookAtAll(ctx context.Context) error {
	hostCA, err := certs.ParseKey(s.cfg.Broker.HostCA())
	if err != nil {
		return fmt.Errorf("reading the host CA's key: %w", err)
	}
	for {
		due, err := s.postures.Claim(ctx, s.cfg.Clock.Now(), probeEvery, probeLease, probesAtOnce)
		if err != nil || len(due) == 0 {
			return err
		}
		failed := make(chan error, len(due))
		for _, d := range due {
			go func() {
				p := s.look(ctx, d, turn(d), hostCA, s.listen(d.Labels), s.cfg.Clock.Now)
				failed <- s.probed(ctx, d, p)
			}()
		}
		for range due {
			if e := <-failed; e != nil {
				err = e
			}
		}
		if err != nil || len(due) < probesAtOnce {
			return err
		}
	}
}

// turn is the login that is tried this time: of the host's and root, one after the other,
// for sshd holds many failures from one address against it.
func turn(d posture.Door) string {
	all := slices.Clone(d.Logins)
	if !slices.Contains(all, "root") {
		all = append(all, "root")
	}
	return all[d.Turn%int64(len(all))]
}

// probed writes down how a host looks from outside; and tells, if it is other than before.
func (s *Service) probed(ctx context.Context, d posture.Door, p posture.Probe) error {
	if ctx.Err() != nil {
		return nil // the look was cut short
	}
	return s.change(ctx, func(tx pgx.Tx) error {
		if err := posture.WriteProbe(ctx, tx, d.HostID, p); err != nil {
			return err
		}
		var before posture.Probe
		if d.Before != nil {
			before = *d.Before
		}
		if before.Result == p.Result && slices.Equal(before.Findings, p.Findings) {
			return nil
		}
		if p.Result == hostapi.Fail {
			a := notify.Alarm{HostID: d.HostID, Host: d.Name, Code: alarmProbe, Text: "seen from outside: " + p.Findings[0]}
			if err := s.cfg.Approvals.TellAlarm(ctx, tx, a); err != nil {
				return err
			}
		}
		return s.cfg.Log.Stage(ctx, tx, event.New(p.At, event.Actor{Kind: event.Broker}, "", event.Subject{HostID: d.HostID},
			event.HostProbed{Result: string(p.Result), Before: string(before.Result), Login: p.Login, Findings: p.Findings}))
	})
}

// listen is what may listen on a host with the labels, beside sshd.
func (s *Service) listen(labels map[string]string) []hostapi.Listener {
	return s.cfg.Approvals.Policy().Listen(labels)
}
