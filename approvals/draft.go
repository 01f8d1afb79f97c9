package approvals

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals/evidence"
	"sallyport/approvals/identity"
	"sallyport/audit/event"
	"sallyport/internal/ids"
)

// Draft is a decision that somebody has said, and that the provider is to sign.
type Draft struct {
	ID    string
	Nonce string // of the authorization request: the hash of the statement
	// MaxAge, if not 0, and ACRValues, if any, are what the provider is to be asked for.
	MaxAge    time.Duration
	ACRValues []string
}

// Draft prepares the caller's decision for the provider's signature. It is bound
// to the browser's sign-in with the id signIn, good for evidence.Lifetime, and
// changes nothing yet. clientID is Sallyport's at the caller's issuer. What Decide
// would refuse is refused here already.
func (s *Service) Draft(ctx context.Context, c identity.Caller, signIn, clientID, id string, in api.DecisionInput) (Draft, error) {
	if err := checkDecision(in); err != nil {
		return Draft{}, err
	}
	person, err := s.cfg.People.Person(ctx, c.ID)
	if err != nil {
		return Draft{}, err
	}
	c.Person = person
	who, err := s.voter(ctx, s.cfg.Pool, person)
	if err != nil {
		return Draft{}, err
	}
	now := s.cfg.Clock.Now()
	who = who.at(now)
	r, err := s.find(ctx, id)
	switch {
	case err != nil:
		return Draft{}, err
	case !r.visibleTo(c, who, now):
		return Draft{}, ErrUnknownRequest
	case r.broken != nil:
		return Draft{}, r.broken
	case r.terms.Rule.Assurance != evidence.Provider:
		return Draft{}, ErrNoProviderEvidence
	case in.TermsHash != "" && in.TermsHash != r.termsHash:
		return Draft{}, ErrOtherTerms
	}
	b, err := r.mayDecide(who, in.Verdict)
	if err == nil {
		err = b.seen(in)
	}
	if err != nil {
		return Draft{}, err
	}
	times, err := r.terms.times()
	if err != nil {
		return Draft{}, err
	}
	st := newStatement(r.terms, r.termsHash, b, in, now)
	st.ClientID = clientID
	text, err := st.Encode()
	if err != nil {
		return Draft{}, err
	}
	d := Draft{ID: ids.New(ids.Draft), Nonce: evidence.Nonce(text), MaxAge: times.maxAge, ACRValues: r.terms.Rule.ACRValues}
	return d, pgx.BeginFunc(ctx, s.cfg.Pool, func(tx pgx.Tx) error {
		// The table does not grow: what is over goes, a hundred at a time.
		_, err := tx.Exec(ctx, `
			DELETE FROM decision_drafts WHERE id IN (
				SELECT id FROM decision_drafts WHERE expires_at < $1 ORDER BY expires_at LIMIT 100 FOR UPDATE SKIP LOCKED)`, now)
		if err == nil {
			_, err = tx.Exec(ctx, `
				INSERT INTO decision_drafts (id, sign_in, request_id, statement, created_at, expires_at)
				VALUES ($1, $2, $3, $4, $5, $6)`, d.ID, signIn, id, text, now, now.Add(evidence.Lifetime))
		}
		if err != nil {
			return fmt.Errorf("drafting a decision on request %s: %w", id, err)
		}
		return nil
	})
}

// Signed is what came back from the provider.
type Signed struct {
	IDToken string
	Keys    evidence.Keys // that the provider published when it came back
}

// Complete takes the decision of a draft that the provider has signed, and
// returns the id of its request, also with an error where it is known:
//
//  1. the draft belongs to the same sign-in, is not too old, and is used now, and
//     never again, whatever comes of it;
//  2. the rules of Decide hold now as they held when it was drafted;
//  3. the ID token proves it (package evidence).
func (s *Service) Complete(ctx context.Context, c identity.Caller, signIn, draft string, in Signed) (requestID string, err error) {
	now := s.cfg.Clock.Now()
	var text []byte
	err = s.cfg.Pool.QueryRow(ctx, `
		UPDATE decision_drafts SET used_at = $3
		WHERE id = $1 AND sign_in = $2 AND used_at IS NULL AND expires_at > $3
		RETURNING request_id, statement`, draft, signIn, now).Scan(&requestID, &text)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", ErrDraftGone
	}
	if err != nil {
		return "", fmt.Errorf("taking up a draft: %w", err)
	}
	st, err := ParseStatement(text)
	if err != nil {
		return "", ErrEvidence.Because(err)
	}
	if st.Approver.ID != c.ID || st.RequestID != requestID {
		return "", ErrDraftGone
	}
	_, err = s.take(ctx, c, requestID, st.Verdict, func(tx pgx.Tx, b basis, r *request, at time.Time) (decision, []event.Event, error) {
		if st.TermsHash != r.termsHash {
			return decision{}, nil, ErrOtherTerms
		}
		if !b.is(st, r.terms) {
			return decision{}, nil, ErrDraftGone // what was delegated has changed meanwhile
		}
		d := decision{id: ids.New(ids.Decision), statement: st, text: text, hash: hash(text), idToken: in.IDToken}
		var events []event.Event
		var err error
		d.keysHash, events, err = s.keepKeys(ctx, tx, in.Keys, at)
		return d, events, err
	})
	return requestID, err
}
