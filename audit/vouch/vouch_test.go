package vouch_test

import (
	"crypto/rand"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"sallyport/audit/checkpoint"
	"sallyport/audit/vouch"
)

func newKey(t *testing.T) (note.Signer, string) {
	t.Helper()
	private, public, err := note.GenerateKey(rand.Reader, "sallyport.test/log")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer, public
}

func TestOnlyTheRightKeyVouchesForTheRightKind(t *testing.T) {
	t.Parallel()
	signer, key := newKey(t)
	other, _ := newKey(t) // of the same name
	msg, err := vouch.Sign("apples/1", `{"n":1}`, signer)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := vouch.Open("apples/1", msg, key); err != nil || text != `{"n":1}` {
		t.Fatalf("the honest note: %q, %v", text, err)
	}
	forged, err := vouch.Sign("apples/1", `{"n":1}`, other)
	if err != nil {
		t.Fatal(err)
	}
	head, err := checkpoint.Sign(tlog.Tree{}, signer)
	if err != nil {
		t.Fatal(err)
	}
	two, err := note.Sign(&note.Note{Text: "sallyport vouches for apples/1\na\nb\n"}, signer)
	if err != nil {
		t.Fatal(err)
	}
	for name, msg := range map[string][]byte{
		"another key": forged, "changed": []byte(strings.Replace(string(msg), "1}", "2}", 1)),
		"a checkpoint": head, "two lines": two, "nothing": nil, "garbage": []byte("{}"),
	} {
		if text, err := vouch.Open("apples/1", msg, key); err == nil {
			t.Errorf("%s opens: %q", name, text)
		}
	}
	if _, err := vouch.Open("pears/1", msg, key); err == nil {
		t.Error("a note of another kind opens")
	}
	verifier, err := note.NewVerifier(key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := checkpoint.Open(msg, verifier); err == nil {
		t.Error("a note opens as a checkpoint")
	}
	if _, err := vouch.Sign("apples/1", "a\nb", signer); err == nil {
		t.Error("two lines are signed")
	}
}
