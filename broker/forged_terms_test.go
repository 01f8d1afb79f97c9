package broker_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/evidence"
	"sallyport/audit/event"
	"sallyport/audit/vouch"
	"sallyport/internal/audittest"
	"sallyport/internal/ids"
)

// Somebody has the password of the broker's database role, and since decisions
// cannot be made up where the provider signs them, makes up terms that ask for
// less. The rows are perfect, and so are the events that are handed to the log:
// what is missing is a policy that a broker vouches for.
func TestP5_ForgedTermsNeedThePolicy(t *testing.T) {
	t.Parallel()
	s := newSignedScene(t)
	ctx, key := t.Context(), newKey(t)
	honest := s.ask("keeper", "vault-1")
	s.decide(s.keeper, honest.ID, api.Approve)
	var text []byte
	must(t, s.pool.QueryRow(ctx, `SELECT terms FROM requests WHERE id = $1`, honest.ID).Scan(&text))
	terms, err := approvals.ParseTerms(text)
	must(t, err)
	exec := func(sql string, args ...any) {
		t.Helper()
		_, err := s.pool.Exec(ctx, sql, args...)
		must(t, err)
	}

	// A version of the policy that lets everybody in, by the attacker's own note.
	lax := []byte("sallyport: 1\nrules:\n  - {name: vault, who: [engineers], where: \"*\", logins: [keeper], duration: {max: 2h}, automatic: true}\n")
	activated := event.New(s.clock.Now(), event.Actor{Kind: event.Broker}, "", event.Subject{}, event.PolicyActivated{Rules: 1, Bytes: len(lax)}).
		Under(event.PolicyRef{Version: 99, Hash: hexSum(lax)})
	activation, err := approvals.Activation{Format: approvals.ActivationFormat, Version: 99, Hash: hexSum(lax), EventID: activated.ID.String(), Time: s.clock.Now()}.Encode()
	must(t, err)
	forgedNote, err := vouch.Sign("policy-activation/1", string(activation), audittest.NewKey(t).Signer)
	must(t, err)
	exec(`INSERT INTO policy_versions (version, hash, document, activated_at) VALUES (98, $1, $2, $3), (99, $1, $2, $3)`, hexSum(lax), lax, s.clock.Now())
	exec(`INSERT INTO policy_activations (version, note, event_id) VALUES (99, $1, $2)`, forgedNote, activated.ID)
	must(t, pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error { return s.log.Stage(ctx, tx, activated) }))

	automatic := func(t *approvals.Terms) { t.Rule.Automatic, t.Rule.Stages = true, []approvals.TermsStage{} }
	for name, forge := range map[string]func(*approvals.Terms){
		"the broker's word is enough": func(t *approvals.Terms) { t.Rule.Assurance = evidence.Session },
		"nobody is asked":             automatic,
		"others are asked": func(t *approvals.Terms) {
			t.Rule.Assurance = evidence.Session
			t.Rule.Stages = []approvals.TermsStage{{Slots: []approvals.TermsSlot{{Groups: []string{"staff"}, Count: 1}}}}
		},
		"an emergency": func(t *approvals.Terms) {
			t.Emergency = &approvals.TermsEmergency{Told: []string{}, ReviewGroups: []string{"security"}, ReviewBy: t.CreatedAt.Add(time.Hour)}
		},
		"another rule's terms for the login": func(t *approvals.Terms) {
			t.Rule = approvals.TermsRule{Name: "web", Automatic: true, Stages: []approvals.TermsStage{}, CertificateLifetime: "5m",
				SourceAddress: []string{}, Assurance: evidence.Session}
		},
		"a rule that is not there": func(t *approvals.Terms) { automatic(t); t.Rule.Name = "mine" },
		"a version that never was": func(t *approvals.Terms) { automatic(t); t.PolicyVersion, t.PolicyHash = 98, hexSum(lax) },
		"a version that nobody vouches for": func(t *approvals.Terms) {
			automatic(t)
			t.PolicyVersion, t.PolicyHash = 99, hexSum(lax)
		},
	} {
		forged, now := terms, s.clock.Now()
		forged.RequestID, forged.CreatedAt, forged.ApproveBy = ids.New(ids.Request), now, now.Add(time.Hour)
		forge(&forged)
		text, err := forged.Encode()
		must(t, err)
		exec(`INSERT INTO requests (id, person_id, host_id, policy_version, terms, terms_hash, approver_groups, created_at, approve_by,
				state, waiting_groups, starts_at, ends_at, key)
			VALUES ($1, $2, $3, $4, $5, $6, '{}', $7, $8, 'approved', '{}', $7, $7::timestamptz + interval '30 minutes', '')`,
			forged.RequestID, forged.Person.ID, forged.Host.ID, forged.PolicyVersion, text, hexSum(text), now, forged.ApproveBy)
		decisions := []string{}
		if len(forged.Rule.Stages) > 0 && forged.Emergency == nil {
			st, err := approvals.Statement{Format: approvals.StatementFormat, RequestID: forged.RequestID, TermsHash: hexSum(text), Verdict: api.Approve,
				Approver: approvals.StatementApprover{ID: s.keeper.ID, Issuer: s.keeper.Issuer, Subject: s.keeper.Subject},
				Groups:   forged.Rule.Stages[0].Slots[0].Groups, PolicyHash: forged.PolicyHash, Time: now, Random: "0",
				Assurance: evidence.Session, SignIn: &approvals.StatementSignIn{AuthTime: now}}.Encode()
			must(t, err)
			exec(`INSERT INTO decisions (id, request_id, position, requester_id, approver_id, statement, statement_hash, decided_at)
				VALUES ($1, $2, 1, $3, $4, $5, $6, $7)`, ids.New(ids.Decision), forged.RequestID, s.engineer.ID, s.keeper.ID, st, hexSum(st), now)
			decisions = append(decisions, hexSum(st))
		}
		started := event.New(now, s.engineer.Actor(), "192.0.2.7", event.Subject{RequestID: forged.RequestID, PersonID: s.engineer.ID, HostID: forged.Host.ID},
			event.GrantStarted{TermsHash: hexSum(text), Automatic: forged.Rule.Automatic, Decisions: decisions, StartsAt: now, EndsAt: now.Add(30 * time.Minute),
				Emergency: forged.Emergency != nil}).Under(event.PolicyRef{Version: forged.PolicyVersion, Hash: forged.PolicyHash})
		must(t, pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error { return s.log.Stage(ctx, tx, started) }))
		g, _, err := s.approvals.Grant(ctx, s.engineer, forged.RequestID)
		must(t, err)
		if err := g.Check(now); err != nil {
			t.Errorf("%s: the forgery is not good enough for the test: %v", name, err)
		}
		s.refusedIssue(s.engineer, forged.RequestID, input(t, key, forged.RequestID), approvals.ErrEvidence)
	}
	s.issue(key, honest.ID)
	s.checkLog()
}

