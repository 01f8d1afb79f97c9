package broker_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/audit"
	"sallyport/audit/event"
	"sallyport/broker"
	"sallyport/internal/clock"
	"sallyport/internal/pgtest"
	"sallyport/internal/postgres"
	"sallyport/internal/refusal"
)

// When the CA is asked to sign, exactly these bytes have their place in the log.
func TestP1_NoAuditNoCredential(t *testing.T) {
	t.Parallel()
	var s *scene
	var signed atomic.Int64
	look := func(kind string) func([]byte) error {
		return func(message []byte) error {
			signed.Add(1)
			entries, err := s.log.Entries(context.Background(), audit.Filter{Type: kind, Limit: 1})
			if err != nil || len(entries) != 1 {
				t.Errorf("the CA signs and the log says %v, %v", entries, err)
				return nil
			}
			e, err := entries[0].Event()
			if err != nil {
				t.Error(err)
				return nil
			}
			var logged []byte
			switch data := e.Data.(type) {
			case event.CertificateIssued:
				logged = data.PreCertificate
			case event.HostCertificateIssued:
				logged = data.PreCertificate
			}
			pre, err := preCertificate(message)
			if err != nil || entries[0].Index < 0 || !bytes.Equal(logged, pre) {
				t.Error("the CA signs something else than the log has")
			}
			return nil
		}
	}
	s = newScene(t, func(c *broker.Config) {
		c.UserCA, c.HostCA = spy{c.UserCA, look("certificate.issued")}, spy{c.HostCA, look("host.certificate_issued")}
	})
	r := s.grant("dba", "db-1")
	key := newKey(t)
	for range 3 {
		s.issue(key, r.ID)
	}
	_, err := s.IssueHost(t.Context(), s.operator, "db-1")
	must(t, err)
	if n := signed.Load(); n != 4 {
		t.Errorf("the CAs signed %d times, want 4", n)
	}
	s.checkLog()
}

// A log that cannot take the event means no signature, whichever step it fails at;
// and whatever comes of the intent, its row and its event are there together or
// neither is.
func TestP1_LogFails(t *testing.T) {
	t.Parallel()
	var signed atomic.Int64
	count := func([]byte) error { signed.Add(1); return nil }
	s := newScene(t, func(c *broker.Config) { c.UserCA, c.HostCA = spy{c.UserCA, count}, spy{c.HostCA, count} })
	r := s.grant("dba", "db-1")
	key := newKey(t)
	s.issue(key, r.ID)
	signed.Store(0)
	for _, step := range []string{"lock", "append", "commit"} {
		s.events("certificate.issued") // nothing waits
		// The caller's patience ends when the log has failed to take the intent: a
		// person's by the lane, a host's when it is committed.
		attempt := func(staged string, do func(ctx context.Context) error) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			fault := func(at string) error {
				if at != step {
					return nil
				}
				// It fails before the intent is there as well, which may come just then.
				n := 1
				if staged != "" {
					err := s.pool.QueryRow(context.Background(), `SELECT count(*) FROM audit.pending WHERE type = $1`, staged).Scan(&n)
					must(t, err)
				}
				if n > 0 {
					cancel()
				}
				return errors.New("no")
			}
			s.fault.Store(&fault)
			unavailable(t, do(ctx))
		}
		attempt("", func(ctx context.Context) error {
			got, err := s.Issue(ctx, s.engineer, r.ID, input(t, key, r.ID))
			if got.Certificate != "" {
				t.Error("a certificate came out")
			}
			return err
		})
		attempt("host.certificate_issued", func(ctx context.Context) error {
			got, err := s.IssueHost(ctx, s.operator, "db-1")
			if got.Certificate != "" {
				t.Error("a host certificate came out")
			}
			return err
		})
		if signed.Load() != 0 {
			t.Errorf("failing at %s, the CA signed", step)
		}
		s.fault.Store(nil)
		s.rowsHaveEvents(step)
	}
	s.issue(key, r.ID)
	s.checkLog()
}

// rowsHaveEvents compares the certificates' rows with the log's events, one by one.
func (s *scene) rowsHaveEvents(when string) {
	s.t.Helper()
	events := s.events("certificate.issued")
	if n := s.count(`SELECT count(*) FROM certificates`); n != len(events) {
		s.t.Errorf("%s: %d rows, %d events", when, n, len(events))
	}
	for _, e := range events {
		if n := s.count(`SELECT count(*) FROM certificates WHERE event_id = $1`, e.ID); n != 1 {
			s.t.Errorf("%s: event %s has %d rows", when, e.ID, n)
		}
	}
}

