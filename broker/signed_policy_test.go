package broker_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/evidence"
	"sallyport/approvals/identity"
	"sallyport/audit/event"
	"sallyport/internal/ids"
	"sallyport/internal/oidctest"
)

// signedDocument is testPolicy, whose successor the provider signs.
var signedDocument = strings.Replace(testPolicy, "assurance: session\n", "assurance: provider\n", 1)

// governed is a scene under signedDocument, with two operators whom the provider
// knows. It is version 2: the first came from a file.
type governed struct {
	*signedScene
	olga, oscar identity.Caller
}

func newGoverned(t testing.TB) *governed {
	t.Helper()
	g := &governed{signedScene: newSignedScene(t)}
	g.olga, g.oscar = g.comes("olga", "operators"), g.comes("oscar", "operators")
	g.olga.Roles, g.oscar.Roles = []api.Role{api.Operator}, []api.Role{api.Operator}
	p := g.propose(g.olga, signedDocument)
	_, err := g.approvals.DecideProposal(t.Context(), g.oscar, p.ID, api.PolicyDecisionInput{Verdict: api.Approve})
	must(t, err)
	if v := g.approvals.Policy(); v.Version != 2 || v.Assurance != "provider" {
		t.Fatalf("version %d with assurance %s is in force", v.Version, v.Assurance)
	}
	return g
}

func (g *governed) propose(c identity.Caller, document string) api.PolicyProposal {
	g.t.Helper()
	p, err := g.approvals.Propose(g.t.Context(), c, api.PolicyInput{Document: document, Comment: "because"})
	must(g.t, err)
	return p
}

func (g *governed) tryDraft(c identity.Caller, p api.PolicyProposal, v string) (approvals.Draft, error) {
	return g.approvals.DraftPolicyDecision(g.t.Context(), c, g.browserOf(c), p.ID,
		api.PolicyDecisionInput{Verdict: api.Verdict(v), Comment: "read", Statement: p.Statement})
}

func (g *governed) draftPolicy(c identity.Caller, p api.PolicyProposal, v string) approvals.Draft {
	g.t.Helper()
	d, err := g.tryDraft(c, p, v)
	must(g.t, err)
	return d
}

// decidePolicy goes the whole way, which must succeed.
func (g *governed) decidePolicy(c identity.Caller, p api.PolicyProposal, v string) (token string) {
	g.t.Helper()
	d := g.draftPolicy(c, p, v)
	token = g.provider.Sign(g.claims(c, d))
	must(g.t, g.complete(c, d, token))
	return token
}

func TestTheProviderSignsPolicies(t *testing.T) {
	t.Parallel()
	g := newGoverned(t)
	ctx := t.Context()
	p := g.propose(g.olga, signedDocument+"# three\n")
	if p.Assurance != evidence.Provider {
		t.Errorf("a decision's assurance is %q", p.Assurance)
	}
	refusals := len(g.events("policy.refused"))
	_, err := g.approvals.DecideProposal(ctx, g.oscar, p.ID, api.PolicyDecisionInput{Verdict: api.Approve})
	isRefused(t, "the broker's word", err, approvals.ErrProviderEvidence)
	if n := len(g.events("policy.refused")); n != refusals {
		t.Error("an event says that naming the way was a refusal")
	}
	token := g.decidePolicy(g.oscar, p, "approve")
	if v := g.approvals.Policy(); v.Version != 3 {
		t.Fatalf("version %d is in force", v.Version)
	}
	done, err := g.approvals.Proposal(ctx, g.olga, p.ID)
	must(t, err)
	e := done.Decision.Evidence
	seen := g.events("provider.keys_seen")[0].Data.(event.ProviderKeysSeen)
	if done.State != api.ProposalApproved || e.Assurance != evidence.Provider || e.IDTokenHash != hexSum([]byte(token)) || e.KeysHash != seen.NoteHash {
		t.Errorf("the decision is %+v", done.Decision)
	}
	decided, activated := g.events("policy.decided"), g.events("policy.activated")
	d, a := decided[1].Data.(event.PolicyDecided), activated[2].Data.(event.PolicyActivated)
	if d.EvidenceHash != e.Statement || d.IDTokenHash != e.IDTokenHash || d.KeysHash != e.KeysHash || a.EvidenceHash != d.EvidenceHash {
		t.Errorf("the events are %+v and %+v", d, a)
	}
	// The first version says of itself that it came from a file: nobody approved it.
	if first := activated[0].Data.(event.PolicyActivated); first.ProposalID != "" || first.EvidenceHash != "" || activated[0].Policy.Version != 1 {
		t.Errorf("the first version's event is %+v", first)
	}
	// A denial is signed, too.
	p = g.propose(g.olga, signedDocument+"# four\n")
	g.decidePolicy(g.oscar, p, "deny")
	if done, err = g.approvals.Proposal(ctx, g.olga, p.ID); err != nil || done.State != api.ProposalDenied || done.Decision.Evidence.IDTokenHash == "" {
		t.Errorf("denied, it is %+v: %v", done.Decision, err)
	}
	// Certificates go on under it, and another process finds the same version.
	if v := g.process.house.open().approvals.Policy(); v.Version != 3 {
		t.Errorf("another process decides by version %d", v.Version)
	}
	g.issue(newKey(t), g.ask("web", "web-1").ID)
	g.checkLog()
}

