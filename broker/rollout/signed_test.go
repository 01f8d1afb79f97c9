package rollout_test

import (
	"context"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/evidence"
	"sallyport/approvals/identity"
	"sallyport/audit/event"
	"sallyport/broker/rollout"
	"sallyport/internal/oidctest"
)

// signedScene is a scene whose leads come from a provider that can sign.
type signedScene struct {
	*scene
	provider *oidctest.Provider
	signIns  map[string]string // by the person's id
	lead     identity.Caller
	other    identity.Caller // a second lead
}

func newSignedScene(t *testing.T) *signedScene {
	s := &signedScene{scene: newScene(t), signIns: map[string]string{}}
	s.provider = oidctest.New(t, s.clock)
	s.lead, s.other = s.comes("kim"), s.comes("gus")
	return s
}

func (s *signedScene) comes(subject string) identity.Caller {
	s.t.Helper()
	claims := identity.Claims{Issuer: s.provider.URL, Subject: subject, Name: subject, Groups: []string{"leads"}, AuthTime: s.clock.Now()}
	p, err := s.people.SignIn(s.t.Context(), claims, "web", "192.0.2.7")
	must(s.t, err)
	in, err := s.people.Open(s.t.Context(), p, claims, 8*time.Hour)
	must(s.t, err)
	s.signIns[p.ID] = in.ID
	return identity.Caller{Person: p, Source: "192.0.2.7", AuthTime: in.AuthTime, Via: "web",
		Policy: event.PolicyRef{Version: s.approvals.Policy().Version, Hash: s.approvals.Policy().Hash}}
}

func (s *signedScene) draft(c identity.Caller, id string, in api.DeploymentDecisionInput) (approvals.Draft, error) {
	return s.DraftDecision(s.t.Context(), c, approvals.Browser{SignIn: s.signIns[c.ID], ClientID: oidctest.ClientID}, id, in)
}

// token is an honest one for the draft.
func (s *signedScene) token(c identity.Caller, d approvals.Draft, change ...func(map[string]any)) string {
	now := s.clock.Now()
	claims := map[string]any{"iss": s.provider.URL, "sub": c.Subject, "aud": oidctest.ClientID, "nonce": d.Nonce, "groups": c.Groups,
		"iat": now.Unix(), "exp": now.Add(10 * time.Minute).Unix(), "auth_time": now.Add(-time.Minute).Unix()}
	for _, f := range change {
		f(claims)
	}
	return s.provider.Sign(claims)
}

func (s *signedScene) complete(c identity.Caller, d approvals.Draft, token string) error {
	s.t.Helper()
	resp, err := http.Get(s.provider.URL + "/keys")
	must(s.t, err)
	defer resp.Body.Close()
	jwks, err := io.ReadAll(resp.Body)
	must(s.t, err)
	keys, err := evidence.ReadKeys(jwks)
	must(s.t, err)
	return s.Complete(s.t.Context(), c, s.signIns[c.ID], d.ID, approvals.Signed{IDToken: token,
		Keys: evidence.Keys{Issuer: s.provider.URL, ClientID: oidctest.ClientID, GroupsClaim: "groups", Keys: keys, SeenAt: s.clock.Now()}})
}

var (
	yes   = api.DeploymentDecisionInput{About: "start", Verdict: api.Approve, Comment: "go"}
	judge = api.DeploymentDecisionInput{About: "gate", Batch: 1, Gate: "people", Verdict: api.Approve}
)

// Where the policy wants it, the identity provider signs what people say to a deployment,
// and every certificate is issued on that evidence.
func TestDecisionsOnDeploymentsAreSigned(t *testing.T) {
	t.Parallel()
	s := newSignedScene(t)
	j := s.deploy("github-vault", "vault", one)
	_, err := s.Decide(t.Context(), s.lead, j.id, yes)
	refused(t, err, approvals.ErrProviderEvidence)
	d, err := s.draft(s.lead, j.id, yes)
	must(t, err)
	if d.MaxAge != 15*time.Minute || d.Nonce == "" {
		t.Errorf("the provider is asked for %+v", d)
	}
	must(t, s.complete(s.lead, d, s.token(s.lead, d)))
	refused(t, s.complete(s.lead, d, s.token(s.lead, d)), approvals.ErrDraftGone)
	j.deployBatch(1)
	s.until(j.id, 1, "gating")
	_, err = s.draft(s.lead, j.id, yes)
	if err == nil {
		t.Error("a start that was approved can be approved")
	}
	d, err = s.draft(s.other, j.id, judge)
	must(t, err)
	must(t, s.complete(s.other, d, s.token(s.other, d)))
	s.until(j.id, 0, "complete")
	said := j.state().Decisions
	if len(said) != 2 || said[0].Evidence.Assurance != evidence.Provider || said[0].Evidence.IDTokenHash == "" || said[0].Evidence.AuthTime == nil {
		t.Errorf("decisions: %+v", said)
	}
	decided := s.events("deployment.decided")
	if e := decided[0].Data.(event.DeploymentDecided); e.IDTokenHash != said[0].Evidence.IDTokenHash || e.KeysHash == "" || e.Assurance != evidence.Provider {
		t.Errorf("the log says %+v", e)
	}
	if len(s.events("provider.keys_seen")) != 1 {
		t.Error("the log does not have the provider's keys once")
	}
	if e := s.events("deployment.certificate_issued")[0].Data.(event.DeploymentCertificateIssued); len(e.Decisions) != 1 || e.Decisions[0] != decided[0].Data.(event.DeploymentDecided).EvidenceHash {
		t.Errorf("a certificate names %q", e.Decisions)
	}
	if n := len(s.events("deployment.refused")); n != 1 { // the start that had been approved
		t.Errorf("%d refusals are in the log", n)
	}
	s.check()
}

