package signin_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"

	"sallyport/api"
	"sallyport/internal/oidctest"
	"sallyport/server/signin"
)

func TestSignIn(t *testing.T) {
	k := newKit(t)
	k.provider.Claim("groups", []string{"engineers", "operators"})
	b := k.browser()
	if _, ok := b.whoami(); ok {
		t.Fatal("somebody is signed in before the sign-in")
	}
	c := b.signIn()
	if c.Issuer != k.provider.URL || c.Subject != "erin" || c.Name != "Erin Engineer" || c.Via != "web" || c.Source != "127.0.0.1" ||
		strings.Join(c.Groups, " ") != "engineers operators" || !c.Has(api.Operator) ||
		!c.AuthTime.Equal(k.clock.Now().Add(-time.Minute).Truncate(time.Second)) {
		t.Errorf("signed in as %+v", c)
	}
	if ev := k.events("person.signed_in"); len(ev) != 1 || !strings.Contains(ev[0], `"via":"web"`) {
		t.Errorf("events: %s", ev)
	}
	if again := k.browser().signIn(); again.ID != c.ID {
		t.Errorf("the same person became %s and %s", c.ID, again.ID)
	}
}

func TestStateIsBoundToTheBrowserAndUsedOnce(t *testing.T) {
	k := newKit(t)
	attempt := func(name string, b *browser, u *url.URL) {
		t.Helper()
		a := b.get(u.String())
		if a.StatusCode != http.StatusUnauthorized || !strings.Contains(a.body, "not begun in this browser") {
			t.Errorf("%s: %s at %s", name, a.Status, a.Request.URL.Path)
		}
		k.refusedWith("sign-in-state")
		if _, ok := b.whoami(); ok {
			t.Errorf("%s: signed in", name)
		}
	}
	with := func(u *url.URL, state string) *url.URL {
		c, q := *u, u.Query()
		if q.Set("state", state); state == "" {
			q.Del("state")
		}
		c.RawQuery = q.Encode()
		return &c
	}
	b := k.browser()
	attempt("wrong state", b, with(b.toCallback("/"), "wrong"))
	b = k.browser()
	attempt("no state", b, with(b.toCallback("/"), ""))
	// Login CSRF: the attacker's own answer, opened in the victim's browser.
	victim := k.browser()
	victim.toCallback("/")
	attempt("another browser's", victim, k.browser().toCallback("/"))
	attempt("without a cookie", k.browser(), k.browser().toCallback("/"))
	b = k.browser()
	late := b.toCallback("/")
	k.clock.Advance(10 * time.Minute)
	attempt("too late", b, late)

	b = k.browser()
	used := b.toCallback("/whoami")
	if a := b.get(used.String()); a.StatusCode != http.StatusOK {
		t.Fatalf("the honest one: %s", a.Status)
	}
	if a := b.get(used.String()); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("used twice: %s", a.Status)
	}
	if _, ok := b.whoami(); !ok {
		t.Error("the replay ended the honest sign-in")
	}
}

func TestSeveralTabs(t *testing.T) {
	k := newKit(t)
	b := k.browser()
	first, second := b.toCallback("/whoami?1"), b.toCallback("/whoami?2")
	for range 4 {
		b.toCallback("/")
	}
	if a := b.get(first.String()); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("the oldest of six: %s", a.Status)
	}
	if a := b.get(second.String()); a.Request.URL.RequestURI() != "/whoami?2" {
		t.Errorf("the second of six led to %s with %s", a.Request.URL, a.Status)
	}
}

func TestPKCEStopsAnInjectedCode(t *testing.T) {
	k := newKit(t)
	victim, attacker := k.browser(), k.browser()
	mine := victim.toCallback("/")
	stolen := attacker.toCallback("/").Query().Get("code")
	q := mine.Query()
	q.Set("code", stolen) // the victim's state, the attacker's code
	mine.RawQuery = q.Encode()
	if a := victim.get(mine.String()); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("%s", a.Status)
	}
	k.refusedWith("provider-refused")
	if _, ok := victim.whoami(); ok {
		t.Error("signed in with another browser's code")
	}
	// There is one attempt: the state is gone with it.
	victim.get(mine.String())
	k.refusedWith("sign-in-state")
}

func TestBadIDTokensAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		fault oidctest.Fault
		code  string
	}{
		"wrong nonce":          {oidctest.WrongNonce, "bad-id-token"},
		"no nonce":             {oidctest.NoNonce, "bad-id-token"},
		"wrong audience":       {oidctest.WrongAudience, "bad-id-token"},
		"other party":          {oidctest.WrongParty, "bad-id-token"},
		"wrong issuer":         {oidctest.WrongIssuer, "bad-id-token"},
		"unknown key":          {oidctest.UnknownKey, "bad-id-token"},
		"alg none":             {oidctest.AlgNone, "bad-id-token"},
		"HS256 of public key":  {oidctest.HS256, "bad-id-token"},
		"expired":              {oidctest.Expired, "bad-id-token"},
		"not yet valid":        {oidctest.NotYetValid, "bad-id-token"},
		"issued in the future": {oidctest.IssuedLater, "bad-id-token"},
		"no subject":           {oidctest.NoSubject, "bad-id-token"},
		"no id_token":          {oidctest.NoIDToken, "bad-id-token"},
		"refused":              {oidctest.Refuse, "provider-refused"},
		"mix-up":               {oidctest.OtherIss, "provider-refused"},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKit(t)
			k.provider.Break(c.fault)
			b := k.browser()
			a := b.get("/signin?next=/whoami")
			if a.StatusCode != http.StatusUnauthorized || a.Request.URL.Path != signin.CallbackPath {
				t.Errorf("%s at %s", a.Status, a.Request.URL.Path)
			}
			if strings.Contains(a.body, "<script>alert") {
				t.Error("the provider's text is in the page")
			}
			k.refusedWith(c.code)
			if _, ok := b.whoami(); ok {
				t.Error("signed in nevertheless")
			}
			if n := len(k.events("person.signed_in")); n != 0 {
				t.Errorf("%d people signed in", n)
			}
			absent(t, "the log", k.output.String(), k.provider.Issued()...)
			// A mended provider is believed again.
			k.provider.Break(oidctest.None)
			b.signIn()
		})
	}
}

func TestBadClaims(t *testing.T) {
	for name, c := range map[string]struct {
		claim  string
		value  any
		groups string // after a sign-in; "-": refused
		warns  bool
	}{
		"no groups":               {"groups", nil, "", true},
		"groups as text":          {"groups", "operators", "", true},
		"groups as numbers":       {"groups", []int{1}, "", true},
		"groups partly text":      {"groups", []any{"operators", 1}, "", true},
		"groups as object":        {"groups", map[string]bool{"operators": true}, "", true},
		"groups null":             {"groups", []string(nil), "", true},
		"group with control":      {"groups", []string{"operators\n"}, "", true},
		"too many groups":         {"groups", make([]string, 201), "", true},
		"empty list":              {"groups", []string{}, "", false},
		"name of the wrong type":  {"name", 1, "-", false},
		"name with control":       {"name", "Erin\x00\n", "engineers", false},
		"name that turns around":  {"name", "Erin\u202enimdA\u200b\u2066", "engineers", false},
		"endless name":            {"name", strings.Repeat("ö", 10_000), "engineers", false},
		"subject with control":    {"sub", "erin\x00", "-", false},
		"endless subject":         {"sub", strings.Repeat("x", 256), "-", false},
		"subject of another type": {"sub", 7, "-", false},
		"auth_time in the future": {"auth_time", time.Now().Add(24 * time.Hour).Unix(), "engineers", false},
		"auth_time not whole":     {"auth_time", 1.5e9 + 0.5, "engineers", false},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKit(t)
			k.provider.Claim(c.claim, c.value)
			b := k.browser()
			if c.groups == "-" {
				if a := b.get("/signin"); a.StatusCode != http.StatusUnauthorized {
					t.Errorf("%s", a.Status)
				}
				k.refusedWith("bad-id-token")
				return
			}
			caller := b.signIn()
			if got := strings.Join(caller.Groups, " "); got != c.groups {
				t.Errorf("groups %q, want %q", got, c.groups)
			}
			if caller.AuthTime.After(k.clock.Now()) || len(caller.Name) > 255 || strings.ContainsAny(caller.Name, "\x00\n\u202e\u200b\u2066") {
				t.Errorf("signed in as %+v", caller)
			}
			if warned := strings.Contains(k.output.String(), "without groups"); warned != c.warns {
				t.Errorf("warned: %v", warned)
			}
		})
	}
}

func TestP9_ProviderDownAtStart(t *testing.T) {
	k := newKit(t, func(k *kit) { k.provider.Down(true) })
	b := k.browser()
	if a := b.get("/signin"); a.StatusCode != http.StatusServiceUnavailable || !strings.Contains(a.body, "in a minute") {
		t.Errorf("%s: %s", a.Status, a.body)
	}
	if k.service.Ready() == nil {
		t.Error("ready without a provider")
	}
	k.provider.Down(false)
	k.clock.Advance(3 * time.Second)
	b.signIn()
	if err := k.service.Ready(); err != nil {
		t.Errorf("not ready with a provider: %v", err)
	}
}