func TestP5_TokensThatSignAnotherPolicy(t *testing.T) {
	t.Parallel()
	g := newGoverned(t)
	used := g.decidePolicy(g.oscar, g.propose(g.olga, signedDocument+"# before\n"), "approve")
	p, another := g.propose(g.olga, signedDocument+"# wanted\n"), g.propose(g.olga, signedDocument+"# another\n")
	g.attacked(saying{
		who: g.oscar, groups: []string{"operators"}, yes: "approve", no: "deny", used: used, events: "policy.refused",
		draft: func(v string) approvals.Draft { return g.draftPolicy(g.oscar, p, v) },
		other: func() approvals.Draft { return g.draftPolicy(g.oscar, another, "approve") },
		stays: func(name string) {
			t.Helper()
			now, err := g.approvals.Proposal(t.Context(), g.olga, p.ID)
			must(t, err)
			if now.State != api.ProposalOpen || g.approvals.Policy().Version != 3 {
				t.Errorf("%s: the proposal is %s, version %d is in force", name, now.State, g.approvals.Policy().Version)
			}
		},
	})
	g.decidePolicy(g.oscar, p, "approve")
	g.checkLog()
}

// The author approves nothing of theirs, also not by a draft that they wrote into
// the database and that the provider really signed for them; and what happens while
// somebody is at the provider counts.
func TestP5_TheAuthorDoesNotSignTheirPolicy(t *testing.T) {
	t.Parallel()
	g := newGoverned(t)
	ctx := t.Context()
	p := g.propose(g.olga, signedDocument+"# three\n")
	_, err := g.tryDraft(g.olga, p, "approve")
	isRefused(t, "the author", err, approvals.ErrOwnProposal)
	_, err = g.tryDraft(g.comes("erin2", "engineers"), p, "approve")
	isRefused(t, "no operator", err, approvals.ErrPolicyOperators)
	other := p
	other.Statement = strings.Repeat("0", 64)
	_, err = g.tryDraft(g.oscar, other, "approve")
	isRefused(t, "another than was seen", err, approvals.ErrOtherProposal)

	st := approvals.PolicyStatement{Format: approvals.PolicyDecisionFormat, ProposalID: p.ID, ProposalHash: p.Statement, DocumentHash: p.Hash,
		PolicyHash: p.Base.Hash, Verdict: api.Approve, Approver: approvals.StatementApprover{ID: g.olga.ID, Issuer: g.olga.Issuer, Subject: g.olga.Subject},
		Groups: []string{"operators"}, Time: g.clock.Now(), Random: strings.Repeat("0", 32), Assurance: evidence.Provider, ClientID: oidctest.ClientID}
	text, err := st.Encode()
	must(t, err)
	d := approvals.Draft{ID: ids.New(ids.Draft), Nonce: evidence.Nonce(text)}
	_, err = g.pool.Exec(ctx, `INSERT INTO decision_drafts (id, sign_in, proposal_id, statement, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6)`,
		d.ID, g.signIns[g.olga.ID], p.ID, text, g.clock.Now(), g.clock.Now().Add(evidence.Lifetime))
	must(t, err)
	isRefused(t, "a draft of the author's", g.complete(g.olga, d, g.provider.Sign(g.claims(g.olga, d))), approvals.ErrOwnProposal)

	back := func(d approvals.Draft) error { return g.complete(g.oscar, d, g.provider.Sign(g.claims(g.oscar, d))) }
	d = g.draftPolicy(g.oscar, p, "approve")
	_, err = g.approvals.Withdraw(ctx, g.olga, p.ID)
	must(t, err)
	isRefused(t, "withdrawn", back(d), approvals.ErrProposalClosed)

	p, faster := g.propose(g.olga, signedDocument+"# four\n"), g.propose(g.olga, signedDocument+"# five\n")
	approve, deny := g.draftPolicy(g.oscar, p, "approve"), g.draftPolicy(g.oscar, p, "deny")
	g.decidePolicy(g.oscar, faster, "approve")
	isRefused(t, "stale", back(approve), approvals.ErrStaleProposal)
	isRefused(t, "denied under another version", back(deny), approvals.ErrDraftGone)
	p = g.propose(g.olga, signedDocument+"# six\n")
	d = g.draftPolicy(g.oscar, p, "approve")
	here := g.signIns[g.oscar.ID]
	g.comes("oscar", "staff") // in another browser
	g.signIns[g.oscar.ID] = here
	isRefused(t, "no operator any more", back(d), approvals.ErrPolicyOperators)
	if v := g.approvals.Policy().Version; v != 3 {
		t.Errorf("version %d is in force", v)
	}
}

