package identity_test

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/approvals/identity"
	"sallyport/audit/event"
	"sallyport/internal/refusal"
)

const (
	redirect = "http://127.0.0.1:4711/callback"
	verifier = "verifier-verifier-verifier-verifier-verifier"
)

func challenge() string {
	h := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(h[:])
}

func (k kit) code(browser identity.SignedIn) string {
	k.t.Helper()
	code, err := k.Authorize(k.t.Context(), browser, redirect, challenge())
	if err != nil {
		k.t.Fatal(err)
	}
	return code
}

// family is a sally that browser has authorised.
func (k kit) family(browser identity.SignedIn) identity.Tokens {
	k.t.Helper()
	tokens, err := k.RedeemCode(k.t.Context(), k.code(browser), verifier, redirect, here)
	if err != nil {
		k.t.Fatal(err)
	}
	return tokens
}

func TestCodeBecomesASignInOfTheSamePerson(t *testing.T) {
	k := newKit(t)
	browser := k.erin()
	k.clock.Advance(30 * time.Second)
	got := k.family(browser).SignedIn
	if got.Person.ID != browser.Person.ID || got.Via != identity.ViaCLI || got.ID == browser.ID ||
		!got.AuthTime.Equal(browser.AuthTime) || !got.Expires.Equal(browser.Expires) {
		t.Errorf("the code became %+v, of %+v", got, browser)
	}
	if in, err := k.Resume(t.Context(), got.ID, 0); err != nil || in.Person.ID != browser.Person.ID {
		t.Errorf("Resume = %+v, %v", in, err)
	}
	if ev := k.events("person.signed_in"); len(ev) != 2 || !strings.Contains(ev[0], `"via":"cli"`) {
		t.Errorf("events: %s", ev)
	}
}

func TestCodeRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		verifier, redirect string
		age                time.Duration
		want               *refusal.Error
		recorded           bool
	}{
		"another verifier":          {strings.Repeat("x", 43), redirect, 0, identity.ErrWrongVerifier, true},
		"no verifier":               {"", redirect, 0, identity.ErrWrongVerifier, true},
		"the challenge as verifier": {challenge(), redirect, 0, identity.ErrWrongVerifier, true},
		"another port":              {verifier, "http://127.0.0.1:4712/callback", 0, identity.ErrWrongRedirect, true},
		"no redirect":               {verifier, "", 0, identity.ErrWrongRedirect, true},
		"late":                      {verifier, redirect, time.Minute, identity.ErrInvalidGrant, false},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKit(t)
			code := k.code(k.erin())
			k.clock.Advance(c.age)
			if _, err := k.RedeemCode(t.Context(), code, c.verifier, c.redirect, here); !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if n := len(k.events("person.sign_in_failed")); (n == 1) != c.recorded {
				t.Errorf("%d events", n)
			}
			// One attempt is all: what failed once cannot be tried again.
			if _, err := k.RedeemCode(t.Context(), code, verifier, redirect, here); err == nil {
				t.Error("the code was still good afterwards")
			}
		})
	}
	t.Run("unknown", func(t *testing.T) {
		k := newKit(t)
		if _, err := k.RedeemCode(t.Context(), "unknown", verifier, redirect, here); !errors.Is(err, identity.ErrInvalidGrant) {
			t.Error(err)
		}
	})
	t.Run("signed out meanwhile", func(t *testing.T) {
		k := newKit(t)
		browser := k.erin()
		code := k.code(browser)
		if err := k.SignOut(t.Context(), browser, here); err != nil {
			t.Fatal(err)
		}
		if _, err := k.RedeemCode(t.Context(), code, verifier, redirect, here); !errors.Is(err, identity.ErrInvalidGrant) {
			t.Error(err)
		}
	})
}

func TestCodeReplayEndsWhatItBecame(t *testing.T) {
	k := newKit(t)
	ctx := t.Context()
	code := k.code(k.erin())
	tokens, err := k.RedeemCode(ctx, code, verifier, redirect, here)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.RedeemCode(ctx, code, verifier, redirect, "198.51.100.9"); !errors.Is(err, identity.ErrCodeReused) {
		t.Errorf("replay: %v", err)
	}
	if _, err := k.Resume(ctx, tokens.SignedIn.ID, 0); !errors.Is(err, identity.ErrSignedOut) {
		t.Errorf("the first one's sign-in: %v", err)
	}
	if _, err := k.Refresh(ctx, tokens.Refresh, here); !errors.Is(err, identity.ErrInvalidGrant) {
		t.Errorf("the first one's refresh token: %v", err)
	}
	if ev := k.events("person.sign_in_failed"); len(ev) != 1 || !strings.Contains(ev[0], "code-reused") || !strings.Contains(ev[0], "198.51.100.9") {
		t.Errorf("events: %s", ev)
	}
}

