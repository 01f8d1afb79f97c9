package broker_test

import (
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/evidence"
	"sallyport/audit/event"
	"sallyport/audit/vouch"
	"sallyport/internal/audittest"
	"sallyport/internal/ids"
	"sallyport/internal/oidctest"
	"sallyport/internal/refusal"
)

// Somebody has the password of the broker's database role, and wants to be let in
// where the provider has to sign. The rows that they write are perfect, and so are
// the events that they hand to the log: nothing but the signatures is missing.
func TestP5_ForgedRowsNeedTheProvidersSignature(t *testing.T) {
	t.Parallel()
	s := newSignedScene(t)
	ctx, key := t.Context(), newKey(t)
	honest := s.ask("keeper", "vault-1")
	real := s.decide(s.keeper, honest.ID, api.Approve)
	var realKeys, realStatement []byte
	var realHash string
	must(t, s.pool.QueryRow(ctx, `SELECT k.note, k.hash, d.statement FROM decisions d JOIN provider_keys k ON k.hash = d.keys_hash WHERE d.request_id = $1`,
		honest.ID).Scan(&realKeys, &realHash, &realStatement))

	// The attacker's own provider and log key, of the same names.
	evil := oidctest.New(t, s.clock)
	evilLog := audittest.NewKey(t)
	evilKeys := s.published()
	evilKeys.Keys = (&signedScene{scene: s.scene, provider: evil}).published().Keys
	evilNote, err := evilKeys.Note(func(kind, text string) ([]byte, error) { return vouch.Sign(kind, text, evilLog.Signer) })
	must(t, err)
	patched := []byte(strings.Replace(string(realKeys), s.published().Keys[0].X, evilKeys.Keys[0].X, 1))

	type forgery struct {
		assurance string
		change    func(*approvals.Statement)
		token     func(approvals.Statement, []byte) string
		keys      []byte
	}
	claims := func(text []byte) map[string]any {
		c := s.claims(s.keeper, approvals.Draft{Nonce: evidence.Nonce(text)})
		return c
	}
	byEvil := func(_ approvals.Statement, text []byte) string { return evil.Sign(claims(text)) }
	for name, f := range map[string]forgery{
		"the state alone": {},
		"a session decision": {assurance: evidence.Session, change: func(st *approvals.Statement) {
			st.Assurance, st.ClientID, st.SignIn = evidence.Session, "", &approvals.StatementSignIn{AuthTime: s.clock.Now(), AMR: []string{}}
		}},
		"a session decision that says provider": {assurance: evidence.Session, change: func(st *approvals.Statement) {
			st.ClientID, st.SignIn = "", &approvals.StatementSignIn{AuthTime: s.clock.Now(), AMR: []string{}}
		}},
		"a token of the attacker's provider, under the real keys": {assurance: evidence.Provider, token: byEvil, keys: realKeys},
		"keys that another log vouches for":                       {assurance: evidence.Provider, token: byEvil, keys: evilNote},
		"keys put into the real note":                             {assurance: evidence.Provider, token: byEvil, keys: patched},
		"another decision's real token":                           {assurance: evidence.Provider, token: func(approvals.Statement, []byte) string { return real }, keys: realKeys},
		"alg none": {assurance: evidence.Provider, keys: realKeys, token: func(_ approvals.Statement, text []byte) string {
			raw, err := jwt.NewWithClaims(jwt.SigningMethodNone, jwt.MapClaims(claims(text))).SignedString(jwt.UnsafeAllowNoneSignatureType)
			must(t, err)
			return raw
		}},
		// The real provider signs for the attacker, who has an account there.
		"the attacker's own signature in an approver's name": {assurance: evidence.Provider, keys: realKeys, token: func(_ approvals.Statement, text []byte) string {
			c := claims(text)
			c["sub"] = "mallory"
			return s.provider.Sign(c)
		}},
		"the attacker as an approver, who is in no such group": {assurance: evidence.Provider, keys: realKeys, change: func(st *approvals.Statement) {
			st.Approver = approvals.StatementApprover{ID: s.guard.ID, Issuer: s.guard.Issuer, Subject: s.guard.Subject}
		}, token: func(_ approvals.Statement, text []byte) string {
			c := claims(text)
			c["sub"], c["groups"] = s.guard.Subject, s.guard.Groups
			return s.provider.Sign(c)
		}},
		"a real signature for another application": {assurance: evidence.Provider, keys: realKeys, change: func(st *approvals.Statement) { st.ClientID = "another-app" },
			token: func(_ approvals.Statement, text []byte) string {
				c := claims(text)
				c["aud"] = "another-app"
				return s.provider.Sign(c)
			}},
	} {
		r := s.ask("keeper", "vault-1")
		now := s.clock.Now()
		st := approvals.Statement{Format: approvals.StatementFormat, RequestID: r.ID, TermsHash: r.TermsHash, Verdict: api.Approve,
			Approver: approvals.StatementApprover{ID: s.keeper.ID, Issuer: s.keeper.Issuer, Subject: s.keeper.Subject},
			Groups:   []string{"approvers"}, PolicyHash: r.Policy.Hash, Time: now, Random: strings.Repeat("0", 32),
			Assurance: evidence.Provider, ClientID: oidctest.ClientID}
		if f.change != nil {
			f.change(&st)
		}
		text, err := st.Encode()
		must(t, err)
		events := []event.Event{}
		decisions := []string{}
		put := func(d event.Data) {
			events = append(events, event.New(now, s.keeper.Actor(), "192.0.2.7", event.Subject{RequestID: r.ID, PersonID: s.engineer.ID, HostID: r.HostID}, d).
				Under(event.PolicyRef{Version: r.Policy.Version, Hash: r.Policy.Hash}))
		}
		if f.assurance != "" {
			var token, keysHash *string
			if f.assurance == evidence.Provider {
				raw, hash := f.token(st, text), hexSum(f.keys)
				token, keysHash = &raw, &hash
				_, err := s.pool.Exec(ctx, `INSERT INTO provider_keys (hash, note, seen_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`, hash, f.keys, now)
				must(t, err)
				events = append(events, event.New(now, event.Actor{Kind: event.Broker}, "", event.Subject{},
					event.ProviderKeysSeen{Issuer: s.provider.URL, ClientID: oidctest.ClientID, Note: string(f.keys), NoteHash: hash}))
			}
			_, err := s.pool.Exec(ctx, `
				INSERT INTO decisions (id, request_id, position, requester_id, approver_id, statement, statement_hash, decided_at, assurance, id_token, keys_hash)
				VALUES ($1, $2, 1, $3, $4, $5, $6, $7, $8, $9, $10)`,
				ids.New(ids.Decision), r.ID, s.engineer.ID, st.Approver.ID, text, hexSum(text), now, f.assurance, token, keysHash)
			must(t, err)
			decisions = append(decisions, hexSum(text))
			put(event.RequestDecided{DecisionID: ids.New(ids.Decision), Verdict: "approve", TermsHash: r.TermsHash, Groups: st.Groups,
				Evidence: string(text), EvidenceHash: hexSum(text), Assurance: f.assurance})
		}
		_, err = s.pool.Exec(ctx, `UPDATE requests SET state = 'approved', starts_at = $2, ends_at = $3, waiting_groups = '{}' WHERE id = $1`,
			r.ID, now, now.Add(30*time.Minute))
		must(t, err)
		put(event.GrantStarted{TermsHash: r.TermsHash, Decisions: decisions, StartsAt: now, EndsAt: now.Add(30 * time.Minute)})
		must(t, pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error { return s.log.Stage(ctx, tx, events...) }))
		t.Log(name)
		s.refusedIssue(s.engineer, r.ID, input(t, key, r.ID), approvals.ErrEvidence)
	}

	s.issue(key, honest.ID)
	s.checkLog()
}