// Versions that somebody wrote into the database. To each the broker's own key
// vouches for proposal, approval and activation, and the log has the event: what is
// missing is the provider's signature, and nothing but that. They come into force
// nowhere, and requests that name them yield no certificate.
func TestP5_VersionsByHandYieldNoCertificate(t *testing.T) {
	t.Parallel()
	g := newGoverned(t)
	ctx := t.Context()
	evilDocument := strings.Replace(signedDocument, "rules:\n", "rules:\n  - {name: all, who: [engineers], where: class=vault, logins: [keeper], duration: {max: 2h}, automatic: true}\n", 1)
	used := g.decidePolicy(g.oscar, g.propose(g.olga, signedDocument+"# three\n"), "approve")
	real := g.approvals.Policy()
	var keysHash string
	must(t, g.pool.QueryRow(ctx, `SELECT keys_hash FROM policy_decisions WHERE keys_hash <> ''`).Scan(&keysHash))
	claims := func(text []byte) map[string]any {
		return g.claims(g.oscar, approvals.Draft{Nonce: evidence.Nonce(text)})
	}
	evil := oidctest.New(t, g.clock)
	vouch := func(kind, text string) []byte {
		note, err := g.log.Vouch(kind, text)
		must(t, err)
		return note
	}
	exec := func(sql string, args ...any) {
		t.Helper()
		_, err := g.pool.Exec(ctx, sql, args...)
		must(t, err)
	}
	n := real.Version
	type forgery struct {
		change func(*approvals.PolicyStatement)
		token  func(text []byte) string
	}
	// forge writes all of it, and returns a request under the version.
	forge := func(name string, f forgery) string {
		t.Helper()
		now := g.clock.Now()
		p := g.propose(g.olga, evilDocument)
		n++
		exec(`INSERT INTO policy_versions (version, hash, document, activated_at) VALUES ($1, $2, $3, $4)`, n, p.Hash, evilDocument, now)
		activated := event.PolicyActivated{Rules: len(real.Rules) + 1, Bytes: len(evilDocument), ProposalID: p.ID, ProposalHash: p.Statement}
		st := approvals.PolicyStatement{Format: approvals.PolicyDecisionFormat, ProposalID: p.ID, ProposalHash: p.Statement, DocumentHash: p.Hash,
			PolicyHash: real.Hash, Verdict: api.Approve, Approver: approvals.StatementApprover{ID: g.oscar.ID, Issuer: g.oscar.Issuer, Subject: g.oscar.Subject},
			Groups: []string{"operators"}, Time: now, Random: strings.Repeat("0", 32), Assurance: evidence.Provider, ClientID: oidctest.ClientID}
		if f.change != nil || f.token != nil {
			assurance, token, keys := evidence.Session, (*string)(nil), (*string)(nil)
			if f.change != nil {
				f.change(&st)
			}
			text, err := st.Encode()
			must(t, err)
			if f.token != nil {
				raw := f.token(text)
				assurance, token, keys = evidence.Provider, &raw, &keysHash
			}
			exec(`INSERT INTO policy_decisions (id, proposal_id, author_id, approver_id, statement, statement_hash, note, decided_at, assurance, id_token, keys_hash)
				VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`, ids.New(ids.Decision), p.ID, g.olga.ID, g.oscar.ID, text, hexSum(text),
				vouch("policy-decision/1", hexSum(text)), now, assurance, token, keys)
			activated.EvidenceHash = hexSum(text)
			e := event.New(now, event.Actor{Kind: event.Broker}, "", event.Subject{}, activated).Under(event.PolicyRef{Version: n, Hash: p.Hash})
			must(t, pgx.BeginFunc(ctx, g.pool, func(tx pgx.Tx) error { return g.log.Stage(ctx, tx, e) }))
			a, err := approvals.Activation{Format: approvals.ActivationFormat, Version: n, Hash: p.Hash, ProposalHash: p.Statement,
				DecisionHash: hexSum(text), EventID: e.ID.String(), Time: now}.Encode()
			must(t, err)
			exec(`INSERT INTO policy_activations (version, proposal_id, note, event_id) VALUES ($1, $2, $3, $4)`,
				n, p.ID, vouch("policy-activation/1", string(a)), uuid.UUID(e.ID))
			g.events("policy.activated")
		}
		return g.underVersion(t, n, p.Hash, name)
	}
	for name, f := range map[string]forgery{
		"a row and nothing else": {},
		"the broker's word": {change: func(st *approvals.PolicyStatement) {
			st.Assurance, st.ClientID, st.SignIn = evidence.Session, "", &approvals.StatementSignIn{AuthTime: g.clock.Now(), AMR: []string{}}
		}},
		"the broker's word that says provider": {change: func(st *approvals.PolicyStatement) {
			st.ClientID, st.SignIn = "", &approvals.StatementSignIn{AuthTime: g.clock.Now(), AMR: []string{}}
		}},
		"no proof":                   {change: func(*approvals.PolicyStatement) {}},
		"another approval's token":   {token: func([]byte) string { return used }},
		"an attacker's own provider": {token: func(text []byte) string { return evil.Sign(claims(text)) }},
		"another person's signature": {token: func(text []byte) string { c := claims(text); c["sub"] = "olga"; return g.provider.Sign(c) }},
		"of who is no operator": {token: func(text []byte) string {
			c := claims(text)
			c["groups"] = []string{"staff"}
			return g.provider.Sign(c)
		}},
		"a signature for another party": {token: func(text []byte) string { c := claims(text); c["aud"] = "another-app"; return g.provider.Sign(c) }},
	} {
		r := forge(name, f)
		g.refusedIssue(g.engineer, r, input(t, newKey(t), r), approvals.ErrEvidence)
		g.clock.Advance(10 * time.Second)
		if asked := g.ask("keeper", "vault-1"); asked.State != api.Requested || asked.Policy.Version != real.Version {
			t.Errorf("%s: version %d decides, the request is %s", name, asked.Policy.Version, asked.State)
		}
		if v := g.process.house.open().approvals.Policy(); v.Version != real.Version {
			t.Errorf("%s: after a restart version %d is in force", name, v.Version)
		}
	}
	// With the signature, it is all there.
	r := forge("signed", forgery{token: func(text []byte) string { return g.provider.Sign(claims(text)) }})
	g.issue(newKey(t), r)
	g.clock.Advance(10 * time.Second)
	if asked := g.ask("keeper", "vault-1"); asked.Policy.Version != n || asked.State != api.Approved {
		t.Errorf("the forgeries were not good enough for the test: version %d decides", asked.Policy.Version)
	}
	g.checkLog()
}

