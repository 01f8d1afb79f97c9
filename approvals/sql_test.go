package approvals_test

import (
	"strings"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/internal/ids"
)

// Nothing that is frozen can be changed with SQL: not by the broker's role, nor
// by the owner of the tables, nor where ordinary triggers are switched off.
func TestP4_FrozenTerms(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin, ann := h.person("erin", "engineers"), h.person("ann", "approvers")
	h.in(api.Approved, erin, ann)
	admin := h.admin()
	for _, table := range []string{"requests", "decisions", "policy_versions"} {
		if _, err := admin.Exec(t.Context(), `SET LOCAL ROLE sallyport_audit; SELECT * FROM `+table); err != nil {
			t.Errorf("an auditor cannot read %s: %v", table, err)
		}
		for _, sql := range []string{`DELETE FROM ` + table, `INSERT INTO ` + table + ` DEFAULT VALUES`} {
			if _, err := admin.Exec(t.Context(), `SET LOCAL ROLE sallyport_audit; `+sql); err == nil || !strings.Contains(err.Error(), "permission denied") {
				t.Errorf("as an auditor, %s: %v", sql, err)
			}
		}
	}
	for _, sql := range []string{
		`UPDATE requests SET terms = replace(convert_from(terms, 'UTF8'), '30m', '90m')::bytea`,
		`UPDATE requests SET terms = t, terms_hash = encode(sha256(t), 'hex')
			FROM (SELECT id AS i, replace(convert_from(terms, 'UTF8'), '30m', '90m')::bytea AS t FROM requests) AS x WHERE id = i`,
		`UPDATE requests SET terms_hash = repeat('0', 64)`,
		`UPDATE requests SET person_id = (SELECT id FROM people WHERE subject = 'ann')`,
		`UPDATE requests SET host_id = 'host-000000000000'`,
		`UPDATE requests SET approver_groups = '{engineers}'`,
		`UPDATE requests SET created_at = created_at + interval '1 day'`,
		`UPDATE requests SET approve_by = approve_by + interval '1 day'`,
		`UPDATE requests SET policy_version = 1, id = 'req-000000000000'`,
		`DELETE FROM requests`,
		`TRUNCATE requests CASCADE`,
		`UPDATE decisions SET statement = '{}', statement_hash = encode(sha256('{}'), 'hex')`,
		`UPDATE decisions SET approver_id = approver_id`,
		`DELETE FROM decisions`,
		`TRUNCATE decisions`,
		`UPDATE policy_versions SET document = 'x', hash = encode(sha256('x'), 'hex')`,
		`DELETE FROM policy_versions`,
		`TRUNCATE policy_versions CASCADE`,
	} {
		if h.exec(sql) == nil {
			t.Errorf("the broker's role may %s", sql)
		}
		for _, as := range []string{`SET LOCAL ROLE sallyport_owner; `, `SET LOCAL session_replication_role = replica; `} {
			_, err := admin.Exec(t.Context(), as+sql)
			if err == nil || !strings.Contains(err.Error(), "never change") {
				t.Errorf("%s%s: %v", as, sql, err)
			}
		}
	}
}

// A grant cannot be started again, made longer or given to another key, and a
// request that is closed stays closed.
func TestP3_GrantsOnlyBecomeShorter(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin, ann := h.person("erin", "engineers"), h.person("ann", "approvers")
	for _, state := range []api.State{api.Active, api.Ended, api.Denied, api.Cancelled} {
		r := h.in(state, erin, ann)
		for _, set := range []string{
			`starts_at = starts_at + interval '1 hour'`,
			`ends_at = ends_at + interval '1 hour'`,
			`use_by = ends_at + interval '1 hour'`,
			`key = 'SHA256:mine'`,
			`key = ''`,
			`state = 'requested', starts_at = NULL, ends_at = NULL, end_reason = ''`,
			`state = 'approved', end_reason = '', starts_at = coalesce(starts_at, created_at), ends_at = coalesce(ends_at, created_at + interval '1 day')`,
			`end_reason = 'revoked'`,
			`state = 'granted'`,
		} {
			if state != api.Active && strings.HasPrefix(set, "key") || r.StartsAt == nil && strings.Contains(set, "_at + interval '1 hour'") {
				continue // nothing is there that it could change
			}
			if h.exec(`UPDATE requests SET `+set+` WHERE id = $1`, r.ID) == nil {
				t.Errorf("%s: SET %s succeeds", state, set)
			}
		}
	}
}

