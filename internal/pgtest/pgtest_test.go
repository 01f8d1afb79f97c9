package pgtest

import (
	"context"
	"encoding/hex"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

func TestEachTestHasItsOwnDatabase(t *testing.T) {
	a, b := New(t), New(t)
	if a.Name == b.Name {
		t.Fatalf("two tests share database %s", a.Name)
	}
	var user string
	if err := a.Pool.QueryRow(context.Background(), "SELECT current_user").Scan(&user); err != nil {
		t.Fatal(err)
	}
	if user != AppUser {
		t.Errorf("tests connect as %q, want %q", user, AppUser)
	}
}

func TestDumpHasEveryTable(t *testing.T) {
	t.Parallel()
	db := New(t)
	conn, err := pgx.Connect(t.Context(), db.AdminURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	_, err = conn.Exec(t.Context(), `CREATE SCHEMA hidden; CREATE TABLE hidden.things (a text, b bytea);
		INSERT INTO hidden.things VALUES ('in the clear', 'as bytes')`)
	if err != nil {
		t.Fatal(err)
	}
	if dump := db.Dump(t); !strings.Contains(dump, "in the clear") || !strings.Contains(dump, hex.EncodeToString([]byte("as bytes"))) {
		t.Errorf("the dump lacks a row: %s", dump)
	}
}
