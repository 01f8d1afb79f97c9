package rollout_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals/evidence"
	"sallyport/approvals/grant"
	"sallyport/audit/event"
	"sallyport/broker/rollout/plan"
	"sallyport/internal/ids"
	"sallyport/internal/oidctest"
)

// signs has a lead say something that the provider signs.
func (s *signedScene) signs(id string, in api.DeploymentDecisionInput) {
	s.t.Helper()
	d, err := s.draft(s.lead, id, in)
	must(s.t, err)
	must(s.t, s.complete(s.lead, d, s.token(s.lead, d)))
}

// vault is a deployment from beginning to end, with decisions that the provider signed.
func (s *signedScene) vault() *job {
	s.t.Helper()
	j := s.deployAs(s.admitted("github-vault"), "vault", one)
	s.signs(j.id, yes)
	j.deployBatch(1)
	s.until(j.id, 1, "gating")
	s.signs(j.id, judge)
	s.until(j.id, 0, "complete")
	return j
}

// packs wants a true pack with these exceptions, and returns its list of deployments.
func (s *signedScene) packs(what, exceptions string) []map[string]string {
	s.t.Helper()
	v, tables := s.pack()
	if got := fmt.Sprint(v.Exceptions); got != "map["+exceptions+"]" {
		s.t.Errorf("%s: exceptions %s, want %s", what, got, exceptions)
		for _, x := range tables["exceptions.csv"] {
			s.t.Logf("  %s at %s: %s", x["code"], x["index"], x["detail"])
		}
	}
	return tables["populations/deployments.csv"]
}

// What the provider signed about a deployment is proved again from the pack alone; if its
// tokens are exchanged in the database, or gone, the pack says so.
func TestAttackIDTokensOfPacks(t *testing.T) {
	t.Parallel()
	s := newSignedScene(t)
	j := s.vault()
	for _, d := range s.packs("as it was", "") {
		if d["deployment_id"] == j.id && !strings.Contains(d["approved_by"], "(provider, evidence ") {
			t.Errorf("it was approved by %q", d["approved_by"])
		}
	}
	admin, err := pgx.Connect(t.Context(), s.house.db.AdminURL)
	must(t, err)
	defer admin.Close(context.Background())
	exec := func(sql string) {
		t.Helper()
		_, err := admin.Exec(t.Context(), sql)
		must(t, err)
	}
	exec(`ALTER TABLE deployment_decisions DISABLE TRIGGER rows_stay; CREATE TEMPORARY TABLE kept AS SELECT * FROM deployment_decisions`)
	for _, attack := range []struct{ what, sql, exceptions string }{
		{"tokens exchanged", `UPDATE deployment_decisions AS d SET id_token = k.id_token FROM kept AS k WHERE k.id <> d.id`,
			"batch-opened-early:1 deployment-without-approval:1 evidence-missing:2"},
		{"a token that is gone", `UPDATE deployment_decisions SET id_token = NULL, keys_hash = NULL WHERE about = 'start'`,
			"deployment-without-approval:1 evidence-missing:1"},
		{"a token that nobody signed", `UPDATE deployment_decisions SET id_token = 'e30.e30.e30' WHERE about <> 'start'`,
			"batch-opened-early:1 evidence-missing:1"},
		{"a row that says that the broker's word is enough", `UPDATE deployment_decisions SET statement = convert_to(replace(convert_from(statement, 'UTF8'), 'provider', 'session'), 'UTF8'),
			statement_hash = encode(sha256(convert_to(replace(convert_from(statement, 'UTF8'), 'provider', 'session'), 'UTF8')), 'hex')`, ""}, // which packs do not go by
	} {
		exec(attack.sql)
		s.packs(attack.what, attack.exceptions)
		exec(`UPDATE deployment_decisions AS d SET id_token = k.id_token, keys_hash = k.keys_hash, statement = k.statement, statement_hash = k.statement_hash FROM kept AS k WHERE k.id = d.id`)
	}
	s.packs("put back", "")
	s.check()
}

// Whoever has the broker's role in the database can write events, and have the log take
// them. A decision that the provider did not sign is none all the same.
func TestAttackForgedDecisionInTheLog(t *testing.T) {
	t.Parallel()
	s := newSignedScene(t)
	s.vault()
	var honest event.DeploymentDecided // about a start
	for _, e := range s.events("deployment.decided") {
		if d := e.Data.(event.DeploymentDecided); d.About == "start" {
			honest = d
		}
	}
	for what, forge := range map[string]func(*event.DeploymentDecided, *plan.Statement){
		"by the broker's own word": func(_ *event.DeploymentDecided, st *plan.Statement) {
			st.Assurance, st.ClientID = evidence.Session, ""
			st.SignIn = &grant.StatementSignIn{AuthTime: st.Time, AMR: []string{}}
		},
		"with the token of another statement": func(d *event.DeploymentDecided, _ *plan.Statement) {
			d.DecisionID, d.IDTokenHash, d.KeysHash = honest.DecisionID, honest.IDTokenHash, honest.KeysHash
		},
		"without a token": func(d *event.DeploymentDecided, _ *plan.Statement) { d.KeysHash = honest.KeysHash },
	} {
		j := s.deployAs(s.admitted("github-vault"), "vault", two)
		s.forge(j.id, forge)
		must(t, second(s.Control(t.Context(), s.operator, j.id, api.ControlInput{Action: "abort", Reason: "forged"})))
		_, tables := s.pack()
		said := ""
		for _, x := range tables["exceptions.csv"] {
			if x["code"] == "deployment-without-approval" && strings.Contains(x["detail"], j.id) {
				said = x["detail"]
			}
		}
		if !strings.Contains(said, "is not proved") {
			t.Errorf("%s: it says %q of %v", what, said, tables["exceptions.csv"])
		}
	}
}

// forge has the log say that the lead approved the start, and that it began.
func (s *signedScene) forge(id string, forge func(*event.DeploymentDecided, *plan.Statement)) {
	s.t.Helper()
	var opened event.Event
	for _, e := range s.events("deployment.opened") {
		if e.Data.(event.DeploymentOpened).DeploymentID == id {
			opened = e
		}
	}
	terms, now := opened.Data.(event.DeploymentOpened).TermsHash, s.clock.Now().UTC().Truncate(time.Microsecond)
	st := plan.Statement{Format: plan.DecisionFormat, DeploymentID: id, TermsHash: terms, About: "start", Verdict: api.Approve,
		Approver: grant.StatementApprover{ID: s.lead.ID, Issuer: s.lead.Issuer, Subject: s.lead.Subject}, Groups: []string{"leads"},
		Time: now, Random: strings.Repeat("0", 32), Assurance: evidence.Provider, ClientID: oidctest.ClientID}
	d := event.DeploymentDecided{DeploymentID: id, DecisionID: ids.New(ids.Decision), About: "start", Verdict: "approve", TermsHash: terms, Groups: []string{"leads"}}
	forge(&d, &st)
	text, err := st.Encode()
	must(s.t, err)
	d.Assurance, d.Evidence, d.EvidenceHash = st.Assurance, string(text), plan.Hash(text)
	_, err = s.log.Record(s.t.Context(), event.New(now, s.lead.Actor(), s.lead.Source, opened.Subject, d).Under(s.lead.Policy),
		event.New(now, event.Actor{Kind: event.Broker}, "", opened.Subject, event.DeploymentMoved{DeploymentID: id, Before: "awaiting_approval",
			State: "active", Digest: two, Reason: "approved"}).Under(s.lead.Policy))
	must(s.t, err)
}
