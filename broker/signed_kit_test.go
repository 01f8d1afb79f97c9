package broker_test

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/evidence"
	"sallyport/approvals/identity"
	"sallyport/internal/oidctest"
	"sallyport/internal/refusal"
)

// signedScene is a scene whose people come from a provider that can sign, with a
// host that opens only for decisions that it signed.
type signedScene struct {
	*scene
	provider *oidctest.Provider
	vault    api.Host
	keeper   identity.Caller // an approver
	guard    identity.Caller // of security
	signIns  map[string]string
}

func newSignedScene(t testing.TB) *signedScene {
	t.Helper()
	s := &signedScene{scene: newScene(t), signIns: map[string]string{}}
	s.provider = oidctest.New(t, s.clock)
	s.keeper, s.guard = s.comes("kim", "approvers"), s.comes("gus", "security")
	s.vault = s.host("vault-1", "10.0.3.9", "vault", "keeper", "root", "safe")
	return s
}

// comes signs somebody in by the provider.
func (s *signedScene) comes(subject string, groups ...string) identity.Caller {
	s.t.Helper()
	claims := identity.Claims{Issuer: s.provider.URL, Subject: subject, Name: subject, Groups: groups, AuthTime: s.clock.Now()}
	p, err := s.people.SignIn(s.t.Context(), claims, "web", "192.0.2.7")
	must(s.t, err)
	in, err := s.people.Open(s.t.Context(), p, claims, 8*time.Hour)
	must(s.t, err)
	s.signIns[p.ID] = in.ID
	c := identity.Caller{Person: p, Source: "192.0.2.7", AuthTime: in.AuthTime, Via: "web"}
	_, c.Policy = s.approvals.Roles(groups)
	return c
}

func (s *signedScene) draft(c identity.Caller, request string, v api.Verdict) approvals.Draft {
	s.t.Helper()
	d, err := s.approvals.DraftDecision(s.t.Context(), c, approvals.Browser{SignIn: s.signIns[c.ID], ClientID: oidctest.ClientID}, request, api.DecisionInput{Verdict: v})
	must(s.t, err)
	return d
}

// claims are those of an honest ID token for the draft.
func (s *signedScene) claims(c identity.Caller, d approvals.Draft) map[string]any {
	now := s.clock.Now()
	return map[string]any{"iss": s.provider.URL, "sub": c.Subject, "aud": oidctest.ClientID, "nonce": d.Nonce,
		"iat": now.Unix(), "exp": now.Add(10 * time.Minute).Unix(), "groups": c.Groups}
}

// published are the keys that the provider publishes now.
func (s *signedScene) published() evidence.Keys {
	s.t.Helper()
	resp, err := http.Get(s.provider.URL + "/keys")
	must(s.t, err)
	defer resp.Body.Close()
	jwks, err := io.ReadAll(resp.Body)
	must(s.t, err)
	keys, err := evidence.ReadKeys(jwks)
	must(s.t, err)
	return evidence.Keys{Issuer: s.provider.URL, ClientID: oidctest.ClientID, GroupsClaim: "groups", Keys: keys, SeenAt: s.clock.Now()}
}

// complete comes back from the provider with a token.
func (s *signedScene) complete(c identity.Caller, d approvals.Draft, token string) error {
	s.t.Helper()
	return s.approvals.Complete(s.t.Context(), c, s.signIns[c.ID], d.ID, approvals.Signed{IDToken: token, Keys: s.published()})
}

// decide goes the whole way, which must succeed.
func (s *signedScene) decide(c identity.Caller, request string, v api.Verdict) string {
	s.t.Helper()
	d := s.draft(c, request, v)
	token := s.provider.Sign(s.claims(c, d))
	must(s.t, s.complete(c, d, token))
	return token
}

func (s *signedScene) state(request string) api.State {
	s.t.Helper()
	r, err := s.approvals.Get(s.t.Context(), s.engineer, request)
	must(s.t, err)
	return r.State
}

// stays fails unless the request waits still and has no decision.
func (s *signedScene) stays(request string) {
	s.t.Helper()
	r, err := s.approvals.Get(s.t.Context(), s.engineer, request)
	must(s.t, err)
	if r.State != api.Requested || len(r.Decisions) != 0 {
		s.t.Errorf("the request is %s with %d decisions", r.State, len(r.Decisions))
	}
}

func isRefused(t testing.TB, what string, err error, want *refusal.Error) {
	t.Helper()
	if r := refusal.As(err); r == nil || r.Code != want.Code || r.Hint == "" {
		t.Errorf("%s: %v, want %s with a hint", what, err, want.Code)
	}
}

func hexSum(text []byte) string { h := sha256.Sum256(text); return hex.EncodeToString(h[:]) }
