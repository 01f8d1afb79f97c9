package signin_test

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"sallyport/approvals"
	"sallyport/approvals/identity"
	"sallyport/internal/ids"
	"sallyport/internal/oidctest"
	"sallyport/server/signin"
)

// decisions drafts whatever it is asked to, and keeps what comes back.
type decisions struct {
	mu     sync.Mutex
	draft  approvals.Draft // what is drafted, but for ID and Nonce; guarded by mu
	refuse error           // answers Complete, guarded by mu
	signed []signed        // guarded by mu
}

type signed struct {
	approvals.Signed
	person, signIn, draft string
}

func (d *decisions) Draft(request string) (approvals.Draft, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	draft := d.draft
	draft.ID, draft.Nonce = "draft of "+request, "nonce of "+request
	return draft, nil
}

func (d *decisions) Complete(_ context.Context, c identity.Caller, signIn, draft string, in approvals.Signed) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.signed = append(d.signed, signed{in, c.Subject, signIn, draft})
	return d.refuse
}

func (d *decisions) set(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

// came are the decisions that came back from the provider.
func (d *decisions) came() []signed {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]signed(nil), d.signed...)
}

// decideUpTo presses the button, goes to the provider, and stops before what it
// is sent back to.
func (b *browser) decideUpTo(request string) *url.URL {
	b.k.t.Helper()
	a := b.post("/requests/"+request+"/approve", url.Values{})
	if a.StatusCode != http.StatusOK || a.forwarded() == nil {
		b.k.t.Fatalf("the button: %s: %s", a.Status, a.body)
	}
	back, err := b.still().get(a.forwarded().String()).Location()
	must(b.k.t, err)
	return back
}

func TestDecisionTrip(t *testing.T) {
	k := newKit(t)
	k.decisions.set(func() {
		k.decisions.draft.MaxAge, k.decisions.draft.ACRValues = 15*time.Minute, []string{"phr", "phrh"}
	})
	b := k.browser()
	before := b.signIn()
	back := b.decideUpTo("req-1")
	asked := k.provider.Asked()
	for name, want := range map[string]string{"nonce": "nonce of req-1", "max_age": "900", "acr_values": "phr phrh", "prompt": "",
		"code_challenge_method": "S256", "redirect_uri": k.URL + signin.CallbackPath, "response_type": "code"} {
		if got := asked.Get(name); got != want {
			t.Errorf("the provider is asked for %s=%q, want %q", name, got, want)
		}
	}
	if a := b.get(back.String()); a.StatusCode != http.StatusOK || a.Request.URL.Path != "/requests/req-1" {
		t.Errorf("the trip ended at %s with %s", a.Request.URL, a.Status)
	}
	came := k.decisions.came()
	if len(came) != 1 {
		t.Fatalf("%d decisions came back", len(came))
	}
	got := came[0]
	claims := jwt.MapClaims{}
	_, _, err := jwt.NewParser().ParseUnverified(got.IDToken, claims)
	must(t, err)
	if got.person != "erin" || !strings.HasPrefix(got.signIn, "fam-") || got.draft != "draft of req-1" || claims["nonce"] != "nonce of req-1" {
		t.Errorf("came back: %+v with %v", got, claims)
	}
	if keys := got.Keys; keys.Issuer != k.provider.URL || keys.ClientID != oidctest.ClientID || keys.GroupsClaim != "groups" ||
		len(keys.Keys) != 1 || !keys.SeenAt.Equal(k.clock.Now()) {
		t.Errorf("keys: %+v", keys)
	}
	// It is no sign-in: nobody is signed in anew, or as somebody else.
	if after, ok := b.whoami(); !ok || after.ID != before.ID || len(k.events("person.signed_in")) != 1 {
		t.Errorf("after it, %+v is signed in", after)
	}

	// A provider that might not know max_age is asked to authenticate anew if that is too long ago.
	k.clock.Advance(15 * time.Minute)
	b.decideUpTo("req-2")
	if got := k.provider.Asked().Get("prompt"); got != "login" {
		t.Errorf("prompt=%q after 15 minutes", got)
	}
	k.decisions.set(func() { k.decisions.draft = approvals.Draft{} })
	b.decideUpTo("req-3")
	if q := k.provider.Asked(); q.Has("max_age") || q.Has("prompt") || q.Has("acr_values") {
		t.Errorf("without conditions the provider is asked for %v", q)
	}
}

// What comes back is taken once, in the browser and the sign-in that it belongs to.
func TestDecisionTripIsBoundToItsBrowser(t *testing.T) {
	k := newKit(t)
	refused := func(name string, b *browser, back *url.URL, want int) {
		t.Helper()
		n := len(k.decisions.came())
		if a := b.get(back.String()); a.StatusCode != want {
			t.Errorf("%s: %s: %s", name, a.Status, a.body)
		}
		if len(k.decisions.came()) != n {
			t.Errorf("%s: a decision was taken", name)
		}
	}
	honest, other := k.browser(), k.browser()
	honest.signIn()
	other.signIn()
	back := honest.decideUpTo("req-1")
	refused("another browser of the same person", other, back, http.StatusUnauthorized)
	refused("a browser of nobody", k.browser(), back, http.StatusUnauthorized)
	honest.get(back.String())
	if len(k.decisions.came()) != 1 {
		t.Fatal("the honest one was not taken")
	}
	refused("used twice", honest, back, http.StatusUnauthorized)
	if _, ok := honest.whoami(); !ok {
		t.Error("the replay signed the person out")
	}

	late := honest.decideUpTo("req-1")
	k.clock.Advance(10 * time.Minute)
	refused("too late", honest, late, http.StatusUnauthorized)

	// The code of a sign-in does not complete a decision, nor the other way round.
	trip, signIn := honest.decideUpTo("req-1"), honest.toCallback("/")
	swap := func(state, code *url.URL) *url.URL {
		u, q := *state, state.Query()
		q.Set("code", code.Query().Get("code"))
		u.RawQuery = q.Encode()
		return &u
	}
	refused("a sign-in's code", honest, swap(trip, signIn), http.StatusUnauthorized)
	trip, signIn = honest.decideUpTo("req-1"), honest.toCallback("/")
	refused("a decision's code for a sign-in", honest, swap(signIn, trip), http.StatusUnauthorized)

	back = honest.decideUpTo("req-1")
	honest.post("/signout", url.Values{})
	refused("after signing out", honest, back, http.StatusUnauthorized)
	back = other.decideUpTo("req-1")
	in := k.signIns()
	must(t, k.people.SignOut(t.Context(), identity.SignedIn{ID: in[len(in)-1], Via: identity.ViaWeb, Person: identity.Person{ID: ids.New(ids.Person)}}, "192.0.2.7"))
	refused("after being signed out elsewhere", other, back, http.StatusUnauthorized)
}

