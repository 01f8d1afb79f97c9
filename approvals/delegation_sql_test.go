package approvals_test

import (
	"strings"
	"testing"
	"time"

	"sallyport/approvals"
	"sallyport/approvals/evidence"
	"sallyport/approvals/identity"
	"sallyport/audit/vouch"
	"sallyport/internal/audittest"
	"sallyport/internal/ids"
	"sallyport/internal/refusal"
)

// Rows that somebody writes by hand lend nothing, and what was made cannot be
// changed, but ended once.
func TestP5_DelegationsByHandLendNothing(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin, ann, dora, mallory := h.person("erin", "engineers"), h.person("ann", "approvers"), h.person("dora"), h.person("mallory")
	real := h.lend(ann, dora)
	id := h.ask(erin, "dba", "db-1").ID
	insert := func(delegator, delegate identity.Caller, note []byte) error {
		return h.exec(`INSERT INTO delegations (id, delegator_id, delegate_id, made_by, note, made_at, from_at, until_at)
			VALUES ($1, $2, $3, $2, $4, $5, $5, $6)`, ids.New(ids.Delegation), delegator.ID, delegate.ID, note, h.clock.Now(), h.clock.Now().Add(24*time.Hour))
	}
	var genuine []byte
	must(t, h.db.Pool.QueryRow(t.Context(), `SELECT note FROM delegations WHERE id = $1`, real.ID).Scan(&genuine))
	d, err := approvals.OpenDelegation(genuine, evidence.Anchor{LogKey: h.log.VerifierKey()})
	must(t, err)
	d.Delegate = approvals.StatementApprover{ID: mallory.ID, Issuer: mallory.Issuer, Subject: mallory.Subject}
	for name, note := range map[string][]byte{
		"no note":           nil,
		"nothing":           {},
		"another's":         genuine,
		"changed":           []byte(strings.ReplaceAll(string(genuine), dora.ID, mallory.ID)),
		"another log's key": sign(t, d, audittest.NewKey(t)),
	} {
		if err := insert(ann, mallory, note); (err != nil) != (note == nil) {
			t.Errorf("%s: %v", name, err)
		}
	}
	h.hidden(mallory, id, "not-approver")
	if len(h.waiting(mallory)) != 0 || len(h.see(erin, id).Approvers[0].Delegates) != 1 {
		t.Error("a delegation that nobody made counts")
	}
	page, err := h.Delegations(t.Context(), mallory, approvals.DelegationFilter{})
	must(t, err)
	if len(page.Items) != 0 {
		t.Errorf("they are listed: %+v", page.Items)
	}

	admin := h.admin()
	for _, sql := range []string{
		`UPDATE delegations SET until_at = until_at + interval '1 day'`,
		`UPDATE delegations SET delegate_id = '` + mallory.ID + `'`,
		`UPDATE delegations SET note = ''`,
		`UPDATE delegations SET made_at = made_at - interval '1 day'`,
		`DELETE FROM delegations`,
		`TRUNCATE delegations CASCADE`,
	} {
		if h.exec(sql) == nil {
			t.Errorf("the broker's role may %s", sql)
		}
		for _, as := range []string{`SET LOCAL ROLE sallyport_owner; `, `SET LOCAL session_replication_role = replica; `} {
			if _, err := admin.Exec(t.Context(), as+sql); err == nil || !strings.Contains(err.Error(), "never change") {
				t.Errorf("%s%s: %v", as, sql, err)
			}
		}
	}
	_, err = h.EndDelegation(t.Context(), ann, real.ID)
	must(t, err)
	for _, sql := range []string{`ended_at = NULL, ended_by = NULL`, `ended_at = ended_at + interval '1 day'`} {
		if h.exec(`UPDATE delegations SET `+sql+` WHERE id = $1`, real.ID) == nil {
			t.Errorf("what has ended is changed: %s", sql)
		}
	}
	// What one may not do to oneself or take for oneself, the database refuses too.
	if insert(ann, ann, genuine) == nil {
		t.Error("a delegation to oneself is written")
	}
	if h.exec(`INSERT INTO delegations (id, delegator_id, delegate_id, made_by, note, made_at, from_at, until_at)
		VALUES ($1, $2, $3, $3, '', $4, $4, $5)`, ids.New(ids.Delegation), ann.ID, dora.ID, start, start.Add(time.Hour)) == nil {
		t.Error("somebody takes another's say")
	}
}