// A grant goes on under the version of the policy that it was asked for under,
// also when another has come into force since.
func TestTermsOfAnOlderVersionHold(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	key := newKey(t)
	r, web := s.grant("dba", "db-1"), s.ask("web", "web-1")
	s.issue(key, r.ID)
	ctx, olga := t.Context(), s.person("olga", "operators")
	proposal, err := s.approvals.Propose(ctx, s.operator, api.PolicyInput{Document: "sallyport: 1\nroles: {operator: [operators]}\n" +
		"rules:\n  - {name: databases, who: [board], where: \"*\", logins: [dba], duration: {max: 1m}, automatic: true}\n"})
	must(t, err)
	_, err = s.approvals.DecideProposal(ctx, olga, proposal.ID, api.PolicyDecisionInput{Verdict: api.Approve})
	must(t, err)
	for range 2 { // in the process that knew the old version, and in one that reads it
		for _, id := range []string{r.ID, web.ID} {
			if got, err := s.Issue(ctx, s.engineer, id, input(t, key, id)); err != nil || got.Certificate == "" {
				t.Errorf("under the next version: %v", err)
			}
		}
		s.process = s.house.open()
		if got := s.approvals.Policy().Version; got != r.Policy.Version+1 {
			t.Errorf("version %d is in force", got)
		}
	}
}
