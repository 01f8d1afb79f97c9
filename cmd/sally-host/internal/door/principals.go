package door

import (
	"encoding/base64"
	"fmt"
	"io"
	"time"

	"sallyport/broker/certs"
	"sallyport/cmd/sally-host/internal/journal"
	"sallyport/cmd/sally-host/internal/place"
)

// Question is what sshd asks.
type Question struct {
	Login       string // %u
	Certificate string // %k: its wire format in base64
}

// Principals answers sshd's AuthorizedPrincipalsCommand: with one line, or with none
// and the reason in the journal. It takes no longer than Deadline, whatever hangs. It
// reports whether the door opens.
//
// The reason goes nowhere else: the client is nobody yet, and hears no more than
// "Permission denied".
func Principals(p place.Place, out io.Writer, log func(string), q Question, now func() time.Time) bool {
	type answer struct {
		line, said string
		open       bool
	}
	late := time.After(Deadline)
	answered := make(chan answer, 1)
	go func() {
		line, said, open := q.answer(p, now().Truncate(time.Second)) // as sshd counts
		answered <- answer{line, said, open}
	}()
	select {
	case a := <-answered:
		log(a.said)
		if !a.open {
			return false
		}
		_, err := fmt.Fprintln(out, a.line)
		return err == nil
	case <-late:
		log(fmt.Sprintf("refused %s (%s): no answer within %s: a disk of this host may hang", journal.Quote(q.Login), NoAnswer, Deadline))
		return false
	}
}

func (q Question) answer(p place.Place, now time.Time) (line, said string, open bool) {
	refused := func(reason certs.Reason, err error) (string, string, bool) {
		return "", fmt.Sprintf("refused %s (%s): %v; more: sally-host explain --login %s CERTIFICATE", journal.Quote(q.Login), reason, err, journal.Quote(q.Login)), false
	}
	d, err := Open(p)
	if err != nil {
		return refused(NoAnswer, err)
	}
	wire, err := Decode(q.Certificate)
	if err != nil {
		return refused(ReasonOf(err), err)
	}
	l, err := d.Ask(wire, q.Login, now)
	if err != nil {
		return refused(ReasonOf(err), err)
	}
	return Line(l), fmt.Sprintf("certificate %d of %s (%s), %s, opens %s", l.Certificate.Serial, journal.Quote(l.ActorName), l.ActorID, For(l), q.Login), true
}

// Decode reads a certificate as sshd's %k has it. Errors are *Refused.
func Decode(encoded string) ([]byte, error) {
	if most := base64.StdEncoding.EncodedLen(certs.MaxCertificateSize); len(encoded) > most {
		return nil, &Refused{certs.TooLarge, fmt.Errorf("it has %d characters, and more than %d none of ours has", len(encoded), most)}
	}
	wire, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return nil, &Refused{certs.BadForm, err}
	}
	return wire, nil
}
