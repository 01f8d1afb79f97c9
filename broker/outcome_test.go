package broker_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"sync/atomic"
	"testing"

	"sallyport/api"
	"sallyport/audit"
	"sallyport/audit/event"
	"sallyport/broker"
)

// results are the signing results that the log has, once there are n.
func (s *scene) results(n int) []event.Event {
	s.t.Helper()
	s.eventually(func() bool { return len(s.events("certificate.signed")) >= n })
	return s.events("certificate.signed")
}

func (s *scene) certificates(id string) []api.CertificateInfo {
	s.t.Helper()
	r, err := s.Request(s.t.Context(), s.engineer, id)
	must(s.t, err)
	return r.Certificates
}

// Each intent is followed by what came of it.
func TestResultFollowsEachIntent(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	r := s.grant("dba", "db-1")
	key := newKey(t)
	digests := map[string]string{} // of certificates, by their intents
	for range 3 {
		got, cert := s.issue(key, r.ID)
		sum := sha256.Sum256(cert.Marshal())
		digests[got.Event] = hex.EncodeToString(sum[:])
	}
	for _, e := range s.results(3) {
		data := e.Data.(event.CertificateSigned)
		if data.Certificate == "" || data.Certificate != digests[data.Intent] || data.Failure != "" {
			t.Errorf("result %+v", data)
		}
		delete(digests, data.Intent)
		if e.Actor.Kind != event.Broker || e.OnBehalfOf == nil || e.OnBehalfOf.ID != s.engineer.ID || e.Subject.RequestID != r.ID ||
			e.Subject.PersonID != s.engineer.ID || e.Subject.HostID != s.db.ID || e.Source != s.engineer.Source || e.Policy == nil || e.Policy.Hash != r.Policy.Hash {
			t.Errorf("event %+v", e)
		}
	}
	for _, c := range s.certificates(r.ID) {
		if c.Result != api.Signed || c.Failure != "" {
			t.Errorf("certificate %d is shown as %q, %q", c.Serial, c.Result, c.Failure)
		}
	}

	issued, err := s.IssueHost(t.Context(), s.operator, "db-1")
	must(t, err)
	s.eventually(func() bool { return len(s.events("host.certificate_signed")) == 1 })
	data := s.events("host.certificate_signed")[0].Data.(event.HostCertificateSigned)
	sum := sha256.Sum256(parse(t, issued.Certificate).Marshal())
	if data.Serial != issued.Serial || data.Certificate != hex.EncodeToString(sum[:]) {
		t.Errorf("result %+v", data)
	}
	s.checkLog()
}

// Why there is no certificate is in the log, without what the CA's key said.
func TestFailureToSignIsAResult(t *testing.T) {
	t.Parallel()
	var broken atomic.Bool
	s := newScene(t, func(c *broker.Config) {
		c.UserCA = spy{c.UserCA, func([]byte) error {
			if broken.Load() {
				return errors.New("the agent at /run/secret.sock is gone")
			}
			return nil
		}}
	})
	r := s.grant("dba", "db-1")
	key := newKey(t)
	broken.Store(true)
	if _, err := s.Issue(t.Context(), s.engineer, r.ID, input(t, key, r.ID)); !errors.Is(err, broker.ErrNotIssued) {
		t.Errorf("error %v", err)
	}
	broken.Store(false)
	s.issue(key, r.ID)
	results := s.results(2)
	if data := results[0].Data.(event.CertificateSigned); data.Failure != event.NotSigned || data.Certificate != "" || data.Serial != 1 {
		t.Errorf("result %+v", data)
	}
	list := s.certificates(r.ID)
	if len(list) != 2 || list[0].Result != api.NotSigned || list[0].Failure != event.NotSigned || list[1].Result != api.Signed {
		t.Errorf("they are shown as %+v", list)
	}
	s.checkLog()
}

// A process that stops between the log and the answer leaves an intent without a
// result, and so it is shown, by every other process.
func TestIntentWithoutResultIsShownAsSuch(t *testing.T) {
	t.Parallel()
	asked, never := make(chan struct{}), make(chan struct{})
	s := newScene(t, func(c *broker.Config) {
		c.UserCA = spy{c.UserCA, func([]byte) error { close(asked); <-never; return errors.New("too late") }}
	})
	r := s.grant("dba", "db-1")
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Issue(t.Context(), s.engineer, r.ID, input(t, newKey(t), r.ID))
	}()
	<-asked // as if killed here
	other := s.house.open()
	seen, err := other.Request(t.Context(), s.engineer, r.ID)
	must(t, err)
	if len(seen.Certificates) != 1 || seen.Certificates[0].Result != api.NoResult {
		t.Errorf("it is shown as %+v", seen.Certificates)
	}
	entries, err := other.log.Entries(t.Context(), audit.Filter{Type: "certificate.issued"})
	must(t, err)
	if out, err := other.Outcome(t.Context(), entries[0]); err != nil || out == nil || out.Result != api.NoResult || out.Index != -1 {
		t.Errorf("the outcome is %+v, %v", out, err)
	}
	close(never)
	<-done
	s.results(1)
	if out, err := other.Outcome(t.Context(), entries[0]); err != nil || out == nil || out.Result != api.NotSigned || out.Index < 0 {
		t.Errorf("the outcome is %+v, %v", out, err)
	}
	if entries, err = other.log.Entries(t.Context(), audit.Filter{Type: "grant.started"}); err != nil {
		t.Fatal(err)
	}
	if out, err := other.Outcome(t.Context(), entries[0]); err != nil || out != nil {
		t.Errorf("the start of a grant has the outcome %+v, %v", out, err)
	}
}

// What was signed last is still written when the broker stops in good order.
func TestCloseWritesTheLastResults(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	r := s.grant("dba", "db-1")
	key := newKey(t)
	for range 5 {
		s.issue(key, r.ID)
	}
	must(t, s.Close(t.Context()))
	if n := s.count(`SELECT (SELECT count(*) FROM audit.entries WHERE type = 'certificate.signed')
		+ (SELECT count(*) FROM audit.pending WHERE type = 'certificate.signed')`); n != 5 {
		t.Errorf("%d results, want 5", n)
	}
}