func TestCodeRaceHasOneWinner(t *testing.T) {
	k := newKit(t)
	code := k.code(k.erin())
	won, errs := race(func() error {
		_, err := k.RedeemCode(t.Context(), code, verifier, redirect, here)
		return err
	})
	if won != 1 {
		t.Errorf("%d redeemed the code", won)
	}
	for _, err := range errs {
		if !errors.Is(err, identity.ErrCodeReused) {
			t.Errorf("a loser got %v", err)
		}
	}
}

// race does it eight times at once, and returns how often it succeeded, and the other errors.
func race(do func() error) (won int, errs []error) {
	var wg sync.WaitGroup
	results := make(chan error, 8)
	start := make(chan struct{})
	for range cap(results) {
		wg.Go(func() { <-start; results <- do() })
	}
	close(start)
	wg.Wait()
	close(results)
	for err := range results {
		if err == nil {
			won++
		} else {
			errs = append(errs, err)
		}
	}
	return won, errs
}

func TestRefreshRotates(t *testing.T) {
	k := newKit(t)
	ctx := t.Context()
	first := k.family(k.erin())
	second, err := k.Refresh(ctx, first.Refresh, here)
	if err != nil {
		t.Fatal(err)
	}
	if second.Refresh == first.Refresh || second.SignedIn.ID != first.SignedIn.ID || !second.SignedIn.Expires.Equal(first.SignedIn.Expires) {
		t.Errorf("%+v became %+v", first, second)
	}
	if _, err := k.Refresh(ctx, second.Refresh, here); err != nil {
		t.Error(err)
	}
	if _, err := k.Refresh(ctx, "unknown", here); !errors.Is(err, identity.ErrInvalidGrant) {
		t.Errorf("unknown: %v", err)
	}
	if n := len(k.events("token.reused")); n != 0 {
		t.Errorf("%d token.reused events", n)
	}
}

func TestRefreshReuseEndsTheFamily(t *testing.T) {
	k := newKit(t)
	ctx := t.Context()
	browser := k.erin()
	stolen, other := k.family(browser), k.family(browser)
	thief, err := k.Refresh(ctx, stolen.Refresh, "198.51.100.9")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Refresh(ctx, stolen.Refresh, here); !errors.Is(err, identity.ErrTokenReused) {
		t.Errorf("reuse: %v", err)
	}
	if _, err := k.Refresh(ctx, thief.Refresh, "198.51.100.9"); !errors.Is(err, identity.ErrInvalidGrant) {
		t.Errorf("the thief's next: %v", err)
	}
	if _, err := k.Resume(ctx, stolen.SignedIn.ID, 0); !errors.Is(err, identity.ErrSignedOut) {
		t.Errorf("the family: %v", err)
	}
	if ev := k.events("token.reused"); len(ev) != 1 || !strings.Contains(ev[0], stolen.SignedIn.ID) || !strings.Contains(ev[0], here) {
		t.Errorf("events: %s", ev)
	}
	// Other sign-ins of the person have nothing to do with it.
	if _, err := k.Refresh(ctx, other.Refresh, here); err != nil {
		t.Errorf("another family: %v", err)
	}
	if _, err := k.Resume(ctx, browser.ID, 0); err != nil {
		t.Errorf("the browser: %v", err)
	}
}

func TestRefreshRaceHasOneWinner(t *testing.T) {
	k := newKit(t)
	tokens := k.family(k.erin())
	won, errs := race(func() error {
		_, err := k.Refresh(t.Context(), tokens.Refresh, here)
		return err
	})
	if won != 1 {
		t.Errorf("%d exchanged the same token", won)
	}
	reused := 0
	for _, err := range errs {
		switch {
		case errors.Is(err, identity.ErrTokenReused):
			reused++
		case !errors.Is(err, identity.ErrInvalidGrant): // came after the end of the family
			t.Errorf("a loser got %v", err)
		}
	}
	if reused == 0 {
		t.Error("nobody was told of the reuse")
	}
	if n := len(k.events("token.reused")); n != 1 {
		t.Errorf("%d events, want 1", n)
	}
	if _, err := k.Resume(t.Context(), tokens.SignedIn.ID, 0); !errors.Is(err, identity.ErrSignedOut) {
		t.Errorf("the family lives: %v", err)
	}
}

