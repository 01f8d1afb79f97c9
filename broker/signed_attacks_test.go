package broker_test

import (
	"time"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/internal/oidctest"
	"sallyport/internal/refusal"
)

// saying is something that a person says and the provider has to sign: a review or
// a decision on a policy.
type saying struct {
	who    identity.Caller
	groups []string                       // that make it theirs to say
	draft  func(v string) approvals.Draft // of the verdict; about the same each time
	yes    string                         // the verdict that is wanted
	no     string                         // another one
	other  func() approvals.Draft         // of the same verdict about something else
	used   string                         // a token that has proved such a thing before
	stays  func(name string)              // fails unless nothing has come of it
	events string                         // of refusals
}

// attacked tries all tokens that sign something else, or are somebody else's.
// Whoever is refused says nothing, it is in the log that they tried, and the draft
// is gone with it.
func (s *signedScene) attacked(it saying) {
	s.t.Helper()
	with := func(change ...any) func(approvals.Draft) string {
		return func(d approvals.Draft) string { return s.signs(it.who, change...)(api.Request{}, d) }
	}
	stranger := s.comes("stranger", it.groups...)
	for name, c := range map[string]struct {
		token func(approvals.Draft) string
		want  *refusal.Error
	}{
		"replayed token":           {func(approvals.Draft) string { return it.used }, approvals.ErrNotProved},
		"token for another":        {func(approvals.Draft) string { return s.provider.Sign(s.claims(it.who, it.other())) }, approvals.ErrNotProved},
		"token for other verdict":  {func(approvals.Draft) string { return s.provider.Sign(s.claims(it.who, it.draft(it.no))) }, approvals.ErrNotProved},
		"token for the same again": {func(approvals.Draft) string { return s.provider.Sign(s.claims(it.who, it.draft(it.yes))) }, approvals.ErrNotProved},
		"token of a decision": {func(approvals.Draft) string {
			return s.provider.Sign(s.claims(s.keeper, s.draft(s.keeper, s.ask("keeper", "vault-1").ID, api.Approve)))
		}, approvals.ErrOtherPerson},
		"from another client":    {with("aud", "another-app"), approvals.ErrNotProved},
		"for another party":      {with("azp", "another-app"), approvals.ErrNotProved},
		"of another issuer":      {with("iss", "https://evil.test"), approvals.ErrNotProved},
		"another person's":       {func(d approvals.Draft) string { return s.provider.Sign(s.claims(stranger, d)) }, approvals.ErrOtherPerson},
		"nonce missing":          {with("nonce", nil), approvals.ErrNotProved},
		"issued yesterday":       {with("iat", s.clock.Now().Add(-24*time.Hour).Unix()), approvals.ErrNotProved},
		"no longer in the group": {with("groups", []string{"staff"}), approvals.ErrNotProved},
		"of another provider":    {func(d approvals.Draft) string { return oidctest.New(s.t, s.clock).Sign(s.claims(it.who, d)) }, approvals.ErrNotProved},
		"no token":               {func(approvals.Draft) string { return "" }, approvals.ErrNotProved},
	} {
		d := it.draft(it.yes)
		events := len(s.events(it.events))
		isRefused(s.t, name, s.complete(it.who, d, c.token(d)), c.want)
		it.stays(name)
		if got := len(s.events(it.events)); got != events+1 {
			s.t.Errorf("%s: %d events of refusals, want %d", name, got, events+1)
		}
		isRefused(s.t, name+", then the honest token", s.complete(it.who, d, s.provider.Sign(s.claims(it.who, d))), approvals.ErrDraftGone)
		it.stays(name)
	}

	// A draft is one person's, in one browser, for ten minutes.
	honest := func(d approvals.Draft) approvals.Signed {
		return approvals.Signed{IDToken: s.provider.Sign(s.claims(it.who, d)), Keys: s.published()}
	}
	d := it.draft(it.yes)
	isRefused(s.t, "in another browser", s.approvals.Complete(s.t.Context(), it.who, s.signIns[stranger.ID], d.ID, honest(d)), approvals.ErrDraftGone)
	isRefused(s.t, "by another person", s.approvals.Complete(s.t.Context(), stranger, s.signIns[it.who.ID], d.ID, honest(d)), approvals.ErrDraftGone)
	d = it.draft(it.yes)
	s.clock.Advance(10 * time.Minute)
	isRefused(s.t, "too late", s.complete(it.who, d, s.provider.Sign(s.claims(it.who, d))), approvals.ErrDraftGone)
	it.stays("drafts")
}

// browserOf is where the person says it.
func (s *signedScene) browserOf(c identity.Caller) approvals.Browser {
	return approvals.Browser{SignIn: s.signIns[c.ID], ClientID: oidctest.ClientID}
}
