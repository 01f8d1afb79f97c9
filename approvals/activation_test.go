package approvals_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/audit/event"
	"sallyport/audit/vouch"
	"sallyport/internal/audittest"
	"sallyport/internal/ids"
)

const evilPolicy = `
sallyport: 1
roles: {operator: [operators]}
rules:
- {name: all, who: [engineers], where: "*", logins: [root], duration: {max: 24h}, automatic: true}
`

// evidenceOf is what is kept about a version.
func (h *house) evidenceOf(n int64) approvals.VersionEvidence {
	h.t.Helper()
	e := approvals.VersionEvidence{Version: n, Proposal: &approvals.VouchedStatement{}, Decision: &approvals.VouchedStatement{}}
	must(h.t, h.db.Pool.QueryRow(h.t.Context(), `
		SELECT v.document, a.note, a.event_id::text, p.statement, p.note, d.statement, d.note, b.document
		FROM policy_activations AS a JOIN policy_versions AS v USING (version)
		JOIN policy_proposals AS p ON p.id = a.proposal_id JOIN policy_decisions AS d ON d.proposal_id = p.id
		JOIN policy_versions AS b ON b.version = p.base_version WHERE a.version = $1`, n).
		Scan(&e.Document, &e.Note, &e.EventID, &e.Proposal.Text, &e.Proposal.Note, &e.Decision.Text, &e.Decision.Note, &e.Base))
	return e
}

// Who has the password of the broker's role can write every row of a version, and
// hand the event to the log. None of it comes into force: not in this process, in
// another, or after a restart.
func TestForgedVersionsDoNotComeIntoForce(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	olga, otto := h.operators()
	erin := h.person("erin", "engineers")
	must(t, h.decideProposal(otto, h.propose(olga, otherPolicy).ID, api.Approve)) // version 2
	real, n := h.evidenceOf(2), int64(2)
	stranger := audittest.NewKey(t)
	signed := func(kind, text string) []byte {
		note, err := vouch.Sign(kind, text, stranger.Signer)
		must(t, err)
		return note
	}
	version := func(document string) int64 {
		n++
		must(t, h.exec(`INSERT INTO policy_versions (version, hash, document, activated_at)
			VALUES ($1, encode(sha256($2::bytea), 'hex'), $2::bytea, $3)`, n, []byte(document), h.clock.Now()))
		return n
	}
	activation := func(n int64, proposalID any, note []byte, id uuid.UUID) {
		must(t, h.exec(`INSERT INTO policy_activations (version, proposal_id, note, event_id) VALUES ($1, $2, $3, $4)`, n, proposalID, note, id))
	}
	logged := func(n int64, document string) uuid.UUID {
		e := event.New(h.clock.Now(), event.Actor{Kind: event.Broker}, "", event.Subject{}, event.PolicyActivated{Rules: 1, Bytes: len(document)}).
			Under(event.PolicyRef{Version: n, Hash: sha(document)})
		_, err := h.log.Record(t.Context(), e)
		must(t, err)
		return e.ID
	}
	text := func(a approvals.Activation) string {
		b, err := a.Encode()
		must(t, err)
		return string(b)
	}

	version(evilPolicy) // the row alone
	v := version(evilPolicy)
	activation(v, nil, []byte("note"), logged(v, evilPolicy))
	v = version(evilPolicy) // another version's note
	activation(v, nil, real.Note, logged(v, evilPolicy))
	v = version(evilPolicy) // a note by somebody else's key, and a fine event
	id := logged(v, evilPolicy)
	activation(v, nil, signed("policy-activation/1", text(approvals.Activation{Format: approvals.ActivationFormat, Version: v,
		Hash: sha(evilPolicy), EventID: id.String(), Time: h.clock.Now()})), id)

	// A proposal of otto's that was refused him, put through by hand in olga's name.
	p := h.propose(otto, evilPolicy)
	must(t, h.exec(`UPDATE policy_proposals SET state = 'approved' WHERE id = $1`, p.ID))
	var d approvals.PolicyStatement
	must(t, json.Unmarshal(real.Decision.Text, &d))
	d.ProposalID, d.ProposalHash, d.DocumentHash, d.PolicyHash = p.ID, p.Statement, p.Hash, p.Base.Hash
	d.Approver = approvals.StatementApprover{ID: olga.ID, Issuer: olga.Issuer, Subject: olga.Subject}
	statement, err := d.Encode()
	must(t, err)
	must(t, h.exec(`INSERT INTO policy_decisions (id, proposal_id, author_id, approver_id, statement, statement_hash, note, decided_at)
		VALUES ($1, $2, $3, $4, $5, encode(sha256($5::bytea), 'hex'), $6, $7)`,
		ids.New(ids.Decision), p.ID, otto.ID, olga.ID, statement, signed("policy-decision/1", sha(string(statement))), h.clock.Now()))
	v = version(evilPolicy)
	id = logged(v, evilPolicy)
	activation(v, p.ID, signed("policy-activation/1", text(approvals.Activation{Format: approvals.ActivationFormat, Version: v, Hash: p.Hash,
		ProposalHash: p.Statement, DecisionHash: sha(string(statement)), EventID: id.String(), Time: h.clock.Now()})), id)

	// What is real goes on beside all that: the next version follows the second.
	h.clock.Advance(time.Minute)
	next := h.propose(olga, testPolicy)
	done, err := h.DecideProposal(t.Context(), otto, next.ID, api.PolicyDecisionInput{Verdict: api.Approve})
	must(t, err)
	if next.Base.Version != 2 || done.Version != n+1 || h.Policy().Version != n+1 {
		t.Errorf("after version %d comes version %d, %d is in force", next.Base.Version, done.Version, h.Policy().Version)
	}
	n = done.Version

	// Even a note that the broker's own key signed is not enough without the event.
	v = version(evilPolicy)
	id = uuid.Must(uuid.NewV7())
	note, err := h.log.Vouch("policy-activation/1", text(approvals.Activation{Format: approvals.ActivationFormat, Version: v,
		Hash: sha(evilPolicy), EventID: id.String(), Time: h.clock.Now()}))
	must(t, err)
	activation(v, nil, note, id)

	h.clock.Advance(time.Minute)
	for name, s := range map[string]*approvals.Service{"this process": h.Service, "another one": h.openFile(testPolicy)} {
		r, err := s.Request(t.Context(), erin, input("root", "db-1"))
		must(t, err)
		if r.Policy.Version != done.Version || r.State != api.Requested {
			t.Errorf("%s decides by version %d: %s", name, r.Policy.Version, r.State)
		}
	}
}