// Decisions that are written by hand as given for somebody.
func TestP5_DelegatedDecisionsByHand(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin, bo, dora, eve := h.person("erin", "engineers"), h.person("bo", "approvers", "security"), h.person("dora"), h.person("eve")
	toDora, toEve := h.lend(bo, dora), h.lend(bo, eve)
	later := lending(h, dora)
	from := h.clock.Now().Add(48 * time.Hour)
	later.From, later.Until = &from, from.Add(time.Hour)
	future, err := h.Delegate(t.Context(), bo, later)
	must(t, err)
	insert := func(id string, by, of identity.Caller, delegation string) error {
		return h.exec(`INSERT INTO decisions (id, request_id, position, requester_id, approver_id, statement, statement_hash, decided_at, for_id, delegation_id)
			SELECT $1, $2, 1 + (SELECT count(*) FROM decisions WHERE request_id = $2), $3, $4, '{}', encode(sha256('{}'), 'hex'), $5, $6, $7`,
			ids.New(ids.Decision), id, erin.ID, by.ID, h.clock.Now(), of.ID, delegation)
	}
	id := h.ask(erin, "root", "db-1").ID
	h.approve(dora, id)
	for name, err := range map[string]error{
		"a second one for the same":  insert(id, eve, bo, toEve.ID),
		"under another's delegation": insert(id, eve, bo, toDora.ID),
		"under none":                 insert(id, eve, bo, ids.New(ids.Delegation)),
		"for oneself":                insert(id, bo, bo, toDora.ID),
		"for the requester":          insert(id, eve, erin, toEve.ID),
		"by whom it was for": h.exec(`INSERT INTO decisions (id, request_id, position, requester_id, approver_id, statement, statement_hash, decided_at)
			VALUES ($1, $2, 2, $3, $4, '{}', encode(sha256('{}'), 'hex'), $5)`, ids.New(ids.Decision), id, erin.ID, bo.ID, h.clock.Now()),
	} {
		if err == nil {
			t.Errorf("the database takes a decision %s", name)
		}
	}
	id = h.ask(erin, "root", "db-1").ID
	if insert(id, dora, bo, future.ID) == nil {
		t.Error("the database takes a decision before its delegation runs")
	}
	must(t, insert(id, dora, bo, toDora.ID))
	must(t, h.exec(`UPDATE requests SET state = 'approved', starts_at = $2, ends_at = $3 WHERE id = $1`, id, h.clock.Now(), h.clock.Now().Add(time.Minute)))
	refused(t, h.use(erin, id, "SHA256:k"), approvals.ErrEvidence)
}

// sign makes a note of a delegation with a key.
func sign(t testing.TB, d approvals.Delegation, key audittest.Key) []byte {
	t.Helper()
	text, err := d.Encode()
	must(t, err)
	note, err := vouch.Sign("delegation/1", string(text), key.Signer)
	must(t, err)
	return note
}