// A statement that somebody slips in as a draft is signed by nobody who does not
// ask the provider for it: its hash is another one than that which was asked for.
func TestForgedDraftIsNotWhatWasSigned(t *testing.T) {
	t.Parallel()
	s := newSignedScene(t)
	ctx := t.Context()
	wanted, other := s.ask("keeper", "vault-1"), s.ask("root", "vault-1")
	d := s.draft(s.keeper, wanted.ID, api.Deny)
	token := s.provider.Sign(s.claims(s.keeper, d)) // the approver denies one request
	var text []byte
	must(t, s.pool.QueryRow(ctx, `SELECT statement FROM decision_drafts WHERE id = $1`, d.ID).Scan(&text))
	st, err := approvals.ParseStatement(text)
	must(t, err)
	for name, change := range map[string]func(*approvals.Statement){
		"another verdict": func(st *approvals.Statement) { st.Verdict = api.Approve },
		"another request": func(st *approvals.Statement) { st.RequestID, st.TermsHash = other.ID, other.TermsHash },
		"other terms":     func(st *approvals.Statement) { st.TermsHash = other.TermsHash },
		"another comment": func(st *approvals.Statement) { st.Comment = "fine" },
	} {
		forged := st
		change(&forged)
		text, err := forged.Encode()
		must(t, err)
		id := ids.New(ids.Draft)
		_, err = s.pool.Exec(ctx, `INSERT INTO decision_drafts (id, sign_in, request_id, statement, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6)`,
			id, s.signIns[s.keeper.ID], forged.RequestID, text, s.clock.Now(), s.clock.Now().Add(evidence.Lifetime))
		must(t, err)
		err = s.complete(s.keeper, approvals.Draft{ID: id}, token)
		if r := refusal.As(err); r == nil || r.Code != approvals.ErrNotProved.Code && r.Code != approvals.ErrOtherTerms.Code {
			t.Errorf("%s: %v", name, err)
		}
		s.stays(forged.RequestID)
	}
}

