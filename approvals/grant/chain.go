package grant

import (
	"time"

	"sallyport/api"
)

// ExtendBy is how long an extension of the terms' grant is at most.
func (t Terms) ExtendBy() (time.Duration, error) {
	by, err := time.ParseDuration(t.Rule.Extend.By)
	if err != nil || by <= 0 {
		return 0, ErrEvidence.With("the terms' extension cannot be read")
	}
	return by, nil
}

// Next is what may follow one extension more.
func (e *TermsExtend) Next() *TermsExtend {
	if e.Times <= 1 {
		return nil
	}
	return &TermsExtend{Times: e.Times - 1, By: e.By, Automatic: e.Automatic}
}

// checkChain verifies that the terms' grant goes on with the one that they
// extend. The rules:
//
//  1. The earlier grant is of the same person and login, for the same host or
//     hosts and perhaps others, and was allowed by its own terms and decisions.
//  2. The terms name the key that it is bound to, and its end as their start; that
//     is the end that was approved, and nobody has ended it before.
//  3. Its terms allow the extension: so many, so long.
//  4. The same holds between that one and the one before it.
func (g Grant) checkChain(t Terms) error {
	before := g.Earlier
	switch {
	case t.Extends == "" && before == nil:
		return nil
	case t.Extends == "" || before == nil || before.RequestID != t.Extends:
		return ErrEvidence.With("the grant that is extended is not the one that the terms name")
	}
	bt, err := before.checkTerms()
	if err != nil {
		return err
	}
	approved, err := before.checkDecisions(bt)
	if err != nil {
		return err
	}
	w, err := bt.Window(approved)
	if err != nil {
		return ErrEvidence.Because(err)
	}
	if err := extends(t, bt, w, before.Key); err != nil {
		return err
	}
	if !before.StartsAt.Equal(w.Start) || before.EndsAt.After(w.End) {
		return ErrEvidence.With("the time of the grant that is extended is not what was approved")
	}
	if before.EndsAt.Before(w.End) || before.State != api.Active && before.State != api.Ended {
		return ErrGrantEnded.With("the grant that it extends was ended early")
	}
	return before.checkChain(bt)
}

// extends says why terms do not go on with earlier ones, whose grant had the
// window and the key.
func extends(t, before Terms, w Window, key string) error {
	switch {
	case before.Person != t.Person || !t.within(before.Hosts()) || before.Login != t.Login:
		return ErrEvidence.With("an extension is for another person, host or login")
	case t.PublicKey == "" || t.PublicKey != key || before.PublicKey != "" && before.PublicKey != key:
		return ErrEvidence.With("an extension is for another key")
	case t.NotBefore == nil || !t.NotBefore.Equal(w.End):
		return ErrEvidence.With("an extension does not start at the end of what it extends")
	case t.CreatedAt.Before(before.CreatedAt) || !t.CreatedAt.Before(w.End):
		return ErrEvidence.With("an extension was asked for out of its time")
	case before.Rule.Extend == nil:
		return ErrEvidence.With("there are more extensions than the terms allow")
	}
	allowed, have := before.Rule.Extend.Next(), t.Rule.Extend
	if (allowed == nil) != (have == nil) || allowed != nil && *allowed != *have {
		return ErrEvidence.With("an extension may be extended otherwise than the terms allow")
	}
	by, err := before.ExtendBy()
	if err != nil {
		return err
	}
	if d, err := t.Times(); err != nil || d.Duration > by {
		return ErrEvidence.With("an extension is longer than the terms allow")
	}
	return nil
}
