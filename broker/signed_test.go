package broker_test

import (
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/evidence"
	"sallyport/approvals/identity"
	"sallyport/audit/event"
	"sallyport/internal/ids"
	"sallyport/internal/oidctest"
	"sallyport/internal/refusal"
)

// Two approvers, each signed for by the provider: a certificate, and evidence that
// anybody can check who has the log's key.
func TestSignedDecisionsOpen(t *testing.T) {
	t.Parallel()
	s := newSignedScene(t)
	r := s.ask("root", "vault-1")
	first := s.draft(s.keeper, r.ID, api.Approve)
	s.clock.Advance(time.Second)
	second := s.draft(s.guard, r.ID, api.Approve)
	s.clock.Advance(time.Minute)
	// They come back in another order than they went.
	gus := s.provider.Sign(s.claims(s.guard, second))
	must(t, s.complete(s.guard, second, gus))
	s.clock.Advance(time.Minute)
	kim := s.provider.Sign(s.claims(s.keeper, first))
	must(t, s.complete(s.keeper, first, kim))
	approved := s.clock.Now()

	r, err := s.approvals.Get(t.Context(), s.engineer, r.ID)
	must(t, err)
	if r.State != api.Approved || r.Assurance != "provider" || !r.StartsAt.Equal(approved) {
		t.Fatalf("the request is %s, %s, from %s (P3: from %s)", r.State, r.Assurance, r.StartsAt, approved)
	}
	for i, token := range []string{gus, kim} {
		e := r.Decisions[i].Evidence
		if e.Assurance != "provider" || e.IDTokenHash != hexSum([]byte(token)) || len(e.Statement) != 64 || len(e.KeysHash) != 64 {
			t.Errorf("decision %d shows %+v", i, e)
		}
	}
	s.issue(newKey(t), r.ID)

	// The log has it all, by hash; the keys once, with the note.
	keys := s.events("provider.keys_seen")
	decided := s.events("request.decided")
	if len(keys) != 1 || len(decided) != 2 {
		t.Fatalf("%d events of keys, %d of decisions", len(keys), len(decided))
	}
	seen := keys[0].Data.(event.ProviderKeysSeen)
	for i, token := range []string{gus, kim} {
		d := decided[i].Data.(event.RequestDecided)
		if d.Assurance != "provider" || d.IDTokenHash != hexSum([]byte(token)) || d.KeysHash != seen.NoteHash {
			t.Errorf("event %d: %+v", i, d)
		}
		// What a verifier does years later, with the log's key and without us.
		st, err := approvals.ParseStatement([]byte(d.Evidence))
		must(t, err)
		must(t, evidence.Verify(d.Assurance, evidence.Decision{Statement: []byte(d.Evidence), Issuer: st.Approver.Issuer,
			Subject: st.Approver.Subject, ClientID: st.ClientID, Groups: st.Groups, Made: st.Time, Taken: decided[i].Time},
			evidence.Proof{IDToken: token, Keys: []byte(seen.Note)}, evidence.Anchor{LogKey: s.log.VerifierKey()}))
	}
	s.checkLog()
}

func TestSignedDenialCloses(t *testing.T) {
	t.Parallel()
	s := newSignedScene(t)
	r := s.ask("root", "vault-1")
	s.decide(s.guard, r.ID, api.Deny)
	if got := s.state(r.ID); got != api.Denied {
		t.Errorf("the request is %s", got)
	}
}

