package checkpoint_test

import (
	"crypto/rand"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"sallyport/audit/checkpoint"
)

func key(t testing.TB, origin string) (note.Signer, note.Verifier) {
	t.Helper()
	skey, vkey, err := note.GenerateKey(rand.Reader, origin)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	return signer, verifier
}

func TestOpenTakesOneFormOnly(t *testing.T) {
	t.Parallel()
	signer, verifier := key(t, "log.example.com")
	tree := tlog.Tree{N: 1 << 40, Hash: tlog.RecordHash(nil)}
	msg, err := checkpoint.Sign(tree, signer)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := checkpoint.Open(msg, verifier); err != nil || got != tree {
		t.Fatalf("%+v, %v", got, err)
	}
	// A witness's signature beside the log's own changes nothing.
	witness, itsVerifier := key(t, "witness.example.com")
	n, err := note.Open(msg, note.VerifierList(verifier))
	if err != nil {
		t.Fatal(err)
	}
	both, err := note.Sign(n, witness)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := checkpoint.Open(both, verifier); err != nil || got != tree {
		t.Errorf("cosigned: %+v, %v", got, err)
	}
	if _, err := checkpoint.Open(both, itsVerifier); err == nil {
		t.Error("a witness's signature is taken for the log's")
	}

	hash := tree.Hash.String()
	for name, text := range map[string]string{
		"no root":           "log.example.com\n1\n",
		"another origin":    "log.example.org\n1\n" + hash + "\n",
		"extension":         "log.example.com\n1\n" + hash + "\nmore\n",
		"leading zero":      "log.example.com\n01\n" + hash + "\n",
		"negative":          "log.example.com\n-1\n" + hash + "\n",
		"too large":         "log.example.com\n9223372036854775808\n" + hash + "\n",
		"short root":        "log.example.com\n1\nAAAA\n",
		"root with padding": "log.example.com\n1\n" + hash + "==\n",
	} {
		signed, err := note.Sign(&note.Note{Text: text}, signer)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := checkpoint.Open(signed, verifier); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
