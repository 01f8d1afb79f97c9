package approvals

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals/evidence"
	"sallyport/audit/event"
)

// proved says why the statement is not proved as the terms want it, or nil. A
// decision has the assurance of its terms, neither a weaker one nor another.
func (s Statement) proved(t Terms, e Evidence, a evidence.Anchor) error {
	if s.Assurance != t.Rule.Assurance {
		return fmt.Errorf("the decision has assurance %q, the terms want %q", s.Assurance, t.Rule.Assurance)
	}
	times, err := t.times()
	if err != nil {
		return err
	}
	d := evidence.Decision{
		Statement: e.Statement, Issuer: s.Approver.Issuer, Subject: s.Approver.Subject, ClientID: s.ClientID,
		Groups: s.ownGroups(), Made: s.Time, Taken: e.Taken, MaxAge: times.maxAge, ACRValues: t.Rule.ACRValues,
	}
	if s.SignIn != nil {
		d.AuthTime = s.SignIn.AuthTime
	}
	return evidence.Verify(s.Assurance, d, e.Proof, a)
}

// checkProof refuses a decision that Check would not take later, in words for
// the person who decides.
func (s *Service) checkProof(ctx context.Context, tx pgx.Tx, r *request, d decision) error {
	e, err := d.evidence(ctx, tx)
	if err != nil {
		return err
	}
	err = d.statement.proved(r.terms, e, s.anchor())
	switch {
	case err == nil:
		return nil
	case errors.Is(err, evidence.ErrPerson):
		return ErrOtherPerson.Because(err)
	case errors.Is(err, evidence.ErrAge):
		return ErrNotProved.With("the identity provider says that you signed in there too long ago for this rule").
			Hinting("decide again, and sign in anew when it asks you").Because(err)
	case errors.Is(err, evidence.ErrNoAge):
		return ErrNotProved.With("the rule wants a recent sign-in, but the identity provider does not say when you signed in (auth_time)").
			Hinting("tell an operator: with this provider the rule cannot have max_age").Because(err)
	case errors.Is(err, evidence.ErrACR):
		return ErrNotProved.With("the rule wants another way of signing in than the one that the identity provider says you used (acr)").
			Hinting("decide again, and choose the stronger way when it asks you").Because(err)
	case errors.Is(err, evidence.ErrGroups):
		return ErrNotProved.With("the identity provider no longer says that you are in a group that decides on this request").
			Hinting("sign out and in again; if you should be in the group, ask whoever keeps the provider's groups").Because(err)
	}
	return ErrNotProved.Because(err)
}

func (s *Service) anchor() evidence.Anchor { return evidence.Anchor{LogKey: s.cfg.Log.VerifierKey()} }

// evidence is the decision as Check wants it.
func (d decision) evidence(ctx context.Context, tx pgx.Tx) (Evidence, error) {
	keys, err := keysNote(ctx, tx, d.keysHash)
	if err != nil {
		return Evidence{}, err
	}
	delegation, err := delegationNote(ctx, tx, d.statement)
	return Evidence{Statement: d.text, Hash: d.hash, Taken: d.taken, Delegation: delegation,
		Proof: evidence.Proof{IDToken: d.idToken, Keys: keys}}, err
}

// event is the decision as the log has it.
func (d decision) event() event.RequestDecided {
	out := event.RequestDecided{
		DecisionID: d.id, Verdict: string(d.statement.Verdict), Comment: d.statement.Comment, TermsHash: d.statement.TermsHash,
		Groups: d.statement.Groups, Evidence: string(d.text), EvidenceHash: d.hash,
		Assurance: d.statement.Assurance, KeysHash: d.keysHash,
	}
	if d.idToken != "" {
		out.IDTokenHash = hash([]byte(d.idToken))
	}
	return out
}

// shown is what proves the decision, for people who look.
func (d decision) shown() api.DecisionEvidence {
	out := api.DecisionEvidence{Assurance: d.statement.Assurance, Statement: d.hash, KeysHash: d.keysHash}
	switch in := d.statement.SignIn; {
	case d.idToken != "":
		out.IDTokenHash = hash([]byte(d.idToken))
		out.AuthTime, out.AMR, out.ACR = evidence.Authentication(d.idToken)
	case in != nil:
		out.AuthTime, out.AMR, out.ACR = &in.AuthTime, in.AMR, in.ACR
	}
	return out
}

// keepKeys keeps what the provider published when a decision is taken, and
// returns the hash of the note about it. That is the newest note that there is,
// if the provider's keys have not changed since and it is not too old; else a
// new one, with its event.
func (s *Service) keepKeys(ctx context.Context, tx pgx.Tx, keys evidence.Keys, at time.Time) (noteHash string, events []event.Event, err error) {
	var note []byte
	err = tx.QueryRow(ctx, `SELECT note, hash FROM provider_keys ORDER BY seen_at DESC LIMIT 1`).Scan(&note, &noteHash)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return "", nil, fmt.Errorf("reading the provider's keys: %w", err)
	}
	// A row that somebody else put there does not open.
	last, err := evidence.OpenKeys(note, s.anchor())
	if err == nil && last.Same(keys) && !last.SeenAt.After(at) && at.Before(last.SeenAt.Add(evidence.KeysLifetime)) {
		return noteHash, nil, nil
	}
	if note, err = keys.Note(s.cfg.Log.Vouch); err != nil {
		return "", nil, fmt.Errorf("vouching for the provider's keys: %w", err)
	}
	noteHash = hash(note)
	_, err = tx.Exec(ctx, `INSERT INTO provider_keys (hash, note, seen_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
		noteHash, note, keys.SeenAt)
	if err != nil {
		return "", nil, fmt.Errorf("keeping the provider's keys: %w", err)
	}
	seen := event.ProviderKeysSeen{Issuer: keys.Issuer, ClientID: keys.ClientID, Note: string(note), NoteHash: noteHash}
	return noteHash, []event.Event{event.New(keys.SeenAt, event.Actor{Kind: event.Broker}, "", event.Subject{}, seen)}, nil
}

// keysNote reads the note with the hash; none if the hash is empty.
func keysNote(ctx context.Context, tx pgx.Tx, noteHash string) (note []byte, err error) {
	if noteHash == "" {
		return nil, nil
	}
	if err := tx.QueryRow(ctx, `SELECT note FROM provider_keys WHERE hash = $1`, noteHash).Scan(&note); err != nil {
		return nil, fmt.Errorf("reading the provider's keys: %w", err)
	}
	return note, nil
}