// Attacks on the second trip. Whoever is refused decides nothing, and it is in
// the log that they tried.
func TestP5_TokensThatSignSomethingElse(t *testing.T) {
	t.Parallel()
	s := newSignedScene(t)
	honest := s.ask("keeper", "vault-1")
	used := s.decide(s.keeper, honest.ID, api.Approve)
	for name, c := range map[string]struct {
		token func(r api.Request, d approvals.Draft) string
		want  *refusal.Error
	}{
		"replayed token": {func(api.Request, approvals.Draft) string { return used }, approvals.ErrNotProved},
		"token for another request": {func(_ api.Request, _ approvals.Draft) string {
			other := s.ask("keeper", "vault-1")
			return s.provider.Sign(s.claims(s.keeper, s.draft(s.keeper, other.ID, api.Approve)))
		}, approvals.ErrNotProved},
		"token for another verdict": {func(r api.Request, _ approvals.Draft) string {
			return s.provider.Sign(s.claims(s.keeper, s.draft(s.keeper, r.ID, api.Deny)))
		}, approvals.ErrNotProved},
		"token for the same again": {func(r api.Request, _ approvals.Draft) string {
			return s.provider.Sign(s.claims(s.keeper, s.draft(s.keeper, r.ID, api.Approve)))
		}, approvals.ErrNotProved},
		"token from another client": {s.signs(s.keeper, "aud", "another-app"), approvals.ErrNotProved},
		"token of another party":    {s.signs(s.keeper, "azp", "another-app"), approvals.ErrNotProved},
		"token of another person":   {s.signs(s.guard), approvals.ErrOtherPerson},
		"token of the requester":    {s.signs(s.keeper, "sub", s.engineer.Subject), approvals.ErrOtherPerson},
		"token of another issuer":   {s.signs(s.keeper, "iss", "https://evil.test"), approvals.ErrNotProved},
		"nonce missing":             {s.signs(s.keeper, "nonce", nil), approvals.ErrNotProved},
		"nonce of a sign-in":        {s.signs(s.keeper, "nonce", rand.Text()), approvals.ErrNotProved},
		"no longer an approver":     {s.signs(s.keeper, "groups", []string{"staff"}), approvals.ErrNotProved},
		"groups missing":            {s.signs(s.keeper, "groups", nil), approvals.ErrNotProved},
		"issued yesterday":          {s.signs(s.keeper, "iat", s.clock.Now().Add(-24*time.Hour).Unix()), approvals.ErrNotProved},
		"alg none":                  {s.unsigned(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType), approvals.ErrNotProved},
		"HS256":                     {s.unsigned(jwt.SigningMethodHS256, []byte("secret")), approvals.ErrNotProved},
		"no token":                  {func(api.Request, approvals.Draft) string { return "" }, approvals.ErrNotProved},
		"garbage":                   {func(api.Request, approvals.Draft) string { return "a.b.c" }, approvals.ErrNotProved},
	} {
		r := s.ask("keeper", "vault-1")
		d := s.draft(s.keeper, r.ID, api.Approve)
		events := len(s.events("request.decision_refused"))
		isRefused(t, name, s.complete(s.keeper, d, c.token(r, d)), c.want)
		s.stays(r.ID)
		if got := s.events("request.decision_refused"); len(got) != events+1 || got[events].Subject.RequestID != r.ID {
			t.Errorf("%s: %d events of refusals, want %d", name, len(got), events+1)
		}
		// The draft is gone with it: there is no second guess.
		isRefused(t, name+", then the honest token", s.complete(s.keeper, d, s.provider.Sign(s.claims(s.keeper, d))), approvals.ErrDraftGone)
		s.stays(r.ID)
	}
	s.issue(newKey(t), honest.ID)
	s.checkLog()
}

// signs makes tokens of the person for the draft, with claims changed.
func (s *signedScene) signs(c identity.Caller, change ...any) func(api.Request, approvals.Draft) string {
	return func(_ api.Request, d approvals.Draft) string {
		claims := s.claims(c, d)
		for i := 0; i < len(change); i += 2 {
			if claims[change[i].(string)] = change[i+1]; change[i+1] == nil {
				delete(claims, change[i].(string))
			}
		}
		return s.provider.Sign(claims)
	}
}

// unsigned makes tokens that the provider did not sign.
func (s *signedScene) unsigned(method jwt.SigningMethod, key any) func(api.Request, approvals.Draft) string {
	return func(_ api.Request, d approvals.Draft) string {
		token := jwt.NewWithClaims(method, jwt.MapClaims(s.claims(s.keeper, d)))
		token.Header["kid"] = "key-1"
		raw, err := token.SignedString(key)
		must(s.t, err)
		return raw
	}
}

