package place

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"sallyport/api/hostapi"
	"sallyport/audit/vouch"
)

// JoinRevocations verifies notes of revocations, the first of which is a whole list
// and each other one news since those before it, and returns the list that they make.
// When the host last heard from the broker is its MadeAt: by the broker's clock, and
// signed.
func JoinRevocations(notes []string, logKey string) (hostapi.Revocations, error) {
	var list hostapi.Revocations
	for _, n := range notes {
		text, err := vouch.Open(hostapi.RevocationsKind, []byte(n), logKey)
		if err != nil {
			return list, err
		}
		news, err := hostapi.ParseRevocations(text)
		if err != nil {
			return list, err
		}
		// Nothing is forgotten here: who keeps the notes knows what they need not keep.
		if list, err = list.Join(news, func(string) bool { return true }); err != nil {
			return list, err
		}
	}
	return list, nil
}

// ReadRevocations reads the notes that the host has, and the list that they make; none,
// and the zero list, if it never heard from the broker.
func (p Place) ReadRevocations(logKey string) (notes []string, list hostapi.Revocations, err error) {
	text, err := p.file(p.Revocations())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, list, nil
	}
	if err != nil {
		return nil, list, err
	}
	if err := json.Unmarshal(text, &notes); err != nil {
		return nil, list, fmt.Errorf("%s: %w", p.Revocations(), err)
	}
	list, err = JoinRevocations(notes, logKey)
	if err != nil {
		err = fmt.Errorf("%s: %w", p.Revocations(), err)
	}
	return notes, list, err
}

// KeepRevocations puts down notes for whoever answers sshd. They make a list that is
// not behind the one that is there, or it is refused with hostapi.ErrRolledBack; one
// that cannot be read counts as none.
func (p Place) KeepRevocations(notes []string, logKey string) (hostapi.Revocations, error) {
	list, err := JoinRevocations(notes, logKey)
	if err != nil {
		return list, err
	}
	if _, before, err := p.ReadRevocations(logKey); err == nil && (list.Number < before.Number || list.MadeAt.Before(before.MadeAt)) {
		return before, fmt.Errorf("%w: number %d of %s, after %d of %s", hostapi.ErrRolledBack, list.Number, list.MadeAt, before.Number, before.MadeAt)
	}
	text, err := json.Marshal(notes)
	if err != nil {
		return list, err
	}
	return list, Write(p.Revocations(), append(text, '\n'), 0o640)
}
