package broker_test

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/approvals/evidence"
	"sallyport/approvals/identity"
	"sallyport/audit/event"
	"sallyport/internal/ids"
	"sallyport/internal/oidctest"
)

// opens opens the vault before anybody has approved.
func (s *signedScene) opens(c identity.Caller, login string) (api.Request, error) {
	return s.approvals.Request(s.t.Context(), c, api.RequestInput{Host: "vault-1", Login: login, Reason: "the primary is down", Emergency: true})
}

func (s *signedScene) opened(name, login string) (identity.Caller, api.Request) {
	s.t.Helper()
	c := s.comes(name, "engineers")
	r, err := s.opens(c, login)
	must(s.t, err)
	return c, r
}

func (s *signedScene) draftReview(c identity.Caller, request, verdict string) approvals.Draft {
	s.t.Helper()
	d, err := s.approvals.DraftReview(s.t.Context(), c, s.browserOf(c), request, api.ReviewInput{Verdict: verdict, Comment: "I saw the logs"})
	must(s.t, err)
	return d
}

// reviews goes the whole way, which must succeed.
func (s *signedScene) reviews(c identity.Caller, request, verdict string) (token string) {
	s.t.Helper()
	d := s.draftReview(c, request, verdict)
	token = s.provider.Sign(s.claims(c, d))
	must(s.t, s.complete(c, d, token))
	return token
}

// unreviewed fails unless the emergency waits for its review, and its person gets
// no second one until then, and is told why.
func (s *signedScene) unreviewed(name string, c identity.Caller, says string) {
	s.t.Helper()
	_, err := s.opens(c, "keeper")
	isRefused(s.t, name, err, approvals.ErrUnreviewed)
	why, err := s.approvals.Explain(s.t.Context(), c, api.ExplainInput{Host: "vault-1", Login: "keeper", Emergency: true})
	must(s.t, err)
	if why.Allowed || why.Code != approvals.ErrUnreviewed.Code || !strings.Contains(why.Detail, says) {
		s.t.Errorf("%s: the explanation is %s: %s", name, why.Code, why.Detail)
	}
}

func TestTheProviderSignsReviews(t *testing.T) {
	t.Parallel()
	s := newSignedScene(t)
	ctx := t.Context()
	erin, r := s.opened("erin", "keeper")
	if r.Emergency.Assurance != evidence.Provider {
		t.Fatalf("a review's assurance is %q", r.Emergency.Assurance)
	}
	// The broker's word is not enough, which is no refusal but names the way.
	_, err := s.approvals.Review(ctx, s.guard, r.ID, api.ReviewInput{Verdict: api.Justified, Comment: "seen"})
	isRefused(t, "the broker's word", err, approvals.ErrProviderEvidence)
	if n := len(s.events("review.refused")); n != 0 {
		t.Errorf("%d events say that naming the way was a refusal", n)
	}
	s.unreviewed("before", erin, "has not been reviewed")
	token := s.reviews(s.guard, r.ID, api.Justified)
	got, err := s.approvals.Get(ctx, s.guard, r.ID)
	must(t, err)
	v := got.Emergency.Review
	if v == nil || v.Verdict != api.Justified || v.Evidence.Assurance != evidence.Provider || v.Evidence.IDTokenHash != hexSum([]byte(token)) || v.Evidence.KeysHash == "" {
		t.Fatalf("the review is %+v", v)
	}
	seen := s.events("provider.keys_seen")[0].Data.(event.ProviderKeysSeen)
	given := s.events("review.given")[0]
	d := given.Data.(event.ReviewGiven)
	if d.EvidenceHash != hexSum([]byte(d.Evidence)) || d.Assurance != evidence.Provider || d.IDTokenHash != v.Evidence.IDTokenHash || d.KeysHash != seen.NoteHash {
		t.Errorf("the event is %+v", d)
	}
	// Years later, from what was kept and the log's key, without us or the provider.
	st, err := approvals.ParseReview([]byte(d.Evidence))
	must(t, err)
	must(t, evidence.Verify(d.Assurance, evidence.Decision{Statement: []byte(d.Evidence), Issuer: st.Reviewer.Issuer,
		Subject: st.Reviewer.Subject, ClientID: st.ClientID, Groups: st.Groups, Made: st.Time, Taken: given.Time},
		evidence.Proof{IDToken: token, Keys: []byte(seen.Note)}, evidence.Anchor{LogKey: s.log.VerifierKey()}))

	// It counts: the next door opens, and is shut by a review that found it wrong.
	r, err = s.opens(erin, "keeper")
	must(t, err)
	s.reviews(s.guard, r.ID, api.NotJustified)
	if got, err := s.approvals.Get(ctx, erin, r.ID); err != nil || got.State != api.Ended || got.EndReason != "revoked" {
		t.Errorf("not justified, it is %s (%s): %v", got.State, got.EndReason, err)
	}
	isRefused(t, "a second review", s.completeReview(s.guard, r.ID), approvals.ErrReviewed)
	s.checkLog()
}

