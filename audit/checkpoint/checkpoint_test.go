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
		"beyond the bound":  "log.example.com\n1152921504606846977\n" + hash + "\n",
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

func FuzzOpen(f *testing.F) {
	signer, verifier := key(f, "log.example.com")
	tree := tlog.Tree{N: 11, Hash: tlog.RecordHash(nil)}
	good, err := checkpoint.Sign(tree, signer)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	other, _ := key(f, "log.example.com")
	for _, by := range []note.Signer{signer, other} {
		for _, text := range []string{"log.example.com\n11\nAAAA\n", "log.example.com\n011\n" + tree.Hash.String() + "\n", "x\n"} {
			msg, err := note.Sign(&note.Note{Text: text}, by)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(msg)
		}
	}
	f.Add([]byte("log.example.com\n11\n\n— log.example.com AAAA\n"))
	f.Fuzz(func(t *testing.T, msg []byte) {
		got, err := checkpoint.Open(msg, verifier)
		if err != nil {
			return
		}
		// Only the one tree that was signed, whatever stands around it.
		if got != tree {
			t.Errorf("%q opens as %+v", msg, got)
		}
	})
}