// A draft is one person's, in one browser, once, for ten minutes.
func TestDraftsAreUsedOnce(t *testing.T) {
	t.Parallel()
	s := newSignedScene(t)
	ctx := t.Context()
	r := s.ask("keeper", "vault-1")
	with := func(c identity.Caller, signIn string, d approvals.Draft) error {
		t.Helper()
		return s.approvals.Complete(ctx, c, signIn, d.ID, approvals.Signed{
			IDToken: s.provider.Sign(s.claims(s.keeper, d)), Keys: s.published()})
	}
	mine, theirs := s.signIns[s.keeper.ID], s.signIns[s.guard.ID]
	isRefused(t, "in another browser", with(s.keeper, theirs, s.draft(s.keeper, r.ID, api.Approve)), approvals.ErrDraftGone)
	isRefused(t, "by another person", with(s.guard, theirs, s.draft(s.keeper, r.ID, api.Approve)), approvals.ErrDraftGone)
	isRefused(t, "by another person in the same browser", with(s.guard, mine, s.draft(s.keeper, r.ID, api.Approve)), approvals.ErrDraftGone)
	late := s.draft(s.keeper, r.ID, api.Approve)
	s.clock.Advance(evidence.Lifetime)
	isRefused(t, "too late", with(s.keeper, mine, late), approvals.ErrDraftGone)
	isRefused(t, "that is none", with(s.keeper, mine, approvals.Draft{ID: ids.New(ids.Draft)}), approvals.ErrDraftGone)
	s.stays(r.ID)

	d := s.draft(s.keeper, r.ID, api.Approve)
	must(t, with(s.keeper, mine, d))
	isRefused(t, "a second time", with(s.keeper, mine, d), approvals.ErrDraftGone)
	// Nor can the broker's role make it fresh again, or another.
	for _, attack := range []string{
		`UPDATE decision_drafts SET used_at = NULL`, `UPDATE decision_drafts SET used_at = now()`,
		`UPDATE decision_drafts SET statement = ''`, `UPDATE decision_drafts SET sign_in = sign_in`,
		`UPDATE provider_keys SET note = note`, `DELETE FROM provider_keys`, `TRUNCATE provider_keys CASCADE`,
		`UPDATE decisions SET id_token = 'x'`, `UPDATE decisions SET assurance = 'session'`, `UPDATE decisions SET keys_hash = NULL`,
	} {
		if _, err := s.pool.Exec(ctx, attack); err == nil {
			t.Errorf("the broker's role may: %s", attack)
		}
	}
}

// What happens while the approver is at the provider counts.
func TestWhatHappensMeanwhile(t *testing.T) {
	t.Parallel()
	s := newSignedScene(t)
	ctx := t.Context()
	back := func(d approvals.Draft) error {
		t.Helper()
		return s.complete(s.keeper, d, s.provider.Sign(s.claims(s.keeper, d)))
	}
	// Approve after cancel.
	r := s.ask("keeper", "vault-1")
	d := s.draft(s.keeper, r.ID, api.Approve)
	_, err := s.approvals.Cancel(ctx, s.engineer, r.ID)
	must(t, err)
	isRefused(t, "cancelled", back(d), approvals.ErrClosed)
	s.refusedIssue(s.engineer, r.ID, input(t, newKey(t), r.ID), approvals.ErrNoGrant)

	r = s.ask("root", "vault-1")
	d = s.draft(s.keeper, r.ID, api.Approve)
	s.decide(s.guard, r.ID, api.Deny)
	isRefused(t, "denied", back(d), approvals.ErrClosed)

	r = s.ask("root", "vault-1")
	d = s.draft(s.keeper, r.ID, api.Deny)
	s.decide(s.keeper, r.ID, api.Approve)
	isRefused(t, "decided in another tab", back(d), approvals.ErrAlreadyDecided)

	other := s.comes("otto2", "approvers")
	r = s.ask("root", "vault-1")
	d = s.draft(s.keeper, r.ID, api.Approve)
	s.decide(other, r.ID, api.Approve)
	isRefused(t, "the place is taken", back(d), approvals.ErrNotNeeded)

	r = s.ask("keeper", "vault-1")
	s.clock.Advance(59 * time.Minute)
	d = s.draft(s.keeper, r.ID, api.Approve)
	s.clock.Advance(time.Minute)
	isRefused(t, "expired", back(d), approvals.ErrClosed)

	r = s.ask("keeper", "vault-1")
	d = s.draft(s.keeper, r.ID, api.Approve)
	_, err = s.people.SignIn(ctx, identity.Claims{Issuer: s.provider.URL, Subject: "kim", Groups: []string{"staff"},
		AuthTime: s.clock.Now()}, "web", "192.0.2.8") // in another browser
	must(t, err)
	isRefused(t, "out of the group", back(d), approvals.ErrUnknownRequest)
}