// underVersion writes a request whose terms say that the rule "all" of the version
// approved it by itself, and hands the log what belongs to it.
func (g *governed) underVersion(t testing.TB, n int64, hash, name string) string {
	t.Helper()
	ctx, now := t.Context(), g.clock.Now()
	terms := approvals.Terms{Format: approvals.TermsFormat, RequestID: ids.New(ids.Request),
		Person: approvals.TermsPerson{ID: g.engineer.ID, Issuer: g.engineer.Issuer, Subject: g.engineer.Subject},
		Host:   approvals.TermsHost{ID: g.vault.ID, Name: g.vault.Name}, Login: "keeper", Duration: "1h", Reason: name,
		CreatedAt: now, ApproveBy: now.Add(time.Hour), PolicyHash: hash, PolicyVersion: n,
		Rule: approvals.TermsRule{Name: "all", Automatic: true, Stages: []approvals.TermsStage{}, CertificateLifetime: "5m", SourceAddress: []string{}, Assurance: evidence.Provider}}
	text, err := terms.Encode()
	must(t, err)
	_, err = g.pool.Exec(ctx, `INSERT INTO requests (id, person_id, host_id, policy_version, terms, terms_hash, approver_groups, created_at, approve_by,
			state, waiting_groups, starts_at, ends_at, key)
		VALUES ($1, $2, $3, $4, $5, $6, '{}', $7, $8, 'approved', '{}', $7, $8, '')`,
		terms.RequestID, g.engineer.ID, g.vault.ID, n, text, hexSum(text), now, now.Add(time.Hour))
	must(t, err)
	e := event.New(now, event.Actor{Kind: event.Broker}, "", event.Subject{RequestID: terms.RequestID, PersonID: g.engineer.ID, HostID: g.vault.ID},
		event.GrantStarted{TermsHash: hexSum(text), Automatic: true, Decisions: []string{}, StartsAt: now, EndsAt: now.Add(time.Hour)}).
		Under(event.PolicyRef{Version: n, Hash: hash})
	must(t, pgx.BeginFunc(ctx, g.pool, func(tx pgx.Tx) error { return g.log.Stage(ctx, tx, e) }))
	g.events("grant.started")
	return terms.RequestID
}
