package broker_test

import (
	"crypto/sha256"
	"encoding/hex"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/audit/event"
	"sallyport/broker/certs"
	"sallyport/internal/ids"
)

func emergency(in *api.RequestInput) { in.Emergency = true }

func drill(in *api.RequestInput) { in.Emergency, in.Drill = true, true }

// An emergency's certificate opens the one door at once, as any other does, and
// the log marks it; a drill's does too, and the log says that it was one.
func TestEmergencyIsIssued(t *testing.T) {
	t.Parallel()
	for name, as := range map[string]func(*api.RequestInput){"real": emergency, "drill": drill} {
		s := newScene(t)
		r := s.ask("dba", "db-1", as)
		key := newKey(t)
		_, cert := s.issue(key, r.ID)
		if err := certs.CheckUser(cert, s.house.userCA.PublicKey(), "dba", s.db.ID, s.clock.Now()); err != nil {
			t.Error(err)
		}
		for _, e := range s.events("certificate.issued") {
			if d := e.Data.(event.CertificateIssued); !d.Emergency || d.Drill != (name == "drill") || len(d.Decisions) != 0 {
				t.Errorf("%s: the event is %+v", name, d)
			}
		}
		if end := time.Unix(int64(cert.ValidBefore), 0); end.After(start.Add(5 * time.Minute)) {
			t.Errorf("%s: the certificate lasts until %s", name, end)
		}
		// P3: it never outlasts the emergency's own, shorter time.
		s.clock.Advance(12 * time.Minute)
		if _, cert = s.issue(key, r.ID); time.Unix(int64(cert.ValidBefore), 0).After(start.Add(15 * time.Minute)) {
			t.Errorf("%s: the certificate outlasts the grant", name)
		}
		s.clock.Advance(3 * time.Minute)
		s.refusedIssue(s.engineer, r.ID, input(t, key, r.ID), approvals.ErrGrantEnded)
		s.checkLog()
	}
}

// Somebody has the password of the broker's database role, and wants a request
// of theirs to count as an emergency, which needs nobody.
func TestForgedEmergenciesYieldNothing(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	ctx := t.Context()
	exec := func(sql string, args ...any) {
		t.Helper()
		_, err := s.pool.Exec(ctx, sql, args...)
		must(t, err)
	}
	sum := func(text []byte) string { h := sha256.Sum256(text); return hex.EncodeToString(h[:]) }
	try := func(id string) {
		t.Helper()
		s.refusedIssue(s.engineer, id, input(t, newKey(t), id), approvals.ErrEvidence)
	}
	const keep = `INSERT INTO emergencies (request_id, person_id, drill, review_groups, review_by) VALUES ($1, $2, false, '{security}', $3)`

	honest := s.ask("dba", "db-1", emergency)

	// An ordinary request, marked in the database.
	r := s.ask("dba", "db-1")
	exec(keep, r.ID, s.engineer.ID, s.clock.Now().Add(time.Hour))
	exec(`UPDATE requests SET state = 'approved', starts_at = created_at, ends_at = created_at + interval '15 minutes' WHERE id = $1`, r.ID)
	try(r.ID)

	// A whole request with the terms of an emergency, perfect in itself; for a
	// login whose rule knows none, and for one whose rule does.
	var text []byte
	must(t, s.pool.QueryRow(ctx, `SELECT terms FROM requests WHERE id = $1`, honest.ID).Scan(&text))
	for _, login := range []string{"root", "dba"} {
		terms, err := approvals.ParseTerms(text)
		must(t, err)
		terms.RequestID, terms.Login = ids.New(ids.Request), login
		forged, err := terms.Encode()
		must(t, err)
		exec(`INSERT INTO requests (id, person_id, host_id, policy_version, terms, terms_hash, approver_groups, created_at, approve_by,
				state, waiting_groups, starts_at, ends_at, use_by, key)
			SELECT $2, person_id, host_id, policy_version, $3, $4, approver_groups, created_at, approve_by,
				state, waiting_groups, starts_at, ends_at, use_by, '' FROM requests WHERE id = $1`,
			honest.ID, terms.RequestID, forged, sum(forged))
		exec(keep, terms.RequestID, s.engineer.ID, terms.Emergency.ReviewBy)
		g, _, err := s.approvals.Grant(ctx, s.engineer, terms.RequestID)
		must(t, err)
		if err := g.Check(s.clock.Now()); err != nil {
			t.Fatalf("the forgery is not good enough for the test: %v", err)
		}
		try(terms.RequestID)
	}

	// The honest one goes on, until its review says that it should not.
	key := newKey(t)
	s.issue(key, honest.ID)
	_, err := s.approvals.Review(ctx, s.security, honest.ID, api.ReviewInput{Verdict: api.NotJustified, Comment: "nothing was down"})
	must(t, err)
	s.refusedIssue(s.engineer, honest.ID, input(t, key, honest.ID), approvals.ErrGrantEnded)
	s.checkLog()
}