func TestRefreshDoesNotProlong(t *testing.T) {
	k := newKit(t)
	ctx := t.Context()
	browser := k.erin()
	k.clock.Advance(7 * time.Hour)
	tokens := k.family(browser)
	for k.clock.Now().Before(browser.Expires) {
		next, err := k.Refresh(ctx, tokens.Refresh, here)
		if err != nil {
			t.Fatalf("at %s: %v", k.clock.Now(), err)
		}
		tokens = next
		k.clock.Advance(10 * time.Minute)
	}
	if _, err := k.Refresh(ctx, tokens.Refresh, here); !errors.Is(err, identity.ErrInvalidGrant) {
		t.Errorf("after the end: %v", err)
	}
}

func TestRevokeEndsTheFamily(t *testing.T) {
	k := newKit(t)
	ctx := t.Context()
	old := k.family(k.erin())
	now, err := k.Refresh(ctx, old.Refresh, here)
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{"unknown", old.Refresh, now.Refresh} {
		if err := k.Revoke(ctx, token, here); err != nil {
			t.Errorf("revoking: %v", err)
		}
	}
	if _, err := k.Refresh(ctx, now.Refresh, here); !errors.Is(err, identity.ErrInvalidGrant) {
		t.Errorf("after revocation: %v", err)
	}
	if ev := k.events("person.signed_out"); len(ev) != 1 || !strings.Contains(ev[0], `"via":"cli"`) {
		t.Errorf("events: %s", ev)
	}
}

func (k kit) device() identity.Device {
	k.t.Helper()
	d, err := k.BeginDevice(k.t.Context(), "198.51.100.9")
	if err != nil {
		k.t.Fatal(err)
	}
	return d
}

func TestUserCodesAreReadable(t *testing.T) {
	k := newKit(t)
	seen := map[string]bool{}
	for range 50 {
		d := k.device()
		if !regexp.MustCompile(`^[BCDFGHJKLMNPQRSTVWXZ]{4}-[BCDFGHJKLMNPQRSTVWXZ]{4}$`).MatchString(d.UserCode) {
			t.Errorf("user code %q", d.UserCode)
		}
		seen[d.UserCode] = true
	}
	if len(seen) != 50 {
		t.Errorf("%d different codes of 50", len(seen))
	}
	// However it is typed.
	code := k.device().UserCode
	for _, typed := range []string{code, strings.ToLower(code), strings.ReplaceAll(code, "-", ""), " " + strings.ReplaceAll(code, "-", " ") + " "} {
		if d, err := k.FindDevice(t.Context(), typed); err != nil || d.UserCode != code || d.Source != "198.51.100.9" {
			t.Errorf("FindDevice(%q) = %+v, %v", typed, d, err)
		}
	}
}

func TestDeviceFlow(t *testing.T) {
	k := newKit(t)
	ctx := t.Context()
	browser, d := k.erin(), k.device()
	poll := func() (identity.Tokens, error) { return k.RedeemDevice(ctx, d.DeviceCode, "198.51.100.9") }

	if _, err := poll(); !errors.Is(err, identity.ErrAuthorizationPending) {
		t.Errorf("first question: %v", err)
	}
	k.clock.Advance(d.Interval - time.Microsecond)
	if _, err := poll(); !errors.Is(err, identity.ErrSlowDown) {
		t.Errorf("too early: %v", err)
	}
	k.clock.Advance(9 * time.Second) // 5 s are not enough any more: the interval is 10 s now
	if _, err := poll(); !errors.Is(err, identity.ErrSlowDown) {
		t.Errorf("with the old interval: %v", err)
	}
	if err := k.DecideDevice(ctx, browser, strings.ToLower(d.UserCode), true); err != nil {
		t.Fatal(err)
	}
	k.clock.Advance(15 * time.Second)
	tokens, err := poll()
	if err != nil {
		t.Fatalf("approved: %v", err)
	}
	in := tokens.SignedIn
	if in.Person.ID != browser.Person.ID || in.Via != identity.ViaDevice || !in.AuthTime.Equal(browser.AuthTime) || !in.Expires.Equal(browser.Expires) {
		t.Errorf("the device got %+v", in)
	}
	k.clock.Advance(time.Minute)
	if _, err := poll(); !errors.Is(err, identity.ErrInvalidGrant) {
		t.Errorf("redeemed twice: %v", err)
	}
	if ev := k.events("person.signed_in"); len(ev) != 2 || !strings.Contains(ev[0], `"via":"device"`) {
		t.Errorf("events: %s", ev)
	}
}

