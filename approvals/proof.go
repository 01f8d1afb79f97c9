package approvals

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/approvals/evidence"
	"sallyport/approvals/grant"
	"sallyport/audit/event"
)

// kept is a canonical statement as it is kept, with what proves it.
type kept struct {
	text     []byte
	hash     string    // of text
	taken    time.Time // by the broker; when it was said stands in the statement
	idToken  string    // with assurance provider
	keysHash string    // of the note about the keys that the token verifies with
	keysNote []byte    // that note, if it was read too
}

// keep is a statement that the broker's word proves.
func keep(st interface{ Encode() ([]byte, error) }, at time.Time) (kept, error) {
	text, err := st.Encode()
	return kept{text: text, hash: hash(text), taken: at}, err
}

// keepSigned is a statement that came back from the provider with its signature,
// and the event of the provider's keys if they are news.
func (s *Service) keepSigned(ctx context.Context, tx pgx.Tx, text []byte, in Signed, at time.Time) (kept, []event.Event, error) {
	keysHash, events, err := s.KeepKeys(ctx, tx, in.Keys, at)
	return kept{text: text, hash: hash(text), taken: at, idToken: in.IDToken, keysHash: keysHash}, events, err
}

// evidence is what is kept as the checks want it.
func (k kept) evidence(ctx context.Context, db querier) (Evidence, error) {
	keys, err := k.keysNote, error(nil)
	if keys == nil {
		keys, err = keysNote(ctx, db, k.keysHash)
	}
	return Evidence{Statement: k.text, Hash: k.hash, Taken: k.taken, Proof: evidence.Proof{IDToken: k.idToken, Keys: keys}}, err
}

// idTokenHash is how the log names the ID token; empty, if there is none.
func (k kept) idTokenHash() string {
	if k.idToken == "" {
		return ""
	}
	return hash([]byte(k.idToken))
}

// shown is what proves what was said, for people who look.
func (k kept) shown(s grant.Said) api.DecisionEvidence {
	return Shown(s, k.hash, k.idToken, k.keysHash)
}

// Shown is what proves a statement, for people who look.
func Shown(s grant.Said, statementHash, idToken, keysHash string) api.DecisionEvidence {
	k := kept{idToken: idToken}
	out := api.DecisionEvidence{Assurance: s.Assurance, Statement: statementHash, IDTokenHash: k.idTokenHash(), KeysHash: keysHash}
	switch {
	case idToken != "":
		out.AuthTime, out.AMR, out.ACR = evidence.Authentication(idToken)
	case s.SignIn != nil:
		out.AuthTime, out.AMR, out.ACR = &s.SignIn.AuthTime, s.SignIn.AMR, s.SignIn.ACR
	}
	return out
}

// checkProof refuses what would not be believed later, in words for the person who
// says it.
func (s *Service) checkProof(ctx context.Context, tx pgx.Tx, want grant.Assured, by grant.Said, k kept) error {
	e, err := k.evidence(ctx, tx)
	if err != nil {
		return err
	}
	if err := by.Proved(want, e, s.anchor()); err != nil {
		return Unproved(err)
	}
	return nil
}

// Unproved says that the proof does not prove what somebody said, in words for
// them.
func Unproved(err error) error {
	switch {
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
		return ErrNotProved.With("the identity provider no longer says that you are in a group that decides on this").
			Hinting("sign out and in again; if you should be in the group, ask whoever keeps the provider's groups").Because(err)
	}
	return ErrNotProved.Because(err)
}

func (s *Service) anchor() evidence.Anchor { return evidence.Anchor{LogKey: s.cfg.Log.VerifierKey()} }

// evidence is the decision as Check wants it.
func (d decision) evidence(ctx context.Context, db querier) (Evidence, error) {
	e, err := d.kept.evidence(ctx, db)
	if err != nil {
		return Evidence{}, err
	}
	if e.Delegation = d.lent; e.Delegation == nil {
		e.Delegation, err = delegationNote(ctx, db, d.statement)
	}
	return e, err
}

// event is the decision as the log has it.
func (d decision) event() event.RequestDecided {
	return event.RequestDecided{
		DecisionID: d.id, Verdict: string(d.statement.Verdict), Comment: d.statement.Comment, TermsHash: d.statement.TermsHash,
		Groups: d.statement.Groups, Evidence: string(d.text), EvidenceHash: d.hash,
		Assurance: d.statement.Assurance, IDTokenHash: d.idTokenHash(), KeysHash: d.keysHash,
	}
}

// KeepKeys keeps what the provider published when a statement is taken, and
// returns the hash of the note about it. That is the newest note that there is,
// if the provider's keys have not changed since and it is not too old; else a
// new one, with its event.
func (s *Service) KeepKeys(ctx context.Context, tx pgx.Tx, keys evidence.Keys, at time.Time) (noteHash string, events []event.Event, err error) {
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
func keysNote(ctx context.Context, db querier, noteHash string) (note []byte, err error) {
	if noteHash == "" {
		return nil, nil
	}
	if err := db.QueryRow(ctx, `SELECT note FROM provider_keys WHERE hash = $1`, noteHash).Scan(&note); err != nil {
		return nil, fmt.Errorf("reading the provider's keys: %w", err)
	}
	return note, nil
}
