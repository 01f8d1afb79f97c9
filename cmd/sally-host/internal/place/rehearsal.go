package place

import (
	"bytes"

	"golang.org/x/crypto/ssh"
)

// Rehearsal is where enrolment plays through what it is about to do, with keys that are
// made up for it. Nothing is there at other times.
var Rehearsal = Place{Root: "/run/sallyport-rehearsal"}

// Rehearsed reports whether the key signs certificates of a rehearsal that goes on now:
// they open no session that anybody is in, and nobody needs to hear of them.
func Rehearsed(ca ssh.PublicKey) bool {
	text, err := Rehearsal.file(Rehearsal.UserCA())
	if err != nil {
		return false
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(text)
	return err == nil && bytes.Equal(key.Marshal(), ca.Marshal())
}
