package broker_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/broker"
	"sallyport/internal/refusal"
)

// It is decided on a certificate without a lock, and written down later, with others.
// Whatever happens in between counts.
func TestP9_WhatHappensBetweenDecisionAndWriting(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		meanwhile func(s *scene, r api.Request) error
		want      *refusal.Error
	}{
		"the grant is revoked": {func(s *scene, r api.Request) error {
			_, err := s.approvals.Revoke(s.t.Context(), s.operator, api.RevocationInput{Request: r.ID, Reason: "no"})
			return err
		}, approvals.ErrGrantEnded},
		"the person is done": {func(s *scene, r api.Request) error {
			_, err := s.approvals.Finish(s.t.Context(), s.engineer, r.ID)
			return err
		}, approvals.ErrGrantEnded},
		"the person is removed": {func(s *scene, r api.Request) error {
			_, err := s.approvals.RemovePerson(s.t.Context(), s.operator, s.engineer.ID, "left")
			return err
		}, identity.ErrRemoved},
		"the host is removed": {func(s *scene, r api.Request) error {
			return s.hosts.Remove(s.t.Context(), s.operator, "db-1")
		}, broker.ErrHostGone},
		"the login goes": {func(s *scene, r api.Request) error {
			h, err := s.hosts.Get(s.t.Context(), "db-1")
			if err == nil {
				_, err = s.hosts.Change(s.t.Context(), s.operator, "db-1",
					api.HostInput{Name: h.Name, Address: h.Address, Labels: h.Labels, Logins: []string{"root"}, HostKey: h.HostKey})
			}
			return err
		}, broker.ErrLoginGone},
		"the grant's time ends": {func(s *scene, r api.Request) error {
			s.clock.Advance(3 * time.Hour)
			_, err := s.pool.Exec(s.t.Context(), `UPDATE requests SET state = 'ended', end_reason = 'time' WHERE id = $1`, r.ID)
			return err
		}, approvals.ErrGrantEnded},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			r := s.grant("dba", "db-1")
			key := newKey(t)
			s.issue(key, r.ID)
			s.results(1) // nothing waits
			var done atomic.Bool
			meanwhile := func(at string) error {
				if at == "lock" && !done.Swap(true) {
					must(t, c.meanwhile(s, r))
				}
				return nil
			}
			s.fault.Store(&meanwhile)
			s.refusedIssue(s.engineer, r.ID, input(t, key, r.ID), c.want)
			if !done.Load() {
				t.Error("nothing happened in between")
			}
			s.checkLog()
		})
	}
}

// P4: two keys at the same moment; one of them becomes the grant's.
func TestP4_TheFirstKeyAmongManyAtOnce(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	r := s.grant("dba", "db-1")
	var all sync.WaitGroup
	var mu sync.Mutex
	won := map[string]int{}
	for range 8 {
		key := newKey(t)
		in := input(t, key, r.ID)
		for range 3 {
			all.Go(func() {
				_, err := s.Issue(t.Context(), s.engineer, r.ID, in)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					won[ssh.FingerprintSHA256(key.PublicKey())]++
				case !errors.Is(err, approvals.ErrOtherKey):
					t.Error(err)
				}
			})
		}
	}
	all.Wait()
	if len(won) != 1 {
		t.Errorf("keys that got certificates: %v", won)
	}
	s.rowsHaveEvents("afterwards")
	s.checkLog()
}

// Somebody who holds a request's row for long keeps others neither from their
// certificates nor from the log.
func TestAHeldRequestHoldsNobodyElse(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	held, free := s.grant("dba", "db-1"), s.grant("dba", "db-1")
	tx, err := s.pool.Begin(t.Context())
	must(t, err)
	defer tx.Rollback(context.Background())
	_, err = tx.Exec(t.Context(), `SELECT FROM requests WHERE id = $1 FOR UPDATE`, held.ID)
	must(t, err)
	key := newKey(t)
	waited := make(chan error, 1)
	go func() {
		_, err := s.Issue(t.Context(), s.engineer, held.ID, input(t, key, held.ID))
		waited <- err
	}()
	for range 5 {
		s.issue(key, free.ID)
	}
	select {
	case err := <-waited:
		t.Fatalf("it did not wait: %v", err)
	default:
	}
	must(t, tx.Commit(t.Context()))
	must(t, <-waited)
	s.checkLog()
}
