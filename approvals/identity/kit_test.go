package identity_test

import (
	"encoding/hex"
	"os"
	"strings"
	"testing"
	"time"

	"sallyport/approvals/identity"
	"sallyport/audit"
	"sallyport/internal/audittest"
	"sallyport/internal/clock"
	"sallyport/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

const here = "192.0.2.7"

// kit is a store with a clock that stands still and a log that can be read.
type kit struct {
	*identity.Store
	t     *testing.T
	db    *pgtest.DB
	clock *clock.Manual
	log   *audit.Log
}

func newKit(t *testing.T) kit {
	t.Helper()
	t.Parallel()
	db, clk := pgtest.New(t), clock.NewManual(time.Now())
	log := audittest.Open(t, db.Pool, clk)
	store, err := identity.New(identity.Config{Pool: db.Pool, Log: log, Clock: clk})
	if err != nil {
		t.Fatal(err)
	}
	return kit{store, t, db, clk, log}
}

// events are those of the type that were committed until now, newest first, as they stand in the log.
func (k kit) events(typ string) []string {
	k.t.Helper()
	return audittest.Leaves(k.t, k.log, k.clock.Now(), typ)
}

// erin has signed in at the provider and holds a browser's sign-in for eight hours.
func (k kit) erin() identity.SignedIn {
	k.t.Helper()
	p, err := k.SignIn(k.t.Context(), identity.Claims{Issuer: "https://idp.example.com", Subject: "erin", Name: "Erin",
		Groups: []string{"engineers"}, AuthTime: k.clock.Now().Add(-time.Minute)}, identity.ViaWeb, here)
	if err != nil {
		k.t.Fatal(err)
	}
	in, err := k.Open(k.t.Context(), p, identity.Claims{AuthTime: k.clock.Now().Add(-time.Minute)}, 8*time.Hour)
	if err != nil {
		k.t.Fatal(err)
	}
	return in
}

// absent fails the test if a secret is in text, as it is or as hex.
func absent(t *testing.T, where, text string, secrets ...string) {
	t.Helper()
	for _, s := range secrets {
		if s == "" {
			t.Fatal("an empty secret proves nothing")
		}
		if strings.Contains(text, s) || strings.Contains(text, hex.EncodeToString([]byte(s))) {
			t.Errorf("%s contains the secret %s", where, s)
		}
	}
}