// completeReview tries to draft a review.
func (s *signedScene) completeReview(c identity.Caller, request string) error {
	_, err := s.approvals.DraftReview(s.t.Context(), c, s.browserOf(c), request, api.ReviewInput{Verdict: api.Justified, Comment: "fine"})
	return err
}

func TestP5_TokensThatSignAnotherReview(t *testing.T) {
	t.Parallel()
	s := newSignedScene(t)
	_, before := s.opened("olaf", "keeper")
	used := s.reviews(s.guard, before.ID, api.Justified)
	_, another := s.opened("pia", "keeper")
	erin, r := s.opened("erin", "keeper")
	s.attacked(saying{
		who: s.guard, groups: []string{"security"}, yes: api.Justified, no: api.NotJustified, used: used, events: "review.refused",
		draft: func(v string) approvals.Draft { return s.draftReview(s.guard, r.ID, v) },
		other: func() approvals.Draft { return s.draftReview(s.guard, another.ID, api.Justified) },
		stays: func(name string) { s.unreviewed(name, erin, "has not been reviewed") },
	})
	s.reviews(s.guard, r.ID, api.Justified)
	_, err := s.opens(erin, "keeper")
	must(t, err)
	s.checkLog()
}

// How the reviewer was authenticated is the rule's, as for decisions.
func TestHowReviewersWereAuthenticated(t *testing.T) {
	t.Parallel()
	s := newSignedScene(t)
	now := s.clock.Now()
	for name, c := range map[string]struct {
		change []any
		detail string // of the refusal; empty: it is accepted
	}{
		"recent and strong": {[]any{"auth_time", now.Add(-14 * time.Minute).Unix(), "acr", "phr"}, ""},
		"too long ago":      {[]any{"auth_time", now.Add(-17 * time.Minute).Unix(), "acr", "phr"}, "too long ago"},
		"no auth_time":      {[]any{"acr", "phr"}, "does not say when"},
		"too weak":          {[]any{"auth_time", now.Unix(), "acr", "pwd"}, "another way of signing in"},
	} {
		_, r := s.opened("erin "+name, "safe")
		d := s.draftReview(s.guard, r.ID, api.Justified)
		if d.MaxAge != 15*time.Minute || len(d.ACRValues) != 2 {
			t.Errorf("the provider is asked for %+v", d)
		}
		err := s.complete(s.guard, d, s.signs(s.guard, c.change...)(r, d))
		if c.detail == "" {
			must(t, err)
			continue
		}
		isRefused(t, name, err, approvals.ErrNotProved)
		if !strings.Contains(err.Error(), c.detail) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Nobody signs off their own emergency, also not by a draft that they wrote into
// the database and that the provider really signed for them.
func TestP5_NobodySignsTheirOwnEmergencyOff(t *testing.T) {
	t.Parallel()
	s := newSignedScene(t)
	ctx := t.Context()
	erin := s.comes("erin", "engineers", "security")
	r, err := s.opens(erin, "keeper")
	must(t, err)
	isRefused(t, "one's own", s.completeReview(erin, r.ID), approvals.ErrOwnReview)
	other := s.comes("sam", "engineers", "security")
	own, err := s.opens(other, "keeper")
	must(t, err)
	isRefused(t, "who waits for one", s.completeReview(other, r.ID), approvals.ErrNotIndependent)
	isRefused(t, "who is no reviewer", s.completeReview(s.keeper, r.ID), approvals.ErrNotReviewer)

	st := approvals.ReviewStatement{Format: approvals.ReviewFormat, RequestID: r.ID, TermsHash: r.TermsHash, Verdict: api.Justified,
		Reviewer: approvals.StatementApprover{ID: erin.ID, Issuer: erin.Issuer, Subject: erin.Subject}, Groups: []string{"security"},
		PolicyHash: r.Policy.Hash, Comment: "fine", Running: true, Assurance: evidence.Provider, ClientID: oidctest.ClientID,
		Time: s.clock.Now(), Random: strings.Repeat("0", 32)}
	slip := func(c identity.Caller, st approvals.ReviewStatement) error {
		text, err := st.Encode()
		must(t, err)
		d := approvals.Draft{ID: ids.New(ids.Draft), Nonce: evidence.Nonce(text)}
		_, err = s.pool.Exec(ctx, `INSERT INTO decision_drafts (id, sign_in, request_id, statement, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6)`,
			d.ID, s.signIns[c.ID], st.RequestID, text, s.clock.Now(), s.clock.Now().Add(evidence.Lifetime))
		must(t, err)
		return s.complete(c, d, s.provider.Sign(s.claims(c, d)))
	}
	isRefused(t, "a draft of one's own", slip(erin, st), approvals.ErrOwnReview)
	st.Reviewer = approvals.StatementApprover{ID: s.guard.ID, Issuer: s.guard.Issuer, Subject: s.guard.Subject}
	isRefused(t, "in another's name", slip(erin, st), approvals.ErrDraftGone)
	// Two who trade: Sam's own emergency gets a row that is no review, and he still is
	// not independent.
	_, err = s.pool.Exec(ctx, `INSERT INTO reviews (id, request_id, requester_id, reviewer_id, statement, statement_hash, reviewed_at)
		VALUES ($1, $2, $3, $4, '{}', encode(sha256('{}'), 'hex'), $5)`, ids.New(ids.Review), own.ID, other.ID, s.guard.ID, s.clock.Now())
	must(t, err)
	isRefused(t, "who wrote one", s.completeReview(other, r.ID), approvals.ErrNotIndependent)
	s.unreviewed("after all of it", erin, "has not been reviewed")
	s.reviews(s.guard, r.ID, api.Justified)
}

// Somebody has the password of the broker's database role, and writes reviews:
// perfect rows, and events handed to the log. Nothing but the provider's signature
// is missing, and their next emergency stays blocked.
func TestP5_ReviewsByHandDoNotCount(t *testing.T) {
	t.Parallel()
	s := newSignedScene(t)
	ctx := t.Context()
	_, honest := s.opened("olaf", "keeper")
	used := s.reviews(s.guard, honest.ID, api.Justified)
	var keysHash string
	must(t, s.pool.QueryRow(ctx, `SELECT keys_hash FROM reviews`).Scan(&keysHash))
	evil := oidctest.New(t, s.clock)
	mallory := s.comes("mallory", "security")
	claims := func(c identity.Caller, text []byte) map[string]any {
		return s.claims(c, approvals.Draft{Nonce: evidence.Nonce(text)})
	}
	for name, f := range map[string]struct {
		change func(*approvals.ReviewStatement)
		token  func(text []byte) string
	}{
		"the broker's word": {change: func(st *approvals.ReviewStatement) {
			st.Assurance, st.ClientID, st.SignIn = evidence.Session, "", &approvals.StatementSignIn{AuthTime: s.clock.Now(), AMR: []string{}}
		}},
		"of before there was a choice": {change: func(st *approvals.ReviewStatement) {
			st.Assurance, st.ClientID, st.SignIn = "", "", &approvals.StatementSignIn{AuthTime: s.clock.Now(), AMR: []string{}}
		}},
		"another review's token":                        {token: func([]byte) string { return used }},
		"the attacker's own provider":                   {token: func(text []byte) string { return evil.Sign(claims(s.guard, text)) }},
		"the attacker's signature in a reviewer's name": {token: func(text []byte) string { return s.provider.Sign(claims(mallory, text)) }},
		"of a group that they are not in": {token: func(text []byte) string {
			c := claims(s.guard, text)
			c["groups"] = []string{"x"}
			return s.provider.Sign(c)
		}},
		"for another application": {token: func(text []byte) string {
			c := claims(s.guard, text)
			c["aud"] = "another-app"
			return s.provider.Sign(c)
		}},
	} {
		erin, r := s.opened("erin of "+name, "keeper")
		now := s.clock.Now()
		st := approvals.ReviewStatement{Format: approvals.ReviewFormat, RequestID: r.ID, TermsHash: r.TermsHash, Verdict: api.Justified,
			Reviewer: approvals.StatementApprover{ID: s.guard.ID, Issuer: s.guard.Issuer, Subject: s.guard.Subject}, Groups: []string{"security"},
			PolicyHash: r.Policy.Hash, Comment: "fine", Running: true, Assurance: evidence.Provider, ClientID: oidctest.ClientID,
			Time: now, Random: strings.Repeat("0", 32)}
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
		id := ids.New(ids.Review)
		_, err = s.pool.Exec(ctx, `INSERT INTO reviews (id, request_id, requester_id, reviewer_id, statement, statement_hash, reviewed_at, assurance, id_token, keys_hash)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`, id, r.ID, erin.ID, s.guard.ID, text, hexSum(text), now, assurance, token, keys)
		must(t, err)
		e := event.New(now, s.guard.Actor(), "192.0.2.7", event.Subject{RequestID: r.ID, PersonID: erin.ID, HostID: r.HostID},
			event.ReviewGiven{ReviewID: id, Verdict: st.Verdict, Comment: st.Comment, TermsHash: st.TermsHash, Groups: st.Groups,
				Evidence: string(text), EvidenceHash: hexSum(text), Assurance: assurance}).
			Under(event.PolicyRef{Version: r.Policy.Version, Hash: r.Policy.Hash})
		must(t, pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error { return s.log.Stage(ctx, tx, e) }))
		s.events("review.given")
		s.unreviewed(name, erin, "the review of your emergency "+r.ID+" is not proved")
	}
	s.checkLog()
}