// Before the trip, and without it.
func TestSignedRulesTakeNothingElse(t *testing.T) {
	t.Parallel()
	s := newSignedScene(t)
	ctx := t.Context()
	r, plain := s.ask("keeper", "vault-1"), s.ask("dba", "db-1")
	// A session decision under provider terms.
	_, err := s.approvals.Decide(ctx, s.keeper, r.ID, api.DecisionInput{Verdict: api.Approve})
	isRefused(t, "the broker's word", err, approvals.ErrProviderEvidence)
	if n := len(s.events("request.decision_refused")); n != 0 {
		t.Errorf("%d events say that naming the way was a refusal", n)
	}
	// Who may not decide is not sent anywhere.
	draft := func(c identity.Caller, id string, in api.DecisionInput) error {
		_, err := s.approvals.DraftDecision(ctx, c, approvals.Browser{SignIn: s.signIns[s.keeper.ID], ClientID: oidctest.ClientID}, id, in)
		return err
	}
	isRefused(t, "one's own", draft(s.engineer, r.ID, api.DecisionInput{Verdict: api.Approve}), approvals.ErrOwnRequest)
	_, err = s.approvals.Decide(ctx, s.engineer, r.ID, api.DecisionInput{Verdict: api.Approve})
	isRefused(t, "one's own without a trip", err, approvals.ErrOwnRequest)
	isRefused(t, "somebody else", draft(s.guard, r.ID, api.DecisionInput{Verdict: api.Approve}), approvals.ErrUnknownRequest)
	isRefused(t, "no verdict", draft(s.keeper, r.ID, api.DecisionInput{Verdict: "maybe"}), approvals.ErrBadVerdict)
	isRefused(t, "other terms", draft(s.keeper, r.ID, api.DecisionInput{Verdict: api.Approve, TermsHash: plain.TermsHash}), approvals.ErrOtherTerms)
	isRefused(t, "no request", draft(s.keeper, ids.New(ids.Request), api.DecisionInput{Verdict: api.Approve}), approvals.ErrUnknownRequest)
	isRefused(t, "a rule that needs no signature", draft(s.keeper, plain.ID, api.DecisionInput{Verdict: api.Approve}), approvals.ErrNoProviderEvidence)
	s.stays(r.ID)
}

// max_age and acr_values fail closed: a provider that does not say, proves nothing.
func TestHowApproversWereAuthenticated(t *testing.T) {
	t.Parallel()
	s := newSignedScene(t)
	now := s.clock.Now()
	for name, c := range map[string]struct {
		change []any
		detail string // of the refusal; empty: it is accepted
	}{
		"recent and strong": {[]any{"auth_time", now.Add(-14 * time.Minute).Unix(), "acr", "phr"}, ""},
		"stronger":          {[]any{"auth_time", now.Unix(), "acr", "phrh", "amr", []string{"hwk", "user"}}, ""},
		"too long ago":      {[]any{"auth_time", now.Add(-17 * time.Minute).Unix(), "acr", "phr"}, "too long ago"},
		"no auth_time":      {[]any{"acr", "phr"}, "does not say when"},
		"too weak":          {[]any{"auth_time", now.Unix(), "acr", "pwd"}, "another way of signing in"},
		"no acr":            {[]any{"auth_time", now.Unix()}, "another way of signing in"},
	} {
		r := s.ask("safe", "vault-1")
		d := s.draft(s.keeper, r.ID, api.Approve)
		if d.MaxAge != 15*time.Minute || strings.Join(d.ACRValues, " ") != "phr phrh" {
			t.Errorf("the provider is to be asked for %+v", d)
		}
		err := s.complete(s.keeper, d, s.signs(s.keeper, c.change...)(r, d))
		if c.detail == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			s.issue(newKey(t), r.ID)
			continue
		}
		isRefused(t, name, err, approvals.ErrNotProved)
		if detail := refusal.As(err).Detail; !strings.Contains(detail, c.detail) {
			t.Errorf("%s: %s", name, detail)
		}
		s.stays(r.ID)
	}
}

// The provider has other keys by now: what it signed with the old ones is proved
// by those that were kept, and they prove nothing new.
func TestKeysRotatedSince(t *testing.T) {
	t.Parallel()
	s := newSignedScene(t)
	key := newKey(t)
	r := s.ask("keeper", "vault-1")
	s.decide(s.keeper, r.ID, api.Approve)
	s.issue(key, r.ID)

	next := s.ask("keeper", "vault-1")
	d := s.draft(s.keeper, next.ID, api.Approve)
	old := s.provider.Sign(s.claims(s.keeper, d))
	s.provider.Rotate(t)
	isRefused(t, "a retired key", s.complete(s.keeper, d, old), approvals.ErrNotProved)
	s.decide(s.keeper, next.ID, api.Approve)
	if n := len(s.events("provider.keys_seen")); n != 2 {
		t.Errorf("keys were seen %d times, want 2", n)
	}
	for range 2 {
		s.clock.Advance(4 * time.Minute)
		s.issue(key, r.ID)
		s.issue(key, next.ID)
	}
	s.provider.Down(true)
	s.clock.Advance(4 * time.Minute)
	s.issue(key, r.ID) // P9: running grants go on
	s.provider.Down(false)

	// The same keys an hour later are seen anew.
	s.clock.Advance(evidence.KeysLifetime)
	last := s.ask("keeper", "vault-1")
	s.decide(s.keeper, last.ID, api.Approve)
	if n := len(s.events("provider.keys_seen")); n != 3 {
		t.Errorf("keys were seen %d times, want 3", n)
	}
	s.checkLog()
}
