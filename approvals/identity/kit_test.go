package identity_test

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/mod/sumdb/note"

	"sallyport/approvals/identity"
	"sallyport/audit"
	"sallyport/audit/event"
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
	skey, vkey, err := note.GenerateKey(rand.Reader, "example.com/log")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	log, err := audit.Open(t.Context(), audit.Config{Pool: db.Pool, Signer: signer, VerifierKey: vkey, Clock: clk})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { log.Run(ctx); close(done) }()
	t.Cleanup(func() { stop(); <-done })
	store, err := identity.New(identity.Config{Pool: db.Pool, Log: log, Clock: clk})
	if err != nil {
		t.Fatal(err)
	}
	return kit{store, t, db, clk, log}
}

// events are those of the type that were committed until now, newest first, as they stand in the log.
func (k kit) events(typ string) []string {
	k.t.Helper()
	marker := event.New(k.clock.Now(), event.Actor{Kind: event.Broker}, "", event.Subject{}, event.KeysLoaded{})
	if _, err := k.log.Record(k.t.Context(), marker); err != nil {
		k.t.Fatal(err)
	}
	entries, err := k.log.Entries(k.t.Context(), audit.Filter{Type: typ, Limit: 200})
	if err != nil {
		k.t.Fatal(err)
	}
	var leaves []string
	for _, e := range entries {
		leaves = append(leaves, string(e.Leaf))
	}
	return leaves
}

// erin has signed in at the provider and holds a browser's sign-in for eight hours.
func (k kit) erin() identity.SignedIn {
	k.t.Helper()
	p, err := k.SignIn(k.t.Context(), identity.Claims{Issuer: "https://idp.example.com", Subject: "erin", Name: "Erin",
		Groups: []string{"engineers"}, AuthTime: k.clock.Now().Add(-time.Minute)}, identity.ViaWeb, here)
	if err != nil {
		k.t.Fatal(err)
	}
	in, err := k.Open(k.t.Context(), p, k.clock.Now().Add(-time.Minute), 8*time.Hour)
	if err != nil {
		k.t.Fatal(err)
	}
	return in
}

// dump is the whole database as a superuser sees it, bytea as hex and as text.
func (k kit) dump() string {
	k.t.Helper()
	ctx := k.t.Context()
	conn, err := pgx.Connect(ctx, k.db.AdminURL)
	if err != nil {
		k.t.Fatal(err)
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, `SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
		WHERE schemaname NOT IN ('pg_catalog', 'information_schema')`)
	if err != nil {
		k.t.Fatal(err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		k.t.Fatal(err)
	}
	var all strings.Builder
	for _, table := range tables {
		rows, err := conn.Query(ctx, `SELECT t::text FROM `+table+` t`)
		if err != nil {
			k.t.Fatal(err)
		}
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			k.t.Fatal(err)
		}
		for _, line := range lines {
			all.WriteString(table + " " + line + "\n")
		}
	}
	return all.String()
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