// Check is pure: what it says depends on what it is given, and on nothing else.
func TestSignedGrantAlteredByOneByte(t *testing.T) {
	t.Parallel()
	s := newSignedScene(t)
	r := s.ask("keeper", "vault-1")
	s.decide(s.keeper, r.ID, api.Approve)
	load := func() approvals.Grant {
		g, _, err := s.approvals.Grant(t.Context(), s.engineer, r.ID)
		must(t, err)
		return g
	}
	now := s.clock.Now()
	must(t, load().Check(now))
	for name, change := range map[string]func(e *approvals.Evidence, i int){
		"statement": func(e *approvals.Evidence, i int) {
			e.Statement = flip(e.Statement, i)
			e.Hash = hexSum(e.Statement)
		},
		"keys": func(e *approvals.Evidence, i int) { e.Proof.Keys = flip(e.Proof.Keys, i) },
		"token": func(e *approvals.Evidence, i int) {
			raw := []byte(e.Proof.IDToken)
			signed := strings.LastIndexByte(e.Proof.IDToken, '.')
			e.Proof.IDToken = string(flip(raw, i%signed))
		},
	} {
		for i := range 100 {
			g := load()
			change(&g.Decisions[0], i*7)
			if err := g.Check(now); refusal.As(err) == nil || refusal.As(err).Code != "evidence-refused" {
				t.Fatalf("%s altered at %d: %v", name, i*7, err)
			}
		}
	}
	for name, change := range map[string]func(*approvals.Grant){
		"no anchor":      func(g *approvals.Grant) { g.Anchor = evidence.Anchor{} },
		"another anchor": func(g *approvals.Grant) { g.Anchor.LogKey = audittest.NewKey(t).Verifier },
		"no token":       func(g *approvals.Grant) { g.Decisions[0].Proof.IDToken = "" },
		"no keys":        func(g *approvals.Grant) { g.Decisions[0].Proof.Keys = nil },
		"taken later":    func(g *approvals.Grant) { g.Decisions[0].Taken = g.Decisions[0].Taken.Add(time.Minute) },
	} {
		g := load()
		change(&g)
		if err := g.Check(now); refusal.As(err) == nil || refusal.As(err).Code != "evidence-refused" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// flip returns a copy with one bit of the byte at i, modulo the length, turned.
func flip(b []byte, i int) []byte {
	out := append([]byte(nil), b...)
	out[i%len(out)] ^= 1
	return out
}
