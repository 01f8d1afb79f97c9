package broker_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/audit/event"
	"sallyport/internal/refusal"
)

// batch is a scene with a host whose login batch is automatic, can be extended
// once, and wants a sign-in of the last hour.
func newBatch(t *testing.T) *scene {
	s := newScene(t)
	s.host("web-2", "10.0.3.9", "web", "web", "batch")
	return s
}

func (s *scene) until(t time.Time) { s.clock.Advance(t.Sub(s.clock.Now())) }

func TestExtensionIsForTheSameKey(t *testing.T) {
	t.Parallel()
	s := newBatch(t)
	key, other := newKey(t), newKey(t)
	first := s.grant("batch", "web-2")
	s.issue(key, first.ID)
	second, err := s.approvals.Extend(t.Context(), s.engineer, first.ID, api.ExtendInput{})
	must(t, err)
	s.refusedIssue(s.engineer, second.ID, input(t, key, second.ID), approvals.ErrNotStarted)
	s.until(first.EndsAt.Add(-time.Minute))
	_, cert := s.issue(key, first.ID)
	if end := time.Unix(int64(cert.ValidBefore), 0); end.After(*first.EndsAt) {
		t.Errorf("a certificate of the first grant is good until %s, the grant ends at %s", end, first.EndsAt)
	}
	s.until(*first.EndsAt)
	s.refusedIssue(s.engineer, first.ID, input(t, key, first.ID), approvals.ErrGrantEnded)
	s.refusedIssue(s.engineer, second.ID, input(t, other, second.ID), approvals.ErrOtherKey)
	s.refusedIssue(s.colleague, second.ID, input(t, key, second.ID), approvals.ErrUnknownRequest)
	_, cert = s.issue(key, second.ID)
	if end := time.Unix(int64(cert.ValidBefore), 0); end.After(*second.EndsAt) || cert.KeyId != second.ID+":"+s.engineer.ID {
		t.Errorf("the certificate is %s until %s", cert.KeyId, end)
	}
	s.checkLog()
}

// An extension that somebody writes into the database, with its event, is worth
// no more than the grants before it.
func TestExtensionOfNothing(t *testing.T) {
	t.Parallel()
	s := newBatch(t)
	key := newKey(t)
	first := s.grant("batch", "web-2")
	s.issue(key, first.ID)
	second, err := s.approvals.Extend(t.Context(), s.engineer, first.ID, api.ExtendInput{})
	must(t, err)
	s.until(*first.EndsAt)
	s.issue(key, second.ID)
	// The first loses its key, or never started, or ended early: nothing follows it.
	for name, sql := range map[string]string{
		"ended early": `UPDATE requests SET state = 'ended', end_reason = 'revoked', ends_at = ends_at - interval '1 minute' WHERE id = $1`,
	} {
		if _, err := s.pool.Exec(t.Context(), sql, first.ID); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		s.refusedIssue(s.engineer, second.ID, input(t, key, second.ID), approvals.ErrGrantEnded)
	}
	s.checkLog()
}

// P9: a rule may want that the provider vouched for the person not long ago.
func TestSignInAgeAtEveryIssue(t *testing.T) {
	t.Parallel()
	s := newBatch(t)
	key := newKey(t)
	signedIn := s.clock.Now()
	s.until(signedIn.Add(50 * time.Minute))
	r := s.grant("batch", "web-2")
	s.issue(key, r.ID)
	s.until(signedIn.Add(time.Hour - time.Second))
	s.issue(key, r.ID)
	s.until(signedIn.Add(time.Hour))
	s.refusedIssue(s.engineer, r.ID, input(t, key, r.ID), approvals.ErrSignInTooOld)
	if refusal := approvals.ErrSignInTooOld; refusal.Kind != 2 { // 401: who signs in again may go on
		t.Errorf("the refusal's kind is %d", refusal.Kind)
	}
	never := s.engineer
	never.AuthTime = time.Time{}
	s.refusedIssue(never, r.ID, input(t, key, r.ID), approvals.ErrSignInTooOld)
	// Another grant under a rule without such a limit goes on.
	plain := s.grant("web", "web-1")
	s.issue(newKey(t), plain.ID)
	// Who signs in again goes on with the same grant and key.
	again := s.engineer
	again.AuthTime = s.clock.Now()
	if _, err := s.Issue(t.Context(), again, r.ID, input(t, key, r.ID)); err != nil {
		t.Errorf("after another sign-in: %v", err)
	}
	s.checkLog()
}

func TestRemovedPersonGetsNoCertificate(t *testing.T) {
	t.Parallel()
	s := newBatch(t)
	key := newKey(t)
	r := s.grant("batch", "web-2")
	s.issue(key, r.ID)
	_, err := s.approvals.RemovePerson(t.Context(), s.operator, s.engineer.ID, "left")
	must(t, err)
	s.refusedIssue(s.engineer, r.ID, input(t, key, r.ID), identity.ErrRemoved)
	// Not even if somebody brings the grant back, or it never ended.
	if _, err := s.pool.Exec(t.Context(), `UPDATE requests SET state = 'active' WHERE id = $1`, r.ID); err == nil {
		t.Error("an ended grant became active again")
	}
	_, err = s.approvals.RestorePerson(t.Context(), s.operator, s.engineer.ID, "back")
	must(t, err)
	s.refusedIssue(s.engineer, r.ID, input(t, key, r.ID), approvals.ErrGrantEnded)
	s.checkLog()
}

// A removal among certificates that are being issued: what leaves the broker was
// decided on before it, and stands before it in the log.
func TestP1_RemovalRacingIssues(t *testing.T) {
	t.Parallel()
	s := newBatch(t)
	key := newKey(t)
	r := s.grant("batch", "web-2")
	s.issue(key, r.ID)
	in := input(t, key, r.ID)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var last int64
	var gone int
	for i := range 24 {
		wg.Go(func() {
			if i == 12 {
				_, err := s.approvals.RemovePerson(t.Context(), s.operator, s.engineer.ID, "left")
				must(t, err)
				return
			}
			for range 4 {
				cert, err := s.Issue(t.Context(), s.engineer, r.ID, in)
				mu.Lock()
				switch {
				case err == nil:
					last = max(last, cert.LogIndex)
				case errors.Is(err, identity.ErrRemoved), errors.Is(err, approvals.ErrGrantEnded):
					gone++
				default:
					t.Errorf("issuing: %v", refusal.As(err))
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	removed := s.events("person.removed")
	if len(removed) != 1 || gone == 0 {
		t.Fatalf("%d removals, %d refusals", len(removed), gone)
	}
	var at int64
	if err := s.pool.QueryRow(t.Context(), `SELECT index FROM audit.entries WHERE event_id = $1`, removed[0].ID).Scan(&at); err != nil {
		t.Fatal(err)
	}
	if last > at {
		t.Errorf("a certificate at %d in the log, after the removal at %d", last, at)
	}
	for _, e := range s.events("certificate.issued") {
		if e.Data.(event.CertificateIssued).Key != ssh.FingerprintSHA256(key.PublicKey()) {
			t.Error("another key")
		}
	}
	s.checkLog()
}