func TestP9_SilentProviderHoldsUpNobody(t *testing.T) {
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	t.Cleanup(silent.Close)
	t.Cleanup(silent.CloseClientConnections) // runs first: Close waits for them
	k := newKit(t, func(k *kit) { k.config.Issuer = silent.URL })
	if err := k.service.Ready(); !errors.Is(err, signin.ErrProviderDown) {
		t.Errorf("Ready: %v", err)
	}
	if a := k.browser().get("/whoami"); a.StatusCode != http.StatusOK {
		t.Errorf("a call that needs no provider: %s", a.Status)
	}
}

func TestP9_ProviderDownLater(t *testing.T) {
	k := newKit(t)
	signedIn, sally := k.browser(), k.browser()
	signedIn.signIn()
	tokens := signedIn.login()
	sally.token = tokens.Access

	waiting := k.browser()
	u := waiting.toCallback("/")
	k.provider.Down(true)
	if a := waiting.get(u.String()); a.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a new sign-in: %s", a.Status)
	}
	// All else goes on.
	for name, b := range map[string]*browser{"browser": signedIn, "sally": sally} {
		if _, ok := b.whoami(); !ok {
			t.Errorf("the %s was signed out", name)
		}
	}
	if _, a := k.refresh(tokens.Refresh); a.StatusCode != http.StatusOK {
		t.Errorf("refreshing: %s", a.Status)
	}
}

func TestP9_ProviderHalfDown(t *testing.T) {
	for name, fault := range map[string]oidctest.Fault{"token endpoint": oidctest.TokenDown, "keys": oidctest.KeysDown} {
		t.Run(name, func(t *testing.T) {
			k := newKit(t)
			k.provider.Break(fault)
			if a := k.browser().get("/signin"); a.StatusCode != http.StatusServiceUnavailable {
				t.Errorf("%s", a.Status)
			}
			// Nobody's attack, so no event; and what the provider quotes stays out of the log.
			if ev := k.events("person.sign_in_failed"); len(ev) != 0 {
				t.Errorf("events: %s", ev)
			}
			absent(t, "the log", k.output.String(), append(k.provider.Issued(), oidctest.ClientSecret)...)
		})
	}
}

func TestSessionFixation(t *testing.T) {
	k := newKit(t)
	attacker := k.browser()
	attacker.toCallback("/") // gets a cookie
	planted := attacker.cookie()
	if planted == "" {
		t.Fatal("no cookie to plant")
	}
	victim := k.browser()
	victim.setCookie(planted)
	victim.signIn()
	if victim.cookie() == planted {
		t.Error("the cookie is the same after the sign-in")
	}
	if c, ok := attacker.whoami(); ok {
		t.Errorf("the planted cookie is signed in as %s", c.ID)
	}
	// Nor does a cookie that the server never gave out become one.
	victim = k.browser()
	victim.setCookie("chosen-by-the-attacker")
	victim.signIn()
	if victim.cookie() == "chosen-by-the-attacker" {
		t.Error("a made-up cookie was taken over")
	}
	// Signing in again retires the cookie before.
	before := victim.cookie()
	victim.signIn()
	old := k.browser()
	old.setCookie(before)
	if _, ok := old.whoami(); ok {
		t.Error("the cookie before the second sign-in still works")
	}
}

func TestIdleAndAbsoluteLimits(t *testing.T) {
	k := newKit(t)
	b := k.browser()
	b.signIn()
	k.clock.Advance(idle - time.Second)
	if _, ok := b.whoami(); !ok {
		t.Error("signed out before the idle limit")
	}
	k.clock.Advance(idle)
	if _, ok := b.whoami(); ok {
		t.Error("signed in after the idle limit")
	}
	b.signIn()
	for used := time.Duration(0); used < lifetime-idle/2; used += idle / 2 {
		if _, ok := b.whoami(); !ok {
			t.Fatalf("signed out after %s of use", used)
		}
		k.clock.Advance(idle / 2)
	}
	k.clock.Advance(idle / 2)
	if _, ok := b.whoami(); ok {
		t.Error("signed in after the absolute limit")
	}
}

func TestNextLeadsNowhereElse(t *testing.T) {
	for next, want := range map[string]string{
		"/whoami?a=b%20c":              "/whoami?a=b%20c",
		"/whoami/%2e%2e":               "/whoami/%2e%2e",
		"":                             "/",
		"whoami":                       "/",
		"//evil.example.com":           "/",
		"///evil.example.com":          "/",
		`/\evil.example.com`:           "/",
		`\\evil.example.com`:           "/",
		"/\t/evil.example.com":         "/",
		"/\n/evil.example.com":         "/",
		"\x00//evil.example.com":       "/",
		" //evil.example.com":          "/",
		"https://evil.example.com":     "/",
		"https:evil.example.com":       "/",
		"javascript:alert(1)":          "/",
		"/" + strings.Repeat("x", 5e3): "/",
	} {
		t.Run("", func(t *testing.T) {
			k := newKit(t)
			b := k.browser()
			a := b.still().get(b.toCallback(next).String())
			if got := a.Header.Get("Location"); a.StatusCode != http.StatusFound || got != want {
				t.Errorf("next=%q led to %q with %s", next, got, a.Status)
			}
		})
	}
}