// A CA that refuses, or a caller who hangs up, gets no certificate either; the
// intent stays in the log.
func TestCAFails(t *testing.T) {
	t.Parallel()
	var broken atomic.Bool
	s := newScene(t, func(c *broker.Config) {
		c.UserCA = spy{c.UserCA, func([]byte) error {
			if broken.Load() {
				return errors.New("the agent is gone")
			}
			return nil
		}}
	})
	r := s.grant("dba", "db-1")
	key := newKey(t)
	broken.Store(true)
	got, err := s.Issue(t.Context(), s.engineer, r.ID, input(t, key, r.ID))
	if !errors.Is(err, broker.ErrNotIssued) || got.Certificate != "" {
		t.Errorf("error %v, want ErrNotIssued", err)
	}
	broken.Store(false)
	s.issue(key, r.ID)
	if n := len(s.events("certificate.issued")); n != 2 {
		t.Errorf("%d events, want 2", n)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = s.Issue(gone, s.engineer, r.ID, input(t, key, r.ID))
	unavailable(t, err)
	s.checkLog()
}

// hooked is a clock that tells when it is looked at.
type hooked struct {
	clock.Clock
	hook atomic.Pointer[func()]
}

func (c *hooked) Now() time.Time {
	if f := c.hook.Load(); f != nil {
		(*f)()
	}
	return c.Clock.Now()
}

// crash is a scene on a cluster of its own, with fsync, that can be killed and
// brought back.
type crash struct {
	*scene
	cluster *postgres.Cluster
	clock   *hooked
	request api.Request
}

func newCrash(t *testing.T, options ...func(*broker.Config)) *crash {
	t.Helper()
	cluster, db := pgtest.NewCluster(t, true)
	c := &crash{cluster: cluster, clock: &hooked{Clock: clock.NewManual(start)}}
	c.scene = &scene{t: t, process: newHouse(t, db, c.clock).open(options...)}
	c.fill()
	c.request = c.grant("dba", "db-1")
	c.events("grant.started")
	return c
}

// revive restarts the cluster and opens a new process on it, as an operator would.
func (c *crash) revive() {
	c.t.Helper()
	must(c.t, c.cluster.Restart(c.t.Context()))
	c.house.db.URL = c.cluster.URL(c.house.db.Name, pgtest.AppUser)
	c.process = c.house.open()
}

// Row and event are one commit: a kill before it leaves neither, and a certificate in
// no case.
func TestP1_PostgresKilledBetweenDecisionAndSignature(t *testing.T) {
	t.Parallel()
	for _, step := range []string{"lock", "append", "commit"} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			var signed atomic.Int64
			s := newCrash(t, func(c *broker.Config) { c.UserCA = spy{c.UserCA, func([]byte) error { signed.Add(1); return nil }} })
			key := newKey(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			kill := func(at string) error {
				if at == step {
					s.cluster.Kill()
					cancel() // the caller need not wait any longer
				}
				return nil
			}
			s.fault.Store(&kill)
			got, err := s.Issue(ctx, s.engineer, s.request.ID, input(t, key, s.request.ID))
			unavailable(t, err)
			if got.Certificate != "" || signed.Load() != 0 {
				t.Fatal("a certificate came out")
			}
			s.fault.Store(nil)

			s.revive()
			s.rowsHaveEvents(step)
			s.issue(key, s.request.ID)
			s.rowsHaveEvents("afterwards")
			s.checkLog()
		})
	}
}

func TestP1_PostgresKilledWithinTheStateChange(t *testing.T) {
	t.Parallel()
	s := newCrash(t)
	key := newKey(t)
	in := input(t, key, s.request.ID)
	var done atomic.Bool
	kill := func() {
		if !done.Swap(true) {
			s.cluster.Kill()
		}
	}
	s.clock.hook.Store(&kill)
	got, err := s.Issue(t.Context(), s.engineer, s.request.ID, in)
	unavailable(t, err)
	s.clock.hook.Store(nil)
	if !done.Load() || got.Certificate != "" {
		t.Fatal("a certificate came out")
	}
	s.revive()
	if n := s.count(`SELECT count(*) FROM certificates`); n != 0 {
		t.Errorf("%d certificates of a transaction that was never committed", n)
	}
	if r, err := s.Request(t.Context(), s.engineer, s.request.ID); err != nil || r.State != api.Approved || r.KeyFingerprint != "" {
		t.Errorf("the request is %s, bound to %q, %v", r.State, r.KeyFingerprint, err)
	}
	s.issue(key, s.request.ID)
	s.checkLog()
}

// What was signed was durable: killed at the moment of the signature, the
// database still has the event.
func TestP1_PostgresKilledAtTheSignature(t *testing.T) {
	t.Parallel()
	var s *crash
	s = newCrash(t, func(c *broker.Config) { c.UserCA = spy{c.UserCA, func([]byte) error { s.cluster.Kill(); return nil }} })
	got, cert := s.issue(newKey(t), s.request.ID)
	s.revive()
	issued := s.events("certificate.issued")
	if len(issued) != 1 || issued[0].ID.String() != got.Event ||
		!bytes.Equal(s.logged(cert).PreCertificate, issued[0].Data.(event.CertificateIssued).PreCertificate) {
		t.Errorf("a certificate is out and the log says %+v", issued)
	}
	entries, err := s.log.Entries(t.Context(), audit.Filter{Type: "certificate.issued"})
	must(t, err)
	if !slices.ContainsFunc(entries, func(e audit.Entry) bool { return e.Index == got.LogIndex }) {
		t.Errorf("it does not stand at %d", got.LogIndex)
	}
	s.checkLog()
}

// unavailable expects a fault of ours, told with a hint.
func unavailable(t testing.TB, err error) {
	t.Helper()
	if r := refusal.As(err); r == nil || r.Kind != refusal.Unavailable || r.Hint == "" {
		t.Errorf("error %v (%+v), want a refusal of kind Unavailable with a hint", err, r)
	}
}