// What the provider did not sign, or signed about something or somebody else, or what has
// changed since it was drafted, decides nothing.
func TestAttackDecisionThatIsNotSigned(t *testing.T) {
	t.Parallel()
	s := newSignedScene(t)
	j := s.deploy("github-vault", "vault", one)
	elsewhere := s.deploy("github-db", "db", one)
	try := func(what string, change func(map[string]any)) {
		t.Helper()
		d, err := s.draft(s.lead, j.id, yes)
		must(t, err)
		if err := s.complete(s.lead, d, s.token(s.lead, d, change)); err == nil {
			t.Errorf("%s was taken", what)
		}
	}
	try("another's token", func(c map[string]any) { c["sub"] = "gus" })
	try("a token without the nonce", func(c map[string]any) { delete(c, "nonce") })
	try("a token for another client", func(c map[string]any) { c["aud"] = "wiki" })
	try("a token without the group", func(c map[string]any) { c["groups"] = []string{"engineers"} })
	try("a sign-in of this morning", func(c map[string]any) { c["auth_time"] = s.clock.Now().Add(-time.Hour).Unix() })
	try("a sign-in of nobody knows when", func(c map[string]any) { delete(c, "auth_time") })

	other, err := s.draft(s.other, j.id, yes)
	must(t, err)
	mine, err := s.draft(s.lead, j.id, yes)
	must(t, err)
	refused(t, s.complete(s.lead, other, s.token(s.lead, other)), approvals.ErrDraftGone) // of another browser
	if s.complete(s.lead, mine, s.token(s.lead, other)) == nil {
		t.Error("a token about another draft was taken")
	}
	_, err = s.draft(s.engineer, j.id, yes)
	refused(t, err, rollout.ErrUnknown)
	_, err = s.draft(s.lead, elsewhere.id, yes)
	refused(t, err, approvals.ErrNoProviderEvidence)

	old, err := s.draft(s.lead, j.id, yes)
	must(t, err)
	token := s.token(s.lead, old)
	s.clock.Advance(evidence.Lifetime + time.Second)
	refused(t, s.complete(s.lead, old, token), approvals.ErrDraftGone)

	// Approved by somebody else meanwhile: nobody asks any more.
	late, err := s.draft(s.lead, j.id, yes)
	must(t, err)
	d, err := s.draft(s.other, j.id, yes)
	must(t, err)
	must(t, s.complete(s.other, d, s.token(s.other, d)))
	if s.complete(s.lead, late, s.token(s.lead, late)) == nil {
		t.Error("a start was approved twice")
	}
	if n := s.count(`SELECT count(*) FROM deployment_decisions`); n != 1 {
		t.Errorf("%d decisions", n)
	}
	s.check()
}

// Somebody who can write the database, or even the broker's word, does not stand in for
// the provider's signature: no batch opens on it, and no certificate is issued.
func TestAttackForgedEvidence(t *testing.T) {
	t.Parallel()
	s := newSignedScene(t)
	j := s.deploy("github-vault", "vault", one)
	d, err := s.draft(s.lead, j.id, yes)
	must(t, err)
	must(t, s.complete(s.lead, d, s.token(s.lead, d)))
	must(t, second(j.batch(1)))
	admin, err := pgx.Connect(t.Context(), s.house.db.AdminURL)
	must(t, err)
	defer admin.Close(context.Background())
	host := j.state().Batches[0].Hosts[0].Name
	for _, sql := range []string{
		`UPDATE deployment_decisions SET id_token = NULL, keys_hash = NULL`,
		`UPDATE deployment_decisions SET id_token = 'e30.e30.e30'`,
		`UPDATE deployment_decisions SET decided_at = decided_at + interval '1 hour'`,
	} {
		_, err := admin.Exec(t.Context(), `BEGIN; SET session_replication_role = replica; ALTER TABLE deployment_decisions DISABLE TRIGGER rows_stay; `+
			`CREATE TEMPORARY TABLE kept AS SELECT * FROM deployment_decisions; `+sql+`; COMMIT`)
		must(t, err)
		refused(t, second(j.cert(1, host)), rollout.ErrEvidence)
		_, err = admin.Exec(t.Context(), `UPDATE deployment_decisions AS d SET id_token = k.id_token, keys_hash = k.keys_hash, decided_at = k.decided_at FROM kept AS k; DROP TABLE kept`)
		must(t, err)
	}
	must(t, second(j.cert(1, host)))
	s.check()
}