// signIns are the ids of all sign-ins, oldest first.
func (k *kit) signIns() (ids []string) {
	k.t.Helper()
	must(k.t, k.db.Pool.QueryRow(k.t.Context(), `SELECT array_agg(id ORDER BY created_at, id) FROM sign_ins WHERE ended_at IS NULL`).Scan(&ids))
	return ids
}

// A token that proves nothing does not get as far as the decision.
func TestDecisionTripRefusesBadTokens(t *testing.T) {
	for name, c := range map[string]struct {
		fault oidctest.Fault
		code  string
	}{
		"wrong nonce":         {oidctest.WrongNonce, "bad-id-token"},
		"no nonce":            {oidctest.NoNonce, "bad-id-token"},
		"wrong audience":      {oidctest.WrongAudience, "bad-id-token"},
		"wrong issuer":        {oidctest.WrongIssuer, "bad-id-token"},
		"unknown key":         {oidctest.UnknownKey, "bad-id-token"},
		"alg none":            {oidctest.AlgNone, "bad-id-token"},
		"HS256 of public key": {oidctest.HS256, "bad-id-token"},
		"expired":             {oidctest.Expired, "bad-id-token"},
		"no id_token":         {oidctest.NoIDToken, "bad-id-token"},
		"refused":             {oidctest.Refuse, "provider-refused"},
		"mix-up":              {oidctest.OtherIss, "provider-refused"},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKit(t)
			b := k.browser()
			b.signIn()
			k.provider.Break(c.fault)
			a := b.get(b.decideUpTo("req-1").String())
			if a.StatusCode != http.StatusUnauthorized || !strings.Contains(a.body, "othing was decided") {
				t.Errorf("%s: %s", a.Status, a.body)
			}
			k.refusedWith(c.code)
			if len(k.decisions.came()) != 0 {
				t.Error("a decision was taken")
			}
			if _, ok := b.whoami(); !ok {
				t.Error("the person is signed out")
			}
		})
	}
}

// P9: the provider is down, before or during the trip: there is no decision, a
// clear page, and the sign-in stays.
func TestP9_NoDecisionWithoutTheProvider(t *testing.T) {
	k := newKit(t)
	b := k.browser()
	b.signIn()
	for name, c := range map[string]struct{ before, during func() }{
		"down before":      {func() { k.provider.Down(true) }, nil},
		"no keys before":   {func() { k.provider.Break(oidctest.KeysDown) }, nil},
		"down meanwhile":   {nil, func() { k.provider.Down(true) }},
		"keys meanwhile":   {nil, func() { k.provider.Break(oidctest.KeysDown) }},
		"tokens meanwhile": {nil, func() { k.provider.Break(oidctest.TokenDown) }},
	} {
		var a answer
		if c.before != nil {
			c.before()
			a = b.post("/requests/req-1/approve", url.Values{})
		} else {
			back := b.decideUpTo("req-1")
			c.during()
			a = b.get(back.String())
		}
		if a.StatusCode != http.StatusServiceUnavailable || !strings.Contains(a.body, "cannot sign a decision") || !strings.Contains(a.body, "othing was decided") {
			t.Errorf("%s: %s: %s", name, a.Status, a.body)
		}
		k.provider.Down(false)
		k.provider.Break(oidctest.None)
	}
	if len(k.decisions.came()) != 0 {
		t.Error("a decision was taken")
	}
	if _, ok := b.whoami(); !ok {
		t.Error("the person is signed out")
	}
	b.get(b.decideUpTo("req-1").String())
	if len(k.decisions.came()) != 1 {
		t.Error("with the provider back, no decision is taken")
	}
}

// A refusal of the decision itself is shown, and recorded where it was made only.
func TestRefusedDecisionIsShown(t *testing.T) {
	k := newKit(t)
	k.decisions.set(func() { k.decisions.refuse = approvals.ErrOtherPerson })
	b := k.browser()
	before := b.signIn()
	k.provider.Claim("sub", "eve")
	a := b.get(b.decideUpTo("req-1").String())
	if a.StatusCode != http.StatusForbidden || !strings.Contains(a.body, "omebody else signed in") {
		t.Errorf("%s: %s", a.Status, a.body)
	}
	if n := len(k.events("person.sign_in_failed")); n != 0 {
		t.Errorf("%d failed sign-ins", n)
	}
	if after, ok := b.whoami(); !ok || after.ID != before.ID {
		t.Errorf("%+v is signed in", after)
	}
}

func TestOnlyABrowserGoesToTheProvider(t *testing.T) {
	k := newKit(t)
	if a := k.browser().post("/requests/req-1/approve", url.Values{}); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("nobody: %s", a.Status)
	}
}