// Who has the broker's password can say in the database that a request is
// approved; that opens nothing.
func TestP5_ApprovedByHandOpensNothing(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin, ann, sam := h.person("erin", "engineers", "approvers"), h.person("ann", "approvers"), h.person("sam", "security")
	byHand := func(id string) {
		t.Helper()
		must(t, h.exec(`UPDATE requests SET state = 'approved', starts_at = $2, ends_at = $3 WHERE id = $1`,
			id, h.clock.Now(), h.clock.Now().Add(30*time.Minute)))
	}
	insert := func(id, approver string, statement []byte) error {
		return h.exec(`INSERT INTO decisions (id, request_id, position, requester_id, approver_id, statement, statement_hash, decided_at)
			SELECT $1, $2, 1 + (SELECT count(*) FROM decisions WHERE request_id = $2), $3, $4, $5, encode(sha256($5::bytea), 'hex'), $6`,
			ids.New(ids.Decision), id, erin.ID, approver, statement, h.clock.Now())
	}

	none := h.ask(erin, "dba", "db-1")
	byHand(none.ID)
	if h.see(erin, none.ID).State != api.Approved {
		t.Fatal("the test did not change the state")
	}
	refused(t, h.use(erin, none.ID, "SHA256:k"), approvals.ErrEvidence)

	half := h.ask(erin, "root", "db-1")
	h.approve(ann, half.ID)
	byHand(half.ID)
	refused(t, h.use(erin, half.ID, "SHA256:k"), approvals.ErrEvidence)

	// The decision on another request, put to this one.
	other, mine := h.ask(erin, "dba", "db-1"), h.ask(erin, "dba", "db-1")
	h.approve(ann, other.ID)
	g, err := h.grant(erin, other.ID)
	must(t, err)
	must(t, insert(mine.ID, ann.ID, g.Decisions[0].Statement))
	byHand(mine.ID)
	refused(t, h.use(erin, mine.ID, "SHA256:k"), approvals.ErrEvidence)

	// A decision by somebody who has no say.
	st, err := approvals.ParseStatement(g.Decisions[0].Statement)
	must(t, err)
	noSay := h.ask(erin, "dba", "db-1")
	st.RequestID, st.TermsHash, st.Groups = noSay.ID, noSay.TermsHash, []string{"security"}
	st.Approver = approvals.StatementApprover{ID: sam.ID, Issuer: sam.Issuer, Subject: sam.Subject}
	text, err := st.Encode()
	must(t, err)
	must(t, insert(noSay.ID, sam.ID, text))
	byHand(noSay.ID)
	refused(t, h.use(erin, noSay.ID, "SHA256:k"), approvals.ErrEvidence)

	// One's own, under one's own name: the database refuses the row itself; and
	// under another's name in the column, Check reads the text.
	own := h.ask(erin, "dba", "db-1")
	st.RequestID, st.TermsHash, st.Groups = own.ID, own.TermsHash, []string{"approvers"}
	st.Approver = approvals.StatementApprover{ID: erin.ID, Issuer: erin.Issuer, Subject: erin.Subject}
	text, err = st.Encode()
	must(t, err)
	if insert(own.ID, erin.ID, text) == nil {
		t.Error("the database takes a decision on one's own request")
	}
	must(t, insert(own.ID, ann.ID, text))
	byHand(own.ID)
	refused(t, h.use(erin, own.ID, "SHA256:k"), approvals.ErrEvidence)

	// Twice by one person: the database refuses the row itself.
	twice := h.ask(erin, "dba", "db-1")
	must(t, insert(twice.ID, ann.ID, []byte("{}")))
	if insert(twice.ID, ann.ID, []byte("{ }")) == nil {
		t.Error("the database takes two decisions of one person")
	}
	byHand(twice.ID)
	refused(t, h.use(erin, twice.ID, "SHA256:k"), approvals.ErrEvidence)
	_, err = h.Get(t.Context(), erin, twice.ID)
	refused(t, err, approvals.ErrEvidence)
	// A row that cannot be read does not take the lists away from everybody else.
	page, err := h.List(t.Context(), erin, approvals.ListFilter{})
	must(t, err)
	if len(page.Items) != 6 {
		t.Errorf("the list has %d requests", len(page.Items))
	}
}

// An honest grant whose time was changed by hand while it was still possible.
func TestP3_TimeByHandOpensNothing(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin := h.person("erin", "engineers")
	at := start.Add(24 * time.Hour)
	in := input("web", "web-1")
	in.NotBefore = &at
	r, err := h.Request(t.Context(), erin, in)
	must(t, err)
	// A superuser without triggers makes it start now.
	admin := h.admin()
	_, err = admin.Exec(t.Context(), `ALTER TABLE requests DISABLE TRIGGER ALL`)
	must(t, err)
	_, err = admin.Exec(t.Context(), `UPDATE requests SET starts_at = $1, ends_at = $2`, start, start.Add(20*time.Minute))
	must(t, err)
	refused(t, h.use(erin, r.ID, "SHA256:k"), approvals.ErrEvidence)
}

// No event, no state change; and a refusal that cannot be recorded is still one.
func TestP9_WithoutTheLogNothingHappens(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	erin, ann := h.person("erin", "engineers"), h.person("ann", "approvers")
	r, granted := h.ask(erin, "dba", "db-1"), h.in(api.Approved, erin, ann)
	h.all("") // everything is sequenced
	_, err := h.admin().Exec(t.Context(), `REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA audit FROM sallyport_app`)
	must(t, err)

	_, err = h.Request(t.Context(), erin, input("web", "web-1"))
	if err == nil {
		t.Error("a request is made without its event")
	}
	if _, err = h.Decide(t.Context(), ann, r.ID, api.DecisionInput{Verdict: api.Approve}); err == nil {
		t.Error("a decision is taken without its event")
	}
	if _, err = h.Cancel(t.Context(), erin, r.ID); err == nil {
		t.Error("a request is cancelled without its event")
	}
	if _, err = h.Finish(t.Context(), erin, granted.ID); err == nil {
		t.Error("a grant ends without its event")
	}
	_, err = h.Decide(t.Context(), erin, r.ID, api.DecisionInput{Verdict: api.Approve})
	refused(t, err, approvals.ErrOwnRequest)
	if h.stored(r.ID) != "requested" || h.stored(granted.ID) != "approved" ||
		h.count(`SELECT count(*) FROM requests`) != 2 || h.count(`SELECT count(*) FROM decisions`) != 1 {
		t.Error("something changed")
	}
	h.clock.Advance(time.Hour)
	if h.Settle(t.Context(), r.ID) == nil || h.stored(r.ID) != "requested" {
		t.Error("a request expires without its event")
	}
}
