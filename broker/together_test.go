package broker_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/broker/certs"
	"sallyport/internal/refusal"
)

// Grants are read together with those that others ask for, proofs are remembered, and
// certificates are written down together. What is taken away is gone for whoever comes
// afterwards, however many ask meanwhile.
func TestP9_WhatIsTakenAwayIsGoneAmongMany(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		take func(s *scene, r api.Request) error
		want *refusal.Error
	}{
		"the grant": {func(s *scene, r api.Request) error {
			_, err := s.approvals.Revoke(s.t.Context(), s.operator, api.RevocationInput{Request: r.ID, Reason: "no"})
			return err
		}, approvals.ErrGrantEnded},
		"the person": {func(s *scene, r api.Request) error {
			_, err := s.approvals.RemovePerson(s.t.Context(), s.operator, s.engineer.ID, "left")
			return err
		}, identity.ErrRemoved},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			other := s.house.open() // of which nobody is told what happens here
			r := s.grant("dba", "db-1")
			key := newKey(t)
			in := input(t, key, r.ID)
			var gone atomic.Bool
			var got atomic.Int64
			var all sync.WaitGroup
			for _, p := range []*process{s.process, other} {
				for range 4 {
					all.Go(func() {
						for afterwards := false; !afterwards; {
							afterwards = gone.Load()
							_, err := p.Issue(t.Context(), s.engineer, r.ID, in)
							switch {
							case err == nil && afterwards:
								t.Error("a certificate afterwards")
							case err == nil:
								got.Add(1)
							case !errors.Is(err, c.want):
								t.Error(err)
							}
						}
					})
				}
			}
			s.eventually(func() bool { return got.Load() >= 50 })
			must(t, c.take(s, r))
			gone.Store(true)
			all.Wait()
			s.rowsHaveEvents("afterwards")
			s.checkLog()
		})
	}
}

// P6: a proof that is remembered is remembered for its key and its request.
func TestP6_ARememberedProofOpensNothingElse(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	r, another := s.grant("dba", "db-1"), s.grant("dba", "db-1")
	key, thief := newKey(t), newKey(t)
	in := input(t, key, r.ID)
	for range 2 {
		_, err := s.Issue(t.Context(), s.engineer, r.ID, in)
		must(t, err)
	}
	stolen := in
	stolen.PublicKey = certs.Line(thief.PublicKey())
	s.refusedIssue(s.engineer, r.ID, stolen, certs.ErrProof)
	s.refusedIssue(s.engineer, another.ID, in, certs.ErrProof)
	s.refusedIssue(s.colleague, r.ID, in, approvals.ErrUnknownRequest)

	// One that does not hold is not remembered either.
	bad := in
	bad.Proof = input(t, thief, r.ID).Proof
	for range 2 {
		s.refusedIssue(s.engineer, r.ID, bad, certs.ErrProof)
	}
	_, err := s.Issue(t.Context(), s.engineer, r.ID, in)
	must(t, err)
}

// Somebody with all rights in the database changes what a grant rests on after it has
// been used, and all that can be remembered of it is: each certificate is decided on by
// what is there now.
func TestForgedRowsYieldNothingAfterTheGrantWasUsed(t *testing.T) {
	t.Parallel()
	for name, forgery := range map[string]string{
		"no decision":     `DELETE FROM decisions WHERE request_id = $1`,
		"a void decision": `INSERT INTO void_decisions (decision_id, voided_at) SELECT id, decided_at FROM decisions WHERE request_id = $1`,
		"another decision": `UPDATE decisions SET (statement, statement_hash) = (SELECT t, encode(sha256(t), 'hex')
			FROM convert_to(replace(convert_from(statement, 'UTF8'), '"comment":"yes"', '"comment":"yea"'), 'UTF8') AS t) WHERE request_id = $1`,
		"other terms": `UPDATE requests SET (terms, terms_hash) = (SELECT t, encode(sha256(t), 'hex')
			FROM convert_to(replace(convert_from(terms, 'UTF8'), '"dba"', '"root"'), 'UTF8') AS t) WHERE id = $1`,
		"a later end": `UPDATE requests SET ends_at = ends_at + interval '1 day' WHERE id = $1`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			r := s.ask("dba", "db-1")
			_, err := s.approvals.Decide(t.Context(), s.approver, r.ID, api.DecisionInput{Verdict: api.Approve, Comment: "yes"})
			must(t, err)
			key := newKey(t)
			for range 3 {
				s.issue(key, r.ID)
			}
			root, err := pgx.Connect(t.Context(), s.house.db.AdminURL)
			must(t, err)
			defer root.Close(context.Background())
			_, err = root.Exec(t.Context(), `ALTER TABLE requests DISABLE TRIGGER ALL; ALTER TABLE decisions DISABLE TRIGGER ALL`)
			must(t, err)
			tag, err := root.Exec(t.Context(), forgery, r.ID)
			must(t, err)
			if tag.RowsAffected() == 0 {
				t.Fatal("nothing was forged")
			}
			s.refusedIssue(s.engineer, r.ID, input(t, key, r.ID), approvals.ErrEvidence)
		})
	}
}