// An operator with the broker's password writes a proposal in another's name, to
// approve it himself.
func TestP5_AProposalInAnothersName(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	olga, otto := h.operators()
	var st approvals.ProposalStatement
	own := h.propose(otto, evilPolicy)
	var text, note []byte
	must(t, h.db.Pool.QueryRow(t.Context(), `SELECT statement, note FROM policy_proposals WHERE id = $1`, own.ID).Scan(&text, &note))
	must(t, json.Unmarshal(text, &st))
	insert := func(id string, statement []byte) {
		must(t, h.exec(`INSERT INTO policy_proposals (id, author_id, base_version, document, document_hash, statement, statement_hash, note, created_at, state)
			VALUES ($1, $2, 1, $3, encode(sha256($3::bytea), 'hex'), $4, encode(sha256($4::bytea), 'hex'), $5, $6, 'open')`,
			id, olga.ID, []byte(evilPolicy), statement, note, h.clock.Now()))
	}
	st.ProposalID = ids.New(ids.Proposal)
	st.Author = approvals.StatementApprover{ID: olga.ID, Issuer: olga.Issuer, Subject: olga.Subject}
	forged, err := st.Encode()
	must(t, err)
	insert(st.ProposalID, forged)
	refused(t, h.decideProposal(otto, st.ProposalID, api.Approve), approvals.ErrForgedProposal)

	copied := ids.New(ids.Proposal) // his own statement, under her name in the column
	insert(copied, text)
	refused(t, h.decideProposal(otto, copied, api.Approve), approvals.ErrForgedProposal)
	if h.Policy().Version != 1 {
		t.Error("it came into force")
	}

	// And the rows that are there stay what they are.
	admin := h.admin()
	for _, sql := range []string{
		`UPDATE policy_proposals SET author_id = (SELECT id FROM people WHERE subject = 'olga')`,
		`UPDATE policy_proposals SET document = 'x', document_hash = encode(sha256('x'), 'hex')`,
		`UPDATE policy_proposals SET base_version = base_version, statement = statement || ' '`,
		`DELETE FROM policy_proposals`, `TRUNCATE policy_proposals CASCADE`,
		`UPDATE policy_decisions SET approver_id = approver_id`, `DELETE FROM policy_decisions`,
		`UPDATE policy_activations SET version = version`, `DELETE FROM policy_activations`, `TRUNCATE policy_activations`,
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
	_, err = h.Withdraw(t.Context(), otto, own.ID)
	must(t, err)
	if h.exec(`UPDATE policy_proposals SET state = 'open' WHERE id = $1`, own.ID) == nil {
		t.Error("a withdrawn proposal can be opened again")
	}
	must(t, pgx.BeginFunc(t.Context(), admin, func(tx pgx.Tx) error {
		for _, table := range []string{"policy_proposals", "policy_decisions", "policy_activations"} {
			if _, err := tx.Exec(t.Context(), `SET LOCAL ROLE sallyport_audit; SELECT * FROM `+table); err != nil {
				return err
			}
		}
		return nil
	}))
}

// Check repeats every rule by itself: with statements that a broker did sign, and
// that should not have been signed.
func TestP5_VersionEvidence(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.activate(otherPolicy)
	genuine, key := h.evidenceOf(2), h.log.VerifierKey()
	if _, err := genuine.Check(key); err != nil {
		t.Fatal(err)
	}
	erin := h.person("erin", "engineers")
	vouched := func(kind, text string) []byte {
		note, err := h.log.Vouch(kind, text)
		must(t, err)
		return note
	}
	type parts struct {
		p *approvals.ProposalStatement
		d *approvals.PolicyStatement
		a *approvals.Activation
		e *approvals.VersionEvidence
	}
	for name, change := range map[string]func(parts){
		"author approves":            func(x parts) { x.d.Approver = x.p.Author },
		"the same by issuer":         func(x parts) { x.d.Approver.Issuer, x.d.Approver.Subject = x.p.Author.Issuer, x.p.Author.Subject },
		"the same by id":             func(x parts) { x.d.Approver.ID = x.p.Author.ID },
		"no person":                  func(x parts) { x.d.Approver.ID = "agent-1" },
		"approver is no operator":    func(x parts) { x.d.Groups = erin.Groups },
		"author is no operator":      func(x parts) { x.p.Groups = erin.Groups },
		"nobody's groups":            func(x parts) { x.d.Groups = nil },
		"denied":                     func(x parts) { x.d.Verdict = api.Deny },
		"another proposal":           func(x parts) { x.d.ProposalID = ids.New(ids.Proposal) },
		"another proposal's hash":    func(x parts) { x.d.ProposalHash = strings.Repeat("0", 64) },
		"another document":           func(x parts) { x.p.DocumentHash = strings.Repeat("0", 64) },
		"another document approved":  func(x parts) { x.d.DocumentHash = strings.Repeat("0", 64) },
		"another base":               func(x parts) { x.p.BaseHash = strings.Repeat("0", 64) },
		"approved under another":     func(x parts) { x.d.PolicyHash = strings.Repeat("0", 64) },
		"proposed after approval":    func(x parts) { x.p.Time = x.d.Time.Add(time.Second) },
		"in force before approval":   func(x parts) { x.a.Time = x.d.Time.Add(-time.Second) },
		"no sign-in":                 func(x parts) { x.d.SignIn = nil },
		"another assurance":          func(x parts) { x.d.Assurance = "none" },
		"another form":               func(x parts) { x.d.Format = approvals.StatementFormat },
		"another form of activation": func(x parts) { x.a.Format = "sallyport.policy-activation/0" },
		"another version":            func(x parts) { x.a.Version++ },
		"another version's row":      func(x parts) { x.e.Version++ },
		"another event":              func(x parts) { x.a.EventID = uuid.NewString() },
		"no proposal kept":           func(x parts) { x.e.Proposal = nil },
		"no approval kept":           func(x parts) { x.e.Decision = nil },
		"another document kept":      func(x parts) { x.e.Document = []byte(evilPolicy) },
		"another base kept":          func(x parts) { x.e.Base = []byte(evilPolicy) },
	} {
		e := genuine
		e.Proposal, e.Decision = new(*genuine.Proposal), new(*genuine.Decision)
		var x parts
		x.p, x.d, x.a, x.e = new(approvals.ProposalStatement), new(approvals.PolicyStatement), new(approvals.Activation), &e
		text, err := vouch.Open("policy-activation/1", e.Note, key)
		must(t, err)
		must(t, json.Unmarshal([]byte(text), x.a))
		must(t, json.Unmarshal(e.Proposal.Text, x.p))
		must(t, json.Unmarshal(e.Decision.Text, x.d))
		proposalHash := x.d.ProposalHash
		change(x)
		if e.Proposal != nil {
			e.Proposal.Text, err = x.p.Encode()
			must(t, err)
			e.Proposal.Note = vouched("policy-proposal/1", sha(string(e.Proposal.Text)))
			x.a.ProposalHash = sha(string(e.Proposal.Text))
			if x.d.ProposalHash == proposalHash { // not what is tried
				x.d.ProposalHash = x.a.ProposalHash
			}
		}
		if e.Decision != nil {
			e.Decision.Text, err = x.d.Encode()
			must(t, err)
			e.Decision.Note = vouched("policy-decision/1", sha(string(e.Decision.Text)))
			x.a.DecisionHash = sha(string(e.Decision.Text))
		}
		b, err := x.a.Encode()
		must(t, err)
		e.Note = vouched("policy-activation/1", string(b))
		if _, err := e.Check(key); err == nil {
			t.Errorf("%s: it may be in force", name)
		}
	}
	if _, err := genuine.Check(audittest.NewKey(t).Verifier); err == nil {
		t.Error("another log's key vouches for it")
	}
	other := genuine
	var d approvals.PolicyStatement
	must(t, json.Unmarshal(genuine.Decision.Text, &d))
	d.Comment = "another approval of the same proposal"
	text, err := d.Encode()
	must(t, err)
	other.Decision = &approvals.VouchedStatement{Text: text, Note: vouched("policy-decision/1", sha(string(text)))}
	if _, err := other.Check(key); err == nil {
		t.Error("an approval that the activation does not name counts")
	}
	swapped := genuine
	swapped.Proposal, swapped.Decision = genuine.Decision, genuine.Proposal
	if _, err := swapped.Check(key); err == nil {
		t.Error("a proposal counts as an approval")
	}
}

// sha is how texts are named: SHA-256, hex.
func sha(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}
