// Package retention is the record of entries that were removed from the database:
// how the log's key vouches for one, and how that is checked. It is pure, for the
// broker and for verifiers alike.
//
// Whoever has the password of the broker's database role can hand events to the log,
// and whoever administers the database can delete entries. If an event alone said
// that entries were pruned, both together would make a deletion look like retention.
// The log's key is in neither's hands: an event counts only with a note of package
// audit/vouch over all that it says, the hash of the archive included, which
// `sallyportd audit prune` makes when it has verified that archive.
package retention

import (
	"encoding/json"
	"errors"

	"golang.org/x/mod/sumdb/note"

	"sallyport/audit/event"
	"sallyport/audit/vouch"
)

// noteKind is the kind of the notes. Their text is the event's data without the note,
// as JSON.
const noteKind = "retention-pruned/1"

func text(d event.RetentionPruned) (string, error) {
	d.Note = ""
	b, err := json.Marshal(d)
	return string(b), err
}

// Vouch returns the record with the note that makes it count. sign is audit.Log's
// Vouch.
func Vouch(d event.RetentionPruned, sign func(kind, text string) ([]byte, error)) (event.RetentionPruned, error) {
	said, err := text(d)
	if err != nil {
		return d, err
	}
	msg, err := sign(noteKind, said)
	d.Note = string(msg)
	return d, err
}

// Check says why a record does not count, or nil.
func Check(d event.RetentionPruned, log note.Verifier) error {
	want, err := text(d)
	if err != nil {
		return err
	}
	said, err := vouch.OpenWith(noteKind, []byte(d.Note), log)
	switch {
	case err != nil:
		return err
	case said != want:
		return errors.New("the log's key vouches for another record")
	case d.First >= d.Before || d.Count != d.Before-d.First || d.Before > 1<<62:
		return errors.New("it names no stretch of the log")
	}
	return nil
}
