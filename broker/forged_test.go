package broker_test

import (
	"crypto/sha256"
	"encoding/hex"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/crypto/ssh"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/evidence"
	"sallyport/broker/certs"
	"sallyport/internal/ids"
)

// Somebody has the password of the broker's database role and wants to be let
// in. Nothing that they write into the tables of approvals yields a certificate.
func TestForgedRowsYieldNothing(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	ctx, key := t.Context(), newKey(t)
	honest := s.grant("dba", "db-1")
	exec := func(sql string, args ...any) {
		t.Helper()
		_, err := s.pool.Exec(ctx, sql, args...)
		must(t, err)
	}
	sum := func(text []byte) string { h := sha256.Sum256(text); return hex.EncodeToString(h[:]) }
	approve := func(id string) {
		t.Helper()
		exec(`UPDATE requests SET state = 'approved', starts_at = $2, ends_at = $3, waiting_groups = '{}' WHERE id = $1`,
			id, s.clock.Now(), s.clock.Now().Add(30*time.Minute))
	}
	try := func(id string) {
		t.Helper()
		s.refusedIssue(s.engineer, id, input(t, key, id), approvals.ErrEvidence)
	}
	terms := func(id string) (parsed approvals.Terms) {
		t.Helper()
		var text []byte
		must(t, s.pool.QueryRow(ctx, `SELECT terms FROM requests WHERE id = $1`, id).Scan(&text))
		parsed, err := approvals.ParseTerms(text)
		must(t, err)
		return parsed
	}

	// The state alone.
	r := s.ask("dba", "db-1")
	approve(r.ID)
	try(r.ID)

	// With another request's decision.
	r = s.ask("dba", "db-1")
	exec(`INSERT INTO decisions (id, request_id, position, requester_id, approver_id, statement, statement_hash, decided_at)
		SELECT $2, $3, position, requester_id, approver_id, statement, statement_hash, decided_at FROM decisions WHERE request_id = $1`,
		honest.ID, ids.New(ids.Decision), r.ID)
	approve(r.ID)
	try(r.ID)

	// With a decision that is perfect in itself: only the log knows better.
	r = s.ask("dba", "db-1")
	statement, err := approvals.Statement{Format: approvals.StatementFormat, RequestID: r.ID, TermsHash: r.TermsHash, Verdict: api.Approve,
		Approver: approvals.StatementApprover{ID: s.approver.ID, Issuer: s.approver.Issuer, Subject: s.approver.Subject},
		Groups:   []string{"approvers"}, PolicyHash: r.Policy.Hash, Time: s.clock.Now(), Random: "00112233445566778899aabbccddeeff",
		Assurance: evidence.Session, SignIn: &approvals.StatementSignIn{AuthTime: s.clock.Now()}}.Encode()
	must(t, err)
	exec(`INSERT INTO decisions (id, request_id, position, requester_id, approver_id, statement, statement_hash, decided_at)
		VALUES ($1, $2, 1, $3, $4, $5, $6, $7)`, ids.New(ids.Decision), r.ID, s.engineer.ID, s.approver.ID, statement, sum(statement), s.clock.Now())
	approve(r.ID)
	g, _, err := s.approvals.Grant(ctx, s.engineer, r.ID)
	must(t, err)
	if err := g.Check(s.clock.Now()); err != nil {
		t.Fatalf("the forgery is not good enough for the test: %v", err)
	}
	try(r.ID)

	// A whole request, whose terms say that nobody need be asked.
	forged := terms(honest.ID)
	forged.RequestID, forged.Login, forged.CreatedAt, forged.ApproveBy = ids.New(ids.Request), "root", s.clock.Now(), s.clock.Now().Add(time.Hour)
	forged.Rule.Automatic, forged.Rule.Stages = true, []approvals.TermsStage{}
	text, err := forged.Encode()
	must(t, err)
	exec(`INSERT INTO requests (id, person_id, host_id, policy_version, terms, terms_hash, approver_groups, created_at, approve_by,
			state, waiting_groups, starts_at, ends_at, key)
		SELECT $2, person_id, host_id, policy_version, $3, $4, '{}', $5, $6, 'approved', '{}', $5::timestamptz, $5::timestamptz + interval '30 minutes', ''
		FROM requests WHERE id = $1`, honest.ID, forged.RequestID, text, sum(text), s.clock.Now(), forged.ApproveBy)
	try(forged.RequestID)

	// What cannot even be written: a longer grant, another key, a changed text.
	s.issue(key, honest.ID)
	for _, attack := range []string{
		`UPDATE requests SET ends_at = ends_at + interval '1 day' WHERE id = $1`,
		`UPDATE requests SET key = 'SHA256:other' WHERE id = $1`,
		`UPDATE requests SET terms = '' WHERE id = $1`,
		`UPDATE decisions SET statement = '' WHERE request_id = $1`,
	} {
		if _, err := s.pool.Exec(ctx, attack, honest.ID); err == nil {
			t.Errorf("the database allows: %s", attack)
		}
	}
	s.checkLog()
}

