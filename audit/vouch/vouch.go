// Package vouch makes and opens the notes by which a broker vouches, with the
// key of its log, for something that it has seen outside of the database
// (c2sp.org/signed-note).
//
// Whoever has the password of the broker's database role can write every row,
// and can hand events to the log too. He cannot make such a note: so what was
// read over a connection that the broker trusts stays apart from what somebody
// put into a table. The package is pure, for the broker and for verifiers alike.
package vouch

import (
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// head is the first line of a note. No checkpoint begins like that: its first
// line is the signer's name, which has no space, so that neither can be taken
// for the other.
func head(kind string) string { return "sallyport vouches for " + kind + "\n" }

// Sign vouches for a text of the kind, such as "provider-keys/1". The text is
// one line without its end.
func Sign(kind, text string, signer note.Signer) ([]byte, error) {
	if strings.Contains(kind+text, "\n") {
		return nil, fmt.Errorf("vouching for %s: the text has more than one line", kind)
	}
	msg, err := note.Sign(&note.Note{Text: head(kind) + text + "\n"}, signer)
	if err != nil {
		return nil, fmt.Errorf("vouching for %s: %w", kind, err)
	}
	return msg, nil
}

// Open returns the text of a note of the kind that the key signed. key is the
// log's public key in note format.
func Open(kind string, msg []byte, key string) (string, error) {
	verifier, err := note.NewVerifier(key)
	if err != nil {
		return "", fmt.Errorf("the log's key: %w", err)
	}
	return OpenWith(kind, msg, verifier)
}

// OpenWith is Open for a key that has been read.
func OpenWith(kind string, msg []byte, verifier note.Verifier) (string, error) {
	n, err := note.Open(msg, note.VerifierList(verifier))
	if err != nil {
		return "", fmt.Errorf("opening a note about %s: %w", kind, err)
	}
	text, ok := strings.CutPrefix(n.Text, head(kind))
	text, ends := strings.CutSuffix(text, "\n")
	if !ok || !ends || strings.Contains(text, "\n") {
		return "", fmt.Errorf("opening a note about %s: it is about something else", kind)
	}
	return text, nil
}