func TestSignOut(t *testing.T) {
	k := newKit(t, func(k *kit) { k.provider.OfferEndSession() })
	b := k.browser()
	b.signIn()
	stolen := k.browser()
	stolen.setCookie(b.cookie())
	if _, ok := stolen.whoami(); !ok {
		t.Fatal("a copied cookie should work, or this proves nothing")
	}
	a := b.post("/signout", url.Values{})
	to := a.forwarded()
	if to == nil || !strings.HasPrefix(to.String(), k.provider.URL+"/logout?") {
		t.Fatalf("%s, sent to %v", a.Status, to)
	}
	issued := k.provider.Issued()
	q := to.Query()
	if q.Get("id_token_hint") != issued[len(issued)-1] || q.Get("post_logout_redirect_uri") != k.URL+"/" || q.Get("client_id") != oidctest.ClientID {
		t.Errorf("sent with %v", q)
	}
	for name, b := range map[string]*browser{"browser": b, "copied cookie": stolen} {
		if _, ok := b.whoami(); ok {
			t.Errorf("the %s is still signed in", name)
		}
	}
	if n := len(k.events("person.signed_out")); n != 1 {
		t.Errorf("%d events", n)
	}
	// Nobody is signed in: nothing to end at the provider either.
	if a := b.still().post("/signout", url.Values{}); a.StatusCode != http.StatusSeeOther || a.Header.Get("Location") != "/" {
		t.Errorf("signing out twice: %s", a.Status)
	}
}

func TestSignOutWithoutEndSession(t *testing.T) {
	k := newKit(t)
	b := k.browser()
	b.signIn()
	k.provider.Down(true)
	if a := b.still().post("/signout", url.Values{}); a.StatusCode != http.StatusSeeOther || a.Header.Get("Location") != "/" {
		t.Errorf("%s to %s", a.Status, a.Header.Get("Location"))
	}
	if _, ok := b.whoami(); ok {
		t.Error("still signed in")
	}
}

func TestOtherSitesCannotPress(t *testing.T) {
	k := newKit(t)
	b := k.browser()
	b.signIn()
	for _, path := range []string{"/signout", "/oauth/authorize", "/device"} {
		for _, header := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Sec-Fetch-Site", "", "Origin", "https://evil.example.com"}} {
			if a := b.post(path, url.Values{}, header...); a.StatusCode != http.StatusForbidden {
				t.Errorf("%s with %v: %s", path, header, a.Status)
			}
		}
	}
	if _, ok := b.whoami(); !ok {
		t.Error("another site signed the person out")
	}
}

func TestCookie(t *testing.T) {
	k := newKit(t)
	for base, want := range map[string]string{
		"http://sallyport.example.com":  "sallyport=",
		"https://sallyport.example.com": "__Host-sallyport=",
	} {
		cfg := k.config
		cfg.URL = base
		s, err := signin.New(t.Context(), cfg)
		must(t, err)
		r := chi.NewRouter()
		r.Use(s.Middleware)
		s.Routes(r)
		w := httptest.NewRecorder()
		r.ServeHTTP(w, httptest.NewRequest(http.MethodGet, base+"/signin", nil))
		cookie := w.Header().Get("Set-Cookie")
		if !strings.HasPrefix(cookie, want) || !strings.Contains(cookie, "; HttpOnly") || !strings.Contains(cookie, "; SameSite=Lax") ||
			!strings.Contains(cookie, "Path=/;") || strings.Contains(cookie, "Domain") ||
			strings.Contains(cookie, "; Secure") != strings.HasPrefix(base, "https") {
			t.Errorf("%s: %s", base, cookie)
		}
		if w.Header().Get("Cache-Control") == "" {
			t.Error("may be cached")
		}
	}
}

func TestRefusedSignInsCannotFloodTheLog(t *testing.T) {
	k := newKit(t)
	b := k.browser()
	for range 40 {
		if a := b.get(signin.CallbackPath + "?state=x&code=y"); a.StatusCode != http.StatusUnauthorized {
			t.Fatalf("%s", a.Status)
		}
	}
	if n := len(k.events("person.sign_in_failed")); n != 10 {
		t.Errorf("%d events of 40 refusals, want 10", n)
	}
	k.clock.Advance(10 * time.Second)
	b.get(signin.CallbackPath + "?state=x&code=y")
	if n := len(k.events("person.sign_in_failed")); n != 11 {
		t.Errorf("%d events ten seconds later, want 11", n)
	}
}