// The record of certificates cannot be changed, and no serial comes twice, by
// the broker's role or by the owner of the tables.
func TestCertificatesStay(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	r := s.grant("dba", "db-1")
	s.issue(newKey(t), r.ID)
	attacks := []string{
		`UPDATE certificates SET fingerprint = 'SHA256:other'`,
		`UPDATE certificates SET request_id = request_id`,
		`DELETE FROM certificates`,
		`TRUNCATE certificates`,
		`DELETE FROM signing_keys`,
		`INSERT INTO certificates SELECT * FROM certificates`,
		// Two principals, another host than the row's, a wildcard (P2); too early a start (P3).
		columns("principal || ',root@' || host_id", "valid_after"),
		columns("'dba@host-000000000000'", "valid_after"),
		columns("'*@' || host_id", "valid_after"),
		columns("principal", "valid_after - interval '1 hour'"),
	}
	for _, attack := range append(attacks, `SELECT setval('certificate_serial', 1, false)`) {
		if _, err := s.pool.Exec(t.Context(), attack); err == nil {
			t.Errorf("the broker's role may: %s", attack)
		}
	}
	owner, err := pgx.Connect(t.Context(), s.house.db.AdminURL)
	must(t, err)
	defer owner.Close(t.Context())
	_, err = owner.Exec(t.Context(), `SET ROLE sallyport_owner`)
	must(t, err)
	for _, attack := range attacks {
		if _, err := owner.Exec(t.Context(), attack); err == nil {
			t.Errorf("the owner may: %s", attack)
		}
	}
	s.checkLog()
}

func columns(principal, validAfter string) string {
	return `INSERT INTO certificates (serial, request_id, person_id, host_id, key_id, principal, fingerprint,
			issued_at, valid_after, valid_before, pre_certificate, event_id)
		SELECT serial + 1000, request_id, person_id, host_id, key_id, ` + principal + `, fingerprint,
			issued_at, ` + validAfter + `, valid_before, pre_certificate, gen_random_uuid() FROM certificates`
}

// Even who changes the address and the host's key in the registry gets no more
// than the certificate's one principal.
func TestRegistryCannotWidenACertificate(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	r := s.grant("dba", "db-1")
	_, err := s.pool.Exec(t.Context(), `UPDATE hosts SET name = 'db-x', address = '203.0.113.9:22', logins = '{dba,root,web}' WHERE id = $1`, s.db.ID)
	must(t, err)
	_, cert := s.issue(newKey(t), r.ID)
	if err := certs.CheckUser(cert, s.house.userCA.PublicKey(), "dba", s.db.ID, s.clock.Now()); err != nil {
		t.Error(err)
	}
	checker := ssh.CertChecker{Clock: s.clock.Now}
	if checker.CheckCert("root@"+s.db.ID, cert) == nil {
		t.Error("the certificate opens root")
	}
}
