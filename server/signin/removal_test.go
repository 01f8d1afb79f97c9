package signin_test

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/oauth2"

	"sallyport/approvals/identity"
)

// remove keeps a person out, as package approvals does for an operator.
func (k *kit) remove(id string) {
	k.t.Helper()
	operator, err := k.people.SignIn(k.t.Context(), identity.Claims{Issuer: "https://id.test", Subject: "otto", Name: "Otto"}, "web", "192.0.2.7")
	must(k.t, err)
	must(k.t, pgx.BeginFunc(k.t.Context(), k.db.Pool, func(tx pgx.Tx) error {
		_, err := k.people.Remove(k.t.Context(), tx, id, identity.Removal{At: k.clock.Now(), By: operator.ID, Why: "left"})
		return err
	}))
}

// Whatever a removed person holds, it opens nothing: the browser's cookie, the
// access token, the refresh token, a code on its way, a device that waits. The
// provider still vouches for them, and that opens nothing either.
func TestP10_RemovedPersonIsNobody(t *testing.T) {
	k := newKit(t)
	b := k.browser()
	erin := b.signIn()
	tokens, code, device := b.login(), b.code(), k.startDevice()
	b.post("/device", url.Values{"user_code": {device.UserCode}, "confirm": {"yes"}})
	sally := k.browser()
	sally.token = tokens.Access
	if _, ok := sally.whoami(); !ok {
		t.Fatal("the token opens nothing before the removal")
	}

	k.remove(erin.ID)
	if _, ok := b.whoami(); ok {
		t.Error("the cookie still says who it is")
	}
	if a := sally.get("/whoami", "Accept", "application/json"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("the access token: %s", a.Status)
	}
	if got, _ := k.refresh(tokens.Refresh); got.Error != "invalid_grant" {
		t.Errorf("the refresh token: %+v", got)
	}
	if got, _ := k.token(url.Values{"grant_type": {"authorization_code"}, "code": {code}, "code_verifier": {verifier}, "redirect_uri": {redirect}}); got.Error != "invalid_grant" {
		t.Errorf("the code: %+v", got)
	}
	if got, _ := k.pollDevice(device.DeviceCode); got.Error != "invalid_grant" {
		t.Errorf("the device: %+v", got)
	}
	// A sign-in that was on its way when its person was removed.
	late, err := k.people.Open(t.Context(), erin.Person, identity.Claims{AuthTime: k.clock.Now()}, time.Hour)
	must(t, err)
	if _, err := k.people.Resume(t.Context(), late.ID, 0); !errors.Is(err, identity.ErrSignedOut) {
		t.Errorf("a sign-in that came late: %v", err)
	}
	code, err = k.people.Authorize(t.Context(), late, redirect, oauth2.S256ChallengeFromVerifier(verifier))
	must(t, err)
	if _, err := k.people.RedeemCode(t.Context(), code, verifier, redirect, ""); !errors.Is(err, identity.ErrInvalidGrant) {
		t.Errorf("the code of a sign-in that came late: %v", err)
	}
	a := b.get("/signin?next=/whoami")
	if a.StatusCode != http.StatusForbidden || !strings.Contains(a.body, "An operator has removed you") || !strings.Contains(a.body, "only one can let you in again") {
		t.Errorf("signing in again: %s at %s\n%s", a.Status, a.Request.URL, a.body)
	}
	k.refusedWith("person-removed")
	if ev := k.events("person.sign_in_failed"); !strings.Contains(ev[0], erin.ID) {
		t.Errorf("the refused sign-in in the log: %s", ev[0])
	}
	// The browser is not spoilt for others.
	k.provider.Claim("sub", "finn")
	if c := b.signIn(); c.Subject != "finn" {
		t.Errorf("then %s signs in", c.Subject)
	}

	// Restored, the person signs in as the one they were; nothing old works.
	must(t, pgx.BeginFunc(t.Context(), k.db.Pool, func(tx pgx.Tx) error {
		return k.people.Restore(t.Context(), tx, erin.ID, k.clock.Now())
	}))
	if a := sally.get("/whoami", "Accept", "application/json"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("an old access token after the restoration: %s", a.Status)
	}
	k.provider.Claim("sub", "erin")
	if c := k.browser().signIn(); c.ID != erin.ID {
		t.Errorf("restored, erin is %s, not %s", c.ID, erin.ID)
	}
}

// Where a rule wants a new sign-in, sally asks with prompt=login; that a browser is
// signed in is then not enough, and what comes of it has the new time.
func TestSignInAnew(t *testing.T) {
	k := newKit(t)
	before := k.clock.Now().Add(-time.Hour)
	k.provider.SignedIn(before)
	b := k.browser()
	old := b.signIn()
	if !old.AuthTime.Before(before.Add(time.Second)) {
		t.Fatalf("signed in at %s", old.AuthTime)
	}
	b.login()
	if k.provider.Asked().Get("prompt") != "" {
		t.Error("an ordinary sign-in asks for a new one at the provider")
	}
	k.clock.Advance(2 * time.Minute)
	for _, page := range []string{"/oauth/authorize?" + authorization("prompt", "login").Encode(), "/device?prompt=login"} {
		k.clock.Advance(2 * time.Minute)
		a := b.get(page)
		if a.StatusCode != http.StatusOK || a.Request.URL.Path != strings.SplitN(page, "?", 2)[0] {
			t.Fatalf("%s ended at %s with %s", page, a.Request.URL, a.Status)
		}
		if k.provider.Asked().Get("prompt") != "login" {
			t.Errorf("%s: the provider was asked for %v", page, k.provider.Asked())
		}
		if c, _ := b.whoami(); k.clock.Now().Sub(c.AuthTime) > time.Minute {
			t.Errorf("%s: authenticated %s ago", page, k.clock.Now().Sub(c.AuthTime))
		}
	}
}

// A link that fills in a request leads through the sign-in to the form, with all
// that it says.
func TestPrefilledLinksSurviveTheSignIn(t *testing.T) {
	k := newKit(t)
	q := url.Values{"host": {"db-1"}, "login": {"dba"}, "ticket": {"INC-7"}, "duration": {"45m"}, "reason": {"a & b = c?/#é"}, "not_before": {"2031-01-31T21:00:00Z"}}
	to := "/requests/new?" + q.Encode()
	a := k.browser().still().get(k.browser().toCallback(to).String()) // another browser: nothing comes of it
	if a.StatusCode != http.StatusUnauthorized {
		t.Errorf("in another browser: %s", a.Status)
	}
	b := k.browser()
	a = b.still().get(b.toCallback(to).String())
	back, err := url.Parse(a.Header.Get("Location"))
	must(t, err)
	if back.Path != "/requests/new" || back.Query().Encode() != q.Encode() {
		t.Errorf("the link led to %s", back)
	}
}