func TestDeviceRefusals(t *testing.T) {
	k := newKit(t)
	ctx := t.Context()
	browser := k.erin()

	if _, err := k.RedeemDevice(ctx, "unknown", here); !errors.Is(err, identity.ErrInvalidGrant) {
		t.Errorf("unknown device: %v", err)
	}
	for _, code := range []string{"", "BBBB-BBBB", "AEIO-UAEI", "BBBB", strings.Repeat("B", 1000), "BBBB-BBB\x00"} {
		if err := k.DecideDevice(ctx, browser, code, true); !errors.Is(err, identity.ErrUnknownUserCode) {
			t.Errorf("wrong code %.20q: %v", code, err)
		}
	}

	denied := k.device()
	if err := k.DecideDevice(ctx, browser, denied.UserCode, false); err != nil {
		t.Fatal(err)
	}
	if err := k.DecideDevice(ctx, browser, denied.UserCode, true); !errors.Is(err, identity.ErrUnknownUserCode) {
		t.Errorf("a second opinion: %v", err)
	}
	if _, err := k.RedeemDevice(ctx, denied.DeviceCode, here); !errors.Is(err, identity.ErrDeviceDenied) {
		t.Errorf("denied: %v", err)
	}
	if ev := k.events("person.sign_in_failed"); len(ev) != 1 || !strings.Contains(ev[0], "device-denied") {
		t.Errorf("events: %s", ev)
	}

	left := k.device()
	if err := k.DecideDevice(ctx, browser, left.UserCode, true); err != nil {
		t.Fatal(err)
	}
	late := k.device()
	k.clock.Advance(10 * time.Minute)
	if err := k.DecideDevice(ctx, browser, late.UserCode, true); !errors.Is(err, identity.ErrUnknownUserCode) {
		t.Errorf("decided late: %v", err)
	}
	for _, d := range []identity.Device{late, left} {
		if _, err := k.RedeemDevice(ctx, d.DeviceCode, here); !errors.Is(err, identity.ErrDeviceExpired) {
			t.Errorf("expired: %v", err)
		}
	}

	gone := k.device()
	if err := k.DecideDevice(ctx, browser, gone.UserCode, true); err != nil {
		t.Fatal(err)
	}
	if err := k.SignOut(ctx, browser, here); err != nil {
		t.Fatal(err)
	}
	if _, err := k.RedeemDevice(ctx, gone.DeviceCode, here); !errors.Is(err, identity.ErrInvalidGrant) {
		t.Errorf("signed out meanwhile: %v", err)
	}
}

func TestDeviceRaceHasOneWinner(t *testing.T) {
	k := newKit(t)
	d := k.device()
	if err := k.DecideDevice(t.Context(), k.erin(), d.UserCode, true); err != nil {
		t.Fatal(err)
	}
	won, errs := race(func() error {
		_, err := k.RedeemDevice(t.Context(), d.DeviceCode, here)
		return err
	})
	if won != 1 || len(errs) != 7 {
		t.Errorf("%d redeemed it, the others: %v", won, errs)
	}
}

func TestP11_SecretsNeverReachTheDatabase(t *testing.T) {
	k := newKit(t)
	ctx := t.Context()
	browser := k.erin()
	code, d := k.code(browser), k.device()
	tokens, err := k.RedeemCode(ctx, code, verifier, redirect, here)
	if err != nil {
		t.Fatal(err)
	}
	next, err := k.Refresh(ctx, tokens.Refresh, here)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.DecideDevice(ctx, browser, d.UserCode, true); err != nil {
		t.Fatal(err)
	}
	device, err := k.RedeemDevice(ctx, d.DeviceCode, here)
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	for _, err := range []error{
		second(k.RedeemCode(ctx, code, verifier, redirect, here)),
		second(k.Refresh(ctx, tokens.Refresh, here)),
		second(k.RedeemDevice(ctx, d.DeviceCode, here)),
	} {
		if err == nil {
			t.Fatal("a second use worked")
		}
		told = append(told, err.Error())
	}
	secrets := []string{code, verifier, tokens.Refresh, next.Refresh, device.Refresh, d.DeviceCode, d.UserCode,
		strings.ReplaceAll(d.UserCode, "-", "")}
	k.events("") // everything staged is sequenced, and part of the dump
	dump := k.db.Dump(t)
	if !strings.Contains(dump, browser.Person.ID) {
		t.Fatal("the dump is empty")
	}
	absent(t, "the database", dump, secrets...)
	absent(t, "an error", strings.Join(told, "\n"), secrets...)
}

func second[T any](_ T, err error) error { return err }

func TestSignInFailedNamesNobodyWhenUnknown(t *testing.T) {
	k := newKit(t)
	why := refusal.New(refusal.Unauthenticated, "bad-thing", "it was bad", "do better")
	if err := k.SignInFailed(t.Context(), identity.Person{}, identity.ViaWeb, here, why); err != nil {
		t.Fatal(err)
	}
	ev := k.events("person.sign_in_failed")
	if len(ev) != 1 || !strings.Contains(ev[0], `"actor":{"kind":"`+string(event.Person)+`"}`) || !strings.Contains(ev[0], `"code":"bad-thing"`) {
		t.Errorf("events: %s", ev)
	}
}