// What somebody could write who has every column, and even notes that the broker
// made for something else; and what Check says to it.
func TestP5_CheckRefusesForgedDelegations(t *testing.T) {
	t.Parallel()
	key := audittest.NewKey(t)
	now := start.Add(25 * time.Minute)
	someone := func(subject string) approvals.StatementApprover {
		return approvals.StatementApprover{ID: ids.New(ids.Person), Issuer: "https://id.test", Subject: subject}
	}
	for name, tt := range map[string]struct {
		forge func(f *forge, d *approvals.Delegation, st *approvals.Statement)
		after func(g *approvals.Grant)
		good  bool
	}{
		"honest": {good: true},
		"honest, since ended, over and out of groups": {good: true, forge: func(f *forge, d *approvals.Delegation, st *approvals.Statement) {
			d.Until = st.Time.Add(time.Microsecond)
		}},
		"without its note":      {after: func(g *approvals.Grant) { g.Decisions[1].Delegation = nil }},
		"without the log's key": {after: func(g *approvals.Grant) { g.Anchor = evidence.Anchor{} }},
		"another log's key":     {after: func(g *approvals.Grant) { g.Anchor.LogKey = audittest.NewKey(t).Verifier }},
		"note changed": {after: func(g *approvals.Grant) {
			g.Decisions[1].Delegation = []byte(strings.Replace(string(g.Decisions[1].Delegation), "away", "here", 1))
		}},
		"a note of another kind": {after: func(g *approvals.Grant) {
			note, err := vouch.Sign("provider-keys/1", "{}", key.Signer)
			must(t, err)
			g.Decisions[1].Delegation = note
		}},
		"a note where none is named": {after: func(g *approvals.Grant) { g.Decisions[0].Delegation = g.Decisions[1].Delegation }},
		"another id": {forge: func(f *forge, d *approvals.Delegation, st *approvals.Statement) {
			st.OnBehalfOf.Delegation = ids.New(ids.Delegation)
		}},
		"no id": {forge: func(f *forge, d *approvals.Delegation, st *approvals.Statement) {
			st.OnBehalfOf.Delegation, d.ID = "", ""
		}},
		"to another":                {forge: func(f *forge, d *approvals.Delegation, st *approvals.Statement) { d.Delegate = someone("eve") }},
		"of another":                {forge: func(f *forge, d *approvals.Delegation, st *approvals.Statement) { d.Delegator = someone("eve") }},
		"to another of the same id": {forge: func(f *forge, d *approvals.Delegation, st *approvals.Statement) { d.Delegate.Subject = "eve" }},
		"groups not lent":           {forge: func(f *forge, d *approvals.Delegation, st *approvals.Statement) { d.Groups = []string{"approvers"} }},
		"no groups":                 {forge: func(f *forge, d *approvals.Delegation, st *approvals.Statement) { st.Groups = nil }},
		"some groups not lent": {forge: func(f *forge, d *approvals.Delegation, st *approvals.Statement) {
			st.Groups = append(st.Groups, "approvers")
		}},
		"decided before it ran": {forge: func(f *forge, d *approvals.Delegation, st *approvals.Statement) {
			d.From = st.Time.Add(time.Microsecond)
		}},
		"decided as it was over": {forge: func(f *forge, d *approvals.Delegation, st *approvals.Statement) { d.Until = st.Time }},
		"decided before it was made": {forge: func(f *forge, d *approvals.Delegation, st *approvals.Statement) {
			d.MadeAt = st.Time.Add(time.Microsecond)
		}},
		"said when it ran, taken after": {after: func(g *approvals.Grant) { g.Decisions[1].Taken = start.Add(30 * time.Minute) }, forge: func(f *forge, d *approvals.Delegation, st *approvals.Statement) {
			d.Until = st.Time.Add(time.Minute)
		}},
		"endless": {forge: func(f *forge, d *approvals.Delegation, st *approvals.Statement) {
			d.Until = d.From.Add(approvals.MaxDelegation + time.Microsecond)
		}},
		"of no form": {forge: func(f *forge, d *approvals.Delegation, st *approvals.Statement) { d.Format = "sallyport.delegation/0" }},
		"made by the requester": {forge: func(f *forge, d *approvals.Delegation, st *approvals.Statement) {
			d.MadeBy = approvals.StatementApprover(f.terms.Person)
		}},
		"made by their other id": {forge: func(f *forge, d *approvals.Delegation, st *approvals.Statement) {
			d.MadeBy.Subject = f.terms.Person.Subject
		}},
		"for the requester":      {forge: behalf(func(f *forge) approvals.StatementApprover { return approvals.StatementApprover(f.terms.Person) })},
		"for their other id":     {forge: behalf(func(f *forge) approvals.StatementApprover { return someone(f.terms.Person.Subject) })},
		"for the other approver": {forge: behalf(func(f *forge) approvals.StatementApprover { return f.statements[0].Approver })},
		"for their other id too": {forge: behalf(func(f *forge) approvals.StatementApprover { return someone(f.statements[0].Approver.Subject) })},
		"for oneself":            {forge: behalf(func(f *forge) approvals.StatementApprover { return f.statements[1].Approver })},
		"for no person":          {forge: behalf(func(f *forge) approvals.StatementApprover { return approvals.StatementApprover{ID: "agent-1"} })},
		"by whom another is given for": {forge: func(f *forge, d *approvals.Delegation, st *approvals.Statement) {
			f.statements[0].Approver = d.Delegator
		}},
	} {
		f := goodForge()
		st := &f.statements[1]
		d := approvals.Delegation{Format: approvals.DelegationFormat, ID: ids.New(ids.Delegation), Delegator: someone("xia"), Delegate: st.Approver,
			Groups: []string{"security"}, From: start, Until: start.Add(24 * time.Hour), MadeAt: start, Reason: "away"}
		d.MadeBy = someone("olga")
		st.OnBehalfOf = &approvals.StatementDelegator{ID: d.Delegator.ID, Issuer: d.Delegator.Issuer, Subject: d.Delegator.Subject, Delegation: d.ID}
		if tt.forge != nil {
			tt.forge(f, &d, st)
		}
		g := f.grant(t)
		g.Anchor = evidence.Anchor{LogKey: key.Verifier}
		g.Decisions[1].Delegation = sign(t, d, key)
		if tt.after != nil {
			tt.after(&g)
		}
		err := g.Check(now)
		if tt.good && err != nil || !tt.good && (refusal.As(err) == nil || refusal.As(err).Code != "evidence-refused") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// behalf forges a decision, with everything that belongs to it, as given for somebody.
func behalf(of func(*forge) approvals.StatementApprover) func(*forge, *approvals.Delegation, *approvals.Statement) {
	return func(f *forge, d *approvals.Delegation, st *approvals.Statement) {
		x := of(f)
		d.Delegator, d.MadeBy = x, approvals.StatementApprover{ID: ids.New(ids.Person), Issuer: "https://id.test", Subject: "olga"}
		st.OnBehalfOf = &approvals.StatementDelegator{ID: x.ID, Issuer: x.Issuer, Subject: x.Subject, Delegation: d.ID}
	}
}

// Auditors read what they must be able to check, and change nothing of it.
func TestAuditorsReadDelegations(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.lend(h.person("ann", "approvers"), h.person("dora"))
	admin := h.admin()
	if _, err := admin.Exec(t.Context(), `SET LOCAL ROLE sallyport_audit; SELECT * FROM delegations`); err != nil {
		t.Error(err)
	}
	if _, err := admin.Exec(t.Context(), `SET LOCAL ROLE sallyport_audit; UPDATE delegations SET ended_at = now()`); err == nil {
		t.Error("an auditor ends a delegation")
	}
}
